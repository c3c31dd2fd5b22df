import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  gatherBytes,
  IntervalSet,
  OutOfRamError,
  PAGE_BYTES,
  PageBitmap,
  pagePieces,
  PageStates,
  RamView,
  scatterBytes,
  scatterLength,
  scatterMerge,
  scatterSlice,
} from "./index.ts";

describe("pagePieces", () => {
  it("cuts any range at page boundaries and loses no byte", () => {
    fc.assert(
      fc.property(fc.nat(5 * PAGE_BYTES), fc.nat(3 * PAGE_BYTES), (start, length) => {
        let at = start;
        for (const piece of pagePieces(start, length)) {
          expect(piece.page * PAGE_BYTES + piece.offset).toBe(at);
          expect(piece.position).toBe(at - start);
          expect(piece.offset + piece.length).toBeLessThanOrEqual(PAGE_BYTES);
          at += piece.length;
        }
        expect(at).toBe(start + length);
      }),
    );
  });
});

describe("PageBitmap", () => {
  it("agrees with a Set, count included", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(99), fc.boolean())), (steps) => {
        const bitmap = new PageBitmap(100);
        const model = new Set<number>();
        for (const [page, add] of steps) {
          for (const set of [bitmap, model]) {
            if (add) set.add(page);
            else set.delete(page);
          }
          expect(bitmap.has(page)).toBe(model.has(page));
          expect(bitmap.count).toBe(model.size);
        }
      }),
    );
  });
});

describe("IntervalSet", () => {
  it("covers a range exactly when every byte is in one of the intervals", () => {
    const interval = fc.record({ base: fc.bigInt(0n, 40n), bytes: fc.bigInt(0n, 12n) });
    fc.assert(
      fc.property(fc.array(interval, { maxLength: 5 }), fc.bigInt(0n, 50n), fc.bigInt(1n, 10n), (list, base, bytes) => {
        const inAny = (at: bigint) => list.some((i) => at >= i.base && at < i.base + i.bytes);
        let expected = true;
        for (let at = base; at < base + bytes; at++) expected &&= inAny(at);
        expect(new IntervalSet(list).covers(base, bytes)).toBe(expected);
      }),
    );
  });
});

describe("PageStates", () => {
  it("answers runs of equal state", () => {
    const states = new PageStates(6);
    states.set(1, 2, 3);
    states.set(5, 1, 1);
    expect([...states.runs()]).toEqual([
      { first: 0, count: 1, state: 0 },
      { first: 1, count: 2, state: 3 },
      { first: 3, count: 2, state: 0 },
      { first: 5, count: 1, state: 1 },
    ]);
    expect([...states.runs(2, 2)]).toEqual([
      { first: 2, count: 1, state: 3 },
      { first: 3, count: 1, state: 0 },
    ]);
  });
});

describe("RamView", () => {
  const view = () => new RamView(new SharedArrayBuffer(2 * PAGE_BYTES), PAGE_BYTES, PAGE_BYTES, 0x8000_0000n);

  it("reads back what was written, at any alignment and length", () => {
    fc.assert(
      fc.property(fc.nat(PAGE_BYTES - 32), fc.uint8Array({ maxLength: 32 }), (offset, bytes) => {
        const ram = view();
        ram.write(0x8000_0000n + BigInt(offset), bytes);
        expect([...ram.read(0x8000_0000n + BigInt(offset), bytes.length)]).toEqual([...bytes]);
        expect([...ram.u8.subarray(offset, offset + bytes.length)]).toEqual([...bytes]);
      }),
    );
  });
  it("refuses an access that is not wholly inside, whatever the address", () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), fc.nat(8192), (address, length) => {
        const ram = view();
        const inside = address >= 0x8000_0000n && address + BigInt(length) <= 0x8000_1000n;
        expect(ram.contains(address, length)).toBe(inside);
        if (!inside) expect(() => ram.read(address, length)).toThrow(OutOfRamError);
      }),
    );
  });
  it("is little-endian and sees zero pages", () => {
    const ram = view();
    expect(ram.isZero(0, PAGE_BYTES)).toBe(true);
    ram.writeU64(0x8000_0008n, 0x1122334455667788n);
    expect(ram.u8[8]).toBe(0x88);
    expect(ram.readU64(0x8000_0008n)).toBe(0x1122334455667788n);
    expect(ram.isZero(0, PAGE_BYTES)).toBe(false);
  });
});

describe("scatter lists", () => {
  const segments = fc.array(fc.record({ address: fc.bigInt(0n, 100n), byteLength: fc.nat(20) }), { maxLength: 6 });

  it("slices hold the same addresses as the whole list does", () => {
    const bytesOf = (list: readonly { address: bigint; byteLength: number }[]) =>
      list.flatMap((s) => Array.from({ length: s.byteLength }, (_, i) => s.address + BigInt(i)));
    fc.assert(
      fc.property(segments, fc.nat(60), fc.nat(60), (list, skip, length) => {
        expect(bytesOf(scatterSlice(list, skip, length))).toEqual(bytesOf(list).slice(skip, skip + length));
        expect(bytesOf(scatterMerge(list))).toEqual(bytesOf(list));
        expect(scatterLength(list)).toBe(bytesOf(list).length);
      }),
    );
  });
  it("scatters bytes in order and gathers them again", () => {
    const bytes = Uint8Array.from({ length: 10 }, (_, i) => i);
    const pieces = scatterBytes([{ address: 1n, byteLength: 4 }, { address: 9n, byteLength: 20 }], bytes);
    expect(pieces.map((p) => [p.address, p.bytes.length])).toEqual([[1n, 4], [9n, 6]]);
    expect([...gatherBytes(pieces.map((p) => p.bytes))]).toEqual([...bytes]);
  });
  it("pieces behind each other in one buffer are joined without a copy, others with one", () => {
    const whole = new Uint8Array(10).map((_, i) => i);
    const joined = gatherBytes([whole.subarray(2, 4), whole.subarray(4, 9)]);
    expect([...joined]).toEqual([2, 3, 4, 5, 6, 7, 8]);
    expect(joined.buffer).toBe(whole.buffer);
    expect([...gatherBytes([whole.subarray(0, 2), whole.subarray(3, 5)])]).toEqual([0, 1, 3, 4]);
    expect([...gatherBytes([whole.subarray(4, 6), whole.subarray(2, 4)])]).toEqual([4, 5, 2, 3]);
    expect(gatherBytes([])).toHaveLength(0);
  });
});
