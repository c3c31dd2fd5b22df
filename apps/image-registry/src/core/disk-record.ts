import { ContractError } from "@polyvisor/contracts";
import { DISK_TYPES, readJson } from "@polyvisor/image-spec";
import { encodeName, readSmallFile, writeAtomically, type Storage } from "./files.ts";

/**
 * disks/<id>/disk.json: what a disk is made of, replaced atomically. It is the root of the disk's files: a layer that no
 * record names is garbage.
 */
export interface DiskRecord {
  readonly version: 2;
  readonly id: string;
  readonly baseDigest: string;
  /** Empty: the base is plain bytes. */
  readonly baseMediaType: string;
  readonly bytes: number;
  /** Since the disk was cut: how far old bytes may lie below what it may grow over again. */
  readonly cutFrom?: number;
  /** Read-only layers above the base, bottom first; other disks may stand on them too. */
  readonly layers: readonly string[];
  /** The writable layer. Empty: a disk of version 1, whose files lie in its own folder. */
  readonly top: string;
}

const LIMIT_BYTES = 64 * 1024;
const ID = /^[A-Za-z0-9_][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_][A-Za-z0-9._-]*){0,3}$/;
const ID_LIMIT = 128;
const LAYER = /^[A-Za-z0-9-]{1,80}$/;

export function checkDiskId(id: string): void {
  if (id.length > ID_LIMIT || !ID.test(id)) {
    throw new ContractError("invalid", `disk id ${JSON.stringify(id.slice(0, 80))}: expected up to ${ID_LIMIT} letters, digits, ".", "_", "-" in up to four parts joined by "/", such as "web/disk0"`);
  }
}

export const diskFolder = (id: string): string => `disks/${encodeName(id)}`;
export const layerFolder = (layer: string): string => `layers/${layer}`;
export const topFolder = (record: DiskRecord): string => (record.top === "" ? diskFolder(record.id) : layerFolder(record.top));

/** Whether a base of this type is chunked. */
export function isChunked(mediaType: string, id: string): boolean {
  if (mediaType === "" || mediaType === DISK_TYPES.raw) return false;
  if (mediaType === DISK_TYPES.index) return true;
  throw new ContractError("invalid", `disk ${id}: a base of type ${JSON.stringify(mediaType.slice(0, 80))}, expected ${DISK_TYPES.raw} or ${DISK_TYPES.index}`);
}

export async function readDiskRecord(storage: Storage, id: string): Promise<DiskRecord | undefined> {
  const bytes = await readSmallFile(storage.files, `${diskFolder(id)}/disk.json`, LIMIT_BYTES);
  if (!bytes) return undefined;
  try {
    const read = readJson(bytes, "disk.json") as Partial<Omit<DiskRecord, "version">> & { version: number };
    const { version, baseDigest, bytes: size, baseMediaType = "", layers = [], top = "", cutFrom } = read;
    if (version !== 1 && version !== 2) throw new Error(`version ${version}`);
    if (read.id !== id || typeof baseDigest !== "string" || typeof size !== "number" || !Number.isSafeInteger(size)) throw new Error(`id ${read.id}, bytes ${size}`);
    if (!Array.isArray(layers) || ![...layers, ...(top === "" ? [] : [top])].every((layer) => LAYER.test(layer))) throw new Error("layers");
    return { version: 2, id, baseDigest, baseMediaType, bytes: size, ...(cutFrom === undefined ? {} : { cutFrom }), layers, top };
  } catch (cause) {
    throw new ContractError("corrupt", `the disk ${id}: disk.json is damaged or of a newer version; delete its directory by hand if it is not needed`, { cause });
  }
}

export const recordBytes = (record: DiskRecord): Uint8Array => new TextEncoder().encode(JSON.stringify(record));

/** Replaces the record of a disk that exists. */
export function writeDiskRecord(storage: Storage, record: DiskRecord): Promise<void> {
  return writeAtomically(storage, `${diskFolder(record.id)}/disk.json`, recordBytes(record));
}
