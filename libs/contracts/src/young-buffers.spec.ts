import { describe, expect, it } from "vitest";
import { youngBuffer } from "./young-buffers.ts";

/** Megabytes of buffers at most at a time, while 256 MB of them come and go. */
function peakMegabytes(counted: (byteLength: number) => void): number {
  const before = process.memoryUsage().arrayBuffers;
  let peak = 0;
  for (let i = 0; i < 4096; i++) {
    Buffer.allocUnsafeSlow(65_536);
    counted(65_536);
    peak = Math.max(peak, process.memoryUsage().arrayBuffers - before);
  }
  return peak / 1e6;
}

describe("youngBuffer", () => {
  it("frees buffers that nobody holds long before V8 would look for them", () => {
    const left = peakMegabytes(() => {});
    const counted = peakMegabytes(youngBuffer);
    expect(left).toBeGreaterThan(24); // or the collections here are for nothing
    expect(counted).toBeLessThan(left / 2); // 8 of 86 MB, 14 on a loaded machine
  });
});
