/**
 * IEEE 754-2019 binary32 and binary64 as RISC-V defines them (unprivileged manual, chapters F and D), exact: every
 * operation is computed on integers of any size and rounded once. The oracle for faster implementations.
 *
 * Values are raw register bits: binary64, or binary32 NaN-boxed in 64 bits. NaN results are canonical.
 */

import type { FpFormat, FpOp } from "./ir.ts";

/** Bits of fflags. */
export const FLAG = { NX: 1, UF: 2, OF: 4, DZ: 8, NV: 16 } as const;
/** Values of rm and frm. */
export const ROUNDING = { RNE: 0, RTZ: 1, RDN: 2, RUP: 3, RMM: 4 } as const;

export interface FpResult {
  /** 64 raw bits, unsigned: an FP register, or an integer register for compare, classify and toI32..toU64. */
  readonly bits: bigint;
  /** `FLAG` bits to accrue. */
  readonly flags: number;
}

interface Layout {
  readonly precision: number; // significand bits, with the hidden one
  readonly emin: number; // exponent of the smallest normal number
  readonly emax: number;
  readonly infinity: bigint;
  readonly quiet: bigint; // the most significant fraction bit
  readonly sign: bigint;
}

const LAYOUT: Readonly<Record<FpFormat, Layout>> = {
  s: { precision: 24, emin: -126, emax: 127, infinity: 0x7f80_0000n, quiet: 1n << 22n, sign: 1n << 31n },
  d: { precision: 53, emin: -1022, emax: 1023, infinity: 0x7ffn << 52n, quiet: 1n << 51n, sign: 1n << 63n },
};

const BOX = 0xffff_ffff_0000_0000n;
const CANONICAL_S = 0x7fc0_0000n;
const CANONICAL_D = 0x7ff8_0000_0000_0000n;

/** The 32 bits of a NaN-boxed binary32; the canonical NaN when the box is improper. */
export const unboxS = (bits: bigint): bigint => ((bits & BOX) === BOX ? bits & 0xffff_ffffn : CANONICAL_S);
export const boxS = (bits: bigint): bigint => bits | BOX;

/** sign * significand * 2^exponent, or an infinity, or a NaN. Zero is a finite value with significand 0. */
interface Value {
  readonly kind: "finite" | "infinite" | "quietNaN" | "signalingNaN";
  readonly negative: boolean;
  readonly significand: bigint;
  readonly exponent: number;
}

/**
 * Applies `op`. `format` is the format of the FP operands (of the result for from*); `rm` is 0..4 and matters only
 * for rounded operations. Missing operands are ignored.
 */
export function fp(op: FpOp, format: FpFormat, rm: number, a: bigint, b = 0n, c = 0n): FpResult {
  switch (op) {
    case "fromI32": return fromInteger(format, rm, BigInt.asIntN(32, a));
    case "fromU32": return fromInteger(format, rm, BigInt.asUintN(32, a));
    case "fromI64": return fromInteger(format, rm, BigInt.asIntN(64, a));
    case "fromU64": return fromInteger(format, rm, BigInt.asUintN(64, a));
    case "sgnj": case "sgnjn": case "sgnjx": return signInject(op, format, a, b);
    default:
  }
  const x = unpack(format, a);
  switch (op) {
    case "add": return addition(format, rm, x, unpack(format, b));
    case "sub": return addition(format, rm, x, negate(unpack(format, b)));
    case "mul": return multiplication(format, rm, x, unpack(format, b));
    case "div": return division(format, rm, x, unpack(format, b));
    case "sqrt": return squareRoot(format, rm, x);
    case "madd": return fused(format, rm, x, unpack(format, b), unpack(format, c));
    case "msub": return fused(format, rm, x, unpack(format, b), negate(unpack(format, c)));
    case "nmsub": return fused(format, rm, negate(x), unpack(format, b), unpack(format, c));
    case "nmadd": return fused(format, rm, negate(x), unpack(format, b), negate(unpack(format, c)));
    case "min": case "max": return extremum(op, format, a, b);
    case "minm": case "maxm":
      return propagate(format, x, unpack(format, b)) ?? extremum(op === "minm" ? "min" : "max", format, a, b);
    case "round": return { ...integral(format, rm, x), flags: x.kind === "signalingNaN" ? FLAG.NV : 0 };
    case "roundnx": return integral(format, rm, x);
    case "eq": case "lt": case "le": return comparison(op, x, unpack(format, b));
    case "ltq": case "leq": return comparison(op, x, unpack(format, b));
    case "classify": return exact(1n << BigInt(classOf(format, x)));
    case "toI32": return toInteger(rm, x, 32, true);
    case "toI32Modular": return toModularInteger(x);
    case "toU32": return toInteger(rm, x, 32, false);
    case "toI64": return toInteger(rm, x, 64, true);
    case "toU64": return toInteger(rm, x, 64, false);
    case "toS": return convert("s", rm, x);
    case "toD": return convert("d", rm, x);
    default: return op satisfies never;
  }
}

