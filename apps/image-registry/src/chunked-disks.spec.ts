import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { ContractError } from "@polyvisor/contracts";
import { Box, Disk } from "@polyvisor/contracts/image";
import { DISK_TYPES, packDisk, writeDiskIndex, type BlobRef, type ChunkEntry, type DiskIndexParts } from "@polyvisor/image-spec";
import { temporaryDirectory } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { nodeStorage } from "./adapters/node-files.ts";
import { blobPath } from "./core/blob-store.ts";
import { createStores, type Stores } from "./core/stores.ts";
import { memoryStorage, type MemoryFiles } from "./testing/memory-files.ts";

const CHUNK = 64 * 1024;
const content = (...fills: number[]): Uint8Array => Buffer.concat(fills.map((fill) => Buffer.alloc(CHUNK, fill)));

interface Rig extends Stores {
  readonly files: MemoryFiles;
  /** Packs a disk into blobs of the store. */
  pack(disk: Uint8Array, parent?: BlobRef, chunks?: number[]): Promise<BlobRef & { data: BlobRef }>;
  create(id: string, base: BlobRef, bytes?: number): Promise<unknown>;
}

function rig(): Rig {
  const storage = memoryStorage();
  const stores = createStores(storage, { maxBlobBytes: 2 ** 30 });
  return {
    ...stores,
    files: storage.files,
    pack: async (disk, parent, chunks) => {
      const writer = await stores.blobs.create({ digest: "", size: 0 });
      const { index, data } = await packDisk(
        { bytes: disk.length, read: async (position, target) => target.set(disk.subarray(position, position + target.length)) },
        {
          compress: storage.zstd.compress,
          sha256: (bytes) => {
            const hash = storage.newHash();
            hash.update(bytes);
            return Buffer.from(hash.hex(), "hex");
          },
          append: (bytes) => writer.write(bytes),
          finish: () => writer.commit(),
        },
        { ...(parent ? { parent } : {}), ...(chunks ? { chunks } : {}) },
      );
      return { digest: await stores.blobs.put(index), bytes: index.length, data };
    },
    create: (id, base, bytes = 4 * CHUNK) => stores.disks.create(Disk.fromPartial({ id, baseDigest: base.digest, baseMediaType: DISK_TYPES.index, bytes: BigInt(bytes) })),
  };
}

