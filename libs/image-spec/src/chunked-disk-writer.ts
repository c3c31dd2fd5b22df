import { DISK_CHUNK_BYTES, maxStoredBytes, writeDiskIndex, type BlobRef, type ChunkEntry } from "./chunked-disk.ts";
import { ImageSpecError } from "./image-spec-error.ts";
import { isZero } from "./is-zero.ts";

/** What is packed: a disk's bytes by position. What lies past a source's end reads as zero. */
export interface DiskSource {
  readonly bytes: number;
  read(position: number, target: Uint8Array): Promise<void>;
}

/** What packing needs of its host; `node:zlib` and `node:crypto` have all of it. */
export interface PackingTools {
  /** One zstd frame. */
  compress(chunk: Uint8Array): Promise<Uint8Array>;
  sha256(data: Uint8Array): Uint8Array;
  /** Takes the chunks blob, in order. */
  append(data: Uint8Array): Promise<void>;
  /** The digest of all that was appended. */
  finish(): Promise<BlobRef>;
}

export interface PackOptions {
  readonly chunkBytes?: number;
  /** The index below; `chunks` then are those that may differ from it. */
  readonly parent?: BlobRef;
  /** Ascending chunk numbers to look at; all without. */
  readonly chunks?: Iterable<number>;
  readonly onProgress?: (chunk: number) => void;
}

/** Chunks in work at a time: enough to keep the host's compression threads busy, 1 MiB of memory. */
const IN_WORK = 16;

/** Packs a disk: the chunks blob goes to `tools`, the index is the answer. Zero chunks are stored nowhere, equal ones once. */
export async function packDisk(source: DiskSource, tools: PackingTools, options: PackOptions = {}): Promise<{ index: Uint8Array; data: BlobRef }> {
  const chunkBytes = options.chunkBytes ?? DISK_CHUNK_BYTES;
  const entries: ChunkEntry[] = [];
  const stored = new Map<string, ChunkEntry>();
  let end = 0;

  const prepare = async (chunk: number): Promise<{ chunk: number; frame: Uint8Array | undefined }> => {
    const content = new Uint8Array(Math.min(chunkBytes, source.bytes - chunk * chunkBytes));
    await source.read(chunk * chunkBytes, content);
    return { chunk, frame: isZero(content) ? undefined : await tools.compress(content) };
  };
  const store = async ({ chunk, frame }: { chunk: number; frame: Uint8Array | undefined }): Promise<void> => {
    if (!frame) {
      // Without a parent, what is not listed is zero already.
      if (options.parent) entries.push({ chunk, length: 0, offset: 0, sha256: NO_HASH });
    } else {
      if (frame.length > maxStoredBytes(chunkBytes)) throw new ImageSpecError("pack disk", `a frame of at most ${maxStoredBytes(chunkBytes)} bytes`, frame.length);
      const sha256 = tools.sha256(frame);
      const key = String.fromCharCode(...sha256);
      let place = stored.get(key);
      if (!place) {
        place = { chunk, length: frame.length, offset: end, sha256 };
        stored.set(key, place);
        await tools.append(frame);
        end += frame.length;
      }
      entries.push({ ...place, chunk });
    }
    options.onProgress?.(chunk);
  };

  let group: Promise<{ chunk: number; frame: Uint8Array | undefined }>[] = [];
  const drain = async (): Promise<void> => {
    const ready = await Promise.all(group);
    group = [];
    for (const one of ready) await store(one);
  };
  for (const chunk of options.chunks ?? range(Math.ceil(source.bytes / chunkBytes))) {
    group.push(prepare(chunk));
    if (group.length === IN_WORK) await drain();
  }
  await drain();
  const data = await tools.finish();
  if (data.bytes !== end) throw new ImageSpecError("pack disk: chunks blob", `${end} bytes`, data.bytes);
  return { index: writeDiskIndex({ chunkBytes, diskBytes: source.bytes, data, parent: options.parent, entries }), data };
}

const NO_HASH = new Uint8Array(32);

function* range(count: number): Generator<number> {
  for (let i = 0; i < count; i++) yield i;
}
