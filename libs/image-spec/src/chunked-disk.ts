/**
 * A disk image that is read in pieces. Its content lies in **one** blob: 64 KiB chunks, each a zstd frame of its own
 * (RFC 8878), back to back, so that any chunk is one range request to any OCI registry. Beside it an **index** blob says
 * where each chunk lies and what it must hash to. An index may stand on a parent index: it then lists only the chunks
 * that differ. Both blobs are ordinary OCI layers; see README.md, "Chunked disks".
 *
 * The index, little-endian:
 *
 *     0    8  magic "PVDISK01"
 *     8    4  bytes per chunk: a power of two from 4 KiB to 1 MiB
 *    12    4  entries
 *    16    8  bytes of the disk: a multiple of 512
 *    24    8  bytes of the chunks blob
 *    32   32  sha256 of the chunks blob
 *    64   32  sha256 of the parent index; zeros: none, what is not listed is zero
 *    96    8  bytes of the parent index
 *   104   24  zero
 *   128       entries of 48 bytes, by chunk number, ascending:
 *             chunk u32, stored length u32 (0: the chunk is all zero), offset u64, sha256 of the stored bytes
 */
import { sha256Of } from "./digest.ts";
import { ImageSpecError } from "./image-spec-error.ts";

export const DISK_TYPES = {
  /** The plain bytes of a disk. */
  raw: "application/vnd.polyvisor.box.disk.raw.v1",
  index: "application/vnd.polyvisor.disk.index.v1",
  chunks: "application/vnd.polyvisor.disk.chunks.v1+zstd",
} as const;

/** 64 KiB: a delta is hardly larger than with 4 KiB and compresses half again as well; one frame takes ~0.15 ms to unpack. */
export const DISK_CHUNK_BYTES = 64 * 1024;
/** 1.4 million chunks: 85 GiB that are not zero. */
export const MAX_INDEX_BYTES = 64 * 1024 * 1024;
/** As many layers as overlay filesystems and container engines take. */
export const MAX_DISK_LAYERS = 127;
const MAX_DISK_BYTES = 16 * 2 ** 40;

const MAGIC = "PVDISK01";
const HEADER_BYTES = 128;
const ENTRY_BYTES = 48;
const SHA256_BYTES = 32;
const AT = { chunkBytes: 8, entries: 12, diskBytes: 16, dataBytes: 24, dataSha256: 32, parentSha256: 64, parentBytes: 96, reserved: 104 } as const;
const ENTRY = { chunk: 0, length: 4, offset: 8, sha256: 16 } as const;

/** A blob by digest and size. */
export interface BlobRef {
  readonly digest: string;
  readonly bytes: number;
}

export interface ChunkEntry {
  readonly chunk: number;
  /** Where the frame lies in the chunks blob; length 0: the chunk is all zero and stored nowhere. */
  readonly offset: number;
  readonly length: number;
  readonly sha256: Uint8Array;
}

export interface DiskIndexParts {
  readonly chunkBytes: number;
  readonly diskBytes: number;
  readonly data: BlobRef;
  readonly parent: BlobRef | undefined;
  readonly entries: readonly ChunkEntry[];
}

/** No zstd frame of `bytes` bytes is longer (zstd.h, ZSTD_COMPRESSBOUND, and the frame's checksum). */
export function maxStoredBytes(bytes: number): number {
  return bytes + (bytes >> 8) + 128;
}

