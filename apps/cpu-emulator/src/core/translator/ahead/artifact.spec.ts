import { describe, expect, it } from "vitest";
import { BareMachine } from "../../interpreter/bare-machine.ts";
import { fusedArithmetic } from "../../interpreter/engine.ts";
import { AHEAD_SLOTS } from "../engine.ts";
import { decodeAhead, encodeAhead } from "./artifact.ts";
import { translateAhead, type AheadModule } from "./translate-ahead.ts";

function modules(): AheadModule[] {
  const machine = new BareMachine(1 << 20, "recording");
  machine.load("li s0, 500\n1: andi t0, s0, 3\n beqz t0, 2f\n call f\n2: addi s0, s0, -1\n bnez s0, 1b\n wfi\nf: addi a0, a0, 1\n ret");
  expect(machine.run(100_000)).toBe("wfi");
  return translateAhead(machine.hot!.recorded, { hart: machine.cells.base, fused: fusedArithmetic(), firstSlot: AHEAD_SLOTS });
}

describe("a static translation as bytes", () => {
  it("comes back as it was, also out of a Buffer that lies inside another", () => {
    const made = modules();
    expect(made[0]!.regions.length).toBeGreaterThan(0);
    const bytes = encodeAhead(made);
    expect(decodeAhead(bytes)).toEqual(made);
    expect(decodeAhead(Buffer.concat([Buffer.alloc(36), bytes]).subarray(36))).toEqual(made);
  });

  it("is refused with a reason, or is harmless, whichever byte of it is damaged", () => {
    const bytes = encodeAhead(modules());
    let refused = 0;
    for (let at = 0; at < bytes.length; at += at < 600 ? 1 : 61) {
      const damaged = bytes.slice();
      damaged[at]! ^= 1 << (at & 7);
      try {
        for (const { regions } of decodeAhead(damaged)) for (const { entries, pages, recorded } of regions) expect([entries[0], pages[0]]).toEqual([recorded.start, 0]);
      } catch (error) {
        expect(error, String(error)).not.toBeInstanceOf(TypeError);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(100);
    for (const length of [0, 7, 11, 12, 40, bytes.length - 1]) expect(() => decodeAhead(bytes.subarray(0, length))).toThrow(Error);
  });
});
