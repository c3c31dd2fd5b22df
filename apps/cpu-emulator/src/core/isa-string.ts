/**
 * The `riscv,isa` string of our harts (device tree, CreateHartsResponse): RV64GC and the extensions that software finds
 * by name (RISC-V ISA naming conventions; order as the manual's table of standard extensions).
 */
export const ISA = "rv64imafdc_zicntr_zicsr_zifencei_zba_zbb_zbs_sstc";
