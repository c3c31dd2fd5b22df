import { describe, expect, it } from "vitest";
import { Bus, type MmioDevice, type Window } from "./bus.ts";

const ram = (byteLength: number): MmioDevice => {
  const view = new DataView(new ArrayBuffer(byteLength));
  return {
    read: (offset, bytes) => (bytes === 1 ? view.getUint8(offset) : bytes === 2 ? view.getUint16(offset, true) : view.getUint32(offset, true)),
    write(offset, bytes, value) {
      if (bytes === 1) view.setUint8(offset, value);
      else if (bytes === 2) view.setUint16(offset, value, true);
      else view.setUint32(offset, value, true);
      return true;
    },
  };
};
const window = (base: bigint, byteLength = 0x100n, device = `at-${base}`): Window => ({ base, byteLength, device, compatible: "", interrupt: 0 });

describe("bus", () => {
  it("gives devices offsets into their window", () => {
    const bus = new Bus([{ window: window(0x1000n), target: ram(0x100) }, { window: window(0x2000n), target: ram(0x100) }]);
    bus.write(0x2010n, 4, 0x1234_5678n);
    expect(bus.read(0x2010n, 4)).toBe(0x1234_5678n);
    expect(bus.read(0x1010n, 4)).toBe(0n);
  });
  it("splits a 64-bit access in two, low half first", () => {
    const bus = new Bus([{ window: window(0n), target: ram(0x100) }]);
    bus.write(8n, 8, 0xfedc_ba98_7654_3210n);
    expect(bus.read(8n, 4)).toBe(0x7654_3210n);
    expect(bus.read(12n, 4)).toBe(0xfedc_ba98n);
    expect(bus.read(8n, 8)).toBe(0xfedc_ba98_7654_3210n);
  });
  it("faults where nothing decodes, at window ends and on odd sizes, and counts it", () => {
    const bus = new Bus([{ window: window(0x1000n), target: ram(0x100) }]);
    for (const [address, bytes] of [[0xfffn, 1], [0x1100n, 1], [0x10fen, 4], [0x1001n, 4], [0x1000n, 3], [(1n << 64n) - 8n, 8]] as const) expect(bus.read(address, bytes)).toBeUndefined();
    expect(bus.write(0x3000n, 4, 0n)).toBe(false);
    expect(bus.unmapped).toBe(7);
  });
  it("refuses windows that overlap, naming both", () => {
    expect(() => new Bus([{ window: window(0x1000n, 0x100n, "a"), target: ram(1) }, { window: window(0x10ffn, 1n, "b"), target: ram(1) }])).toThrow(/b at 0x10ff overlaps a at 0x1000/);
  });
});

