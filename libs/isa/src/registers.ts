/** Register names of the standard calling convention (RISC-V ABIs specification, Register Convention). */

export const X_NAMES: readonly string[] = [
  "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5",
  "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];

export const F_NAMES: readonly string[] = [
  "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
  "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];

/** ABI names and x0..x31. `fp` is another name of s0. */
export const X_NUMBERS: ReadonlyMap<string, number> = new Map([
  ...X_NAMES.map((name, number) => [name, number] as const),
  ...X_NAMES.map((_, number) => [`x${number}`, number] as const),
  ["fp", 8],
]);

/** ABI names and f0..f31. */
export const F_NUMBERS: ReadonlyMap<string, number> = new Map([
  ...F_NAMES.map((name, number) => [name, number] as const),
  ...F_NAMES.map((_, number) => [`f${number}`, number] as const),
]);

/** Rounding modes by their number in rm; 5 and 6 are reserved. */
export const ROUNDING_NAMES: readonly (string | undefined)[] = ["rne", "rtz", "rdn", "rup", "rmm", undefined, undefined, "dyn"];

/** A set of a fence (bits 3..0 are i, o, r, w) as letters. */
export function fenceSet(bits: number): string {
  const letters = [..."iorw"].filter((_, index) => bits & (8 >> index)).join("");
  return letters === "" ? "0" : letters;
}