/** A checked index. Entries stay in the bytes they came in: a large disk has a million of them. */
export class DiskIndex {
  readonly chunkBytes: number;
  readonly diskBytes: number;
  readonly data: BlobRef;
  readonly parent: BlobRef | undefined;
  readonly entryCount: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  /** Reads an index from anywhere; throws ImageSpecError for anything that could mislead a reader. */
  constructor(bytes: Uint8Array, where = "disk index") {
    if (bytes.length > MAX_INDEX_BYTES) throw new ImageSpecError(where, `at most ${MAX_INDEX_BYTES} bytes`, bytes.length);
    if (bytes.length < HEADER_BYTES) throw new ImageSpecError(where, `at least ${HEADER_BYTES} bytes`, bytes.length);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const magic = String.fromCharCode(...bytes.subarray(0, MAGIC.length));
    if (magic !== MAGIC) throw new ImageSpecError(`${where}: magic`, `"${MAGIC}"`, magic);
    this.#bytes = bytes;
    this.#view = view;
    const number = (at: number, name: string, limit: number): number => {
      const value = view.getBigUint64(at, true);
      if (value > BigInt(limit)) throw new ImageSpecError(`${where}: ${name}`, `at most ${limit}`, value);
      return Number(value);
    };
    this.chunkBytes = view.getUint32(AT.chunkBytes, true);
    if (this.chunkBytes < 4096 || this.chunkBytes > 1 << 20 || (this.chunkBytes & (this.chunkBytes - 1)) !== 0) {
      throw new ImageSpecError(`${where}: bytes per chunk`, "a power of two from 4096 to 1048576", this.chunkBytes);
    }
    this.entryCount = view.getUint32(AT.entries, true);
    if (bytes.length !== HEADER_BYTES + this.entryCount * ENTRY_BYTES) {
      throw new ImageSpecError(where, `${HEADER_BYTES + this.entryCount * ENTRY_BYTES} bytes for ${this.entryCount} entries`, bytes.length);
    }
    this.diskBytes = number(AT.diskBytes, "bytes of the disk", MAX_DISK_BYTES);
    if (this.diskBytes === 0 || this.diskBytes % 512 !== 0) throw new ImageSpecError(`${where}: bytes of the disk`, "a multiple of 512 above 0", this.diskBytes);
    this.data = { digest: digestAt(bytes, AT.dataSha256), bytes: number(AT.dataBytes, "bytes of the chunks blob", Number.MAX_SAFE_INTEGER) };
    const parentBytes = number(AT.parentBytes, "bytes of the parent", MAX_INDEX_BYTES);
    const hasParent = !allZero(bytes, AT.parentSha256, AT.parentSha256 + SHA256_BYTES);
    if (hasParent !== parentBytes >= HEADER_BYTES) throw new ImageSpecError(`${where}: bytes of the parent`, hasParent ? `at least ${HEADER_BYTES}` : "0 without a parent", parentBytes);
    this.parent = hasParent ? { digest: digestAt(bytes, AT.parentSha256), bytes: parentBytes } : undefined;
    if (!allZero(bytes, AT.reserved, HEADER_BYTES)) throw new ImageSpecError(`${where}: bytes ${AT.reserved} to ${HEADER_BYTES}`, "zeros (a newer version of the format?)", "other bytes");
    this.#checkEntries(where);
  }

  get chunkCount(): number {
    return Math.ceil(this.diskBytes / this.chunkBytes);
  }

  /** Bytes of a chunk once unpacked; the disk's last may be short. */
  contentBytes(chunk: number): number {
    return Math.min(this.chunkBytes, this.diskBytes - chunk * this.chunkBytes);
  }

  entry(i: number): ChunkEntry {
    const at = HEADER_BYTES + i * ENTRY_BYTES;
    return {
      chunk: this.#view.getUint32(at + ENTRY.chunk, true),
      length: this.#view.getUint32(at + ENTRY.length, true),
      offset: Number(this.#view.getBigUint64(at + ENTRY.offset, true)),
      sha256: this.#bytes.subarray(at + ENTRY.sha256, at + ENTRY.sha256 + SHA256_BYTES),
    };
  }

  chunkOf(i: number): number {
    return this.#view.getUint32(HEADER_BYTES + i * ENTRY_BYTES, true);
  }

  /** Order, bounds, and no two frames over each other (the same frame may serve several chunks). */
  #checkEntries(where: string): void {
    const chunks = this.chunkCount;
    let before = -1;
    const frames: { offset: number; length: number; at: number }[] = [];
    for (let i = 0; i < this.entryCount; i++) {
      const at = HEADER_BYTES + i * ENTRY_BYTES;
      const name = `${where}: entry ${i}`;
      const { chunk, length, sha256 } = this.entry(i);
      if (chunk <= before || chunk >= chunks) throw new ImageSpecError(`${name}: chunk`, `${before + 1} to ${chunks - 1}`, chunk);
      before = chunk;
      const offset = this.#view.getBigUint64(at + ENTRY.offset, true);
      if (length === 0) {
        if (offset !== 0n || !allZero(sha256, 0, SHA256_BYTES)) throw new ImageSpecError(name, "offset 0 and no hash for a chunk of zeros", `offset ${offset}`);
        continue;
      }
      if (length > maxStoredBytes(this.contentBytes(chunk))) throw new ImageSpecError(`${name}: length`, `at most ${maxStoredBytes(this.contentBytes(chunk))}`, length);
      if (offset + BigInt(length) > BigInt(this.data.bytes)) throw new ImageSpecError(`${name}: end`, `at most ${this.data.bytes}, the blob's end`, offset + BigInt(length));
      frames.push({ offset: Number(offset), length, at });
    }
    frames.sort((a, b) => a.offset - b.offset);
    for (let i = 1; i < frames.length; i++) {
      const [a, b] = [frames[i - 1]!, frames[i]!];
      if (a.offset + a.length <= b.offset) continue;
      const same = a.offset === b.offset && a.length === b.length && sameBytes(this.#bytes, a.at + ENTRY.sha256, b.at + ENTRY.sha256);
      if (!same) throw new ImageSpecError(`${where}: chunks ${this.chunkOf((a.at - HEADER_BYTES) / ENTRY_BYTES)} and ${this.chunkOf((b.at - HEADER_BYTES) / ENTRY_BYTES)}`, "frames that do not overlap", `offsets ${a.offset} and ${b.offset}`);
    }
  }
}

/** The bytes of an index. The same parts give the same bytes. */
export function writeDiskIndex(parts: DiskIndexParts): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + parts.entries.length * ENTRY_BYTES);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < MAGIC.length; i++) bytes[i] = MAGIC.charCodeAt(i);
  view.setUint32(AT.chunkBytes, parts.chunkBytes, true);
  view.setUint32(AT.entries, parts.entries.length, true);
  view.setBigUint64(AT.diskBytes, BigInt(parts.diskBytes), true);
  view.setBigUint64(AT.dataBytes, BigInt(parts.data.bytes), true);
  bytes.set(sha256Bytes(parts.data.digest), AT.dataSha256);
  if (parts.parent) {
    bytes.set(sha256Bytes(parts.parent.digest), AT.parentSha256);
    view.setBigUint64(AT.parentBytes, BigInt(parts.parent.bytes), true);
  }
  for (const [i, entry] of parts.entries.entries()) {
    const at = HEADER_BYTES + i * ENTRY_BYTES;
    view.setUint32(at + ENTRY.chunk, entry.chunk, true);
    if (entry.length === 0) continue;
    view.setUint32(at + ENTRY.length, entry.length, true);
    view.setBigUint64(at + ENTRY.offset, BigInt(entry.offset), true);
    bytes.set(entry.sha256, at + ENTRY.sha256);
  }
  return bytes;
}

