import { ContractError } from "@polyvisor/contracts";
import type { Disk } from "@polyvisor/contracts/image";
import { sha256Of } from "@polyvisor/image-spec";
import { ChunkedBase, type BaseImage } from "./base-image.ts";
import { BootOrders } from "./boot-order.ts";
import type { BlobStore } from "./blob-store.ts";
import type { ChunkSource } from "./chunk-source.ts";
import { checkDiskId, diskFolder, isChunked, readDiskRecord, recordBytes, writeDiskRecord, type DiskRecord } from "./disk-record.ts";
import { decodeName, type File, type Lock, type Storage } from "./files.ts";
import { FrozenLayers, MAX_FROZEN_LAYERS } from "./frozen-layers.ts";
import { LayerFiles } from "./layer-files.ts";
import { LayeredDisk, SECTOR_BYTES, type DiskParts } from "./layered-disk.ts";

/** Another process that lists disks holds each lock for a moment, to see whether it is free. */
const LOOK_MS = 100;
/** Another process may be making or removing a disk. */
const STRUCTURE_WAIT_MS = 5000;
const STRUCTURE_LOCK = "structure.lock";
/** 16 TiB: what ext4 files can hold, and far inside 2^53. */
const MAX_DISK_BYTES = 16 * 2 ** 40;

/**
 * Disks by id. A disk is its record: a base, read-only layers, one writable layer. What changes records or makes and
 * removes layers runs one at a time, in this process and among those that share the directory.
 */
export class DiskStore {
  readonly #storage: Storage;
  readonly #blobs: BlobStore;
  readonly #chunks: ChunkSource;
  readonly #layers: LayerFiles;
  readonly #boots: BootOrders;
  /** Disks open here, and those whose close is not over: a new open waits for it. */
  readonly #open = new Map<string, OpenDisk>();
  #structure: Promise<unknown> = Promise.resolve();

  constructor(storage: Storage, blobs: BlobStore, chunks: ChunkSource) {
    this.#storage = storage;
    this.#blobs = blobs;
    this.#chunks = chunks;
    this.#layers = new LayerFiles(storage);
    this.#boots = new BootOrders(storage);
  }

