import { Disk } from "@polyvisor/contracts/image";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { OpenDisk } from "./core/disk-store.ts";
import { createStores, type Stores } from "./core/stores.ts";
import { MemoryFiles, memoryStorage } from "./testing/memory-files.ts";

const SECTOR = 512;
const BASE_SECTORS = 40;
const MAX_SECTORS = 96;
const base = Uint8Array.from({ length: BASE_SECTORS * SECTOR }, (_, i) => 1 + ((i >> 9) % 50));

const stores = (files: MemoryFiles): Stores => createStores(memoryStorage(files), { maxBlobBytes: 2 ** 30 });

async function withBase(files = new MemoryFiles()): Promise<Stores & { files: MemoryFiles }> {
  const made = stores(files);
  const baseDigest = await made.blobs.put(base);
  await made.disks.create(Disk.fromPartial({ id: "d0", baseDigest, bytes: BigInt(60 * SECTOR) }));
  return { ...made, files };
}

async function contentOf(disks: Stores["disks"], id: string): Promise<Uint8Array> {
  const handle = await disks.open(id, true);
  try {
    return await handle.disk.read(0, handle.disk.bytes);
  } finally {
    await handle.close();
  }
}

const folders = (files: MemoryFiles, under: string): Set<string> =>
  new Set([...files.nodes.keys()].filter((path) => path.startsWith(`${under}/`)).map((path) => path.split("/")[1]!));

type Operation =
  | { kind: "write"; disk: number; sector: number; sectors: number; fill: number }
  | { kind: "zero"; disk: number; sector: number; sectors: number }
  | { kind: "clone" | "toggle" | "delete" | "freeze"; disk: number }
  | { kind: "resize"; disk: number; sectors: number };

const disk = fc.nat(3);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("write" as const), disk, sector: fc.nat(MAX_SECTORS - 1), sectors: fc.integer({ min: 1, max: 20 }), fill: fc.integer({ min: 100, max: 255 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("zero" as const), disk, sector: fc.nat(MAX_SECTORS - 1), sectors: fc.integer({ min: 1, max: 30 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom("clone" as const, "clone" as const, "toggle" as const, "toggle" as const, "delete" as const, "freeze" as const), disk }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("resize" as const), disk, sectors: fc.integer({ min: 1, max: MAX_SECTORS }) }) },
);

