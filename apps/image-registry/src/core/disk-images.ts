import { ContractError, type Channel, type Sink } from "@polyvisor/contracts";
import { Descriptor, type DiffDiskResponse, type DiskImage, type ExportDiskResponse, type ImportImageRequest, type ImportImageResponse } from "@polyvisor/contracts/image";
import {
  DISK_CHUNK_BYTES, DISK_TYPES, MAX_DISK_LAYERS, packDisk, Qcow2Disk, sha256Bytes, writeQcow2, type BlobRef, type DiskSource, type PackOptions, type Qcow2Codecs,
} from "@polyvisor/image-spec";
import { isZero } from "@polyvisor/image-spec";
import type { BlobStore } from "./blob-store.ts";
import { drained } from "./blob-streams.ts";
import type { ChunkSource } from "./chunk-source.ts";
import { isChunked, type DiskRecord } from "./disk-record.ts";
import type { DiskStore } from "./disk-store.ts";
import { contractError } from "./errors.ts";
import type { File, Storage } from "./files.ts";
import type { FrozenLayers } from "./frozen-layers.ts";
import { SECTOR_BYTES } from "./layered-disk.ts";

export const DISK_FORMATS = ["raw", "qcow2"] as const;
export type DiskFormat = (typeof DISK_FORMATS)[number];

const EXPORT_PIECE_BYTES = 256 * 1024;
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
const MAX_QUEUED_BYTES = 1024 * 1024 * 1024;

/** What disks become and come from: chunked images and files of other programs. */
export class DiskImages {
  readonly #storage: Storage;
  readonly #blobs: BlobStore;
  readonly #chunks: ChunkSource;
  readonly #disks: DiskStore;
  readonly #codecs: Qcow2Codecs;

  constructor(parts: { storage: Storage; blobs: BlobStore; chunks: ChunkSource; disks: DiskStore }) {
    this.#storage = parts.storage;
    this.#blobs = parts.blobs;
    this.#chunks = parts.chunks;
    this.#disks = parts.disks;
    this.#codecs = { inflateRaw: parts.storage.inflateRaw, unzstd: parts.storage.unzstdPrefix };
  }

  /** A disk's content of this moment as an image: what differs from the base on top of it, or all of it. */
  async commit(id: string, how: { rebase: boolean; flatten: boolean }): Promise<DiskImage> {
    const { record, image } = await this.#disks.freeze(id);
    let made: DiskImage;
    try {
      const parent = how.flatten ? undefined : await this.#parentOf(record);
      made = await this.#pack(image, { ...(parent ? { parent } : {}), chunks: await this.#chunksToPack(record, image, parent) });
    } finally {
      await image.close();
    }
    if (how.rebase) await this.#disks.rebase(record, { digest: made.digest, mediaType: made.mediaType });
    return made;
  }

