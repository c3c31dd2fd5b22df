import { ContractError } from "@polyvisor/contracts";
import type { Disk } from "@polyvisor/contracts/image";
import { DISK_TYPES, readJson, sha256Of } from "@polyvisor/image-spec";
import { ChunkedBase, type BaseImage } from "./base-image.ts";
import type { BlobStore } from "./blob-store.ts";
import type { ChunkSource } from "./chunk-source.ts";
import { mapBytes } from "./chunk-map.ts";
import { decodeName, encodeName, readSmallFile, StorageError, type File, type Lock, type Storage } from "./files.ts";
import { LayeredDisk, SECTOR_BYTES } from "./layered-disk.ts";

/** disks/<id>/disk.json: what never changes about a disk. Beside it: data, map, lock. */
interface DiskRecord {
  readonly version: 1;
  readonly id: string;
  readonly baseDigest: string;
  /** Absent: the base is plain bytes. */
  readonly baseMediaType?: string;
  readonly bytes: number;
}

const RECORD_LIMIT_BYTES = 4096;
const ID = /^[A-Za-z0-9_][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_][A-Za-z0-9._-]*){0,3}$/;
const ID_LIMIT = 128;
/** Another process that lists disks holds each lock for a moment, to see whether it is free. */
const LOOK_MS = 100;
/** 16 TiB: what ext4 files can hold, and far inside 2^53. */
const MAX_DISK_BYTES = 16 * 2 ** 40;

export class DiskStore {
  readonly #storage: Storage;
  readonly #blobs: BlobStore;
  readonly #chunks: ChunkSource;
  /** Disks open here, and those whose close is not over: a new open waits for it. */
  readonly #open = new Map<string, OpenDisk>();

  constructor(storage: Storage, blobs: BlobStore, chunks: ChunkSource) {
    this.#storage = storage;
    this.#blobs = blobs;
    this.#chunks = chunks;
  }

