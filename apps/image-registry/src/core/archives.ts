import { ContractError, type Channel, type Sink } from "@polyvisor/contracts";
import type { BlobChunk, ImportArchiveRequest, ImportArchiveResponse } from "@polyvisor/contracts/image";
import {
  LAYOUT_FILE, LAYOUT_INDEX, LAYOUT_VERSION, MANIFEST_LIMIT_BYTES, parseDigest, readIndex, readJson, readManifestView, readTar, sha256Of, TarError, writeLayout,
  type LayoutBlob, type OciDescriptor, type TarEntry,
} from "@polyvisor/image-spec";
import type { BlobStore, BlobWriter } from "./blob-store.ts";
import { drained } from "./blob-streams.ts";
import { contractError } from "./errors.ts";

const PIECE_BYTES = 256 * 1024;
/** A disk of 127 layers has 254 blobs. */
const MAX_BLOBS = 1024;
/** Messages that wait for the disk; then the sender waits. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;
/** Blobs that may be the manifest are kept until the end. */
const MAX_KEPT_BYTES = 32 * 1024 * 1024;

/** OCI layouts in one tar: what a manifest names, out of the store and into it. */
export class Archives {
  readonly #blobs: BlobStore;

  constructor(blobs: BlobStore) {
    this.#blobs = blobs;
  }

  async export(digest: string, out: Sink<BlobChunk>): Promise<void> {
    try {
      const bytes = await this.#blobs.readSmall(digest, MANIFEST_LIMIT_BYTES);
      const view = readManifestView(bytes);
      if (view.kind !== "manifest") throw new ContractError("invalid", `exportArchive ${digest}: an index of several manifests; name one of them`);
      const seen = new Set<string>();
      const blobs: LayoutBlob[] = [{ digest, size: bytes.length, read: () => once(bytes) }];
      for (const blob of view.blobs) {
        if (seen.has(blob.digest)) continue;
        seen.add(blob.digest);
        const size = await this.#blobs.stat(blob.digest);
        if (size !== blob.size) {
          const got = size === undefined ? "is not here, or not whole" : `has ${size} bytes, its manifest says ${blob.size}`;
          throw new ContractError("precondition", `exportArchive ${digest}: blob ${blob.digest} ${got}; pull its image whole first`);
        }
        blobs.push({ digest: blob.digest, size, read: () => this.#read(blob.digest) });
      }
      const manifest: OciDescriptor = { mediaType: view.mediaType, digest, size: bytes.length, ...(view.artifactType ? { artifactType: view.artifactType } : {}) };
      for await (const data of writeLayout(manifest, blobs)) {
        if (out.closed) return;
        if (data.length > 0 && !out.send({ data }) && !out.closed) await drained(out);
      }
      out.close();
    } catch (error) {
      out.close(contractError("exportArchive", error));
    }
  }

  /** Nothing of it is in the store until all of it has come and is right. */
  import(channel: Channel<ImportArchiveResponse, ImportArchiveRequest>): void {
    const input = new Messages(channel);
    this.#take(input).then(
      (response) => {
        channel.send(response);
        channel.close();
      },
      (error: unknown) => {
        const cause = error instanceof TarError ? new ContractError("invalid", `the file is damaged or no archive of ours: ${error.message}`, { cause: error }) : error;
        channel.close(contractError("importArchive", cause));
      },
    );
  }

  async #take(input: AsyncIterable<Uint8Array>): Promise<ImportArchiveResponse> {
    const writers = new Map<string, { writer: BlobWriter; size: number }>();
    const kept = new Map<string, Uint8Array>();
    let keptBytes = 0;
    let index: OciDescriptor | undefined;
    let layout = false;
    try {
      for await (const entry of readTar(input)) {
        const path = entry.path.replace(/^\.\//, "");
        if (entry.kind === "directory" && ["", "blobs/", "blobs/sha256/", "blobs", "blobs/sha256"].includes(path)) continue;
        const hex = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1];
        if (entry.kind !== "file" || (!hex && path !== LAYOUT_FILE && path !== LAYOUT_INDEX)) {
          throw new ContractError("invalid", `the archive holds ${entry.kind} ${JSON.stringify(entry.path.slice(0, 80))}; an OCI layout has only ${LAYOUT_FILE}, ${LAYOUT_INDEX} and blobs/sha256/<digest>`);
        }
        if (hex) {
          const digest = `sha256:${hex}`;
          if (writers.has(digest) || writers.size >= MAX_BLOBS) throw new ContractError("invalid", `the archive holds ${writers.has(digest) ? `${path} twice` : `more than ${MAX_BLOBS} blobs`}`);
          this.#blobs.checkSize(entry.size);
          const writer = await this.#blobs.create({ digest, size: entry.size });
          writers.set(digest, { writer, size: entry.size });
          const keep = entry.size <= MANIFEST_LIMIT_BYTES && keptBytes + entry.size <= MAX_KEPT_BYTES;
          const bytes = await this.#copy(entry, digest, writer, keep);
          if (bytes) kept.set(digest, bytes);
          keptBytes += bytes?.length ?? 0;
          continue;
        }
        if (entry.size > MANIFEST_LIMIT_BYTES) throw new ContractError("invalid", `${path} has ${entry.size} bytes, expected at most ${MANIFEST_LIMIT_BYTES}`);
        const bytes = await entry.read();
        if (path === LAYOUT_INDEX) index = theOne(readIndex(bytes).manifests);
        else layout = (readJson(bytes, LAYOUT_FILE) as { imageLayoutVersion?: unknown } | null)?.imageLayoutVersion === LAYOUT_VERSION;
      }
      if (!layout || !index) throw new ContractError("invalid", `the archive lacks ${layout ? LAYOUT_INDEX : `${LAYOUT_FILE} of version ${LAYOUT_VERSION}`}; it is truncated or no OCI layout`);
      const bytes = kept.get(index.digest);
      if (!bytes) throw new ContractError("invalid", `the archive lacks its manifest ${index.digest}; it is truncated`);
      const view = readManifestView(bytes, index.mediaType);
      const size = async (digest: string): Promise<number | undefined> => writers.get(digest)?.size ?? (await this.#blobs.stat(digest));
      for (const blob of view.blobs) {
        sha256Of(blob.digest);
        if ((await size(blob.digest)) !== blob.size) throw new ContractError("invalid", `the archive lacks blob ${blob.digest} of ${blob.size} bytes, which its manifest names; it is truncated`);
      }
      for (const { writer } of writers.values()) await writer.commit();
      return { digest: index.digest, mediaType: view.mediaType, artifactType: view.artifactType ?? "", size: BigInt(bytes.length) };
    } finally {
      for (const { writer } of writers.values()) await writer.discard(); // nothing to discard after a commit
    }
  }

  /** Checks the digest now, before anything is committed. Answers the bytes if they are to be kept. */
  async #copy(entry: TarEntry, digest: string, writer: BlobWriter, keep: boolean): Promise<Uint8Array | undefined> {
    const hash = this.#blobs.newHash();
    const whole = keep ? new Uint8Array(entry.size) : undefined;
    let at = 0;
    for await (const piece of entry.pieces()) {
      hash.update(piece);
      whole?.set(piece, at);
      at += piece.length;
      await writer.write(piece);
    }
    if (hash.hex() !== parseDigest(digest).encoded) throw new ContractError("corrupt", `blob ${digest} of the archive has other bytes than its digest says; the file is damaged, copy it again`);
    return whole;
  }

