/** Table rows and fields to machine words: the inverse of `decode`. */

import { fits, insert, limits, type Immediate } from "./immediate.ts";
import { FORMATS, type Compressed, type Format, type Instruction, type RegisterSource } from "./instruction.ts";
import { matchesCompressed } from "./decode.ts";

/** Fields of an instruction, named as in `Decoded`. Those that the format does not have are ignored. */
export interface Fields {
  readonly rd?: number;
  readonly rs1?: number;
  readonly rs2?: number;
  readonly rs3?: number;
  /** As `Decoded.imm`: a byte offset, a shift amount, a CSR number; for lui and auipc a multiple of 4096. */
  readonly imm?: number;
  readonly rm?: number;
  /** Bits 26 (aq, 2) and 25 (rl, 1) of A instructions. */
  readonly ordering?: number;
}

/** A 32-bit encoding, unsigned. Throws RangeError when the immediate does not fit. */
export function encode(instruction: Instruction, fields: Fields): number {
  const format: Format = FORMATS[instruction.format];
  let word = instruction.match;
  const place = (value: number | undefined, shift: number): void => {
    const bits = (value ?? 0) << shift;
    // A fixed field (rs2 of fsqrt, rm of fmin) belongs to the match and is not an operand.
    if ((instruction.mask & (31 << shift)) !== (31 << shift)) word |= bits & ~instruction.mask;
  };
  place(fields.rd, 7);
  place(fields.rs1, 15);
  if (format.immediate) word |= insert(format.immediate, checked(format.immediate, fields.imm ?? 0));
  const operands: readonly string[] = format.operands;
  if (operands.includes("rs2") || operands.includes("fs2")) place(fields.rs2, 20);
  if (operands.includes("fs3")) word |= (fields.rs3 ?? 0) << 27;
  if (operands.includes("rm")) word |= (fields.rm ?? instruction.defaultRm ?? 7) << 12;
  if (instruction.extension === "A") word |= (fields.ordering ?? 0) << 25;
  return word >>> 0;
}

/**
 * A 16-bit encoding. Registers that the row fixes may be left out. Throws RangeError when a value does not fit or
 * the encoding would be reserved.
 */
export function encodeCompressed(row: Compressed, fields: Fields): number {
  let word = row.match;
  for (const name of ["rd", "rs1", "rs2"] as const) {
    const source = row.registers[name];
    const value = fields[name];
    if (source === undefined || value === undefined) continue;
    word |= compressedRegister(source, value);
  }
  if (row.immediate) word |= insert(row.immediate, checked(row.immediate, fields.imm ?? 0));
  if (!matchesCompressed(row, word)) throw new RangeError("these operands are a reserved encoding");
  return word;
}

function compressedRegister(source: RegisterSource, value: number): number {
  switch (source) {
    case "11:7": return value << 7;
    case "6:2": return value << 2;
    case "9:7'": return short(value) << 7;
    case "4:2'": return short(value) << 2;
    default:
      if (value !== source) throw new RangeError(`register x${value}: expected x${source}`);
      return 0;
  }
}

function short(register: number): number {
  if (register < 8 || register > 15) throw new RangeError(`register x${register}: expected x8..x15 (s0, s1, a0..a5)`);
  return register - 8;
}

function checked(immediate: Immediate, value: number): number {
  if (fits(immediate, value)) return value;
  const { min, max } = limits(immediate);
  const multiple = immediate.align > 1 ? `, multiple of ${immediate.align}` : "";
  throw new RangeError(`immediate ${value}: expected ${min}..${max}${multiple}`);
}
