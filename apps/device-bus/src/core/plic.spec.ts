import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Plic } from "./plic.ts";

const PENDING = 0x1000;
const enable = (context: number, word = 0) => 0x2000 + 0x80 * context + 4 * word;
const threshold = (context: number) => 0x20_0000 + 0x1000 * context;
const claim = (context: number) => threshold(context) + 4;

function setup(harts = 2) {
  const outputs: string[] = [];
  const plic = new Plic(95, harts, (hart, mode, level) => void outputs.push(`${hart} ${mode} ${level}`));
  return { plic, outputs };
}

describe("PLIC (RISC-V PLIC specification 1.0.0)", () => {
  it("drives the S context of a hart when an enabled source with a priority rises", () => {
    const { plic, outputs } = setup();
    plic.write(4 * 10, 4, 1);
    plic.write(enable(3), 4, 1 << 10);
    plic.setLevel(10, true);
    expect(outputs).toEqual(["1 supervisor true"]);
    expect(plic.read(claim(3), 4)).toBe(10);
    expect(outputs).toEqual(["1 supervisor true", "1 supervisor false"]);
  });
  it("keeps a source back until it is completed, then offers it again while its wire is high (chapter 6)", () => {
    const { plic } = setup();
    plic.write(4 * 5, 4, 1);
    plic.write(enable(1), 4, 1 << 5);
    plic.setLevel(5, true);
    expect(plic.read(claim(1), 4)).toBe(5);
    expect(plic.read(claim(1), 4)).toBe(0);
    plic.write(claim(1), 4, 5);
    expect(plic.read(claim(1), 4)).toBe(5);
    plic.setLevel(5, false);
    plic.write(claim(1), 4, 5);
    expect(plic.read(claim(1), 4)).toBe(0);
  });
  it("keeps a request whose wire has fallen before the claim (chapter 5)", () => {
    const { plic } = setup();
    plic.write(4 * 5, 4, 1);
    plic.write(enable(1), 4, 1 << 5);
    plic.setLevel(5, true);
    plic.setLevel(5, false);
    expect(plic.read(claim(1), 4)).toBe(5);
  });
  it("claims the highest priority first, the lowest number among equals", () => {
    const { plic } = setup();
    for (const [source, priority] of [[3, 1], [40, 7], [41, 7], [64, 2]] as const) {
      plic.write(4 * source, 4, priority);
      plic.setLevel(source, true);
    }
    for (const word of [0, 1, 2]) plic.write(enable(1, word), 4, 0xffff_ffff);
    expect(Array.from({ length: 5 }, () => plic.read(claim(1), 4))).toEqual([40, 41, 64, 3, 0]);
  });
  it("does not interrupt at or below the threshold", () => {
    const { plic, outputs } = setup();
    plic.write(4 * 5, 4, 3);
    plic.write(enable(1), 4, 1 << 5);
    plic.write(threshold(1), 4, 3);
    plic.setLevel(5, true);
    expect(outputs).toEqual([]);
    plic.write(threshold(1), 4, 2);
    expect(outputs).toEqual(["0 supervisor true"]);
  });
  it("ignores the completion of a source that the context has not enabled", () => {
    const { plic } = setup();
    plic.write(4 * 5, 4, 1);
    plic.write(enable(1), 4, 1 << 5);
    plic.setLevel(5, true);
    plic.read(claim(1), 4);
    expect(plic.write(claim(3), 4, 5)).toBe(false);
    expect(plic.read(claim(1), 4)).toBe(0);
  });
  it("has no source 0 and none above the last", () => {
    const { plic } = setup();
    plic.write(enable(0, 0), 4, 0xffff_ffff);
    plic.write(enable(0, 2), 4, 0xffff_ffff);
    expect([plic.read(enable(0, 0), 4)! >>> 0, plic.read(enable(0, 2), 4)! >>> 0]).toEqual([0xffff_fffe, 0xffff_ffff]);
    expect(plic.write(0, 4, 7)).toBe(false);
  });
  it("shows what is pending and takes no write there", () => {
    const { plic } = setup();
    plic.setLevel(33, true);
    expect(plic.read(PENDING + 4, 4)).toBe(2);
    expect(plic.write(PENDING + 4, 4, 0)).toBe(false);
  });
  it("takes 32-bit accesses only", () => {
    expect(setup().plic.read(0, 1)).toBeUndefined();
  });
  it("answers a number for every access, and offers a source to one claimer only, whatever happens", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom(40, 0x1004, enable(0), enable(1), enable(3), threshold(1), claim(1), claim(3), 0x3f_fffc, 0x5f_fffc), fc.nat(0xffff_ffff), fc.boolean(), fc.nat(95)), { maxLength: 60 }), (steps) => {
        const { plic } = setup();
        const inService = new Set<number>();
        for (const [offset, value, level, source] of steps) {
          plic.setLevel(source, level && source > 0);
          if (offset !== claim(1) && offset !== claim(3)) plic.write(offset, 4, value);
          const answer = plic.read(offset, 4);
          expect(typeof answer).toBe("number");
          if ((offset === claim(1) || offset === claim(3)) && answer) {
            expect(inService.has(answer)).toBe(false);
            inService.add(answer);
          }
        }
      }),
    );
  });
});
