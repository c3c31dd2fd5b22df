import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MemoryFiles } from "../testing/memory-files.ts";
import { CHUNK_BYTES, mapBytes } from "./chunk-map.ts";
import { StorageError } from "./files.ts";
import { LayeredDisk, SECTOR_BYTES } from "./layered-disk.ts";

const SECTORS = 61; // not a multiple of a chunk's 8
const BYTES = SECTORS * SECTOR_BYTES;
const BASE_BYTES = 5 * CHUNK_BYTES + 700; // shorter than the disk, ends inside a sector

const base = Uint8Array.from({ length: BASE_BYTES }, (_, i) => 1 + (i % 101));

async function newFiles(withBase: boolean): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  const make = async (path: string, bytes: number, content?: Uint8Array): Promise<void> => {
    const file = await files.open(path, "create");
    await file.truncate(bytes);
    if (content) await file.write(0, content);
    await file.sync();
  };
  await make("data", BYTES);
  await make("map", mapBytes(BYTES));
  if (withBase) await make("base", BASE_BYTES, base);
  return files;
}

async function openDisk(files: MemoryFiles): Promise<LayeredDisk> {
  const withBase = files.nodes.has("base");
  return new LayeredDisk({
    bytes: BYTES,
    readOnly: false,
    base: withBase ? await files.open("base", "read") : undefined,
    data: await files.open("data", "update"),
    map: await files.open("map", "update"),
  });
}

type Operation =
  | { kind: "write"; sector: number; sectors: number; fill: number }
  | { kind: "zero" | "discard"; sector: number; sectors: number }
  | { kind: "flush" }
  | { kind: "reopen" };

const range = fc.integer({ min: 0, max: SECTORS - 1 }).chain((sector) => fc.record({ sector: fc.constant(sector), sectors: fc.integer({ min: 1, max: SECTORS - sector }) }));
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ r: range, fill: fc.integer({ min: 102, max: 255 }) }).map(({ r, fill }) => ({ kind: "write" as const, ...r, fill })) },
  { weight: 2, arbitrary: range.map((r) => ({ kind: "zero" as const, ...r })) },
  { weight: 1, arbitrary: range.map((r) => ({ kind: "discard" as const, ...r })) },
  { weight: 2, arbitrary: fc.constant({ kind: "flush" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "reopen" as const }) },
);

/** The disk as a plain array, with every value that a sector may have after a crash. */
class Model {
  now = new Uint8Array(BYTES);
  /** Per sector: the flushed content and every one written since. */
  possible: Set<string>[] = [];
  constructor(withBase: boolean) {
    if (withBase) this.now.set(base);
    this.flushed();
  }
  sector(i: number): string {
    return String(this.now.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES));
  }
  flushed(): void {
    this.possible = Array.from({ length: SECTORS }, (_, i) => new Set([this.sector(i)]));
  }
  fill(first: number, count: number, value: number): void {
    this.now.fill(value, first * SECTOR_BYTES, (first + count) * SECTOR_BYTES);
    for (let i = first; i < first + count; i++) this.possible[i]?.add(this.sector(i));
  }
}

async function apply(disk: LayeredDisk, model: Model, op: Exclude<Operation, { kind: "reopen" }>): Promise<void> {
  if (op.kind === "flush") {
    await disk.flush();
    model.flushed();
    return;
  }
  const [position, length] = [op.sector * SECTOR_BYTES, op.sectors * SECTOR_BYTES];
  if (op.kind === "write") {
    model.fill(op.sector, op.sectors, op.fill);
    await disk.write(position, new Uint8Array(length).fill(op.fill));
  } else if (op.kind === "zero") {
    model.fill(op.sector, op.sectors, 0);
    await disk.writeZeroes(position, length);
  } else {
    await disk.discard(position, length);
    // Only whole chunks are discarded.
    const start = Math.ceil(position / CHUNK_BYTES) * CHUNK_BYTES;
    const end = position + length === BYTES ? BYTES : Math.floor((position + length) / CHUNK_BYTES) * CHUNK_BYTES;
    if (start < end) model.fill(start / SECTOR_BYTES, (end - start) / SECTOR_BYTES, 0);
  }
}

