/**
 * Immediates as data. The manual draws each immediate as instruction bits labelled with immediate bits; the notation
 * here is that drawing: "31:25=11:5 11:7=4:0" puts imm[11:5] in bits 31..25 and imm[4:0] in bits 11..7. The decoder
 * and the assembler read the same string.
 */

interface Piece {
  readonly low: number; // lowest instruction bit
  readonly width: number;
  readonly to: number; // lowest immediate bit
}

export interface Immediate {
  readonly notation: string;
  readonly pieces: readonly Piece[];
  /** Number of significant bits including the low zeros: 12 for I, 13 for B. */
  readonly bits: number;
  readonly signed: boolean;
  /** Values are multiples of this (low bits that are not encoded). */
  readonly align: number;
}

export function immediate(notation: string, sign: "signed" | "unsigned"): Immediate {
  const pieces = notation.split(" ").map((text): Piece => {
    const [from = "", to = ""] = text.split("=");
    const [high, low] = range(from);
    const [toHigh, toLow] = range(to);
    if (high - low !== toHigh - toLow) throw new Error(`immediate ${notation}: ${text} has two different widths`);
    return { low, width: high - low + 1, to: toLow };
  });
  return {
    notation,
    pieces,
    bits: Math.max(...pieces.map((p) => p.to + p.width)),
    signed: sign === "signed",
    align: 2 ** Math.min(...pieces.map((p) => p.to)),
  };
}

function range(text: string): [number, number] {
  const [high = "", low = high] = text.split(":");
  return [Number(high), Number(low)];
}

/** The immediate in `word`, sign- or zero-extended. Fits a signed 32-bit number. */
export function extract(immediate: Immediate, word: number): number {
  let value = 0;
  for (const { low, width, to } of immediate.pieces) value |= ((word >>> low) & (2 ** width - 1)) << to;
  const unused = 32 - immediate.bits;
  return immediate.signed ? (value << unused) >> unused : value;
}

/** Instruction bits that carry `value`, which must satisfy `fits`. */
export function insert(immediate: Immediate, value: number): number {
  let word = 0;
  for (const { low, width, to } of immediate.pieces) word |= ((value >>> to) & (2 ** width - 1)) << low;
  return word;
}

/** Smallest and largest value the immediate can carry. */
export function limits(immediate: Immediate): { readonly min: number; readonly max: number } {
  const { bits, signed, align } = immediate;
  return signed ? { min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - align } : { min: 0, max: 2 ** bits - align };
}

export function fits(immediate: Immediate, value: number): boolean {
  const { min, max } = limits(immediate);
  return Number.isInteger(value) && value >= min && value <= max && value % immediate.align === 0;
}
