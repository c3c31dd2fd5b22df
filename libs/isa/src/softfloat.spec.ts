import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { boxS, FLAG, fp, ROUNDING, unboxS } from "./softfloat.ts";
import type { FpFormat, FpOp } from "./ir.ts";

const view = new DataView(new ArrayBuffer(8));
const bitsD = (value: number): bigint => (view.setFloat64(0, value), view.getBigUint64(0));
const valueD = (bits: bigint): number => (view.setBigUint64(0, bits), view.getFloat64(0));
const bitsS = (value: number): bigint => (view.setFloat32(0, value), boxS(BigInt(view.getUint32(0))));
const valueS = (bits: bigint): number => (view.setUint32(0, Number(unboxS(bits))), view.getFloat32(0));

const NAN_D = 0x7ff8_0000_0000_0000n;
const NAN_S = boxS(0x7fc0_0000n);
const SNAN_D = 0x7ff0_0000_0000_0001n;
const SNAN_S = boxS(0x7f80_0001n);
const { RNE, RTZ, RDN, RUP, RMM } = ROUNDING;
const ALL_MODES = [RNE, RTZ, RDN, RUP, RMM];

/** Random bits, with exponents and fractions near the edges more often than chance. */
function patterns(fractionBits: number, exponentBits: number): fc.Arbitrary<bigint> {
  const fraction = fc.oneof(
    fc.bigInt(0n, (1n << BigInt(fractionBits)) - 1n),
    fc.constantFrom(0n, 1n, (1n << BigInt(fractionBits)) - 1n, 1n << BigInt(fractionBits - 1)),
  );
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = fc.oneof(
    fc.integer({ min: 0, max: 2 * bias + 1 }),
    fc.integer({ min: bias - 3, max: bias + fractionBits + 3 }),
    fc.constantFrom(0, 1, 2 * bias, 2 * bias + 1),
  );
  return fc.tuple(fc.boolean(), exponent, fraction).map(([negative, e, f]) =>
    (negative ? 1n << BigInt(fractionBits + exponentBits) : 0n) | (BigInt(e) << BigInt(fractionBits)) | f);
}
const doubles = patterns(52, 11);
const singles = patterns(23, 8).map(boxS);
const RUNS = { numRuns: 3000 };

const NATIVE: Readonly<Record<"add" | "sub" | "mul" | "div", (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
};
const sameD = (actual: bigint, expected: number): void => {
  expect(actual).toBe(Number.isNaN(expected) ? NAN_D : bitsD(expected));
};
const sameS = (actual: bigint, expected: number): void => {
  expect(actual).toBe(Number.isNaN(expected) ? NAN_S : bitsS(expected));
};

