import { ContractError } from "@polyvisor/contracts";
import { DiskIndex, DISK_TYPES, MAX_DISK_LAYERS, MAX_INDEX_BYTES, StackedIndex, type BlobRef } from "@polyvisor/image-spec";
import type { BlobStore } from "./blob-store.ts";
import type { Hash, Zstd } from "./files.ts";

/** Some bytes of a blob. */
export interface Span {
  readonly offset: number;
  readonly length: number;
}

/** Where ranges of blobs come from: the store, or a registry that has what is not here yet. */
export interface BlobRanges {
  /** Whether the blob's bytes can be had. */
  has(blob: BlobRef): Promise<boolean>;
  /** `verified` looks at the bytes and says whether they are the right ones; wrong ones are fetched again where that is possible. */
  read(blob: BlobRef, offset: number, length: number, verified: (bytes: Uint8Array) => boolean): Promise<Uint8Array>;
  /** Brings spans nearer that will be read soon. Never rejects. */
  prefetch(blob: BlobRef, spans: readonly Span[]): Promise<void>;
}

/** Chunks, unpacked, of all disks together: 64 MiB, 1024 chunks. */
const CACHED_BYTES = 64 * 1024 * 1024;

/** Chunks whose frames are asked for together when a boot is replayed: about 2 MiB. */
const PREFETCH_GROUP = 128;

interface CachedChunk {
  readonly loading: Promise<Uint8Array>;
  content?: Uint8Array;
}

/** Index chains by digest, and the cache of unpacked chunks that all disks share. */
export class ChunkSource {
  readonly #blobs: BlobStore;
  readonly #ranges: BlobRanges;
  readonly #newHash: () => Hash;
  readonly #zstd: Zstd;
  /** Chunks by blob and offset, least recently used first; those on their way are in it too, without `content`. */
  readonly #cache = new Map<string, CachedChunk>();
  #cachedBytes = 0;

  constructor(parts: { blobs: BlobStore; ranges: BlobRanges; newHash: () => Hash; zstd: Zstd }) {
    this.#blobs = parts.blobs;
    this.#ranges = parts.ranges;
    this.#newHash = parts.newHash;
    this.#zstd = parts.zstd;
  }

