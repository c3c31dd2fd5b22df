/**
 * Pseudo-instructions (RISC-V assembly programmer's manual) as rewriting to real ones. Operands are texts. `li` and
 * `la` depend on values and live in `assemble.ts`.
 */

export type Line = readonly [mnemonic: string, ...operands: string[]];

/** By number of operands, since some names are real instructions with fewer operands (jal, jalr, fence). */
const TABLE: Readonly<Record<string, Readonly<Record<number, (...operands: string[]) => Line>>>> = {
  nop: { 0: () => ["addi", "x0", "x0", "0"] },
  mv: { 2: (d, s) => ["addi", d, s, "0"] },
  not: { 2: (d, s) => ["xori", d, s, "-1"] },
  neg: { 2: (d, s) => ["sub", d, "x0", s] },
  negw: { 2: (d, s) => ["subw", d, "x0", s] },
  "sext.w": { 2: (d, s) => ["addiw", d, s, "0"] },
  "zext.w": { 2: (d, s) => ["add.uw", d, s, "x0"] },
  "zext.b": { 2: (d, s) => ["andi", d, s, "255"] },
  seqz: { 2: (d, s) => ["sltiu", d, s, "1"] },
  snez: { 2: (d, s) => ["sltu", d, "x0", s] },
  sltz: { 2: (d, s) => ["slt", d, s, "x0"] },
  sgtz: { 2: (d, s) => ["slt", d, "x0", s] },
  beqz: { 2: (s, to) => ["beq", s, "x0", to] },
  bnez: { 2: (s, to) => ["bne", s, "x0", to] },
  bltz: { 2: (s, to) => ["blt", s, "x0", to] },
  bgez: { 2: (s, to) => ["bge", s, "x0", to] },
  blez: { 2: (s, to) => ["bge", "x0", s, to] },
  bgtz: { 2: (s, to) => ["blt", "x0", s, to] },
  bgt: { 3: (a, b, to) => ["blt", b, a, to] },
  ble: { 3: (a, b, to) => ["bge", b, a, to] },
  bgtu: { 3: (a, b, to) => ["bltu", b, a, to] },
  bleu: { 3: (a, b, to) => ["bgeu", b, a, to] },
  j: { 1: (to) => ["jal", "x0", to] },
  jal: { 1: (to) => ["jal", "ra", to] },
  call: { 1: (to) => ["jal", "ra", to] },
  tail: { 1: (to) => ["jal", "x0", to] },
  jr: { 1: (s) => ["jalr", "x0", memory(s)] },
  jalr: { 1: (s) => ["jalr", "ra", memory(s)], 3: (d, s, offset) => ["jalr", d, `${offset}(${s})`] },
  ret: { 0: () => ["jalr", "x0", "0(ra)"] },
  fence: { 0: () => ["fence", "iorw", "iorw"] },
  pause: { 0: () => ["fence", "w", "0"] },
  "sfence.vma": { 0: () => ["sfence.vma", "x0", "x0"], 1: (s) => ["sfence.vma", s, "x0"] },
  csrr: { 2: (d, csr) => ["csrrs", d, csr, "x0"] },
  csrw: { 2: (csr, s) => ["csrrw", "x0", csr, s] },
  csrs: { 2: (csr, s) => ["csrrs", "x0", csr, s] },
  csrc: { 2: (csr, s) => ["csrrc", "x0", csr, s] },
  csrwi: { 2: (csr, value) => ["csrrwi", "x0", csr, value] },
  csrsi: { 2: (csr, value) => ["csrrsi", "x0", csr, value] },
  csrci: { 2: (csr, value) => ["csrrci", "x0", csr, value] },
  rdcycle: { 1: (d) => ["csrrs", d, "cycle", "x0"] },
  rdtime: { 1: (d) => ["csrrs", d, "time", "x0"] },
  rdinstret: { 1: (d) => ["csrrs", d, "instret", "x0"] },
  frcsr: { 1: (d) => ["csrrs", d, "fcsr", "x0"] },
  fscsr: { 1: (s) => ["csrrw", "x0", "fcsr", s], 2: (d, s) => ["csrrw", d, "fcsr", s] },
  frrm: { 1: (d) => ["csrrs", d, "frm", "x0"] },
  fsrm: { 1: (s) => ["csrrw", "x0", "frm", s], 2: (d, s) => ["csrrw", d, "frm", s] },
  frflags: { 1: (d) => ["csrrs", d, "fflags", "x0"] },
  fsflags: { 1: (s) => ["csrrw", "x0", "fflags", s], 2: (d, s) => ["csrrw", d, "fflags", s] },
  "fmv.s": { 2: (d, s) => ["fsgnj.s", d, s, s] },
  "fmv.d": { 2: (d, s) => ["fsgnj.d", d, s, s] },
  "fabs.s": { 2: (d, s) => ["fsgnjx.s", d, s, s] },
  "fabs.d": { 2: (d, s) => ["fsgnjx.d", d, s, s] },
  "fneg.s": { 2: (d, s) => ["fsgnjn.s", d, s, s] },
  "fneg.d": { 2: (d, s) => ["fsgnjn.d", d, s, s] },
  "fgt.s": { 3: (d, a, b) => ["flt.s", d, b, a] },
  "fgt.d": { 3: (d, a, b) => ["flt.d", d, b, a] },
  "fge.s": { 3: (d, a, b) => ["fle.s", d, b, a] },
  "fge.d": { 3: (d, a, b) => ["fle.d", d, b, a] },
} as Record<string, Record<number, (...operands: string[]) => Line>>;

const memory = (register: string): string => (register.includes("(") ? register : `0(${register})`);

export const PSEUDO_NAMES: readonly string[] = Object.keys(TABLE);

/** The real instruction, or undefined when this is not a pseudo-instruction with so many operands. */
export function expand(mnemonic: string, operands: readonly string[]): Line | undefined {
  return Object.hasOwn(TABLE, mnemonic) ? TABLE[mnemonic]?.[operands.length]?.(...operands) : undefined;
}

/** Operand counts a pseudo-instruction takes, for error messages. */
export function pseudoOperandCounts(mnemonic: string): readonly number[] {
  return Object.hasOwn(TABLE, mnemonic) ? Object.keys(TABLE[mnemonic] ?? {}).map(Number) : [];
}

/**
 * Instructions that put `value` (taken modulo 2^64) into rd: lui and addiw for 32-bit values, else the upper part by
 * the same rule, a shift and an addition of the lowest 12 bits.
 */
export function loadImmediate(rd: string, value: bigint): Line[] {
  const constant = BigInt.asIntN(64, value);
  const low = BigInt.asIntN(12, constant);
  if (constant === low) return [["addi", rd, "x0", String(low)]];
  const rest = BigInt.asIntN(64, constant - low);
  if (constant === BigInt.asIntN(32, constant)) {
    const upper: Line = ["lui", rd, String(BigInt.asUintN(20, rest >> 12n))];
    return low === 0n ? [upper] : [upper, ["addiw", rd, rd, String(low)]];
  }
  let shift = 12n;
  while (((rest >> shift) & 1n) === 0n) shift++;
  const lines = [...loadImmediate(rd, rest >> shift), ["slli", rd, rd, String(shift)] as const];
  return low === 0n ? lines : [...lines, ["addi", rd, rd, String(low)]];
}