  async *#read(digest: string): AsyncGenerator<Uint8Array> {
    const file = await this.#blobs.open(digest);
    try {
      for (let at = 0; at < file.bytes; at += PIECE_BYTES) {
        const data = new Uint8Array(Math.min(PIECE_BYTES, file.bytes - at));
        await file.read(at, data);
        yield data;
      }
    } finally {
      await file.close();
    }
  }
}

function theOne(manifests: readonly OciDescriptor[]): OciDescriptor {
  const [only] = manifests;
  if (!only || manifests.length > 1) throw new ContractError("invalid", `the archive's index names ${manifests.length} manifests, expected one`);
  sha256Of(only.digest);
  return only;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** The data of a stream's messages, up to the one with `finish`. */
class Messages implements AsyncIterable<Uint8Array> {
  readonly #channel: Channel<ImportArchiveResponse, ImportArchiveRequest>;
  readonly #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #finished = false;
  #ended: Error | undefined;
  #wake = (): void => {};

  constructor(channel: Channel<ImportArchiveResponse, ImportArchiveRequest>) {
    this.#channel = channel;
    channel.onMessage(({ data, finish }) => {
      this.#queue.push(data);
      this.#queuedBytes += data.length;
      this.#finished ||= finish;
      if (this.#queuedBytes > MAX_QUEUED_BYTES) channel.slow(true);
      this.#wake();
    });
    channel.onClose(() => {
      this.#ended = new ContractError("cancelled", "the sender went away before the end of the archive");
      this.#wake();
    });
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const data = this.#queue.shift();
      if (data) {
        this.#queuedBytes -= data.length;
        if (this.#queuedBytes <= MAX_QUEUED_BYTES / 2) this.#channel.slow(false);
        yield data;
      } else if (this.#finished) return;
      else if (this.#ended) throw this.#ended;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}