  /** The stack of indexes that ends in this one, each verified. The chunks blobs need not be here. */
  async stack(digest: string): Promise<StackedIndex> {
    const layers: DiskIndex[] = [];
    const seen = new Set<string>();
    let next: string | undefined = digest;
    while (next !== undefined) {
      if (seen.has(next)) throw new ContractError("invalid", `disk index ${digest}: ${next} stands below itself`);
      if (seen.size === MAX_DISK_LAYERS) throw new ContractError("invalid", `disk index ${digest}: more than ${MAX_DISK_LAYERS} layers`);
      seen.add(next);
      const index: DiskIndex = new DiskIndex(await this.#blobs.readSmall(next, MAX_INDEX_BYTES), `disk index ${next}`);
      layers.unshift(index);
      next = index.parent?.digest;
    }
    return new StackedIndex(layers, `disk index ${digest}`);
  }

  /** The first chunks blob that can be had from nowhere. */
  async missing(stack: StackedIndex): Promise<BlobRef | undefined> {
    for (const { data } of stack.layers) if (data.bytes > 0 && !(await this.#ranges.has(data))) return data;
    return undefined;
  }

  /** All blobs of a chunked disk, bottom first, each layer's chunks before its index: the layers of its manifest. */
  async parts(top: BlobRef): Promise<(BlobRef & { mediaType: string })[]> {
    const { layers } = await this.stack(top.digest);
    return layers.flatMap((layer, i) => {
      const index = layers[i + 1]?.parent ?? top;
      return [{ mediaType: DISK_TYPES.chunks, ...layer.data }, { mediaType: DISK_TYPES.index, ...index }];
    });
  }

  /** The content of a chunk; undefined: zeros. What comes is shared and must not be changed. */
  async chunk(stack: StackedIndex, chunk: number): Promise<Uint8Array | undefined> {
    const found = this.#find(stack, chunk);
    if (!found) return undefined;
    if (found.cached) return found.cached.loading;
    const { layer, entry, key } = found;
    const loading = this.#load({ blob: layer.data, offset: entry.offset, length: entry.length, expected: toHex(entry.sha256), contentBytes: layer.contentBytes(chunk) });
    this.#remember(key, loading, stack.chunkBytes);
    return loading;
  }

  /** The same from memory; "away" where that has it not. */
  chunkNow(stack: StackedIndex, chunk: number): Uint8Array | undefined | "away" {
    const found = this.#find(stack, chunk);
    return found ? (found.cached?.content ?? "away") : undefined;
  }

  #find(stack: StackedIndex, chunk: number): { layer: DiskIndex; entry: { offset: number; length: number; sha256: Uint8Array }; key: string; cached: CachedChunk | undefined } | undefined {
    const place = stack.place(chunk);
    if (!place) return undefined;
    const layer = stack.layers[place.layer] as DiskIndex;
    const entry = layer.entry(place.entry);
    if (entry.length === 0) return undefined;
    const key = `${layer.data.digest}@${entry.offset}`;
    const cached = this.#cache.get(key);
    if (cached) {
      this.#cache.delete(key);
      this.#cache.set(key, cached);
    }
    return { layer, entry, key, cached };
  }

  /** Brings the frames of chunks nearer, in the order given, a group at a time. */
  async prefetch(stack: StackedIndex, chunks: readonly number[]): Promise<void> {
    for (let at = 0; at < chunks.length; at += PREFETCH_GROUP) {
      const spans = new Map<BlobRef, Span[]>();
      for (const chunk of chunks.slice(at, at + PREFETCH_GROUP)) {
        const place = chunk * stack.chunkBytes < stack.diskBytes ? stack.place(chunk) : undefined;
        if (!place) continue;
        const layer = stack.layers[place.layer] as DiskIndex;
        const { offset, length } = layer.entry(place.entry);
        if (length === 0) continue;
        const list = spans.get(layer.data);
        if (list) list.push({ offset, length });
        else spans.set(layer.data, [{ offset, length }]);
      }
      await Promise.all([...spans].map(([blob, list]) => this.#ranges.prefetch(blob, list)));
    }
  }

  async #load(wanted: { blob: BlobRef; offset: number; length: number; expected: string; contentBytes: number }): Promise<Uint8Array> {
    const { blob, offset, length, expected, contentBytes } = wanted;
    const frame = await this.#ranges.read(blob, offset, length, (bytes) => {
      const hash = this.#newHash();
      hash.update(bytes);
      return hash.hex() === expected;
    });
    const content = await this.#zstd.decompress(frame, contentBytes).catch((cause: unknown) => {
      throw new ContractError("corrupt", `blob ${blob.digest}, byte ${offset}: no zstd frame of ${contentBytes} bytes; the image was made wrongly`, { cause });
    });
    if (content.length !== contentBytes) {
      throw new ContractError("corrupt", `blob ${blob.digest}, byte ${offset}: a chunk of ${content.length} bytes, expected ${contentBytes}; the image was made wrongly`);
    }
    return content;
  }

  #remember(key: string, loading: Promise<Uint8Array>, bytes: number): void {
    const chunk: CachedChunk = { loading };
    this.#cache.set(key, chunk);
    this.#cachedBytes += bytes;
    loading.then(
      (content) => (chunk.content = content),
      () => {
        // A chunk that could not be had is asked for again.
        if (this.#cache.get(key) !== chunk) return;
        this.#cache.delete(key);
        this.#cachedBytes -= bytes;
      },
    );
    for (const oldest of this.#cache.keys()) {
      if (this.#cachedBytes <= CACHED_BYTES) break;
      this.#cache.delete(oldest);
      this.#cachedBytes -= bytes;
    }
  }
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