describe("softfloat against the host's arithmetic, round to nearest even", () => {
  for (const op of ["add", "sub", "mul", "div"] as const) {
    it(`${op}.d equals the native double operation`, () => {
      fc.assert(fc.property(doubles, doubles, (a, b) => sameD(fp(op, "d", RNE, a, b).bits, NATIVE[op](valueD(a), valueD(b)))), RUNS);
    });
    it(`${op}.s equals the native operation rounded by Math.fround (double rounding is harmless at 53 >= 2*24+2)`, () => {
      fc.assert(fc.property(singles, singles, (a, b) => sameS(fp(op, "s", RNE, a, b).bits, Math.fround(NATIVE[op](valueS(a), valueS(b))))), RUNS);
    });
  }
  it("sqrt equals Math.sqrt in both formats", () => {
    fc.assert(fc.property(doubles, (a) => sameD(fp("sqrt", "d", RNE, a).bits, Math.sqrt(valueD(a)))), RUNS);
    fc.assert(fc.property(singles, (a) => sameS(fp("sqrt", "s", RNE, a).bits, Math.fround(Math.sqrt(valueS(a))))), RUNS);
  });
  it("toS equals Math.fround and toD is exact", () => {
    fc.assert(fc.property(doubles, (a) => sameS(fp("toS", "d", RNE, a).bits, Math.fround(valueD(a)))), RUNS);
    fc.assert(fc.property(singles, (a) => sameD(fp("toD", "s", RNE, a).bits, valueS(a))), RUNS);
  });
  it("comparisons equal the native ones", () => {
    fc.assert(fc.property(doubles, fc.option(doubles), (a, other) => {
      const b = other ?? a;
      const [x, y] = [valueD(a), valueD(b)];
      expect(fp("eq", "d", 0, a, b).bits).toBe(x === y ? 1n : 0n);
      expect(fp("lt", "d", 0, a, b).bits).toBe(x < y ? 1n : 0n);
      expect(fp("le", "d", 0, a, b).bits).toBe(x <= y ? 1n : 0n);
    }), RUNS);
  });
  it("integer conversions equal Number() of the bigint, and back by truncation", () => {
    const any64 = fc.bigInt(-(1n << 63n), (1n << 63n) - 1n);
    fc.assert(fc.property(any64, (n) => {
      sameD(fp("fromI64", "d", RNE, BigInt.asUintN(64, n)).bits, Number(n));
      sameD(fp("fromU64", "d", RNE, BigInt.asUintN(64, n)).bits, Number(BigInt.asUintN(64, n)));
      sameD(fp("fromI32", "d", RNE, BigInt.asUintN(64, n)).bits, Number(BigInt.asIntN(32, n)));
    }), RUNS);
    fc.assert(fc.property(doubles, (a) => {
      const x = valueD(a);
      if (!(Math.abs(x) < 2 ** 63)) return;
      expect(BigInt.asIntN(64, fp("toI64", "d", RTZ, a).bits)).toBe(BigInt(Math.trunc(x)));
    }), RUNS);
  });
});

describe("softfloat by laws that hold in every rounding mode", () => {
  const modes = fc.constantFrom(...ALL_MODES);

  it("a fused multiply-add with factor 1 is an addition, with addend -0*sign a multiplication", () => {
    const one = bitsD(1);
    fc.assert(fc.property(modes, doubles, doubles, (rm, a, b) => {
      expect(fp("madd", "d", rm, a, one, b)).toEqual(fp("add", "d", rm, a, b));
      expect(fp("msub", "d", rm, a, one, b)).toEqual(fp("sub", "d", rm, a, b));
    }), RUNS);
  });

  it("a.s fused multiply-add that is exact in double arithmetic rounds like its conversion", () => {
    fc.assert(fc.property(modes, singles, singles, (rm, a, b) => {
      const product = fp("mul", "d", rm, fp("toD", "s", 0, a).bits, fp("toD", "s", 0, b).bits); // 48 bits: exact
      const viaDouble = fp("toS", "d", rm, product.bits);
      const direct = fp("mul", "s", rm, a, b);
      expect(direct.bits).toBe(viaDouble.bits);
    }), RUNS);
  });

  it("inexact results of RDN and RUP enclose the value and are neighbours; RTZ is the one nearer zero", () => {
    fc.assert(fc.property(doubles, doubles, (a, b) => {
      const down = fp("mul", "d", RDN, a, b);
      const up = fp("mul", "d", RUP, a, b);
      if (Number.isNaN(valueD(down.bits))) return;
      if (!(down.flags & FLAG.NX)) {
        expect(up.bits).toBe(down.bits);
        return;
      }
      const negative = valueD(up.bits) < 0 || valueD(down.bits) < 0;
      expect(valueD(down.bits)).toBeLessThan(valueD(up.bits));
      expect((up.bits & ~(1n << 63n)) - (down.bits & ~(1n << 63n))).toBe(negative ? -1n : 1n);
      expect(fp("mul", "d", RTZ, a, b).bits).toBe(negative ? up.bits : down.bits);
      expect([up.bits, down.bits]).toContain(fp("mul", "d", RNE, a, b).bits);
    }), RUNS);
  });
});

