import { Impairment, type Frame } from "@polyvisor/contracts/network";
import { manualClock } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { Impairer } from "./impairer.ts";
import { TokenBucket } from "./token-bucket.ts";

function line(fields: Partial<Impairment>) {
  const clock = manualClock();
  const out: number[] = [];
  const frames: Frame[] = [];
  const impairer = new Impairer(Impairment.fromPartial(fields), clock, (frame) => {
    out.push(frame.data[0]!);
    frames.push(frame);
  });
  const send = (...numbers: number[]): void => numbers.forEach((number) => impairer.pass({ data: new Uint8Array(60).fill(number), offload: undefined }));
  return { clock, out, frames, impairer, send };
}
const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i % 256);

describe("a bad line", () => {
  it("nothing wrong with it → everything, in order, at once", () => {
    const { send, out } = line({});
    send(...numbers(100));
    expect(out).toEqual(numbers(100));
  });
  it("loses about its share, and the same frames again with the same seed, others with another", () => {
    const survivors = (seed: bigint): number[] => {
      const { send, out } = line({ loss: 0.1, seed });
      send(...numbers(2000));
      return out;
    };
    expect(survivors(1n).length).toBeGreaterThan(1700);
    expect(survivors(1n).length).toBeLessThan(1900);
    expect(survivors(1n)).toEqual(survivors(1n));
    expect(survivors(1n)).not.toEqual(survivors(2n));
  });
  it("duplicates, and damages one bit of a copy", () => {
    const twice = line({ duplicate: 1 });
    twice.send(1, 2);
    expect(twice.out).toEqual([1, 1, 2, 2]);
    const damaged = line({ corrupt: 1, seed: 5n });
    const original: Frame = { data: new Uint8Array(60), offload: undefined };
    damaged.impairer.pass(original);
    expect(damaged.frames[0]!.data.reduce((bits, byte) => bits + byte.toString(2).replaceAll("0", "").length, 0)).toBe(1);
    expect(original.data).toEqual(new Uint8Array(60));
  });
  it("reorders: the next frame overtakes; without a next one it goes after a while", () => {
    const { send, out, clock } = line({ reorder: 1 });
    send(1);
    expect(out).toEqual([]);
    send(2);
    expect(out).toEqual([2, 1]);
    send(3);
    clock.advance(50);
    expect(out).toEqual([2, 1, 3]);
  });
  it("delays with jitter keep order", () => {
    const { send, out, clock } = line({ delayMs: 20, jitterMs: 30, seed: 9n });
    send(...numbers(20));
    clock.advance(19);
    expect(out).toEqual([]);
    clock.advance(32);
    expect(out).toEqual(numbers(20));
  });
  it("what a delay holds is bounded; the rest is lost and counted; a closed line forgets it all", () => {
    const { send, impairer, clock, out } = line({ delayMs: 1000 });
    send(...numbers(5000));
    expect(impairer.counters).toMatchObject({ delayed: 4096, lost: 904 });
    impairer.close();
    clock.advance(2000);
    expect(out).toEqual([]);
    expect(clock.pending).toBe(0);
  });
});

describe("a token bucket", () => {
  it("lets the burst through at once and the rate afterwards; one item may overdraw", () => {
    const bucket = new TokenBucket(1000, 100, 0);
    expect([bucket.take(60, 0), bucket.take(60, 0), bucket.take(1, 0)]).toEqual([true, true, false]);
    expect(bucket.take(1, 20)).toBe(false); // -20 and 20 more
    expect(bucket.take(1, 21)).toBe(true);
    expect(bucket.waitMs).toBe(0.01);
  });
});
