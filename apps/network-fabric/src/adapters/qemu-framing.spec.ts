import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { frameForQemu, QemuDeframer } from "./qemu-framing.ts";

describe("QEMU's stream format", () => {
  it("a frame goes behind its length, 4 bytes, big-endian (net/stream.c)", () => {
    expect([...frameForQemu(Uint8Array.of(1, 2, 3))]).toEqual([0, 0, 0, 3, 1, 2, 3]);
  });
  it("frames come out as they went in, in whatever pieces the stream comes", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 100 })), fc.array(fc.integer({ min: 1, max: 50 })), (frames, sizes) => {
        const stream = Buffer.concat(frames.map(frameForQemu));
        const deframer = new QemuDeframer(100);
        let at = 0;
        const out = [...sizes, stream.length].flatMap((size) => deframer.push(stream.subarray(at, (at += size)))!);
        expect(out.map((frame) => [...frame])).toEqual(frames.map((frame) => [...frame]));
      }),
    );
  });
  it("a length beyond the largest frame → the stream is given up, nothing is kept; garbage never throws", () => {
    expect(new QemuDeframer(100).push(Uint8Array.of(0, 0, 0, 101))).toBeUndefined();
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 64 })), (chunks) => {
      const deframer = new QemuDeframer(1500);
      for (const chunk of chunks) if (!deframer.push(chunk)) break;
    }));
  });
});