  async diff(id: string, out: Sink<DiffDiskResponse>): Promise<void> {
    await this.#streamed("diffDisk", out, async () => {
      const { image } = await this.#disks.freeze(id);
      try {
        for await (const { position, length, zero } of image.changes()) {
          if (out.closed) return;
          if (!out.send({ position: BigInt(position), length: BigInt(length), zero }) && !out.closed) await drained(out);
        }
      } finally {
        await image.close();
      }
    });
  }

  async export(id: string, format: string, out: Sink<ExportDiskResponse>): Promise<void> {
    await this.#streamed("exportDisk", out, async () => {
      checkFormat("exportDisk", format);
      const { record, image } = await this.#disks.freeze(id);
      const send = async (message: ExportDiskResponse): Promise<void> => {
        if (!out.closed && !out.send(message) && !out.closed) await drained(out);
      };
      try {
        const occupied = await this.#chunksToPack(record, image, undefined);
        if (format === "qcow2") {
          for await (const data of writeQcow2(image, occupied)) {
            for (let at = 0; at < data.length && !out.closed; at += EXPORT_PIECE_BYTES) await send({ data: data.subarray(at, at + EXPORT_PIECE_BYTES), zeros: 0n });
          }
          return;
        }
        let end = 0;
        for (const chunk of occupied) {
          if (out.closed) return;
          const position = chunk * DISK_CHUNK_BYTES;
          const data = new Uint8Array(Math.min(DISK_CHUNK_BYTES, image.bytes - position));
          await image.read(position, data);
          if (isZero(data)) continue;
          if (position > end) await send({ data: NOTHING, zeros: BigInt(position - end) });
          await send({ data, zeros: 0n });
          end = position + data.length;
        }
        if (end < image.bytes) await send({ data: NOTHING, zeros: BigInt(image.bytes - end) });
      } finally {
        await image.close();
      }
    });
  }

  /** The file is kept in tmp/ until it is packed: formats have their tables anywhere. */
  import(channel: Channel<ImportImageResponse, ImportImageRequest>): void {
    const scratch = `tmp/${this.#storage.uniqueName()}`;
    let file: File | undefined;
    let first: ImportImageRequest | undefined;
    let bytes = 0;
    /** Chunks with data, ascending as data comes in order. */
    const occupied = new Set<number>();
    let queuedBytes = 0;
    let ended = false;
    const end = async (error?: unknown): Promise<void> => {
      if (ended) return;
      ended = true;
      await file?.close().catch(() => {});
      if (file) await this.#storage.files.remove(scratch).catch(() => {});
      channel.close(error === undefined ? undefined : contractError("importImage", error));
    };
    const take = async (message: ImportImageRequest): Promise<void> => {
      queuedBytes -= message.data.length;
      if (ended) return;
      if (!first) {
        checkFormat("importImage", message.format);
        this.#blobs.checkSize(Number(message.size));
        first = message;
      }
      file ??= await this.#storage.files.open(scratch, "create");
      if (message.data.length > MAX_MESSAGE_BYTES) throw new ContractError("invalid", `${message.data.length} bytes in one message: at most ${MAX_MESSAGE_BYTES}`);
      if (message.zeros !== 0n && first.format !== "raw") throw new ContractError("invalid", `zeros in a ${first.format} file: only raw ones have them`);
      if (message.data.length > 0 && !isZero(message.data)) {
        await file.write(bytes, message.data);
        const last = Math.floor((bytes + message.data.length - 1) / DISK_CHUNK_BYTES);
        for (let chunk = Math.floor(bytes / DISK_CHUNK_BYTES); chunk <= last; chunk++) occupied.add(chunk);
      }
      bytes += message.data.length + Number(message.zeros);
      this.#blobs.checkSize(bytes);
      if (!message.finish) return;
      if (first.size !== 0n && first.size !== BigInt(bytes)) throw new ContractError("invalid", `the file ended after ${bytes} bytes; its first message announced ${first.size}`);
      await file.truncate(bytes);
      channel.send({ image: await this.#fromFile(file, first.format as DiskFormat, occupied) });
      await end();
    };
    let tail: Promise<void> = Promise.resolve();
    channel.onMessage((message) => {
      if (ended) return;
      queuedBytes += message.data.length;
      if (queuedBytes > MAX_QUEUED_BYTES) void end(new ContractError("exhausted", `more than ${MAX_QUEUED_BYTES} bytes sent ahead of the disk; wait for the transport`));
      else tail = tail.then(() => take(message)).catch(end);
    });
    channel.onClose(() => (tail = tail.then(() => end())));
  }

  async #fromFile(file: File, format: DiskFormat, occupied: ReadonlySet<number>): Promise<DiskImage> {
    if (file.bytes === 0) throw new ContractError("invalid", "importImage: the file is empty");
    if (format === "raw") {
      // A file need not end with a whole sector; a disk does.
      const bytes = Math.ceil(file.bytes / SECTOR_BYTES) * SECTOR_BYTES;
      return this.#pack({ bytes, read: (position, target) => file.read(position, target) }, { chunks: occupied });
    }
    const disk = await Qcow2Disk.open(file, this.#codecs);
    const chunks: number[] = [];
    for await (const chunk of disk.occupied(DISK_CHUNK_BYTES)) chunks.push(chunk);
    return this.#pack(disk, { chunks });
  }

  async #pack(source: DiskSource, options: PackOptions = {}): Promise<DiskImage> {
    const writer = await this.#blobs.create({ digest: "", size: 0 });
    try {
      const { index, data } = await packDisk(
        source,
        {
          compress: this.#storage.zstd.compress,
          sha256: (bytes) => {
            const hash = this.#storage.newHash();
            hash.update(bytes);
            return sha256Bytes(`sha256:${hash.hex()}`);
          },
          append: (bytes) => writer.write(bytes),
          finish: () => writer.commit(),
        },
        options,
      );
      const digest = await this.#blobs.put(index);
      const parts = await this.#chunks.parts({ digest, bytes: index.length });
      return {
        digest,
        mediaType: DISK_TYPES.index,
        indexBytes: BigInt(index.length),
        diskBytes: BigInt(source.bytes),
        addedBytes: BigInt(data.bytes),
        parts: parts.map((part) => Descriptor.fromPartial({ mediaType: part.mediaType, digest: part.digest, size: BigInt(part.bytes) })),
      };
    } finally {
      await writer.discard(); // nothing to discard after a commit
    }
  }

  /** The index that a commit may stand on. None: a plain base, one that is larger than the disk, or a stack that is as high as can be. */
  async #parentOf({ id, baseDigest, baseMediaType, bytes }: DiskRecord): Promise<BlobRef | undefined> {
    if (baseDigest === "" || !isChunked(baseMediaType, id)) return undefined;
    const stack = await this.#chunks.stack(baseDigest);
    if (stack.diskBytes > bytes || stack.layers.length >= MAX_DISK_LAYERS || stack.chunkBytes !== DISK_CHUNK_BYTES) return undefined;
    return { digest: baseDigest, bytes: (await this.#blobs.stat(baseDigest)) as number };
  }

  /** Ascending: chunks that the disk's layers change and, without a parent, those that its base may hold. */
  async #chunksToPack(record: DiskRecord, image: FrozenLayers, parent: BlobRef | undefined): Promise<number[]> {
    const chunks = new Set<number>();
    const add = (position: number, length: number): void => {
      const last = Math.floor((position + length - 1) / DISK_CHUNK_BYTES);
      for (let chunk = Math.floor(position / DISK_CHUNK_BYTES); chunk <= last; chunk++) chunks.add(chunk);
    };
    for await (const { position, length, zero } of image.changes()) if (!zero || parent) add(position, length);
    if (!parent && record.baseDigest !== "") {
      const inDisk = (bytes: number): number => Math.min(bytes, record.bytes);
      if (!isChunked(record.baseMediaType, record.id)) add(0, inDisk((await this.#blobs.stat(record.baseDigest)) ?? 0));
      else {
        const stack = await this.#chunks.stack(record.baseDigest);
        const end = inDisk(stack.diskBytes);
        for (let chunk = 0; chunk * stack.chunkBytes < end; chunk++) {
          if (stack.place(chunk)) add(chunk * stack.chunkBytes, Math.min(stack.chunkBytes, end - chunk * stack.chunkBytes));
        }
      }
    }
    return [...chunks].sort((a, b) => a - b);
  }

  async #streamed(operation: string, out: Sink<never>, run: () => Promise<void>): Promise<void> {
    try {
      await run();
      out.close();
    } catch (error) {
      out.close(contractError(operation, error));
    }
  }
}

const NOTHING = new Uint8Array(0);

function checkFormat(operation: string, format: string): asserts format is DiskFormat {
  if (!(DISK_FORMATS as readonly string[]).includes(format)) {
    throw new ContractError("invalid", `${operation}: format ${JSON.stringify(format.slice(0, 40))}, expected ${DISK_FORMATS.join(" or ")}; qemu-img convert makes one of them from others`);
  }
}