  /** The same disk again changes nothing; one that differs is "already-exists". */
  async create(wanted: Disk): Promise<{ disk: Disk; created: boolean }> {
    checkDiskId(wanted.id);
    const bytes = checkedBytes(`createDisk ${wanted.id}`, wanted.bytes);
    isChunked(wanted.baseMediaType, wanted.id);
    const existing = await this.record(wanted.id);
    if (existing) return this.#sameOrThrow(existing, wanted);
    if (wanted.baseDigest !== "") await this.#checkBase(wanted);
    return this.#exclusively(async () => {
      const made = await this.record(wanted.id); // somebody else may have made it meanwhile
      if (made) return this.#sameOrThrow(made, wanted);
      const record = { version: 2, id: wanted.id, baseDigest: wanted.baseDigest, baseMediaType: wanted.baseMediaType, bytes, layers: [], top: "" } as const;
      return { disk: await this.#view(await this.#make(record)), created: true };
    });
  }

  async delete(id: string): Promise<void> {
    await this.#alone(id, `deleteDisk ${id}`, async (_record, lock) => {
      const trash = `tmp/${this.#storage.uniqueName()}`;
      await this.#storage.files.rename(diskFolder(id), trash);
      await lock.release(); // before its file goes: Windows removes no open files
      await this.#storage.files.remove(trash);
      await this.#sweep();
    });
  }

  /** Damaged ones are left out and reported to `onDamaged`. */
  async list(onDamaged: (id: string, error: unknown) => void): Promise<Disk[]> {
    const disks: Disk[] = [];
    for (const component of await this.#storage.files.list("disks")) {
      const id = decodeName(component);
      try {
        const record = await this.record(id);
        if (record) disks.push(await this.#view(record));
      } catch (error) {
        onDamaged(id, error);
      }
    }
    return disks;
  }

  /** Every blob that some disk needs. Throws where a disk is damaged and cannot say. */
  async blobsInUse(): Promise<Set<string>> {
    const needed = new Set<string>();
    for (const component of await this.#storage.files.list("disks")) {
      const record = await this.record(decodeName(component));
      if (!record || record.baseDigest === "") continue;
      needed.add(record.baseDigest);
      if (!isChunked(record.baseMediaType, record.id)) continue;
      const top = { digest: record.baseDigest, bytes: 0 };
      for (const { digest } of await this.#chunks.parts(top)) needed.add(digest);
    }
    return needed;
  }

  /** Opens a disk for one user. "conflict" while somebody, here or in another process, has it open. */
  async open(id: string, readOnly: boolean): Promise<OpenDisk> {
    checkDiskId(id);
    await this.#closed(id);
    if (!(await this.record(id))) throw absent(id);
    const busy = (): ContractError => new ContractError("conflict", `the disk ${id} is open already: a disk serves one machine at a time; stop the other first`);
    if (this.#open.has(id)) throw busy();
    const handle = new OpenDisk(id, () => this.#open.delete(id));
    this.#open.set(id, handle); // before the first await: two opens at once must not both pass
    try {
      const lock = await this.#storage.files.lock(`${diskFolder(id)}/lock`, LOOK_MS);
      if (!lock) throw busy();
      handle.lock = lock;
      const record = await this.record(id); // as it is now that nobody else changes it
      if (!record) throw absent(id);
      handle.disk = new LayeredDisk({ bytes: record.bytes, readOnly, ...(await this.#openParts(record, readOnly)) });
      return handle;
    } catch (error) {
      this.#open.delete(id);
      await handle.lock?.release();
      throw error;
    }
  }

  /** A second disk with the same content, in the time of two small files: both stand on what was one's writable layer. */
  async clone(id: string, newId: string): Promise<Disk> {
    checkDiskId(id);
    checkDiskId(newId);
    return this.#exclusively(async () => {
      if (await this.record(newId)) throw new ContractError("already-exists", `cloneDisk: there is a disk ${newId} already; delete it first or use another id`);
      const { bytes, baseDigest, baseMediaType, cutFrom, layers } = await this.#freeze(id);
      return this.#view(await this.#make({ version: 2, id: newId, baseDigest, baseMediaType, bytes, ...(cutFrom === undefined ? {} : { cutFrom }), layers, top: "" }));
    });
  }

  /**
   * The disk's content at this moment as an image that stays as it is, whatever is written afterwards. Close it. Layers
   * stay until then because files that are open do.
   */
  async freeze(id: string): Promise<{ record: DiskRecord; image: FrozenLayers }> {
    checkDiskId(id);
    return this.#exclusively(async () => {
      const record = await this.#freeze(id);
      return { record, image: await this.#openFrozen(record) };
    });
  }

  /** Lets a disk stand on an image that has the content of its base and read-only layers. */
  async rebase(frozen: DiskRecord, base: { digest: string; mediaType: string }): Promise<void> {
    await this.#alone(frozen.id, `rebase ${frozen.id}`, async (record) => {
      const { cutFrom, ...rest } = record;
      if (frozen.layers.some((layer, i) => record.layers[i] !== layer) || record.baseDigest !== frozen.baseDigest) {
        throw new ContractError("conflict", `rebase ${frozen.id}: the disk was changed meanwhile; try again`);
      }
      const layers = record.layers.slice(frozen.layers.length);
      await writeDiskRecord(this.#storage, { ...rest, ...(cutFrom === undefined ? {} : { cutFrom }), baseDigest: base.digest, baseMediaType: base.mediaType, layers });
      await this.#sweep();
    });
  }

  /** Larger: the new sectors are zero. Smaller only with `mayShrink`: what lies behind the new end is lost. */
  async resize(id: string, wantedBytes: bigint, mayShrink: boolean): Promise<void> {
    const bytes = checkedBytes(`resizeDisk ${id}`, wantedBytes);
    await this.#alone(id, `resizeDisk ${id}`, async (record) => {
      if (bytes < record.bytes) {
        if (!mayShrink) throw new ContractError("precondition", `resizeDisk ${id}: ${bytes} bytes are fewer than the disk's ${record.bytes}; what lies behind would be lost. Shrink its filesystem first, then say that it may shrink (hv disk resize --shrink)`);
        await writeDiskRecord(this.#storage, { ...record, bytes, cutFrom: Math.max(record.bytes, record.cutFrom ?? 0) });
        return;
      }
      if (bytes > record.bytes) await this.#grow(record, bytes);
    });
  }

  /** Removes layers that no disk stands on; at the start, for what a death in the middle of a change may have left. */
  sweep(): Promise<void> {
    return this.#exclusively(() => this.#sweep());
  }

  async record(id: string): Promise<DiskRecord | undefined> {
    return readDiskRecord(this.#storage, id);
  }

  /** Disks that are open here. */
  get openCount(): number {
    return this.#open.size;
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#open.values()].map((handle) => handle.close()));
  }

  /** Waits for a close that is on. That it failed (a full disk) was its user's to hear, and is no reason to keep the disk. */
  async #closed(id: string): Promise<void> {
    await this.#open.get(id)?.closing?.catch(() => {});
  }

  /** Runs a change of the structure after all others. */
  #exclusively<T>(change: () => Promise<T>): Promise<T> {
    const run = this.#structure.then(async () => {
      const lock = await this.#storage.files.lock(STRUCTURE_LOCK, STRUCTURE_WAIT_MS);
      if (!lock) throw new ContractError("unavailable", "another process is changing the disks of this directory; try again");
      try {
        return await change();
      } finally {
        await lock.release();
      }
    });
    this.#structure = run.catch(() => {});
    return run;
  }

  /** Runs a change of a disk that nobody has open, nor can open meanwhile. */
  async #alone(id: string, operation: string, change: (record: DiskRecord, lock: Lock) => Promise<void>): Promise<void> {
    checkDiskId(id);
    await this.#closed(id);
    await this.#exclusively(async () => {
      if (!(await this.record(id))) throw absent(id);
      const lock = this.#open.has(id) ? undefined : await this.#storage.files.lock(`${diskFolder(id)}/lock`, LOOK_MS);
      if (!lock) throw new ContractError("conflict", `${operation}: the disk is open; stop its machine first`);
      try {
        await change((await this.record(id)) as DiskRecord, lock);
      } finally {
        await lock.release();
      }
    });
  }

  /** A new disk with an empty writable layer. The record appears last: without it the layer is garbage. */
  async #make(record: DiskRecord): Promise<DiskRecord> {
    const made: DiskRecord = { ...record, top: await this.#layers.create(record.bytes) };
    const scratch = `tmp/${this.#storage.uniqueName()}`;
    try {
      const file = await this.#storage.files.open(`${scratch}/disk.json`, "create");
      try {
        await file.write(0, recordBytes(made));
        await file.sync();
      } finally {
        await file.close();
      }
      await this.#storage.files.rename(scratch, diskFolder(made.id));
      return made;
    } catch (error) {
      await this.#storage.files.remove(scratch).catch(() => {});
      await this.#layers.remove(made.top).catch(() => {});
      throw error;
    }
  }

  /** Makes what is written so far read-only, under a new writable layer; nothing to do if nothing is. Answers the record. */
  async #freeze(id: string): Promise<DiskRecord> {
    await this.#closed(id);
    const found = await this.record(id);
    if (!found) throw absent(id);
    const open = this.#open.get(id);
    if (open?.disk) {
      let frozen = await this.#layers.adopt(found);
      if (open.disk.readOnly) return frozen;
      await open.disk.freeze(async (old) => {
        if (await isEmpty(old.map)) return old;
        frozen = await this.#pushLayer(frozen);
        const below = { data: old.data, map: old.map };
        const base = old.base instanceof FrozenLayers ? old.base.under(below) : new FrozenLayers(frozen.bytes, old.base, [below]);
        return { base, ...(await this.#layers.open(frozen, "update")) };
      });
      return frozen;
    }
    const lock = await this.#storage.files.lock(`${diskFolder(id)}/lock`, LOOK_MS);
    if (!lock) throw new ContractError("conflict", `the disk ${id} is being opened, or another process has it; try again, or stop its machine first`);
    try {
      const record = await this.#layers.adopt((await this.record(id)) as DiskRecord);
      const { data, map } = await this.#layers.open(record, "read");
      const empty = await isEmpty(map);
      await Promise.allSettled([data.close(), map.close()]);
      return empty ? record : await this.#pushLayer(record);
    } finally {
      await lock.release();
    }
  }

  /** The writable layer becomes the topmost read-only one. The record is replaced before anybody else may stand on it. */
  async #pushLayer(record: DiskRecord): Promise<DiskRecord> {
    if (record.layers.length >= MAX_FROZEN_LAYERS) {
      throw new ContractError("exhausted", `the disk ${record.id} stands on ${MAX_FROZEN_LAYERS} layers already; flatten it into a new base first (hv disk commit --rebase)`);
    }
    const next: DiskRecord = { ...record, layers: [...record.layers, record.top], top: await this.#layers.create(record.bytes) };
    try {
      await writeDiskRecord(this.#storage, next);
    } catch (error) {
      await this.#layers.remove(next.top).catch(() => {});
      throw error;
    }
    return next;
  }

  async #grow(record: DiskRecord, bytes: number): Promise<void> {
    await this.#layers.grow(record, bytes);
    const disk = new LayeredDisk({ bytes, readOnly: false, ...(await this.#openParts({ ...record, bytes }, false)) });
    try {
      // What may lie there of a time when the disk was larger, or of a base that is.
      const stale = Math.min(bytes, Math.max(record.cutFrom ?? 0, record.bytes));
      if (stale > record.bytes) await disk.writeZeroes(record.bytes, stale - record.bytes);
    } finally {
      await disk.close();
    }
    await writeDiskRecord(this.#storage, { ...record, bytes });
  }

  async #openParts(record: DiskRecord, readOnly: boolean): Promise<DiskParts> {
    const adopted = await this.#layers.adopt(record);
    const top = await this.#layers.open(adopted, readOnly ? "read" : "update");
    try {
      return { ...top, base: adopted.layers.length > 0 ? await this.#openFrozen(adopted) : await this.#openBase(adopted) };
    } catch (error) {
      await Promise.allSettled([top.data.close(), top.map.close()]);
      throw error;
    }
  }

  async #openFrozen(record: DiskRecord): Promise<FrozenLayers> {
    const layers: { data: File; map: File }[] = [];
    try {
      for (const layer of record.layers) layers.push(await this.#layers.openFrozen(record.id, layer));
      return new FrozenLayers(record.bytes, await this.#openBase(record), layers);
    } catch (error) {
      await Promise.allSettled(layers.flatMap(({ data, map }) => [data.close(), map.close()]));
      throw error;
    }
  }

  async #openBase({ id, baseDigest, baseMediaType }: DiskRecord): Promise<BaseImage | undefined> {
    if (baseDigest === "") return undefined;
    if (!isChunked(baseMediaType, id)) return this.#blobs.open(baseDigest);
    const stack = await this.#chunks.stack(baseDigest);
    // What the last boot wanted comes ahead of this one. Of a base that is whole here nothing needs to come.
    void this.#boots.read(baseDigest).then((order) => this.#chunks.prefetch(stack, order));
    return new ChunkedBase(this.#chunks, stack, this.#boots.recorder(baseDigest));
  }

  /** A plain base is read in pieces later, so its digest is checked here; a chunked one has a hash per piece. */
  async #checkBase(disk: Disk): Promise<void> {
    sha256Of(disk.baseDigest, "disk.base_digest");
    const baseBytes = await this.#blobs.stat(disk.baseDigest);
    if (baseBytes === undefined) throw new ContractError("not-found", `createDisk ${disk.id}: there is no blob ${disk.baseDigest} for its base`);
    if (isChunked(disk.baseMediaType, disk.id)) {
      const stack = await this.#chunks.stack(disk.baseDigest);
      const missing = await this.#chunks.missing(stack);
      if (missing) throw new ContractError("not-found", `createDisk ${disk.id}: there is no blob ${missing.digest} (${missing.bytes} bytes), which its base names`);
      if (BigInt(stack.diskBytes) > disk.bytes) throw new ContractError("invalid", `createDisk ${disk.id}: ${disk.bytes} bytes, its base has ${stack.diskBytes}`);
      return;
    }
    if (BigInt(baseBytes) > disk.bytes) throw new ContractError("invalid", `createDisk ${disk.id}: ${disk.bytes} bytes, its base has ${baseBytes}`);
    await this.#blobs.verify(disk.baseDigest);
  }

  async #sameOrThrow(record: DiskRecord, wanted: Disk): Promise<{ disk: Disk; created: boolean }> {
    if (record.baseDigest !== wanted.baseDigest || BigInt(record.bytes) !== wanted.bytes) {
      throw new ContractError("already-exists", `createDisk ${wanted.id}: it exists with ${record.bytes} bytes on base "${record.baseDigest}"; delete it first or use another id`);
    }
    return { disk: await this.#view(record), created: false };
  }

  /** A record that cannot be read may name any layer: then nothing is removed. */
  async #sweep(): Promise<void> {
    const used = new Set<string>();
    for (const component of await this.#storage.files.list("disks")) {
      const record = await this.record(decodeName(component)).catch(() => null);
      if (record === null) return;
      for (const layer of record ? [...record.layers, record.top] : []) used.add(layer);
    }
    for (const layer of await this.#storage.files.list("layers")) if (!used.has(layer)) await this.#layers.remove(layer);
  }

  async #view(record: DiskRecord): Promise<Disk> {
    const { id, baseDigest, baseMediaType } = record;
    const allocatedBytes = BigInt(await this.#layers.allocatedBytes(record));
    return { id, baseDigest, baseMediaType, bytes: BigInt(record.bytes), allocatedBytes, layers: record.layers.length, open: await this.#isOpen(id) };
  }

  async #isOpen(id: string): Promise<boolean> {
    if (this.#open.has(id)) return true;
    const lock = await this.#storage.files.lock(`${diskFolder(id)}/lock`);
    await lock?.release();
    return lock === undefined;
  }
}

/** A disk in somebody's exclusive use. */
export class OpenDisk {
  readonly id: string;
  disk!: LayeredDisk;
  lock: Lock | undefined;
  closing: Promise<void> | undefined;
  readonly #onClosed: () => void;

  constructor(id: string, onClosed: () => void) {
    this.id = id;
    this.#onClosed = onClosed;
  }

  /** Flushes, closes and unlocks. Idempotent. */
  close(): Promise<void> {
    this.closing ??= this.#close();
    return this.closing;
  }

  async #close(): Promise<void> {
    try {
      await this.disk?.close();
    } finally {
      await this.lock?.release();
      this.#onClosed();
    }
  }
}

const absent = (id: string): ContractError => new ContractError("not-found", `there is no disk ${id}; create it first`);

function checkedBytes(operation: string, bytes: bigint): number {
  if (bytes > 0n && bytes % BigInt(SECTOR_BYTES) === 0n && bytes <= BigInt(MAX_DISK_BYTES)) return Number(bytes);
  throw new ContractError("invalid", `${operation}: ${bytes} bytes, expected a multiple of ${SECTOR_BYTES} from 512 to ${MAX_DISK_BYTES}`);
}

/** Whether a layer has nothing: its map was never written. */
async function isEmpty(map: File): Promise<boolean> {
  return (await map.allocatedBytes()) === 0;
}