// ---- Packing ----

function raw(format: FpFormat, bits: bigint): bigint {
  return format === "s" ? unboxS(bits) : BigInt.asUintN(64, bits);
}

/** A register value from the bits of the format. */
function packed(format: FpFormat, bits: bigint, flags = 0): FpResult {
  return { bits: format === "s" ? boxS(bits) : bits, flags };
}

function unpack(format: FpFormat, register: bigint): Value {
  const { precision, emin, infinity, quiet, sign } = LAYOUT[format];
  const bits = raw(format, register);
  const negative = (bits & sign) !== 0n;
  const magnitude = bits & (sign - 1n);
  if (magnitude > infinity) {
    return { kind: magnitude & quiet ? "quietNaN" : "signalingNaN", negative, significand: 0n, exponent: 0 };
  }
  if (magnitude === infinity) return { kind: "infinite", negative, significand: 0n, exponent: 0 };
  const hidden = 1n << BigInt(precision - 1);
  const fraction = magnitude & (hidden - 1n);
  const biased = Number(magnitude >> BigInt(precision - 1));
  const quantum = emin - (precision - 1); // exponent of the last place of subnormals
  return biased === 0
    ? { kind: "finite", negative, significand: fraction, exponent: quantum }
    : { kind: "finite", negative, significand: fraction | hidden, exponent: quantum + biased - 1 };
}

const negate = (value: Value): Value => ({ ...value, negative: !value.negative });
const isNaN = ({ kind }: Value): boolean => kind === "quietNaN" || kind === "signalingNaN";
const isZero = ({ kind, significand }: Value): boolean => kind === "finite" && significand === 0n;

const exact = (bits: bigint): FpResult => ({ bits, flags: 0 });
const canonicalNaN = (format: FpFormat, flags: number): FpResult => packed(format, format === "s" ? CANONICAL_S : CANONICAL_D, flags);
const infinite = (format: FpFormat, negative: boolean, flags = 0): FpResult =>
  packed(format, (negative ? LAYOUT[format].sign : 0n) | LAYOUT[format].infinity, flags);
const zero = (format: FpFormat, negative: boolean): FpResult => packed(format, negative ? LAYOUT[format].sign : 0n);

/** The result when an operand is a NaN: canonical, invalid if one is signaling. */
function propagate(format: FpFormat, ...operands: readonly Value[]): FpResult | undefined {
  if (!operands.some(isNaN)) return undefined;
  return canonicalNaN(format, operands.some(({ kind }) => kind === "signalingNaN") ? FLAG.NV : 0);
}

// ---- Rounding ----

/** Whether to add one unit in the last place, given the remainder against half a unit. */
function roundsUp(rm: number, negative: boolean, odd: boolean, remainder: bigint, half: bigint): boolean {
  switch (rm) {
    case ROUNDING.RNE: return remainder > half || (remainder === half && odd);
    case ROUNDING.RTZ: return false;
    case ROUNDING.RDN: return negative && remainder !== 0n;
    case ROUNDING.RUP: return !negative && remainder !== 0n;
    case ROUNDING.RMM: return remainder >= half;
    default: throw new RangeError(`rounding mode ${rm}: expected 0..4 (resolve 7 from frm; 5 and 6 are illegal)`);
  }
}

/** significand / 2^shift as an integer, rounded. */
function shiftRounded(rm: number, negative: boolean, significand: bigint, shift: number): { value: bigint; inexact: boolean } {
  if (shift <= 0) return { value: significand << BigInt(-shift), inexact: false };
  const places = BigInt(shift);
  const value = significand >> places;
  const remainder = significand - (value << places);
  if (remainder === 0n) return { value, inexact: false };
  const up = roundsUp(rm, negative, (value & 1n) === 1n, remainder, 1n << (places - 1n));
  return { value: up ? value + 1n : value, inexact: true };
}

