import { createHash } from "node:crypto";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DiskIndex, packDisk, StackedIndex, writeDiskIndex, type BlobRef, type ChunkEntry, type DiskIndexParts, type PackOptions } from "./index.ts";

const CHUNK = 4096;
const sha256 = (data: Uint8Array): Uint8Array => createHash("sha256").update(data).digest();
const refOf = (bytes: Uint8Array): BlobRef => ({ digest: `sha256:${Buffer.from(sha256(bytes)).toString("hex")}`, bytes: bytes.length });

async function pack(disk: Uint8Array, options: PackOptions = {}): Promise<{ index: Uint8Array; blob: Uint8Array }> {
  const parts: Uint8Array[] = [];
  const { index } = await packDisk(
    { bytes: disk.length, read: async (position, target) => target.set(disk.subarray(position, position + target.length)) },
    {
      compress: async (chunk) => zstdCompressSync(chunk),
      sha256,
      append: async (data) => void parts.push(data),
      finish: async () => refOf(Buffer.concat(parts)),
    },
    { chunkBytes: CHUNK, ...options },
  );
  return { index, blob: Buffer.concat(parts) };
}

/** What the stack holds, read as a reader would: place, hash, unpack. */
function unpack(stack: StackedIndex, blobs: readonly Uint8Array[]): Uint8Array {
  const disk = new Uint8Array(stack.diskBytes);
  for (let chunk = 0; chunk < Math.ceil(stack.diskBytes / CHUNK); chunk++) {
    const place = stack.place(chunk);
    if (!place) continue;
    const entry = stack.layers[place.layer]!.entry(place.entry);
    if (entry.length === 0) continue;
    const frame = blobs[place.layer]!.subarray(entry.offset, entry.offset + entry.length);
    expect(sha256(frame)).toEqual(Buffer.from(entry.sha256));
    disk.set(zstdDecompressSync(frame), chunk * CHUNK);
  }
  return disk;
}

const content = (chunks: readonly number[], tail = 0): Uint8Array => Buffer.concat([...chunks.map((value) => Buffer.alloc(CHUNK, value)), Buffer.alloc(tail, 9)]);

describe("chunked disks", () => {
  it("what is packed is what comes out; zero chunks are stored nowhere, equal ones once", async () => {
    const disk = content([1, 0, 2, 1, 0], 512);
    const { index, blob } = await pack(disk);
    const read = new DiskIndex(index);
    expect(unpack(new StackedIndex([read]), [blob])).toEqual(new Uint8Array(disk));
    expect([read.entryCount, read.diskBytes, read.chunkCount, read.parent]).toEqual([4, disk.length, 6, undefined]);
    expect(read.entry(0).offset).toBe(read.entry(2).offset);
  });

  it("a delta holds the changed chunks, zeros among them, and grows the disk", async () => {
    const below = await pack(content([1, 2, 3]));
    const disk = content([1, 0, 4, 5]);
    const above = await pack(disk, { parent: refOf(below.index), chunks: [1, 2, 3] });
    const layers = [new DiskIndex(below.index), new DiskIndex(above.index)];
    expect(layers[1]!.parent).toEqual(refOf(below.index));
    expect(unpack(new StackedIndex(layers), [below.blob, above.blob])).toEqual(new Uint8Array(disk));
  });

  it("the same disk packs to the same bytes", async () => {
    const [a, b] = [await pack(content([3, 0, 4])), await pack(content([3, 0, 4]))];
    expect(a).toEqual(b);
  });
});

