/**
 * The `riscv,isa` string of our harts (device tree, CreateHartsResponse): RV64GC and the extensions that software finds
 * by name (RISC-V ISA naming conventions; order as the manual's table of standard extensions).
 */
export const ISA =
  "rv64imafdc_zicbom_zicbop_zicboz_zicntr_zicond_zicsr_zifencei_zihintntl_zihintpause_zawrs_zca_zcb_zcd_zba_zbb_zbc_zbs_sstc_svadu_svinval_svnapot_svpbmt";
