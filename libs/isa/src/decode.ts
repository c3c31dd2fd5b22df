/** Machine words to table rows. The tables are searched through small buckets built once at load. */

import { extract, type Immediate } from "./immediate.ts";
import { FORMATS, type Compressed, type Format, type Instruction, type RegisterSource } from "./instruction.ts";
import { COMPRESSED_INSTRUCTIONS, instructionNamed, INSTRUCTIONS } from "./instructions/table.ts";

/** One decoded instruction. Fields that its format does not have are 0. */
export interface Decoded {
  /** The row with the meaning; for a compressed instruction the base instruction that it expands to. */
  readonly instruction: Instruction;
  /** The compressed row, when the encoding was 16 bits. */
  readonly compressed: Compressed | undefined;
  readonly length: 2 | 4;
  readonly rd: number;
  /** For csrrwi, csrrsi, csrrci: the unsigned 5-bit immediate. */
  readonly rs1: number;
  readonly rs2: number;
  readonly rs3: number;
  /**
   * Sign-extended, already shifted (lui 1 gives 4096); shift amount; or CSR number (0..4095). Always fits a signed
   * 32-bit integer; the IR's `imm` is `BigInt(imm)`.
   */
  readonly imm: number;
  /** Rounding mode 0..4, or 7 = frm. The reserved 5 and 6 do not decode. 0 where the format has none. */
  readonly rm: number;
  /** The encoding: 16 or 32 bits, unsigned. */
  readonly word: number;
}

interface Entry {
  readonly instruction: Instruction;
  readonly immediate: Immediate | undefined;
  readonly fields: { readonly rd: boolean; readonly rs1: boolean; readonly rs2: boolean; readonly rs3: boolean; readonly rm: boolean };
  readonly mask: number; // signed, so that it compares with the result of `&`
  readonly match: number;
}

interface CompressedEntry {
  readonly compressed: Compressed;
  readonly instruction: Instruction;
}

/** Major opcode (bits 6:2) and funct3. An instruction whose funct3 is an operand (rm, U, J) is in eight buckets. */
const buckets: Entry[][] = Array.from({ length: 256 }, () => []);
for (const instruction of INSTRUCTIONS) {
  const entry = entryOf(instruction);
  for (let index = 0; index < 256; index++) {
    const bits = ((index >>> 3) << 2) | ((index & 7) << 12);
    const known = instruction.mask & 0x707c;
    if ((bits & known) === (instruction.match & known)) buckets[index]?.push(entry);
  }
}

/** Quadrant (bits 1:0) and funct3 (bits 15:13). */
const compressedBuckets: CompressedEntry[][] = Array.from({ length: 32 }, () => []);
for (const compressed of COMPRESSED_INSTRUCTIONS) {
  const index = ((compressed.match & 3) << 3) | (compressed.match >>> 13);
  compressedBuckets[index]?.push({ compressed, instruction: instructionNamed(compressed.expands) });
}

/**
 * Decodes the instruction at the start of `word`: its first 32 bits, little-endian; only the low 16 count when the
 * length is 2. Returns undefined for illegal instructions: reserved and unimplemented encodings, lengths over 4.
 */
export function decode(word: number): Decoded | undefined {
  if ((word & 3) !== 3) return decodeCompressed(word & 0xffff);
  if ((word & 0x1c) === 0x1c) return undefined; // 48 bits and longer
  const bits = word | 0;
  const bucket = buckets[((bits >>> 2) & 0x1f) << 3 | ((bits >>> 12) & 7)] ?? [];
  for (const { instruction, immediate, fields, mask, match } of bucket) {
    if ((bits & mask) !== match) continue;
    const rm = fields.rm ? (bits >>> 12) & 7 : 0;
    if (rm === 5 || rm === 6) return undefined; // F, Floating-Point Control and Status Register: reserved
    return {
      instruction,
      compressed: undefined,
      length: 4,
      rd: fields.rd ? (bits >>> 7) & 31 : 0,
      rs1: fields.rs1 ? (bits >>> 15) & 31 : 0,
      rs2: fields.rs2 ? (bits >>> 20) & 31 : 0,
      rs3: fields.rs3 ? bits >>> 27 : 0,
      imm: immediate ? extract(immediate, bits) : 0,
      rm,
      word: bits >>> 0,
    };
  }
  return undefined;
}

function decodeCompressed(word: number): Decoded | undefined {
  const bucket = compressedBuckets[((word & 3) << 3) | (word >>> 13)] ?? [];
  for (const { compressed, instruction } of bucket) {
    if (!matchesCompressed(compressed, word)) continue;
    const { rd, rs1, rs2 } = compressed.registers;
    return {
      instruction,
      compressed,
      length: 2,
      rd: register(rd, word),
      rs1: register(rs1, word),
      rs2: register(rs2, word),
      rs3: 0,
      imm: compressed.immediate ? extract(compressed.immediate, word) : (compressed.constant ?? 0),
      rm: 0,
      word,
    };
  }
  return undefined;
}

/** Whether the halfword is this compressed instruction. */
export function matchesCompressed(row: Compressed, word: number): boolean {
  return (word & row.mask) === row.match && !row.except.some(([mask, match]) => (word & mask) === match);
}

function register(source: RegisterSource | undefined, word: number): number {
  switch (source) {
    case "11:7": return (word >>> 7) & 31;
    case "6:2": return (word >>> 2) & 31;
    case "9:7'": return 8 + ((word >>> 7) & 7);
    case "4:2'": return 8 + ((word >>> 2) & 7);
    default: return source ?? 0;
  }
}

function entryOf(instruction: Instruction): Entry {
  const format: Format = FORMATS[instruction.format];
  const has = (...names: readonly string[]): boolean => format.operands.some((operand) => names.includes(operand));
  return {
    instruction,
    immediate: format.immediate,
    fields: {
      rd: has("rd", "fd"),
      rs1: has("rs1", "fs1", "mem", "base", "zimm", "fli"),
      rs2: has("rs2", "fs2"),
      rs3: has("fs3"),
      rm: has("rm"),
    },
    mask: instruction.mask | 0,
    match: instruction.match | 0,
  };
}