  /** The same disk again changes nothing; one that differs is "already-exists". */
  async create(wanted: Disk): Promise<{ disk: Disk; created: boolean }> {
    checkId(wanted.id);
    const bytes = Number(wanted.bytes);
    if (wanted.bytes <= 0n || wanted.bytes % BigInt(SECTOR_BYTES) !== 0n || bytes > MAX_DISK_BYTES) {
      throw new ContractError("invalid", `createDisk ${wanted.id}: ${wanted.bytes} bytes, expected a multiple of ${SECTOR_BYTES} from 512 to ${MAX_DISK_BYTES}`);
    }
    const existing = await this.#record(wanted.id);
    if (existing) return this.#sameOrThrow(existing, wanted);
    if (wanted.baseDigest !== "") await this.#checkBase(wanted);
    const chunked = isChunked(wanted.baseMediaType, wanted.id);
    const record: DiskRecord = { version: 1, id: wanted.id, baseDigest: wanted.baseDigest, ...(chunked ? { baseMediaType: wanted.baseMediaType } : {}), bytes };
    const scratch = `tmp/${this.#storage.uniqueName()}`;
    try {
      await this.#newFile(`${scratch}/data`, (file) => file.truncate(bytes));
      await this.#newFile(`${scratch}/map`, (file) => file.truncate(mapBytes(bytes)));
      await this.#newFile(`${scratch}/disk.json`, (file) => file.write(0, new TextEncoder().encode(JSON.stringify(record))));
      await this.#storage.files.rename(scratch, folderOf(wanted.id));
    } catch (error) {
      await this.#storage.files.remove(scratch).catch(() => {});
      // Somebody else may have made it meanwhile.
      const made = error instanceof StorageError && error.problem === "exists" ? await this.#record(wanted.id) : undefined;
      if (made) return this.#sameOrThrow(made, wanted);
      throw error;
    }
    return { disk: await this.#view(record), created: true };
  }

  async delete(id: string): Promise<void> {
    checkId(id);
    await this.#closed(id);
    if (!(await this.#record(id))) throw new ContractError("not-found", `there is no disk ${id}`);
    const lock = this.#open.has(id) ? undefined : await this.#storage.files.lock(`${folderOf(id)}/lock`);
    if (!lock) throw new ContractError("conflict", `deleteDisk ${id}: the disk is open; stop its machine first`);
    const trash = `tmp/${this.#storage.uniqueName()}`;
    try {
      await this.#storage.files.rename(folderOf(id), trash);
    } finally {
      await lock.release();
    }
    await this.#storage.files.remove(trash);
  }

  /** Damaged ones are left out and reported to `onDamaged`. */
  async list(onDamaged: (id: string, error: unknown) => void): Promise<Disk[]> {
    const disks: Disk[] = [];
    for (const component of await this.#storage.files.list("disks")) {
      const id = decodeName(component);
      try {
        const record = await this.#record(id);
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
      const record = await this.#record(decodeName(component));
      if (!record || record.baseDigest === "") continue;
      needed.add(record.baseDigest);
      if (!isChunked(record.baseMediaType ?? "", record.id)) continue;
      const top = { digest: record.baseDigest, bytes: 0 };
      for (const { digest } of await this.#chunks.parts(top)) needed.add(digest);
    }
    return needed;
  }

  /** Opens a disk for one user. "conflict" while somebody, here or in another process, has it open. */
  async open(id: string, readOnly: boolean): Promise<OpenDisk> {
    checkId(id);
    await this.#closed(id);
    const record = await this.#record(id);
    if (!record) throw new ContractError("not-found", `there is no disk ${id}; create it first`);
    const busy = (): ContractError => new ContractError("conflict", `the disk ${id} is open already: a disk serves one machine at a time; stop the other first`);
    if (this.#open.has(id)) throw busy();
    const handle = new OpenDisk(id, () => this.#open.delete(id));
    this.#open.set(id, handle); // before the first await: two opens at once must not both pass
    try {
      const lock = await this.#storage.files.lock(`${folderOf(id)}/lock`, LOOK_MS);
      if (!lock) throw busy();
      handle.lock = lock;
      handle.disk = await this.#openFiles(record, readOnly);
      return handle;
    } catch (error) {
      this.#open.delete(id);
      await handle.lock?.release();
      throw error;
    }
  }

  /** Waits for a close that is on. That it failed (a full disk) was its user's to hear, and is no reason to keep the disk. */
  async #closed(id: string): Promise<void> {
    await this.#open.get(id)?.closing?.catch(() => {});
  }

  /** Disks that are open here. */
  get openCount(): number {
    return this.#open.size;
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#open.values()].map((handle) => handle.close()));
  }

  async #openFiles(record: DiskRecord, readOnly: boolean): Promise<LayeredDisk> {
    const opened: File[] = [];
    const open = async (path: string): Promise<File> => {
      const file = await this.#storage.files.open(path, readOnly ? "read" : "update");
      opened.push(file);
      return file;
    };
    try {
      const data = await open(`${folderOf(record.id)}/data`);
      const map = await open(`${folderOf(record.id)}/map`);
      if (data.bytes !== record.bytes || map.bytes !== mapBytes(record.bytes)) {
        throw new ContractError("corrupt", `the disk ${record.id} is damaged: data has ${data.bytes} bytes (expected ${record.bytes}), map ${map.bytes} (expected ${mapBytes(record.bytes)})`);
      }
      const base = await this.#openBase(record);
      return new LayeredDisk({ bytes: record.bytes, readOnly, base, data, map });
    } catch (error) {
      await Promise.allSettled(opened.map((file) => file.close()));
      throw error;
    }
  }

  async #openBase({ id, baseDigest, baseMediaType = "" }: DiskRecord): Promise<BaseImage | undefined> {
    if (baseDigest === "") return undefined;
    if (!isChunked(baseMediaType, id)) return this.#blobs.open(baseDigest);
    return new ChunkedBase(this.#chunks, await this.#chunks.stack(baseDigest));
  }

  /** A plain base is read in pieces later, so its digest is checked here; a chunked one has a hash per piece. */
  async #checkBase(disk: Disk): Promise<void> {
    sha256Of(disk.baseDigest, "disk.base_digest");
    const baseBytes = await this.#blobs.stat(disk.baseDigest);
    if (baseBytes === undefined) throw new ContractError("not-found", `createDisk ${disk.id}: there is no blob ${disk.baseDigest} for its base`);
    if (isChunked(disk.baseMediaType, disk.id)) {
      const stack = await this.#chunks.stack(disk.baseDigest);
      const { diskBytes } = stack;
      const missing = await this.#chunks.missing(stack);
      if (missing) throw new ContractError("not-found", `createDisk ${disk.id}: there is no blob ${missing.digest} (${missing.bytes} bytes), which its base names`);
      if (BigInt(diskBytes) > disk.bytes) throw new ContractError("invalid", `createDisk ${disk.id}: ${disk.bytes} bytes, its base has ${diskBytes}`);
      return;
    }
    if (BigInt(baseBytes) > disk.bytes) throw new ContractError("invalid", `createDisk ${disk.id}: ${disk.bytes} bytes, its base has ${baseBytes}`);
    await this.#blobs.verify(disk.baseDigest);
  }

  async #newFile(path: string, fill: (file: File) => Promise<void>): Promise<void> {
    const file = await this.#storage.files.open(path, "create");
    try {
      await fill(file);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async #sameOrThrow(record: DiskRecord, wanted: Disk): Promise<{ disk: Disk; created: boolean }> {
    if (record.baseDigest !== wanted.baseDigest || BigInt(record.bytes) !== wanted.bytes) {
      throw new ContractError("already-exists", `createDisk ${wanted.id}: it exists with ${record.bytes} bytes on base "${record.baseDigest}"; delete it first or use another id`);
    }
    return { disk: await this.#view(record), created: false };
  }

  async #record(id: string): Promise<DiskRecord | undefined> {
    const bytes = await readSmallFile(this.#storage.files, `${folderOf(id)}/disk.json`, RECORD_LIMIT_BYTES);
    if (!bytes) return undefined;
    try {
      const record = readJson(bytes, "disk.json") as DiskRecord;
      if (record.version !== 1 || record.id !== id || !Number.isSafeInteger(record.bytes)) throw new Error(`version ${record.version}, id ${record.id}`);
      return record;
    } catch (cause) {
      throw new ContractError("corrupt", `the disk ${id}: disk.json is damaged or of a newer version; delete its directory by hand if it is not needed`, { cause });
    }
  }

  async #view(record: DiskRecord): Promise<Disk> {
    const data = await this.#storage.files.open(`${folderOf(record.id)}/data`, "read");
    const allocated = await data.allocatedBytes();
    await data.close();
    return {
      id: record.id,
      baseDigest: record.baseDigest,
      baseMediaType: record.baseMediaType ?? "",
      bytes: BigInt(record.bytes),
      allocatedBytes: BigInt(allocated),
      layers: 0,
      open: await this.#isOpen(record.id),
    };
  }

  async #isOpen(id: string): Promise<boolean> {
    if (this.#open.has(id)) return true;
    const lock = await this.#storage.files.lock(`${folderOf(id)}/lock`);
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

const folderOf = (id: string): string => `disks/${encodeName(id)}`;

function isChunked(mediaType: string, id: string): boolean {
  if (mediaType === "" || mediaType === DISK_TYPES.raw) return false;
  if (mediaType === DISK_TYPES.index) return true;
  throw new ContractError("invalid", `disk ${id}: a base of type ${JSON.stringify(mediaType.slice(0, 80))}, expected ${DISK_TYPES.raw} or ${DISK_TYPES.index}`);
}

function checkId(id: string): void {
  if (id.length > ID_LIMIT || !ID.test(id)) {
    throw new ContractError("invalid", `disk id ${JSON.stringify(id.slice(0, 80))}: expected up to ${ID_LIMIT} letters, digits, ".", "_", "-" in up to four parts joined by "/", such as "web/disk0"`);
  }
}