/** Where one chunk of a stack of indexes comes from: which index (0 is the bottom) and which of its entries. */
export interface ChunkPlace {
  readonly layer: number;
  readonly entry: number;
}

/**
 * A stack of indexes seen as one disk: a table from chunk to its topmost entry, built once, so that a read costs the
 * same whatever the height.
 */
export class StackedIndex {
  readonly chunkBytes: number;
  readonly diskBytes: number;
  /** Bottom first. */
  readonly layers: readonly DiskIndex[];
  readonly #layerOf: Uint8Array;
  readonly #entryOf: Uint32Array;

  constructor(layers: readonly DiskIndex[], where = "disk index") {
    const top = layers.at(-1);
    if (!top) throw new ImageSpecError(where, "at least one index", 0);
    if (layers.length > MAX_DISK_LAYERS) throw new ImageSpecError(where, `at most ${MAX_DISK_LAYERS} layers`, layers.length);
    this.layers = layers;
    this.chunkBytes = top.chunkBytes;
    this.diskBytes = top.diskBytes;
    this.#layerOf = new Uint8Array(top.chunkCount).fill(NONE);
    this.#entryOf = new Uint32Array(top.chunkCount);
    for (const [number, layer] of layers.entries()) {
      if (layer.chunkBytes !== top.chunkBytes) throw new ImageSpecError(`${where}: layer ${number}`, `${top.chunkBytes} bytes per chunk as in the top layer`, layer.chunkBytes);
      if (layer.diskBytes > top.diskBytes) throw new ImageSpecError(`${where}: layer ${number}`, `a disk of at most ${top.diskBytes} bytes as in the top layer`, layer.diskBytes);
      for (let i = 0; i < layer.entryCount; i++) {
        const chunk = layer.chunkOf(i);
        this.#layerOf[chunk] = number;
        this.#entryOf[chunk] = i;
      }
    }
  }

  /** Undefined: no layer has the chunk, it is zero. */
  place(chunk: number): ChunkPlace | undefined {
    const layer = this.#layerOf[chunk] as number;
    return layer === NONE ? undefined : { layer, entry: this.#entryOf[chunk] as number };
  }
}

const NONE = 0xff;

function digestAt(bytes: Uint8Array, at: number): string {
  return `sha256:${Array.from(bytes.subarray(at, at + SHA256_BYTES), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function sha256Bytes(digest: string): Uint8Array {
  const hex = sha256Of(digest);
  return Uint8Array.from({ length: SHA256_BYTES }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

function allZero(bytes: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (bytes[i] !== 0) return false;
  return true;
}

function sameBytes(bytes: Uint8Array, a: number, b: number): boolean {
  for (let i = 0; i < SHA256_BYTES; i++) if (bytes[a + i] !== bytes[b + i]) return false;
  return true;
}