/** Rounds a non-zero value to the format. Tininess is detected after rounding, as F requires. */
function round(format: FpFormat, rm: number, negative: boolean, significand: bigint, exponent: number): FpResult {
  const { precision, emin, emax, infinity, sign } = LAYOUT[format];
  const signBit = negative ? sign : 0n;
  const top = exponent + bitLength(significand) - 1; // exponent of the leading one
  const lastPlace = Math.max(top, emin) - (precision - 1);
  const { value, inexact } = shiftRounded(rm, negative, significand, lastPlace - exponent);
  let flags = inexact ? FLAG.NX : 0;

  if (inexact && top < emin) {
    // Tiny, unless rounding with an unbounded exponent range would have reached the smallest normal number.
    const unbounded = shiftRounded(rm, negative, significand, top - (precision - 1) - exponent);
    const reachesNormal = top === emin - 1 && bitLength(unbounded.value) > precision;
    if (!reachesNormal) flags |= FLAG.UF;
  }

  // Adding the fraction with its hidden bit to the exponent field makes carries of the rounding come out right.
  const field = BigInt(lastPlace + (precision - 1) - emin); // 0 for subnormals and the smallest normal binade
  const bits = (field << BigInt(precision - 1)) + value;
  if (top > emax || bits >= infinity) {
    flags = FLAG.OF | FLAG.NX;
    const toInfinity = rm === ROUNDING.RNE || rm === ROUNDING.RMM || rm === (negative ? ROUNDING.RDN : ROUNDING.RUP);
    return packed(format, signBit | (toInfinity ? infinity : infinity - 1n), flags);
  }
  return packed(format, signBit | bits, flags);
}

/** Bits without leading zeros; 0 for 0. */
function bitLength(value: bigint): number {
  if (value === 0n) return 0;
  const hex = value.toString(16);
  return hex.length * 4 - Math.clz32(Number.parseInt(hex.charAt(0), 16)) + 28;
}

// ---- Arithmetic ----

/** Rounds a sum of signed integers scaled by 2^exponent; an exact zero is +0, but -0 when rounding down (IEEE 754 6.3). */
function roundSum(format: FpFormat, rm: number, sum: bigint, exponent: number): FpResult {
  if (sum === 0n) return zero(format, rm === ROUNDING.RDN);
  return round(format, rm, sum < 0n, sum < 0n ? -sum : sum, exponent);
}

const signed = ({ negative, significand }: Value): bigint => (negative ? -significand : significand);

function addition(format: FpFormat, rm: number, a: Value, b: Value): FpResult {
  const nan = propagate(format, a, b);
  if (nan) return nan;
  if (a.kind === "infinite" && b.kind === "infinite" && a.negative !== b.negative) return canonicalNaN(format, FLAG.NV);
  if (a.kind === "infinite") return infinite(format, a.negative);
  if (b.kind === "infinite") return infinite(format, b.negative);
  if (isZero(a) && isZero(b) && a.negative === b.negative) return zero(format, a.negative);
  const exponent = Math.min(a.exponent, b.exponent);
  const sum = (signed(a) << BigInt(a.exponent - exponent)) + (signed(b) << BigInt(b.exponent - exponent));
  return roundSum(format, rm, sum, exponent);
}

/** a * b without rounding; undefined for 0 * infinity. */
function product(a: Value, b: Value): Value | undefined {
  const negative = a.negative !== b.negative;
  if (a.kind === "infinite" || b.kind === "infinite") {
    return isZero(a) || isZero(b) ? undefined : { kind: "infinite", negative, significand: 0n, exponent: 0 };
  }
  return { kind: "finite", negative, significand: a.significand * b.significand, exponent: a.exponent + b.exponent };
}

function multiplication(format: FpFormat, rm: number, a: Value, b: Value): FpResult {
  const nan = propagate(format, a, b);
  if (nan) return nan;
  const result = product(a, b);
  return result ? convertFinite(format, rm, result) : canonicalNaN(format, FLAG.NV);
}

function fused(format: FpFormat, rm: number, a: Value, b: Value, c: Value): FpResult {
  const infinityTimesZero = !isNaN(a) && !isNaN(b) && product(a, b) === undefined;
  // F: invalid for infinity times zero even when the addend is a quiet NaN.
  if (infinityTimesZero) return canonicalNaN(format, FLAG.NV);
  const nan = propagate(format, a, b, c);
  if (nan) return nan;
  const ab = product(a, b);
  return ab ? addition(format, rm, ab, c) : canonicalNaN(format, FLAG.NV);
}

