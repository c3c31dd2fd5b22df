import { describe, expect, it } from "vitest";
import { testHarts } from "../testing/test-hart.ts";
import { Clint } from "./clint.ts";
import { Csr, MSIP, MTIP } from "./csr.ts";
import { ATTENTION } from "./hart-state.ts";

const BASE = 0x0200_0000n;
const setup = () => {
  const { harts, time, clock } = testHarts(2);
  return { harts, clock, clint: new Clint(harts.map(({ cells }) => cells), harts[0]!.core, time) };
};

describe("CLINT", () => {
  it("msip of another hart raises its MSIP and wakes it; clearing lowers it", () => {
    const { harts, clint } = setup();
    expect(clint.write(BASE + 4n, 4, 1n)).toBe(true);
    expect(harts[1]!.core.pending() & MSIP).toBe(MSIP);
    expect(harts[1]!.cells.i32[ATTENTION >> 2]).toBe(1);
    expect(clint.read(BASE + 4n, 4)).toBe(1n);
    clint.write(BASE + 4n, 4, 0n);
    expect(harts[1]!.core.pending() & MSIP).toBe(0);
  });
  it("mtimecmp in halves; MTIP while mtime is not below it", () => {
    const { harts, clint, clock } = setup();
    clint.write(BASE + 0x4008n, 4, 50_000n);
    clint.write(BASE + 0x400cn, 4, 0n);
    expect(clint.read(BASE + 0x4008n, 8)).toBe(50_000n);
    const { core } = harts[1]!;
    core.writeOne(Csr.MIE, BigInt(MTIP));
    core.refreshTimers();
    expect([core.pending() & MTIP, core.nextTimer()]).toEqual([0, 50_000]);
    clock.ms = 5;
    core.refreshTimers();
    expect([core.pending() & MTIP, core.nextTimer()]).toEqual([MTIP, Infinity]);
  });
  it("mtime reads the guest's time and can be written", () => {
    const { clint, clock } = setup();
    clock.ms = 2;
    expect([clint.read(BASE + 0xbff8n, 8), clint.read(BASE + 0xbffcn, 4)]).toEqual([20_000n, 0n]);
    clint.write(BASE + 0xbff8n, 8, 1_000_000n);
    clock.ms = 3;
    expect(clint.read(BASE + 0xbff8n, 8)).toBe(1_010_000n);
  });
  it("harts that do not exist, bytes and halfwords → no such register", () => {
    const { clint } = setup();
    expect([clint.read(BASE + 8n, 4), clint.read(BASE + 0x4010n, 8), clint.read(BASE, 2), clint.read(BASE + 0xc000n, 4)]).toEqual([undefined, undefined, undefined, undefined]);
    expect([clint.write(BASE + 8n, 4, 1n), clint.write(BASE, 1, 1n)]).toEqual([false, false]);
  });
});