describe("a disk on a chunked base", () => {
  it("reads the base, through layers, with zeros behind its end; writes stay in the disk", async () => {
    const { pack, create, disks } = rig();
    const below = await pack(content(1, 2, 3));
    const base = await pack(content(1, 0, 4), below, [1, 2]);
    for (const id of ["a", "b"]) await create(id, base);
    const a = await disks.open("a", false);
    expect(Buffer.compare(await a.disk.read(0, 4 * CHUNK), content(1, 0, 4, 0))).toBe(0);
    await a.disk.write(CHUNK - 512, new Uint8Array(1024).fill(9));
    expect([...(await a.disk.read(CHUNK - 1024, 2048))].filter((_, i) => i % 512 === 0)).toEqual([1, 9, 9, 0]);
    await a.close();
    const b = await disks.open("b", false);
    expect(Buffer.compare(await b.disk.read(0, 4 * CHUNK), content(1, 0, 4, 0))).toBe(0);
    await b.close();
  });

  it("any range reads what the plain bytes hold", async () => {
    const { pack, create, disks } = rig();
    const plain = new Uint8Array(5 * CHUNK + 1536).map((_, i) => (i >> 9) & 0xff);
    const base = await pack(plain);
    await create("a", base, 6 * CHUNK);
    const { disk, ...handle } = await disks.open("a", true);
    for (let sector = 0; sector < plain.length / 512; sector += 7) {
      const length = Math.min(plain.length, sector * 512 + ((sector * 13) % 300) * 512 + 512) - sector * 512;
      expect(Buffer.compare(await disk.read(sector * 512, length), plain.subarray(sector * 512, sector * 512 + length))).toBe(0);
    }
    expect(handle).toBeDefined();
  });

  it("a chunk whose bytes were damaged → that read fails by name, others work, and writing the blob again heals", async () => {
    const { pack, create, disks, files, blobs } = rig();
    const plain = content(1, 2, 3);
    const base = await pack(plain);
    await create("a", base);
    const node = files.nodes.get(blobPath(base.data.digest))!;
    const sound = node.cache.slice();
    node.cache[node.cache.length - 3]! ^= 1;
    const { disk } = await disks.open("a", true);
    await expect(disk.read(2 * CHUNK, 512)).rejects.toThrow(/bytes \d+ to \d+ are damaged/);
    expect((await disk.read(0, 512))[0]).toBe(1);
    expect(await blobs.stat(base.data.digest)).toBe(sound.length);
    node.cache = sound;
    expect((await disk.read(2 * CHUNK, 512))[0]).toBe(3);
  });

  it("an index that is absent, damaged, no index, or names a blob that is not here → refused at create, nothing left", async () => {
    const { pack, create, files, blobs } = rig();
    const base = await pack(content(1));
    const refused = async (ref: BlobRef, condition: string): Promise<void> => {
      const error: unknown = await create("x", ref).catch((e: unknown) => e);
      expect(error instanceof ContractError ? error.condition : (error as Error).name).toBe(condition);
    };
    await refused({ digest: `sha256:${"0".repeat(64)}`, bytes: 1 }, "not-found");
    await refused({ digest: await blobs.put(new Uint8Array(500)), bytes: 500 }, "ImageSpecError");
    files.nodes.delete(blobPath(base.data.digest));
    await refused(base, "not-found");
    files.nodes.get(blobPath(base.digest))!.cache[20]! ^= 1;
    await refused(base, "corrupt");
    expect([...files.nodes.keys()].filter((path) => /^disks|^tmp/.test(path))).toEqual([]);
  });

  it("a frame that unpacks to more or less than its chunk (a bomb) → the read fails", async () => {
    const { create, disks, blobs, files } = rig();
    const zstd = memoryStorage(files).zstd;
    for (const [id, frame] of [["bomb", await zstd.compress(new Uint8Array(64 << 20))], ["short", await zstd.compress(new Uint8Array(100))], ["junk", Buffer.alloc(90, 3)]] as const) {
      const data = { digest: await blobs.put(frame), bytes: frame.length };
      const hash = memoryStorage().newHash();
      hash.update(frame);
      const entry: ChunkEntry = { chunk: 0, offset: 0, length: frame.length, sha256: Buffer.from(hash.hex(), "hex") };
      const parts: DiskIndexParts = { chunkBytes: CHUNK, diskBytes: CHUNK, data, parent: undefined, entries: [entry] };
      const index = writeDiskIndex(parts);
      await create(id, { digest: await blobs.put(index), bytes: index.length }, CHUNK);
      const { disk } = await disks.open(id, true);
      await expect(disk.read(0, 512)).rejects.toThrow(/the image was made wrongly/);
    }
  });

  it("a type that is no disk's → refused", async () => {
    const { disks } = rig();
    const disk = Disk.fromPartial({ id: "a", baseMediaType: "application/x", bytes: 512n });
    await expect(disks.create(disk)).rejects.toThrow(/a base of type "application\/x"/);
  });
});

describe("ten disks on one image", () => {
  it("take what each has written, and no more", async () => {
    using directory = temporaryDirectory("pv-ten-");
    const storage = await nodeStorage(directory.path);
    const { blobs, disks } = createStores(storage, { maxBlobBytes: 2 ** 30 });
    const base = await blobs.put(new Uint8Array(32 << 20).map((_, i) => i >> 12));
    const taken = (): number => {
      const files = readdirSync(directory.path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
      return files.reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).blocks * 512, 0);
    };
    const before = taken();
    const written = 256 * 1024;
    for (let i = 0; i < 10; i++) {
      await disks.create(Disk.fromPartial({ id: `m${i}/disk0`, baseDigest: base, bytes: BigInt(64 << 20) }));
      const handle = await disks.open(`m${i}/disk0`, false);
      for (let at = 0; at < written; at += 4096) await handle.disk.write(at * 7, new Uint8Array(4096).fill(i + 1));
      await handle.close();
    }
    // Beside what was written: a record, a lock, and the touched pages of a map for each.
    expect(taken() - before).toBeLessThan(10 * (written + 32 * 1024));
    expect(taken() - before).toBeGreaterThanOrEqual(10 * written);
  });
});

describe("a box with a chunked disk", () => {
  it("its manifest names every blob, its disk is the index, its size the disk's", async () => {
    const { pack, boxes, blobs } = rig();
    const below = await pack(content(1, 2));
    const top = await pack(content(1, 3), below, [1]);
    const kernel = await blobs.put(new Uint8Array([1]));
    const put = await boxes.put(Box.fromPartial({ name: "b", kernel: { digest: kernel }, disk: { digest: top.digest, mediaType: DISK_TYPES.index } }));
    const box = await boxes.resolve("b");
    expect(box).toMatchObject({ disk: { digest: top.digest, mediaType: DISK_TYPES.index }, config: { diskBytes: BigInt(2 * CHUNK) } });
    const manifest = JSON.parse(new TextDecoder().decode(await blobs.readSmall(put.digest, 4096))) as { layers: { digest: string }[] };
    expect(manifest.layers.map(({ digest }) => digest)).toEqual([kernel, below.data.digest, below.digest, top.data.digest, top.digest]);
  });
});
