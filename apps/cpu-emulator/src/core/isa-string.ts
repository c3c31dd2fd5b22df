import type { CpuFeatures } from "./cpu-features.ts";

/**
 * The `riscv,isa` string of our harts (device tree, CreateHartsResponse): RV64GC and the extensions that software finds
 * by name (RISC-V ISA naming conventions; order as the manual's table of standard extensions).
 */
export function isaString({ hypervisor }: CpuFeatures): string {
  return `rv64imafdc${hypervisor ? "h" : ""}_${NAMED.join("_")}`;
}

const NAMED = [
  "zicbom", "zicbop", "zicboz", "zicntr", "zicond", "zicsr", "zifencei", "zihintntl", "zihintpause", "zihpm", "zawrs", "zfa", "zca", "zcb", "zcd",
  "zba", "zbb", "zbc", "zbs", "sstc", "svadu", "svinval", "svnapot", "svpbmt",
] as const;