describe("hostile indexes", () => {
  const entry = (chunk: number, offset: number, length: number, fill = 1): ChunkEntry => ({ chunk, offset, length, sha256: new Uint8Array(32).fill(length === 0 ? 0 : fill) });
  const parts = (changes: Partial<DiskIndexParts> = {}): DiskIndexParts => ({
    chunkBytes: CHUNK,
    diskBytes: 4 * CHUNK,
    data: { digest: `sha256:${"ab".repeat(32)}`, bytes: 1000 },
    parent: undefined,
    entries: [entry(0, 0, 500), entry(2, 500, 500)],
    ...changes,
  });
  const read = (changes: Partial<DiskIndexParts>): DiskIndex => new DiskIndex(writeDiskIndex(parts(changes)));

  it("a sound one is read", () => {
    expect(read({}).entry(1)).toMatchObject({ chunk: 2, offset: 500, length: 500 });
  });

  it.each<[string, Partial<DiskIndexParts>, RegExp]>([
    ["chunks out of order", { entries: [entry(2, 0, 5), entry(1, 5, 5)] }, /entry 1: chunk: expected 3 to 3, got 1/],
    ["a chunk twice", { entries: [entry(1, 0, 5), entry(1, 5, 5)] }, /entry 1: chunk/],
    ["a chunk behind the disk", { entries: [entry(4, 0, 5)] }, /entry 0: chunk: expected 0 to 3, got 4/],
    ["a frame behind the blob", { entries: [entry(0, 996, 5)] }, /end: expected at most 1000, the blob's end, got 1001/],
    ["a frame larger than any of its chunk's", { data: { digest: `sha256:${"ab".repeat(32)}`, bytes: 2 ** 40 }, entries: [entry(0, 0, 2 * CHUNK)] }, /length: expected at most/],
    ["frames that overlap", { entries: [entry(0, 0, 10), entry(1, 5, 10)] }, /frames that do not overlap/],
    ["one frame with two hashes", { entries: [entry(0, 0, 10), entry(1, 0, 10, 2)] }, /frames that do not overlap/],
    ["a chunk size that is no power of two", { chunkBytes: 5000 }, /power of two/],
    ["a chunk size of 2 GiB", { chunkBytes: 2 ** 31 }, /power of two/],
    ["no disk", { diskBytes: 0, entries: [] }, /multiple of 512 above 0/],
    ["half a sector", { diskBytes: 4 * CHUNK - 1 }, /multiple of 512/],
    ["an absurd disk", { diskBytes: 2 ** 50 }, /bytes of the disk: expected at most/],
    ["a parent without bytes", { parent: { digest: `sha256:${"cd".repeat(32)}`, bytes: 0 } }, /bytes of the parent/],
  ])("%s → refused", (_what, changes, message) => {
    expect(() => read(changes)).toThrow(message);
  });

  it("cut, prolonged, foreign, and newer ones are refused", () => {
    const bytes = writeDiskIndex(parts());
    expect(() => new DiskIndex(bytes.subarray(0, 60))).toThrow(/at least 128 bytes/);
    expect(() => new DiskIndex(bytes.subarray(0, -1))).toThrow(/expected 224 bytes for 2 entries, got 223/);
    expect(() => new DiskIndex(Buffer.concat([bytes, Buffer.alloc(48)]))).toThrow(/for 2 entries/);
    expect(() => new DiskIndex(new Uint8Array(200))).toThrow(/magic/);
    const zeroWithPlace = writeDiskIndex(parts({ entries: [entry(0, 0, 0)] }));
    zeroWithPlace[128 + 8] = 1;
    expect(() => new DiskIndex(zeroWithPlace)).toThrow(/offset 0 and no hash for a chunk of zeros/);
    const newer = bytes.slice();
    newer[110] = 1;
    expect(() => new DiskIndex(newer)).toThrow(/newer version/);
  });

  it("a stack that is too high, empty, or shrinks upwards is refused", () => {
    const one = read({});
    expect(() => new StackedIndex([])).toThrow(/at least one/);
    expect(() => new StackedIndex(Array.from({ length: 128 }, () => one))).toThrow(/at most 127 layers/);
    expect(() => new StackedIndex([one, read({ diskBytes: CHUNK, entries: [] })])).toThrow(/layer 0: expected a disk of at most/);
  });

  it("any damage to any byte is refused or leaves an index whose entries stay inside disk and blob", () => {
    const sound = writeDiskIndex(parts());
    fc.assert(
      fc.property(fc.nat(sound.length - 1), fc.nat(255), (at, value) => {
        const bytes = sound.slice();
        bytes[at] = value;
        let index: DiskIndex;
        try {
          index = new DiskIndex(bytes);
        } catch (error) {
          expect((error as Error).name).toBe("ImageSpecError");
          return;
        }
        for (let i = 0; i < index.entryCount; i++) {
          const { chunk, offset, length } = index.entry(i);
          expect(chunk).toBeLessThan(index.chunkCount);
          expect(offset + length).toBeLessThanOrEqual(index.data.bytes);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
