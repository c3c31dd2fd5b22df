/**
 * Results and flags of every rounding mode but RMM against the processor that runs the tests, through a small C
 * program. Only on x86-64, which detects tininess after rounding, as RISC-V does (arm64 does before).
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { FpFormat, FpOp } from "./ir.ts";
import { boxS, fp } from "./softfloat.ts";

const PROGRAM = String.raw`
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
static uint64_t state = 88172645463325252ull;
static uint64_t next(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state; }
/* Random bits; exponents of a pair near each other, or near the ends, more often than chance. */
static uint64_t pattern(int fraction, int exponent, int round) {
  uint64_t bits = next(), top = (1ull << exponent) - 1, e = bits >> 52 & top;
  if (round % 4 == 1) e = top / 2 + next() % 60 - 30;
  if (round % 4 == 2) e = next() % (fraction + 3);
  if (round % 4 == 3) e = next() & 1 ? top - next() % 3 : next() % 3;
  uint64_t f = next() & ((1ull << fraction) - 1);
  if (next() % 4 == 0) f &= ~0ull << (next() % fraction);
  return (bits & 1) << (fraction + exponent) | e << fraction | (f & ((1ull << fraction) - 1));
}
static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
static int flags(void) {
  int f = fetestexcept(FE_ALL_EXCEPT);
  return (f & FE_INEXACT ? 1 : 0) | (f & FE_UNDERFLOW ? 2 : 0) | (f & FE_OVERFLOW ? 4 : 0) | (f & FE_DIVBYZERO ? 8 : 0) | (f & FE_INVALID ? 16 : 0);
}
#define RUN(T, U, fmt, op, expr) do { volatile T r; feclearexcept(FE_ALL_EXCEPT); r = (expr); int f = flags(); \
  T v = r; U bits = 0; memcpy(&bits, &v, sizeof v); \
  printf("%s %s %d %llx %llx %llx %llx %d\n", op, fmt, m, (unsigned long long)ua, (unsigned long long)ub, (unsigned long long)uc, (unsigned long long)bits, f); } while (0)
#define FORMAT(T, U, fmt, fraction, exponent, SQRT, FMA, O, OU, convert) do { \
  U ua = pattern(fraction, exponent, i), ub = pattern(fraction, exponent, i + i / 7), uc = pattern(fraction, exponent, i + i / 3); \
  volatile T a, b, c; memcpy((void *)&a, &ua, sizeof a); memcpy((void *)&b, &ub, sizeof b); memcpy((void *)&c, &uc, sizeof c); \
  RUN(T, U, fmt, "add", a + b); RUN(T, U, fmt, "sub", a - b); RUN(T, U, fmt, "mul", a * b); RUN(T, U, fmt, "div", a / b); \
  RUN(T, U, fmt, "sqrt", SQRT(a)); RUN(T, U, fmt, "madd", FMA(a, b, c)); RUN(O, OU, fmt, convert, (O)a); \
  if (fabs((double)a) < 9e18) RUN(int64_t, uint64_t, fmt, "toI64", llrint((double)a)); \
  ua = next() >> (i % 64); { volatile int64_t n = (int64_t)ua; RUN(T, U, fmt, "fromI64", (T)n); } } while (0)
int main(void) {
  for (int i = 0; i < 3000; i++) {
    int m = i % 4;
    fesetround(modes[m]);
    FORMAT(double, uint64_t, "d", 52, 11, sqrt, fma, float, uint32_t, "toS");
    FORMAT(float, uint32_t, "s", 23, 8, sqrtf, fmaf, double, uint64_t, "toD");
  }
}
`;

/** The lines of the C program, or undefined with the reason printed. */
function hostResults(): string[] | undefined {
  if (process.arch !== "x64") {
    console.log(`skipped: needs an x86-64 host, this is ${process.arch}`);
    return undefined;
  }
  const directory = mkdtempSync(join(tmpdir(), "polyvisor-softfloat-"));
  try {
    writeFileSync(join(directory, "host.c"), PROGRAM);
    execFileSync("gcc", ["-O1", "-frounding-math", "-fno-builtin", "-ffp-contract=off", "-mfma", "-o", join(directory, "host"), join(directory, "host.c"), "-lm"], { stdio: "pipe" });
    return execFileSync(join(directory, "host"), { encoding: "utf8", maxBuffer: 1 << 26 }).trim().split("\n");
  } catch (error) {
    console.log(`skipped: gcc with libm is needed (${String(error).split("\n")[0] ?? ""})`);
    return undefined;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const isNaNBits = (format: FpFormat, bits: bigint): boolean =>
  format === "s" ? (bits & 0x7fff_ffffn) > 0x7f80_0000n : (bits & 0x7fff_ffff_ffff_ffffn) > 0x7ff0_0000_0000_0000n;

describe("softfloat against the host processor", () => {
  const lines = hostResults();

  it.skipIf(!lines)("gives the same bits and flags in RNE, RTZ, RDN and RUP", () => {
    const differences: string[] = [];
    for (const line of lines ?? []) {
      const [op = "", fmt = "", mode = "", ...rest] = line.split(" ");
      const [a = 0n, b = 0n, c = 0n, bits = 0n] = rest.slice(0, 4).map((text) => BigInt(`0x${text}`));
      const format = fmt as FpFormat;
      const input = (value: bigint): bigint => (format === "s" ? boxS(value) : value);
      const operand = op === "fromI64" ? a : input(a);
      const result = fp(op as FpOp, format, Number(mode), operand, input(b), input(c));
      const to: FpFormat | "x" = op === "toI64" ? "x" : op === "toS" ? "s" : op === "toD" ? "d" : format;
      const canonical = to !== "x" && isNaNBits(to, bits) ? (to === "s" ? 0x7fc0_0000n : 0x7ff8_0000_0000_0000n) : bits;
      const expected = to === "s" ? boxS(canonical) : canonical;
      if (result.bits !== expected || result.flags !== Number(rest[4])) {
        differences.push(`${line}: got ${result.bits.toString(16)} flags ${result.flags}`);
      }
    }
    expect(lines?.length).toBeGreaterThan(40_000);
    expect(differences.slice(0, 20)).toEqual([]);
  });
});