describe("softfloat corner cases", () => {
  const cases: readonly (readonly [title: string, op: FpOp, format: FpFormat, rm: number, args: bigint[], bits: bigint, flags: number])[] = [
    ["infinity - infinity is invalid", "sub", "d", RNE, [bitsD(Infinity), bitsD(Infinity)], NAN_D, FLAG.NV],
    ["0 * infinity is invalid", "mul", "d", RNE, [bitsD(0), bitsD(-Infinity)], NAN_D, FLAG.NV],
    ["0 * infinity + quiet NaN is invalid (F 2.2)", "madd", "d", RNE, [bitsD(0), bitsD(Infinity), NAN_D], NAN_D, FLAG.NV],
    ["a quiet NaN operand is not invalid and gives the canonical NaN", "add", "d", RNE, [0xfff8_0000_0000_1234n, bitsD(1)], NAN_D, 0],
    ["a signaling NaN operand is invalid", "add", "s", RNE, [SNAN_S, bitsS(1)], NAN_S, FLAG.NV],
    ["an improperly boxed single is the canonical NaN", "add", "s", RNE, [0x3f80_0000n, bitsS(1)], NAN_S, 0],
    ["1 / 0 divides by zero", "div", "d", RNE, [bitsD(-1), bitsD(0)], bitsD(-Infinity), FLAG.DZ],
    ["0 / 0 is invalid, not a division by zero", "div", "d", RNE, [bitsD(0), bitsD(0)], NAN_D, FLAG.NV],
    ["infinity / 0 is exact", "div", "d", RNE, [bitsD(Infinity), bitsD(0)], bitsD(Infinity), 0],
    ["sqrt(-0) is -0", "sqrt", "d", RNE, [bitsD(-0)], bitsD(-0), 0],
    ["sqrt of a negative is invalid", "sqrt", "d", RNE, [bitsD(-1)], NAN_D, FLAG.NV],
    ["x - x is -0 when rounding down", "sub", "d", RDN, [bitsD(1), bitsD(1)], bitsD(-0), 0],
    ["x - x is +0 otherwise", "sub", "d", RUP, [bitsD(1), bitsD(1)], bitsD(0), 0],
    ["overflow to nearest gives infinity", "mul", "d", RNE, [bitsD(1e200), bitsD(1e200)], bitsD(Infinity), FLAG.OF | FLAG.NX],
    ["overflow towards zero gives the largest number", "mul", "d", RTZ, [bitsD(1e200), bitsD(1e200)], bitsD(Number.MAX_VALUE), FLAG.OF | FLAG.NX],
    ["negative overflow rounding up gives the largest negative", "mul", "d", RUP, [bitsD(-1e200), bitsD(1e200)], bitsD(-Number.MAX_VALUE), FLAG.OF | FLAG.NX],
    ["an exact subnormal does not underflow", "div", "d", RNE, [bitsD(2 ** -1022), bitsD(2)], bitsD(2 ** -1023), 0],
    ["an inexact subnormal underflows", "div", "d", RNE, [bitsD(2 ** -1022), bitsD(3)], bitsD(2 ** -1022 / 3), FLAG.UF | FLAG.NX],
    // (2^24 - 1) * 2^-150 = largest single below 2^-126 with 24 bits: rounds to 2^-126 only for want of subnormal bits: tiny.
    ["tiny after rounding although the result is the smallest normal", "toS", "d", RNE, [bitsD((2 ** 24 - 1) * 2 ** -150)], bitsS(2 ** -126), FLAG.UF | FLAG.NX],
    // (2^25 - 1) * 2^-151 reaches 2^-126 even with 24 bits and unbounded exponent: not tiny.
    ["not tiny when rounding to full precision reaches the smallest normal", "toS", "d", RNE, [bitsD((2 ** 25 - 1) * 2 ** -151)], bitsS(2 ** -126), FLAG.NX],
    ["RMM rounds ties away from zero", "toI32", "d", RMM, [bitsD(-2.5)], 0xffff_ffff_ffff_fffdn, FLAG.NX],
    ["RNE rounds ties to even", "toI32", "d", RNE, [bitsD(-2.5)], 0xffff_ffff_ffff_fffen, FLAG.NX],
    ["toI32 of a NaN is the maximum", "toI32", "d", RNE, [NAN_D], 0x7fff_ffffn, FLAG.NV],
    ["toU32 of infinity is 2^32-1, sign-extended", "toU32", "d", RNE, [bitsD(Infinity)], 0xffff_ffff_ffff_ffffn, FLAG.NV],
    ["toU32 of -0.5 towards zero is 0, inexact", "toU32", "d", RTZ, [bitsD(-0.5)], 0n, FLAG.NX],
    ["toU32 of -1 is 0, invalid", "toU32", "d", RTZ, [bitsD(-1)], 0n, FLAG.NV],
    ["toU32 of 2^31 is sign-extended", "toU32", "d", RTZ, [bitsD(2 ** 31)], 0xffff_ffff_8000_0000n, 0],
    ["toI32 of 2^31 is invalid, not inexact", "toI32", "d", RTZ, [bitsD(2 ** 31 + 0.5)], 0x7fff_ffffn, FLAG.NV],
    ["toI32 of -2^31 - 0.5 towards zero fits", "toI32", "d", RTZ, [bitsD(-(2 ** 31) - 0.5)], 0xffff_ffff_8000_0000n, FLAG.NX],
    ["toU64 of 2^64 is invalid", "toU64", "d", RTZ, [bitsD(2 ** 64)], 0xffff_ffff_ffff_ffffn, FLAG.NV],
    ["toI64 of a tiny number rounds up to 1", "toI64", "d", RUP, [1n], 1n, FLAG.NX],
    ["fromU64 rounds and is inexact", "fromU64", "s", RTZ, [0xffff_ffff_ffff_ffffn], boxS(0x5f7f_ffffn), FLAG.NX],
    ["min of -0 and +0 is -0", "min", "d", 0, [bitsD(0), bitsD(-0)], bitsD(-0), 0],
    ["max of -0 and +0 is +0", "max", "d", 0, [bitsD(-0), bitsD(0)], bitsD(0), 0],
    ["min with one quiet NaN is the number", "min", "d", 0, [NAN_D, bitsD(3)], bitsD(3), 0],
    ["max with a signaling NaN is the number, invalid", "max", "s", 0, [bitsS(3), SNAN_S], bitsS(3), FLAG.NV],
    ["min of two NaNs is the canonical NaN", "min", "d", 0, [0xffff_ffff_ffff_ffffn, NAN_D], NAN_D, 0],
    ["eq of a quiet NaN is not invalid", "eq", "d", 0, [NAN_D, NAN_D], 0n, 0],
    ["eq of a signaling NaN is invalid", "eq", "d", 0, [SNAN_D, NAN_D], 0n, FLAG.NV],
    ["lt of a quiet NaN is invalid", "lt", "d", 0, [NAN_D, bitsD(0)], 0n, FLAG.NV],
    ["-0 equals +0", "eq", "s", 0, [bitsS(-0), bitsS(0)], 1n, 0],
    ["sgnjn keeps a NaN's payload", "sgnjn", "d", 0, [SNAN_D, bitsD(1)], SNAN_D | (1n << 63n), 0],
    ["sgnjx of itself is the absolute value", "sgnjx", "s", 0, [bitsS(-2), bitsS(-2)], bitsS(2), 0],
    ["nmadd is -(a*b) - c", "nmadd", "d", RNE, [bitsD(2), bitsD(3), bitsD(4)], bitsD(-10), 0],
    ["nmsub is -(a*b) + c", "nmsub", "d", RNE, [bitsD(2), bitsD(3), bitsD(4)], bitsD(-2), 0],
    ["madd rounds once", "madd", "d", RNE, [bitsD(1 + 2 ** -52), bitsD(1 - 2 ** -52), bitsD(-1)], bitsD(-(2 ** -104)), 0],
  ];
  it.each(cases)("%s", (_title, op, format, rm, args, bits, flags) => {
    const [a = 0n, b, c] = args;
    expect(fp(op, format, rm, a, b, c)).toEqual({ bits, flags });
  });

  it("classify names the ten classes by bit (F, table of FCLASS)", () => {
    const values = [bitsD(-Infinity), bitsD(-1), bitsD(-(2 ** -1030)), bitsD(-0), bitsD(0), bitsD(2 ** -1030), bitsD(1), bitsD(Infinity), SNAN_D, NAN_D];
    expect(values.map((bits) => fp("classify", "d", 0, bits).bits)).toEqual(values.map((_, index) => 1n << BigInt(index)));
    expect(fp("classify", "s", 0, 0n).bits).toBe(1n << 9n);
  });
});