describe("a layered disk", () => {
  it.each([true, false])("random operations (base: %s) → reads like a plain array", async (withBase) => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 25 }), range, async (operations, r) => {
        const files = await newFiles(withBase);
        let disk = await openDisk(files);
        const model = new Model(withBase);
        for (const op of operations) {
          if (op.kind === "reopen") {
            await disk.close();
            disk = await openDisk(files);
          } else await apply(disk, model, op);
          const part = await disk.read(r.sector * SECTOR_BYTES, r.sectors * SECTOR_BYTES);
          expect(Buffer.compare(part, model.now.subarray(r.sector * SECTOR_BYTES, (r.sector + r.sectors) * SECTOR_BYTES))).toBe(0);
        }
        expect(Buffer.compare(await disk.read(0, BYTES), model.now)).toBe(0);
      }),
      { numRuns: 150 },
    );
  });

  it("power lost at any point → each sector has its flushed content or one written since", async () => {
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.array(operation, { maxLength: 20 }), fc.infiniteStream(fc.boolean()), fc.boolean(), async (withBase, operations, dice, unflushedTail) => {
        const files = await newFiles(withBase);
        let disk = await openDisk(files);
        const model = new Model(withBase);
        for (const op of operations) {
          if (op.kind === "reopen") {
            files.crash(() => dice.next().value as boolean);
            disk = await openDisk(files);
            const bytes = await disk.read(0, BYTES);
            for (let i = 0; i < SECTORS; i++) {
              expect(model.possible[i]?.has(String(bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES)))).toBe(true);
            }
            model.now.set(bytes);
            model.flushed();
          } else if (op.kind === "flush" && unflushedTail) {
            // A flush that the crash overtakes promises nothing.
            void disk.flush().catch(() => {});
            await Promise.resolve();
          } else await apply(disk, model, op);
        }
      }),
      { numRuns: 200 },
    );
  });

  it("many operations at once on different sectors of the same chunks → none is lost", async () => {
    await fc.assert(
      fc.asyncProperty(fc.shuffledSubarray(Array.from({ length: SECTORS }, (_, i) => i)), async (sectors) => {
        const disk = await openDisk(await newFiles(true));
        const expected = new Uint8Array(BYTES);
        expected.set(base);
        await Promise.all(
          sectors.map((sector) => {
            const data = new Uint8Array(SECTOR_BYTES).fill(128 + (sector % 128));
            expected.set(data, sector * SECTOR_BYTES);
            return Promise.all([disk.write(sector * SECTOR_BYTES, data), sector % 7 === 0 ? disk.flush() : undefined]);
          }),
        );
        expect(Buffer.compare(await disk.read(0, BYTES), expected)).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  it("a full filesystem fails the write with no-space and changes nothing; later writes and flushes work", async () => {
    const files = await newFiles(true);
    const disk = await openDisk(files);
    files.beforeWrite = () => {
      throw new StorageError("no-space", "full");
    };
    await expect(disk.write(0, new Uint8Array(512).fill(9))).rejects.toMatchObject({ problem: "no-space" });
    expect(await disk.read(0, 512)).toEqual(base.slice(0, 512));
    files.beforeWrite = () => {};
    await disk.write(0, new Uint8Array(512).fill(9));
    files.beforeWrite = (path) => {
      if (path === "map") throw new StorageError("no-space", "full");
    };
    await expect(disk.flush()).rejects.toMatchObject({ problem: "no-space" });
    files.beforeWrite = () => {};
    await disk.flush();
    files.crash(() => false);
    expect((await (await openDisk(files)).read(0, 512)).every((byte) => byte === 9)).toBe(true);
  });

  it("a sync that failed fails all later flushes: what the kernel dropped must not count as durable", async () => {
    const files = await newFiles(false);
    const disk = await openDisk(files);
    await disk.write(0, new Uint8Array(512).fill(9));
    files.beforeSync = () => {
      throw new StorageError("io", "medium error");
    };
    await expect(disk.flush()).rejects.toMatchObject({ problem: "io" });
    files.beforeSync = () => {};
    await expect(disk.flush()).rejects.toMatchObject({ problem: "io" });
  });
});