describe("disks in layers", () => {
  it("any mix of writes, clones, resizes, opens and deletes reads like plain arrays, and no layer is left over", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (operations) => {
        const { disks, files } = await withBase();
        const models = new Map<string, Uint8Array>();
        const first = new Uint8Array(60 * SECTOR);
        first.set(base);
        models.set("d0", first);
        const open = new Map<string, OpenDisk>();
        const opened = async (id: string): Promise<OpenDisk> => {
          if (!open.has(id)) open.set(id, await disks.open(id, false));
          return open.get(id)!;
        };
        const closed = async (id: string): Promise<void> => {
          await open.get(id)?.close();
          open.delete(id);
        };
        for (const op of operations) {
          const id = [...models.keys()][op.disk % models.size];
          if (id === undefined) break;
          const model = models.get(id)!;
          const sectors = model.length / SECTOR;
          if (op.kind === "write" || op.kind === "zero") {
            const from = op.sector % sectors;
            const length = Math.min(op.sectors, sectors - from) * SECTOR;
            const { disk } = await opened(id);
            if (op.kind === "zero") await disk.writeZeroes(from * SECTOR, length);
            else await disk.write(from * SECTOR, new Uint8Array(length).fill(op.fill));
            model.fill(op.kind === "zero" ? 0 : op.fill, from * SECTOR, from * SECTOR + length);
          } else if (op.kind === "clone" && models.size < 4) {
            const newId = ["d0", "d1", "d2", "d3"].find((name) => !models.has(name))!;
            await disks.clone(id, newId); // open or not
            models.set(newId, model.slice());
          } else if (op.kind === "toggle") {
            await (open.has(id) ? closed(id) : opened(id));
          } else if (op.kind === "freeze") {
            const { image } = await disks.freeze(id);
            const content = new Uint8Array(model.length);
            await image.read(0, content);
            expect(Buffer.compare(content, model)).toBe(0);
            await image.close();
          } else if (op.kind === "delete") {
            await closed(id);
            await disks.delete(id);
            models.delete(id);
          } else if (op.kind === "resize") {
            await closed(id);
            await disks.resize(id, BigInt(op.sectors * SECTOR), true);
            const resized = new Uint8Array(op.sectors * SECTOR);
            resized.set(model.subarray(0, resized.length));
            models.set(id, resized);
          }
        }
        for (const id of models.keys()) {
          await closed(id);
          expect(Buffer.compare(await contentOf(disks, id), models.get(id)!)).toBe(0);
        }
        const used = new Set((await Promise.all([...models.keys()].map((id) => disks.record(id)))).flatMap((record) => [...record!.layers, record!.top]));
        await disks.sweep();
        expect(folders(files, "layers")).toEqual(used);
        for (const id of models.keys()) await disks.delete(id);
        expect([...files.nodes.keys()].filter((path) => /^(disks|layers|tmp)\//.test(path))).toEqual([]);
      }),
      { numRuns: 150 },
    );
  });

  it("clones of an untouched disk add no layers; a clone of a written one adds one to both", async () => {
    const { disks } = await withBase();
    for (let i = 1; i <= 5; i++) await disks.clone("d0", `d${i}`);
    expect((await disks.record("d0"))!.layers).toEqual([]);
    const { disk, ...handle } = await disks.open("d0", false);
    await disk.write(0, new Uint8Array(SECTOR).fill(7));
    await disks.clone("d0", "web/disk0");
    expect(handle).toBeDefined();
    expect((await disks.record("d0"))!.layers).toHaveLength(1);
    expect((await disks.record("web/disk0"))!.layers).toEqual((await disks.record("d0"))!.layers);
    await disk.write(0, new Uint8Array(SECTOR).fill(8));
    expect((await contentOf(disks, "web/disk0"))[0]).toBe(7);
    expect((await disk.read(0, SECTOR))[0]).toBe(8);
  });

  it("writes and reads that are on their way when an open disk is cloned lose nothing", async () => {
    const { disks } = await withBase();
    const { disk } = await disks.open("d0", false);
    for (let round = 0; round < 20; round++) {
      const writes = Array.from({ length: 30 }, (_, i) => disk.write(i * 2 * SECTOR, new Uint8Array(2 * SECTOR).fill(100 + ((round + i) % 100))));
      const reads = Array.from({ length: 10 }, () => disk.read(0, 60 * SECTOR));
      await Promise.all([...writes, ...reads, disk.flush(), disks.clone("d0", `c${round}`)]);
      const content = await disk.read(0, 60 * SECTOR);
      for (let i = 0; i < 30; i++) expect(content[i * 2 * SECTOR]).toBe(100 + ((round + i) % 100));
    }
    const { image } = await disks.freeze("d0");
    const content = new Uint8Array(60 * SECTOR);
    await image.read(0, content);
    expect(Buffer.compare(content, await disk.read(0, 60 * SECTOR))).toBe(0);
  });

  it("more layers than a disk may have → exhausted, and the disk goes on", async () => {
    const { disks } = await withBase();
    const { disk } = await disks.open("d0", false);
    for (let i = 0; i < 200; i++) {
      await disk.write((i % 60) * SECTOR, new Uint8Array(SECTOR).fill(i + 1));
      await (await disks.freeze("d0")).image.close();
    }
    await disk.write(0, new Uint8Array(SECTOR).fill(77));
    await expect(disks.freeze("d0")).rejects.toMatchObject({ condition: "exhausted" });
    expect((await disk.read(0, SECTOR))[0]).toBe(77);
    expect((await disk.read(19 * SECTOR, SECTOR))[0]).toBe(200);
  });

  it("shrinking without leave, resizing an open disk, a size that is none → refused, nothing changed", async () => {
    const { disks } = await withBase();
    await expect(disks.resize("d0", 512n, false)).rejects.toMatchObject({ condition: "precondition" });
    await expect(disks.resize("d0", 1000n, true)).rejects.toMatchObject({ condition: "invalid" });
    await expect(disks.resize("none", 512n, true)).rejects.toMatchObject({ condition: "not-found" });
    const handle = await disks.open("d0", false);
    await expect(disks.resize("d0", 2n ** 20n, false)).rejects.toMatchObject({ condition: "conflict" });
    await handle.close();
    expect((await disks.record("d0"))!.bytes).toBe(60 * SECTOR);
  });

  it("what was cut off does not come back when the disk grows again", async () => {
    const { disks } = await withBase();
    await disks.resize("d0", BigInt(10 * SECTOR), true);
    await disks.clone("d0", "d1");
    for (const id of ["d0", "d1"]) {
      await disks.resize(id, BigInt(60 * SECTOR), false);
      const content = await contentOf(disks, id);
      expect(Buffer.compare(content.subarray(0, 10 * SECTOR), base.subarray(0, 10 * SECTOR))).toBe(0);
      expect(content.subarray(10 * SECTOR).every((byte) => byte === 0)).toBe(true);
    }
  });

  it("a disk of version 1 opens, and clones, and its folder keeps its record only", async () => {
    const { disks, files } = await withBase();
    const record = (await disks.record("d0"))!;
    for (const name of ["data", "map"]) await files.rename(`layers/${record.top}/${name}`, `disks/d0/${name}`);
    const old = { version: 1, id: "d0", baseDigest: record.baseDigest, bytes: record.bytes };
    files.nodes.get("disks/d0/disk.json")!.cache = new TextEncoder().encode(JSON.stringify(old));
    const handle = await disks.open("d0", false);
    await handle.disk.write(0, new Uint8Array(SECTOR).fill(9));
    await handle.close();
    await disks.clone("d0", "d1");
    for (const id of ["d0", "d1"]) expect((await contentOf(disks, id))[0]).toBe(9);
    expect([...files.nodes.keys()].filter((path) => path.startsWith("disks/d0/"))).toEqual(["disks/d0/disk.json"]);
  });

  it.each(Array.from({ length: 30 }, (_, i) => i))("a death after %i changes of the directory, while disks are cloned and grown → every disk has its flushed content, nothing is left over", async (steps) => {
    const { disks, files } = await withBase();
    const handle = await disks.open("d0", false);
    await handle.disk.write(0, new Uint8Array(8 * SECTOR).fill(111));
    await handle.close();
    let left = steps;
    files.beforeChange = () => {
      if (left-- <= 0) throw new Error("dead");
    };
    await (async () => {
      await disks.clone("d0", "d1");
      await disks.resize("d1", BigInt(90 * SECTOR), false);
      await disks.clone("d1", "d2");
      await disks.delete("d0");
    })().catch(() => {});
    files.beforeChange = () => {};
    files.crash(() => true);
    for (const path of files.nodes.keys()) if (path.startsWith("tmp/")) files.nodes.delete(path); // as the next start does
    const after = stores(files).disks;
    await after.sweep();
    const found = await after.list((id, error) => expect.fail(`${id}: ${String(error)}`));
    expect(found.length).toBeGreaterThan(0);
    const used = new Set<string>();
    for (const { id } of found) {
      const record = (await after.record(id))!;
      for (const layer of [...record.layers, record.top]) used.add(layer);
      const content = await contentOf(after, id);
      expect([content[0], content[8 * SECTOR - 1], content[8 * SECTOR]]).toEqual([111, 111, base[8 * SECTOR]]);
      expect(content.subarray(60 * SECTOR).every((byte) => byte === 0)).toBe(true);
    }
    expect(folders(files, "layers")).toEqual(used);
  });
});
