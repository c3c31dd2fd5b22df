import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Chain } from "./descriptor-chain.ts";
import type { Dma, DmaResult, DmaSegment } from "./dma.ts";
import { readPart, SplitQueue, writePart } from "./split-queue.ts";

const BASE = 0x8000_0000n;
const BYTES = 64 * 1024;
const SIZE = 8;
const DESCRIPTORS = 0;
const DRIVER = 0x200;
const DEVICE = 0x300;
const DATA = 0x1000;

class Memory implements Dma {
  readonly bytes = new Uint8Array(BYTES);
  readonly view = new DataView(this.bytes.buffer);
  transfers = 0;
  moved = 0;
  async transfer(segments: readonly DmaSegment[]): Promise<DmaResult> {
    this.transfers++;
    const data: Uint8Array[] = [];
    for (const { address, readLength, writeData } of segments) {
      const length = readLength || writeData.length;
      this.moved += length;
      if (address < BASE || address + BigInt(length) > BASE + BigInt(BYTES)) return { status: "fault", data: [] };
      const at = Number(address - BASE);
      if (readLength > 0) data.push(this.bytes.slice(at, at + readLength));
      else this.bytes.set(writeData, at);
    }
    return { status: "ok", data };
  }
}

const settle = () => new Promise<void>((resolve) => void setImmediate(resolve));

function setup({ eventIndex = false, answer = true }: { eventIndex?: boolean; answer?: boolean } = {}) {
  const memory = new Memory();
  const chains: Chain[] = [];
  let interrupts = 0;
  const broken: string[] = [];
  const queue: SplitQueue = new SplitQueue({
    dma: memory,
    maxSize: SIZE,
    maxChainBytes: 1024 * 1024,
    chains(found) {
      chains.push(...found);
      if (answer) for (const chain of found) queue.complete(chain, queue.epoch, writePart(chain, 0, new Uint8Array(Math.min(4, chain.writableBytes)).fill(7)), 4);
    },
    interrupt: () => void interrupts++,
    broken: (reason) => void broken.push(reason),
  });
  const areas = { descriptorArea: BASE + BigInt(DESCRIPTORS), driverArea: BASE + BigInt(DRIVER), deviceArea: BASE + BigInt(DEVICE) };
  expect(queue.start({ size: SIZE, ...areas, eventIndex })).toBeUndefined();
  const descriptor = (index: number, address: bigint, length: number, flags: number, next = 0) => {
    memory.view.setBigUint64(DESCRIPTORS + index * 16, address, true);
    memory.view.setUint32(DESCRIPTORS + index * 16 + 8, length, true);
    memory.view.setUint16(DESCRIPTORS + index * 16 + 12, flags, true);
    memory.view.setUint16(DESCRIPTORS + index * 16 + 14, next, true);
  };
  let available = 0;
  const offer = (...heads: number[]) => {
    for (const head of heads) memory.view.setUint16(DRIVER + 4 + 2 * (available++ % SIZE), head, true);
    memory.view.setUint16(DRIVER + 2, available & 0xffff, true);
  };
  const usedIndex = () => memory.view.getUint16(DEVICE + 2, true);
  return { memory, queue, chains, broken, descriptor, offer, usedIndex, interrupts: () => interrupts };
}

