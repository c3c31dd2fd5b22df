import { describe, expect, it } from "vitest";
import { encoded } from "./encoded.ts";
import { BlobChunk } from "./image.ts";

describe("encoded", () => {
  const chunk = (length: number, value: number) => ({ data: new Uint8Array(length).fill(value) });

  it("answers what ts-proto would, of any size, and does not change it with the next message", () => {
    for (const length of [0, 1, 100, 300_000, 3 * 1024 * 1024, 5]) {
      const message = chunk(length, 7);
      const bytes = encoded(BlobChunk, message);
      encoded(BlobChunk, chunk(length, 8));
      expect(bytes.equals(BlobChunk.encode(message).finish())).toBe(true);
    }
  });

  it("leaves nothing of a message that could not be encoded to the next", () => {
    const broken = { encode: (_: object, writer: Parameters<typeof BlobChunk.encode>[1]): never => {
      writer!.uint32(10).fork().uint32(1);
      throw new Error("half");
    } };
    expect(() => encoded(broken, {})).toThrow("half");
    expect([...encoded(BlobChunk, chunk(2, 9))]).toEqual([10, 2, 9, 9]);
  });
});
