import { describe, expect, it } from "vitest";
import type { MediationPoint } from "./chain.ts";
import { joinDigests, MessageDigest } from "./digest.ts";

const point = (method: string): MediationPoint => ({ service: "s", plane: "exits", method, direction: "request" });
const digestOf = (...messages: [method: string, message: unknown][]): string => {
  const digest = new MessageDigest();
  for (const [method, message] of messages) digest.add(point(method), message);
  return String(digest);
};
const write = { machine: "a", id: 1n, sequence: 1n, exit: { $case: "mmioWrite", value: { address: 0x1000_0000n, size: 1, value: 65n } }, data: new Uint8Array([1, 2]) };

describe("a digest of messages", () => {
  it("is the same for the same messages, whoever they are about, whatever made the objects", () => {
    const { exit, ...rest } = write;
    expect(digestOf(["exits", write])).toMatch(/^[0-9a-f]{16}$/);
    expect(digestOf(["exits", { exit, ...rest, machine: "b", id: 8n, hart: 0, spare: undefined, bytes: new Uint8Array(0) }])).toBe(digestOf(["exits", write]));
  });

  it("differs when a field, a byte, the order or the number of messages does", () => {
    const other = { ...write, sequence: 2n };
    const all = [
      digestOf(), digestOf(["exits", write]), digestOf(["exits", other]), digestOf(["exits", { ...write, data: new Uint8Array([2, 1]) }]),
      digestOf(["exits", { ...write, sequence: 1n << 40n }]), digestOf(["exits", write], ["exits", write]), digestOf(["exits", write], ["exits", other]), digestOf(["exits", other], ["exits", write]),
      digestOf(["blocks", write]),
    ];
    expect(new Set(all).size).toBe(all.length);
  });

  it("does not depend on how messages of different methods lay between each other, nor on whose chain they passed", () => {
    const a: [string, unknown] = ["exits", write];
    const b: [string, unknown] = ["dma", { ...write, sequence: 9n }];
    expect(digestOf(a, b)).toBe(digestOf(b, a));
    expect(joinDigests([digestOf(a), digestOf(b)])).toBe(digestOf(a, b));
  });
});
