import { describe, expect, it } from "vitest";
import { testHarts } from "../testing/test-hart.ts";

const CFG0 = 0x3a0;
const ADDR0 = 0x3b0;
const [R, W, X, TOR, NA4, NAPOT, LOCK] = [1n, 2n, 4n, 1n << 3n, 2n << 3n, 3n << 3n, 0x80n];
const one = () => testHarts(1).harts[0]!;

describe("PMP (privileged spec, section 3.7)", () => {
  it("no entry matches → M may, S and U may not", () => {
    const { core } = one();
    expect([3, 1, 0].map((privilege) => core.pmpAllows(0x8000_0000n, "read", privilege))).toEqual([true, false, false]);
  });
  it("software finds a granularity of 4 KiB: pmpaddr keeps no bits below it, NA4 cannot be chosen", () => {
    const hart = one();
    hart.write(ADDR0, ~0n);
    expect(hart.read(ADDR0)).toBe(((1n << 54n) - 1n) & ~0x3ffn);
    hart.write(CFG0, NA4 | R);
    expect(hart.read(CFG0)).toBe(R);
    hart.write(CFG0, NAPOT | R);
    expect(hart.read(ADDR0)).toBe((1n << 54n) - 1n);
  });
  it("NAPOT: exactly its pages, with its permissions; the first matching entry decides", () => {
    const hart = one();
    hart.write(ADDR0, (0x8000_0000n >> 2n) | ((0x8_0000n >> 3n) - 1n)); // 512 KiB
    hart.write(ADDR0 + 1, ~0n);
    hart.write(CFG0, NAPOT | ((NAPOT | R | W | X) << 8n));
    expect(hart.core.pmpAllows(0x8007_f000n, "read", 1)).toBe(false);
    expect(hart.core.pmpAllows(0x8008_0000n, "read", 1)).toBe(true);
    expect(hart.core.pmpAllows(0x7fff_f000n, "execute", 0)).toBe(true);
    expect(hart.core.pmpAllows(0x8000_0000n, "write", 3)).toBe(true); // not locked
  });
  it("TOR: from the entry before to this one", () => {
    const hart = one();
    hart.write(ADDR0, 0x8000_0000n >> 2n);
    hart.write(ADDR0 + 1, 0x8001_0000n >> 2n);
    hart.write(CFG0, (TOR | R) << 8n);
    expect([0x7fff_f000n, 0x8000_0000n, 0x8000_f000n, 0x8001_0000n].map((a) => hart.core.pmpAllows(a, "read", 1))).toEqual([false, true, true, false]);
    expect(hart.core.pmpAllows(0x8000_0000n, "write", 1)).toBe(false);
  });
  it("locked entries bind M-mode and cannot be changed, nor can the base of a locked TOR", () => {
    const hart = one();
    hart.write(ADDR0, 0x8000_0000n >> 2n);
    hart.write(ADDR0 + 1, 0x8001_0000n >> 2n);
    hart.write(CFG0, (TOR | R | LOCK) << 8n);
    expect(hart.core.pmpAllows(0x8000_0000n, "write", 3)).toBe(false);
    hart.write(CFG0, 0n);
    hart.write(ADDR0, 0n);
    hart.write(ADDR0 + 1, 0n);
    expect([hart.read(CFG0), hart.read(ADDR0), hart.read(ADDR0 + 1)]).toEqual([(TOR | R | LOCK) << 8n, 0x2000_0000n, 0x2000_4000n]);
  });
  it("W without R is reserved → permissions stay; a change flushes the TLB; odd pmpcfg do not exist on RV64", () => {
    const hart = one();
    hart.write(CFG0, NAPOT | R);
    hart.write(CFG0, NAPOT | W);
    expect(hart.read(CFG0)).toBe(NAPOT | R);
    expect(hart.translation.flushes).toBe(2);
    expect(hart.read(CFG0 + 1)).toBeUndefined();
    expect(hart.read(ADDR0 + 63)).toBe(0n);
  });
});
