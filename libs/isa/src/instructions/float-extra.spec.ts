import { describe, expect, it } from "vitest";
import { assemble, decode, disassemble, FLAG, fp, ROUNDING, type FpOp } from "../index.ts";

const { NX, NV } = FLAG;
const view = new DataView(new ArrayBuffer(8));
const d = (value: number): bigint => (view.setFloat64(0, value), view.getBigUint64(0));
const s = (value: number): bigint => (view.setFloat32(4, value), view.setUint32(0, 0xffff_ffff), view.getBigUint64(0));
const asDouble = (bits: bigint): number => (view.setBigUint64(0, bits), view.getFloat64(0));
const QUIET = 0x7ff8_0000_0000_0000n;
const SIGNALING = 0x7ff0_0000_0000_0001n;

describe("Zfa", () => {
  const run = (op: FpOp, a: bigint, b = 0n, rm = 0): [bigint, number] => {
    const { bits, flags } = fp(op, "d", rm, a, b);
    return [bits, flags];
  };

  it("fminm and fmaxm are NaN if an operand is, invalid only if it is signaling; -0 is below 0", () => {
    expect(run("minm", d(1), QUIET)).toEqual([QUIET, 0]);
    expect(run("maxm", SIGNALING, d(1))).toEqual([QUIET, NV]);
    expect(run("minm", d(0), d(-0))).toEqual([d(-0), 0]);
    expect(run("maxm", d(-2), d(3))).toEqual([d(3), 0]);
  });
  it("fleq and fltq are quiet: invalid only for signaling NaNs", () => {
    expect(run("leq", d(1), QUIET)).toEqual([0n, 0]);
    expect(run("ltq", d(1), SIGNALING)).toEqual([0n, NV]);
    expect([run("leq", d(1), d(1)), run("ltq", d(1), d(1)), run("ltq", d(-1), d(1))]).toEqual([[1n, 0], [0n, 0], [1n, 0]]);
  });
  it("fround rounds as Math does, keeps the sign of zeros and never says inexact; froundnx does", () => {
    const modes = [[ROUNDING.RTZ, Math.trunc], [ROUNDING.RDN, Math.floor], [ROUNDING.RUP, Math.ceil]] as const;
    for (const value of [0, -0, 0.5, -0.5, 1.5, 2.5, -2.5, 5e-324, -5e-324, 1e300, 2 ** 52 - 0.5, -(2 ** 51) - 0.25, Infinity, -Infinity]) {
      for (const [rm, round] of modes) {
        expect(run("round", d(value), 0n, rm), `${value}, mode ${rm}`).toEqual([d(round(value)), 0]);
        expect(run("roundnx", d(value), 0n, rm), `${value}, mode ${rm}`).toEqual([d(round(value)), Number.isFinite(value) && round(value) !== value ? NX : 0]);
      }
    }
    expect([0.5, 1.5, -2.5].map((value) => asDouble(run("round", d(value))[0]))).toEqual([0, 2, -2]);
    expect([0.5, -2.5].map((value) => asDouble(run("round", d(value), 0n, ROUNDING.RMM)[0]))).toEqual([1, -3]);
    expect([run("round", SIGNALING), run("roundnx", QUIET)]).toEqual([[QUIET, NV], [QUIET, 0]]);
    expect(fp("round", "s", 0, s(2 ** 23 - 0.5)).bits).toBe(s(2 ** 23));
  });
  it("fcvtmod.w.d is ECMAScript's ToInt32 with the flags of fcvt.w.d", () => {
    for (const value of [0, -0, 1.75, -1.75, 2 ** 31, -(2 ** 31) - 1, 2 ** 32 + 5.5, -1e15, 2 ** 84 + 2 ** 40, 1.7e308]) {
      const inRange = Math.trunc(value) >= -(2 ** 31) && Math.trunc(value) < 2 ** 31;
      const flags = !inRange ? NV : Number.isInteger(value) ? 0 : NX;
      expect(run("toI32Modular", d(value)), String(value)).toEqual([BigInt.asUintN(64, BigInt(value | 0)), flags]);
    }
    for (const value of [d(Infinity), d(-Infinity), QUIET]) expect(run("toI32Modular", value)).toEqual([0n, NV]);
  });
  it("fli names its constants; fcvtmod.w.d has no mode but rtz", () => {
    const word = (line: string): number => new DataView(assemble(line, { base: 0n }).bytes.buffer).getUint32(0, true);
    // Encodings from the manual's tables.
    expect([word("fli.s fa0, 0.25"), word("fli.d fa0, min"), word("fli.d fa0, nan")]).toEqual([0xf014_0553, 0xf210_8553, 0xf21f_8553]);
    expect(word("fcvtmod.w.d a0, fa1, rtz")).toBe(0xc285_9553);
    expect(decode(0xc285_8553)).toBeUndefined(); // rm = rne: reserved
    expect(disassemble(decode(0xf014_0553)!, 0n)).toBe("fli.s fa0,0.25");
    expect(() => assemble("fli.s fa0, 0.3", { base: 0n })).toThrow("a constant that fli has");
  });
});