describe("split virtqueue (virtio 1.2, 2.7)", () => {
  it("takes a chain of a readable and a writable buffer and gives it back through the used ring", async () => {
    const t = setup();
    t.descriptor(3, BASE + BigInt(DATA), 16, 1, 5);
    t.descriptor(5, BASE + BigInt(DATA + 64), 8, 2);
    t.offer(3);
    t.queue.kick();
    await settle();
    expect(t.chains[0]).toMatchObject({ head: 3, readableBytes: 16, writableBytes: 8 });
    expect(t.usedIndex()).toBe(1);
    expect(t.memory.view.getUint32(DEVICE + 4, true)).toBe(3);
    expect(t.memory.view.getUint32(DEVICE + 8, true)).toBe(4);
    expect([...t.memory.bytes.subarray(DATA + 64, DATA + 69)]).toEqual([7, 7, 7, 7, 0]);
    expect(t.interrupts()).toBe(1);
  });

  it("needs one transfer to read a direct request and one to answer it", async () => {
    const t = setup();
    t.descriptor(0, BASE + BigInt(DATA), 8, 2);
    t.offer(0);
    t.queue.kick();
    await settle();
    expect(t.memory.transfers).toBe(2);
  });

  it("follows an indirect table (2.7.5.3)", async () => {
    const t = setup();
    const table = DATA + 0x100;
    t.memory.view.setBigUint64(table, BASE + BigInt(DATA), true);
    t.memory.view.setUint32(table + 8, 4, true);
    t.memory.view.setUint16(table + 12, 1, true);
    t.memory.view.setUint16(table + 14, 1, true);
    t.memory.view.setBigUint64(table + 16, BASE + BigInt(DATA + 32), true);
    t.memory.view.setUint32(table + 24, 8, true);
    t.memory.view.setUint16(table + 28, 2, true);
    t.descriptor(1, BASE + BigInt(table), 32, 4);
    t.offer(1);
    t.queue.kick();
    await settle();
    expect(t.chains[0]).toMatchObject({ head: 1, readableBytes: 4, writableBytes: 8 });
  });

  it("raises no interrupt while avail.flags says NO_INTERRUPT (2.7.6)", async () => {
    const t = setup();
    t.memory.view.setUint16(DRIVER, 1, true);
    t.descriptor(0, BASE + BigInt(DATA), 8, 2);
    t.offer(0);
    t.queue.kick();
    await settle();
    expect([t.usedIndex(), t.interrupts()]).toEqual([1, 0]);
  });

  it("with EVENT_IDX interrupts only when used.idx passes used_event, and publishes avail_event (2.7.10)", async () => {
    const t = setup({ eventIndex: true });
    t.memory.view.setUint16(DRIVER + 4 + 2 * SIZE, 1, true);
    for (const index of [0, 1]) t.descriptor(index, BASE + BigInt(DATA), 8, 2);
    t.offer(0);
    t.queue.kick();
    await settle();
    expect(t.interrupts()).toBe(0);
    t.offer(1);
    t.queue.kick();
    await settle();
    expect(t.interrupts()).toBe(1);
    expect(t.memory.view.getUint16(DEVICE + 4 + 8 * SIZE, true)).toBe(2);
  });

  it("runs on when indices wrap past 65535", async () => {
    const t = setup();
    t.descriptor(0, BASE + BigInt(DATA), 8, 2);
    for (let round = 0; round < 65_540 / SIZE + 2; round++) {
      t.offer(0, 0, 0, 0, 0, 0, 0, 0);
      t.queue.kick();
      await Promise.resolve();
      while (t.usedIndex() !== (((round + 1) * SIZE) & 0xffff)) await Promise.resolve();
    }
    expect(t.broken).toEqual([]);
  });

  it.each([
    ["a loop", (t: ReturnType<typeof setup>) => (t.descriptor(0, BASE, 1, 1, 1), t.descriptor(1, BASE, 1, 1, 0))],
    ["a next beyond the table", (t: ReturnType<typeof setup>) => t.descriptor(0, BASE, 1, 1, 99)],
    ["readable after writable", (t: ReturnType<typeof setup>) => (t.descriptor(0, BASE, 1, 3, 1), t.descriptor(1, BASE, 1, 0))],
    ["indirect with next", (t: ReturnType<typeof setup>) => t.descriptor(0, BASE, 16, 5, 1)],
    ["an indirect table of odd size", (t: ReturnType<typeof setup>) => t.descriptor(0, BASE, 17, 4)],
    ["an indirect table outside memory", (t: ReturnType<typeof setup>) => t.descriptor(0, 0n, 16, 4)],
    ["a buffer beyond 2^64", (t: ReturnType<typeof setup>) => t.descriptor(0, (1n << 64n) - 1n, 2, 0)],
    ["too many bytes", (t: ReturnType<typeof setup>) => t.descriptor(0, BASE, 0xffff_ffff, 0)],
    ["a writable buffer outside memory", (t: ReturnType<typeof setup>) => t.descriptor(0, 0n, 16, 2)],
  ])("breaks on %s and stays quiet after", async (_, prepare) => {
    const t = setup();
    prepare(t);
    t.offer(0);
    t.queue.kick();
    await settle();
    expect(t.broken).toHaveLength(1);
    expect(t.queue.ready).toBe(false);
    const { transfers } = t.memory;
    t.queue.kick();
    await settle();
    expect(t.memory.transfers).toBe(transfers);
  });

  it("breaks when more buffers are offered than the queue has", async () => {
    const t = setup({ answer: false });
    t.descriptor(0, BASE, 8, 2);
    t.offer(0, 0, 0, 0, 0, 0, 0, 0, 0);
    t.queue.kick();
    await settle();
    expect(t.broken[0]).toContain("avail.idx is 9 ahead");
  });

  it("forgets chains of before a reset: completing them writes nothing", async () => {
    const t = setup({ answer: false });
    t.descriptor(0, BASE + BigInt(DATA), 8, 2);
    t.offer(0);
    t.queue.kick();
    await settle();
    const { epoch } = t.queue;
    t.queue.stop();
    const before = t.memory.bytes.slice();
    t.queue.complete(t.chains[0]!, epoch, writePart(t.chains[0]!, 0, new Uint8Array([1])), 1);
    await settle();
    expect(t.memory.bytes).toEqual(before);
  });

  it("survives any contents of rings and tables: no throw, no endless work, bounded DMA", async () => {
    const words = fc.uint8Array({ minLength: 0x400, maxLength: 0x400 });
    const near = fc.record({ index: fc.nat(SIZE - 1), address: fc.constantFrom(0n, BASE, BASE + 0x100n, BASE + BigInt(BYTES) - 1n), length: fc.constantFrom(0, 1, 16, 32, 4096, 0x7fff_ffff), flags: fc.nat(7), next: fc.nat(SIZE) });
    await fc.assert(
      fc.asyncProperty(words, fc.array(near, { maxLength: 16 }), fc.array(fc.nat(SIZE * 2), { maxLength: 12 }), fc.boolean(), async (noise, edits, heads, eventIndex) => {
        const t = setup({ eventIndex });
        t.memory.bytes.set(noise, DESCRIPTORS);
        for (const { index, address, length, flags, next } of edits) t.descriptor(index, address, length, flags, next);
        t.offer(...heads);
        for (let kick = 0; kick < 3; kick++) {
          t.queue.kick();
          await settle();
        }
        expect(t.chains.length).toBeLessThanOrEqual(3 * SIZE * 8);
        expect(t.memory.moved).toBeLessThan(4 * 1024 * 1024);
        for (const chain of t.chains) {
          const read = readPart(chain, 0, chain.readableBytes).reduce((sum, { readLength }) => sum + readLength, 0);
          expect(read).toBe(chain.readableBytes);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("gives back together what was answered at once, with one interrupt, and says when its bytes are needed no more", async () => {
    const { memory, queue, descriptor, offer, usedIndex, interrupts } = setup();
    for (let index = 0; index < 3; index++) descriptor(index, BASE + BigInt(DATA + index * 16), 16, 2);
    offer(0, 1, 2);
    queue.kick();
    await settle();
    expect([usedIndex(), interrupts(), memory.transfers]).toEqual([3, 1, 2]);

    const later = setup({ answer: false });
    later.descriptor(0, BASE + BigInt(DATA), 16, 2);
    later.offer(0);
    later.queue.kick();
    await settle();
    let done = 0;
    const [chain] = later.chains;
    later.queue.complete(chain!, later.queue.epoch, writePart(chain!, 0, Uint8Array.of(5)), 1, () => done++);
    expect(done).toBe(0);
    await settle();
    expect([done, later.memory.bytes[DATA]]).toEqual([1, 5]);
  });
});

describe("a queue that goes on in another life", () => {
  it("gets the chains once more that its device had kept, and goes on with the rings where they stood", async () => {
    const t = setup({ answer: false });
    t.descriptor(2, BASE + BigInt(DATA), 16, 2);
    t.descriptor(4, BASE + BigInt(DATA + 64), 8, 2);
    t.offer(2, 4);
    t.queue.kick();
    await settle();
    t.queue.complete(t.chains[0]!, t.queue.epoch, [], 0);
    await settle();
    expect([t.queue.busy, t.queue.inFlight, t.usedIndex()]).toEqual([false, 1, 1]);
    const progress = t.queue.progress([t.chains[1]!]);
    expect(progress).toMatchObject({ nextAvail: 2, nextUsed: 1, heads: [4] });

    const areas = { descriptorArea: BASE + BigInt(DESCRIPTORS), driverArea: BASE + BigInt(DRIVER), deviceArea: BASE + BigInt(DEVICE) };
    expect(t.queue.resume({ size: SIZE, ...areas, eventIndex: false }, progress)).toBeUndefined();
    await settle();
    expect(t.chains.slice(2)).toMatchObject([{ head: 4, writableBytes: 8 }]);
    t.queue.complete(t.chains[2]!, t.queue.epoch, [], 0);
    t.offer(2);
    t.queue.kick();
    await settle();
    expect([t.usedIndex(), t.chains.length, t.broken]).toEqual([2, 4, []]);
    expect(t.memory.view.getUint32(DEVICE + 4 + 8, true)).toBe(4);
  });

  it.each([[[9]], [[1, 1]], [Array.from({ length: SIZE + 1 }, (_, i) => i)]])("refuses chains %j, which it cannot have", (heads) => {
    const t = setup();
    const areas = { descriptorArea: BASE + BigInt(DESCRIPTORS), driverArea: BASE + BigInt(DRIVER), deviceArea: BASE + BigInt(DEVICE) };
    expect(t.queue.resume({ size: SIZE, ...areas, eventIndex: false }, { nextAvail: 0, nextUsed: 0, signalledUsed: 0, heads })).toMatch(/chains in flight/);
    expect(t.queue.ready).toBe(false);
  });

  it("breaks on a kept chain whose descriptors do not hold up", async () => {
    const t = setup({ answer: false });
    t.descriptor(1, BASE, 8, 1, 1); // a loop
    const areas = { descriptorArea: BASE + BigInt(DESCRIPTORS), driverArea: BASE + BigInt(DRIVER), deviceArea: BASE + BigInt(DEVICE) };
    t.queue.resume({ size: SIZE, ...areas, eventIndex: false }, { nextAvail: 0, nextUsed: 0, signalledUsed: 0, heads: [1] });
    await settle();
    expect([t.broken.length, t.chains.length]).toEqual([1, 0]);
  });
});