function division(format: FpFormat, rm: number, a: Value, b: Value): FpResult {
  const nan = propagate(format, a, b);
  if (nan) return nan;
  const negative = a.negative !== b.negative;
  if (a.kind === "infinite") return b.kind === "infinite" ? canonicalNaN(format, FLAG.NV) : infinite(format, negative);
  if (b.kind === "infinite") return zero(format, negative);
  if (isZero(b)) return isZero(a) ? canonicalNaN(format, FLAG.NV) : infinite(format, negative, FLAG.DZ);
  if (isZero(a)) return zero(format, negative);
  // Enough quotient bits to round from, and a sticky bit for the rest.
  const shift = LAYOUT[format].precision + 2 + Math.max(0, bitLength(b.significand) - bitLength(a.significand));
  const dividend = a.significand << BigInt(shift);
  const quotient = dividend / b.significand;
  const sticky = quotient * b.significand === dividend ? 0n : 1n;
  return round(format, rm, negative, (quotient << 1n) | sticky, a.exponent - b.exponent - shift - 1);
}

function squareRoot(format: FpFormat, rm: number, a: Value): FpResult {
  const nan = propagate(format, a);
  if (nan) return nan;
  if (isZero(a)) return zero(format, a.negative);
  if (a.negative) return canonicalNaN(format, FLAG.NV);
  if (a.kind === "infinite") return infinite(format, false);
  // Scale to at least 2 * (precision + 2) bits with an even exponent.
  let shift = Math.max(0, 2 * (LAYOUT[format].precision + 2) - bitLength(a.significand));
  if ((a.exponent - shift) % 2 !== 0) shift++;
  const radicand = a.significand << BigInt(shift);
  const root = integerSquareRoot(radicand);
  const sticky = root * root === radicand ? 0n : 1n;
  return round(format, rm, false, (root << 1n) | sticky, (a.exponent - shift) / 2 - 1);
}

/** floor(sqrt(value)) by Newton's method from the double approximation. */
function integerSquareRoot(value: bigint): bigint {
  let root = BigInt(Math.floor(Math.sqrt(Number(value)))) + 1n;
  for (;;) {
    const better = (root + value / root) >> 1n;
    if (better === root || better === root + 1n) break;
    root = better;
  }
  while (root * root > value) root--;
  while ((root + 1n) * (root + 1n) <= value) root++;
  return root;
}

// ---- Comparison, minimum, sign, class ----

