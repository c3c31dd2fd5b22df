import { describe, expect, it } from "vitest";
import { giveBytesBack, keepTakenBytes, takeBytes } from "./index.ts";

describe("bytes that are used again", () => {
  it("have the length that was asked for, and come back after they were given back", () => {
    const first = takeBytes(100_000);
    expect(first).toHaveLength(100_000);
    giveBytesBack(first.subarray(7));
    expect(takeBytes(120_000).buffer).toBe(first.buffer);
    expect(takeBytes(100_000).buffer).not.toBe(first.buffer);
  });
  it("given back twice are handed out once; foreign ones never", () => {
    const bytes = takeBytes(100_000);
    giveBytesBack(bytes);
    giveBytesBack(bytes);
    const foreign = new Uint8Array(131_072);
    giveBytesBack(foreign);
    const handedOut = [takeBytes(100_000), takeBytes(100_000), takeBytes(100_000)].map(({ buffer }) => buffer);
    expect(new Set(handedOut).size).toBe(3);
    expect(handedOut).not.toContain(foreign.buffer);
  });
  it("those that an observer may have kept are not used again", () => {
    const seen = takeBytes(100_000);
    keepTakenBytes();
    giveBytesBack(seen);
    expect(takeBytes(100_000).buffer).not.toBe(seen.buffer);
  });
  it("small ones are plain and zero", () => {
    const small = takeBytes(512);
    expect(small.buffer.byteLength).toBe(512);
    expect(small.every((byte) => byte === 0)).toBe(true);
  });
});