/** -1, 0 or 1; the operands are not NaN. */
function order(a: Value, b: Value): number {
  if (isZero(a) && isZero(b)) return 0;
  if (a.kind === "finite" && b.kind === "finite") {
    const exponent = Math.min(a.exponent, b.exponent);
    const x = signed(a) << BigInt(a.exponent - exponent);
    const y = signed(b) << BigInt(b.exponent - exponent);
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const weight = (value: Value): number => (value.kind === "infinite" ? (value.negative ? -1 : 1) : 0);
  return Math.sign(weight(a) - weight(b));
}

/** eq is quiet, lt and le are signaling (F, Floating-Point Compare Instructions), ltq and leq are not (Zfa). */
function comparison(op: "eq" | "lt" | "le" | "ltq" | "leq", a: Value, b: Value): FpResult {
  if (isNaN(a) || isNaN(b)) {
    const signaling = a.kind === "signalingNaN" || b.kind === "signalingNaN";
    return { bits: 0n, flags: signaling || op === "lt" || op === "le" ? FLAG.NV : 0 };
  }
  const sign = order(a, b);
  return exact((op === "eq" ? sign === 0 : op === "lt" || op === "ltq" ? sign < 0 : sign <= 0) ? 1n : 0n);
}

/** minimumNumber and maximumNumber: a NaN loses against a number, and -0 is below +0. */
function extremum(op: "min" | "max", format: FpFormat, a: bigint, b: bigint): FpResult {
  const x = unpack(format, a);
  const y = unpack(format, b);
  const flags = x.kind === "signalingNaN" || y.kind === "signalingNaN" ? FLAG.NV : 0;
  if (isNaN(x) && isNaN(y)) return canonicalNaN(format, flags);
  if (isNaN(x)) return packed(format, raw(format, b), flags);
  if (isNaN(y)) return packed(format, raw(format, a), flags);
  const sign = order(x, y);
  const firstIsLess = sign < 0 || (sign === 0 && x.negative);
  return packed(format, raw(format, firstIsLess === (op === "min") ? a : b));
}

function signInject(op: "sgnj" | "sgnjn" | "sgnjx", format: FpFormat, a: bigint, b: bigint): FpResult {
  const { sign } = LAYOUT[format];
  const x = raw(format, a);
  const other = raw(format, b) & sign;
  const result = op === "sgnj" ? other : op === "sgnjn" ? other ^ sign : (x & sign) ^ other;
  return packed(format, (x & (sign - 1n)) | result);
}

/** Bit number in the result of fclass (F, table "Format of result of FCLASS instruction"). */
function classOf(format: FpFormat, { kind, negative, significand }: Value): number {
  if (kind === "signalingNaN") return 8;
  if (kind === "quietNaN") return 9;
  if (kind === "infinite") return negative ? 0 : 7;
  if (significand === 0n) return negative ? 3 : 4;
  const normal = significand >> BigInt(LAYOUT[format].precision - 1) !== 0n;
  if (negative) return normal ? 1 : 2;
  return normal ? 6 : 5;
}

// ---- Conversion ----

function convertFinite(format: FpFormat, rm: number, value: Value): FpResult {
  if (value.kind === "infinite") return infinite(format, value.negative);
  if (value.significand === 0n) return zero(format, value.negative);
  return round(format, rm, value.negative, value.significand, value.exponent);
}

function convert(to: FpFormat, rm: number, value: Value): FpResult {
  return propagate(to, value) ?? convertFinite(to, rm, value);
}

function fromInteger(format: FpFormat, rm: number, value: bigint): FpResult {
  if (value === 0n) return zero(format, false);
  return round(format, rm, value < 0n, value < 0n ? -value : value, 0);
}

/** The nearest integral value in the same format, as `rm` says; it keeps the sign (Zfa, Rounding Instructions). */
function integral(format: FpFormat, rm: number, value: Value): FpResult {
  const nan = propagate(format, value);
  if (nan) return nan;
  if (value.kind === "infinite") return infinite(format, value.negative);
  if (value.significand === 0n) return zero(format, value.negative);
  if (value.exponent >= 0) return round(format, rm, value.negative, value.significand, value.exponent);
  const { value: magnitude, inexact } = shiftRounded(rm, value.negative, value.significand, -value.exponent);
  const { bits } = magnitude === 0n ? zero(format, value.negative) : round(format, rm, value.negative, magnitude, 0);
  return { bits, flags: inexact ? FLAG.NX : 0 };
}

/** ECMAScript's ToInt32, with the flags of fcvt.w.d (Zfa, Modular Convert-to-Integer Instruction). */
function toModularInteger(value: Value): FpResult {
  const { flags } = toInteger(ROUNDING.RTZ, value, 32, true);
  if (value.kind !== "finite") return { bits: 0n, flags };
  const { value: magnitude } = shiftRounded(ROUNDING.RTZ, value.negative, value.significand, -value.exponent);
  return { bits: BigInt.asUintN(64, BigInt.asIntN(32, value.negative ? -magnitude : magnitude)), flags };
}

/** Out-of-range results are clipped and invalid, without inexact (F, table "Domains of float-to-integer conversions"). */
function toInteger(rm: number, value: Value, width: 32 | 64, signedResult: boolean): FpResult {
  const places = BigInt(width);
  const max = signedResult ? (1n << (places - 1n)) - 1n : (1n << places) - 1n;
  const min = signedResult ? -(1n << (places - 1n)) : 0n;
  // Results of 32 bits are sign-extended, the unsigned ones too.
  const register = (integer: bigint): bigint => BigInt.asUintN(64, BigInt.asIntN(width, integer));
  if (isNaN(value)) return { bits: register(max), flags: FLAG.NV };
  const clipped: FpResult = { bits: register(value.negative ? min : max), flags: FLAG.NV };
  if (value.kind === "infinite" || bitLength(value.significand) + value.exponent > 65) return clipped;
  const { value: magnitude, inexact } = shiftRounded(rm, value.negative, value.significand, -value.exponent);
  const integer = value.negative ? -magnitude : magnitude;
  if (integer < min || integer > max) return clipped;
  return { bits: register(integer), flags: inexact ? FLAG.NX : 0 };
}
