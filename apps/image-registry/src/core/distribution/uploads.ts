import type { BlobStore } from "../blob-store.ts";
import { StorageError, type File, type Files, type Hash, type Storage } from "../files.ts";
import { DistributionError } from "./distribution-error.ts";
import type { Quota } from "./quota.ts";
import { Receiver } from "./receiver.ts";

/** A chunk on its way in. */
export interface Chunk {
  readonly body: AsyncIterable<Uint8Array>;
  abort(): void;
  /** What the client says about it, where it does. */
  readonly first: number | undefined;
  readonly bytes: number | undefined;
}

/** What this process remembers of an upload beyond its file: after a restart it begins with the file alone. */
interface Live {
  file: File | undefined;
  /** It began in this process and has no file yet: nobody needs to look for one. */
  fresh: boolean;
  /** Of the first `hashed` bytes. */
  hash: Hash;
  hashed: number;
  /** The request that is sending now. */
  sender: { abort(): void; done: Promise<unknown> } | undefined;
}

/** Uploads that this process keeps a file open and a hash for; older ones are read again when they go on. */
const MAX_LIVE = 512;
const REREAD_BYTES = 1024 * 1024;

/**
 * Upload sessions (distribution-spec, "Pushing blobs"): the session is a row of the catalogue, its bytes so far are the file
 * uploads/<id>. Both survive the death of the process at any moment; the file's length is how far it has come.
 */
export class Uploads {
  readonly #storage: Storage;
  readonly #files: Files;
  readonly #blobs: BlobStore;
  readonly #quota: Quota;
  readonly #now: () => number;
  readonly #live = new Map<string, Live>();

  constructor(parts: { storage: Storage; blobs: BlobStore; quota: Quota; now: () => number }) {
    this.#storage = parts.storage;
    this.#files = parts.storage.files;
    this.#blobs = parts.blobs;
    this.#quota = parts.quota;
    this.#now = parts.now;
  }

  async begin(repository: string): Promise<string> {
    const id = this.#storage.uniqueName().replace(/^\d+-/, "");
    await this.#storage.catalogue.write((to) => to.putUpload({ id, repository, startedUnixMs: this.#now() }), "lazy");
    this.#live.set(id, { file: undefined, fresh: true, hash: this.#storage.newHash(), hashed: 0, sender: undefined });
    await this.#trim();
    return id;
  }

  /** Bytes that have come. */
  async status(repository: string, id: string): Promise<number> {
    this.#check(repository, id);
    return this.#come(this.#live.get(id), id);
  }

  async #come(live: Live | undefined, id: string): Promise<number> {
    if (live?.file) return live.file.bytes;
    return live?.fresh ? 0 : ((await this.#files.stat(uploadPath(id)))?.bytes ?? 0);
  }

  /** Adds a chunk; answers the bytes that have come. What arrives of a chunk that breaks off is kept. */
  async append(repository: string, id: string, chunk: Chunk): Promise<number> {
    this.#check(repository, id);
    return this.#sending(repository, id, chunk, async (live) => {
      await this.#receive(live, repository, id, chunk);
      return live.file?.bytes ?? 0;
    });
  }

  /** The last chunk (it may be empty), then the blob is checked and taken in. */
  async finish(repository: string, id: string, digest: string, chunk: Chunk): Promise<number> {
    this.#check(repository, id);
    return this.#sending(repository, id, chunk, async (live) => {
      await this.#receive(live, repository, id, chunk);
      const file = (live.file ??= await this.#open(live, id));
      await this.#hashAll(live, file);
      const found = `sha256:${live.hash.hex()}`;
      this.#live.delete(id); // the hash has ended, whatever comes
      if (found !== digest) {
        await file.close();
        await this.#discard(id);
        throw new DistributionError("DIGEST_INVALID", `the upload's ${file.bytes} bytes have digest ${found}, expected ${digest}; push it again`);
      }
      const bytes = file.bytes;
      await this.#blobs.hold(digest, async () => {
        try {
          await this.#blobs.adopt(file, uploadPath(id), digest);
        } finally {
          await file.close(); // after a failure: the session goes on with what is there
        }
        await this.#storage.catalogue.write((to) => {
          to.putBlob(repository, digest, bytes, this.#now());
          to.deleteUpload(id);
        });
      });
      this.#quota.stored(repository);
      return bytes;
    });
  }

  async cancel(repository: string, id: string): Promise<void> {
    this.#check(repository, id);
    const nothing = { body: (async function* () {})(), abort: () => {}, first: undefined, bytes: 0 };
    await this.#sending(repository, id, nothing, async (live) => {
      this.#live.delete(id);
      await live.file?.close();
      await this.#discard(id);
    });
  }

  /** Removes uploads to which nothing came since; and files of none. Answers how many. */
  async expire(changedBeforeUnixMs: number): Promise<number> {
    const known = new Map(this.#storage.catalogue.garbage.uploads().map((record) => [record.id, record]));
    let removed = 0;
    for (const id of new Set([...known.keys(), ...(await this.#files.list("uploads"))])) {
      const changed = (await this.#files.stat(uploadPath(id)))?.changedUnixMs ?? known.get(id)?.startedUnixMs ?? 0;
      if (changed >= changedBeforeUnixMs || this.#live.get(id)?.sender) continue;
      await this.#live.get(id)?.file?.close();
      this.#live.delete(id);
      await this.#discard(id);
      removed++;
    }
    return removed;
  }

  async close(): Promise<void> {
    for (const { file, sender } of this.#live.values()) {
      sender?.abort();
      await sender?.done;
      await file?.close();
    }
    this.#live.clear();
  }

  #check(repository: string, id: string): void {
    if (this.#storage.catalogue.upload(id)?.repository !== repository) {
      throw new DistributionError("BLOB_UPLOAD_UNKNOWN", `there is no upload ${id.slice(0, 100)} in ${repository}: it has ended, expired, or never begun; begin again with POST`);
    }
  }

  /** One request sends at a time: a client that comes back has given up on the one before, even if that has not noticed. */
  async #sending<T>(repository: string, id: string, chunk: Chunk, run: (live: Live) => Promise<T>): Promise<T> {
    for (let sender = this.#live.get(id)?.sender; sender; sender = this.#live.get(id)?.sender) {
      sender.abort();
      await sender.done;
    }
    this.#check(repository, id); // it may have ended meanwhile
    // No await from here to the sender's registration: of several that waited, one goes on and the others stop it again.
    const live = this.#live.get(id) ?? { file: undefined, fresh: false, hash: this.#storage.newHash(), hashed: 0, sender: undefined };
    this.#live.delete(id); // the newest stand last
    this.#live.set(id, live);
    const work = run(live);
    live.sender = { abort: chunk.abort, done: work.catch(() => {}) };
    try {
      return await work;
    } finally {
      live.sender = undefined;
      await this.#trim();
    }
  }

  async #trim(): Promise<void> {
    for (const [id, live] of this.#live) {
      if (this.#live.size <= MAX_LIVE) return;
      if (live.sender) continue;
      this.#live.delete(id);
      await live.file?.close();
    }
  }

  async #receive(live: Live, repository: string, id: string, chunk: Chunk): Promise<void> {
    if (chunk.bytes === 0) return;
    const at = await this.#come(live, id);
    if (chunk.first !== undefined && chunk.first !== at) throw outOfOrder(repository, id, at, `the chunk begins at byte ${chunk.first}, expected ${at}`);
    const limit = Math.min(this.#blobs.maxBytes, at + (chunk.bytes ?? Infinity));
    if (at + (chunk.bytes ?? 0) > this.#blobs.maxBytes) throw this.#tooLarge();
    this.#quota.check(repository, at + (chunk.bytes ?? 0));
    const file = (live.file ??= await this.#open(live, id));
    await this.#hashAll(live, file);
    const receiver = new Receiver(file, live.hash);
    const failed = await this.#takeAll(receiver, chunk, repository, limit).then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    try {
      await receiver.drain();
      live.hashed = receiver.end;
    } catch (error) {
      // The hash knows bytes that the file does not have.
      live.hash = this.#storage.newHash();
      live.hashed = 0;
      if (receiver.lost) {
        live.file = undefined;
        await file.close();
        await this.#files.remove(uploadPath(id)); // begins at its first byte again
      }
      throw error;
    }
    if (failed) throw failed.error;
    if (chunk.bytes !== undefined && receiver.end !== at + chunk.bytes) {
      throw new DistributionError("SIZE_INVALID", `the chunk ended after ${receiver.end - at} of ${chunk.bytes} bytes; ask for the upload's status and go on from there`);
    }
  }

  async #takeAll(receiver: Receiver, chunk: Chunk, repository: string, limit: number): Promise<void> {
    for await (const piece of chunk.body) {
      if (receiver.end + piece.length > limit) throw chunk.bytes === undefined ? this.#tooLarge() : longer(chunk.bytes);
      this.#quota.check(repository, receiver.end + piece.length);
      await receiver.take(piece);
    }
  }

  #tooLarge(): DistributionError {
    return new DistributionError("SIZE_INVALID", `a blob of more than ${this.#blobs.maxBytes} bytes: this registry takes no larger ones (option max-blob-bytes)`, { status: 413 });
  }

  async #open(live: Live, id: string): Promise<File> {
    if (live.fresh) {
      live.fresh = false;
      return this.#files.open(uploadPath(id), "create");
    }
    try {
      return await this.#files.open(uploadPath(id), "update");
    } catch (error) {
      if (error instanceof StorageError && error.problem === "not-found") return this.#files.open(uploadPath(id), "create");
      throw error;
    }
  }

  /** After a restart the hash starts over. */
  async #hashAll(live: Live, file: File): Promise<void> {
    const piece = new Uint8Array(Math.min(REREAD_BYTES, file.bytes - live.hashed));
    while (live.hashed < file.bytes) {
      const part = piece.subarray(0, Math.min(piece.length, file.bytes - live.hashed));
      await file.read(live.hashed, part);
      live.hash.update(part);
      live.hashed += part.length;
    }
  }

  async #discard(id: string): Promise<void> {
    await this.#files.remove(uploadPath(id));
    await this.#storage.catalogue.write((to) => to.deleteUpload(id), "lazy");
  }
}

const uploadPath = (id: string): string => `uploads/${id}`;

function longer(bytes: number): DistributionError {
  return new DistributionError("SIZE_INVALID", `the chunk has more than the ${bytes} bytes that its Content-Range or Content-Length says`);
}

/** 416 with where the upload stands (distribution-spec, "Pushing a blob in chunks"). */
export function outOfOrder(repository: string, id: string, bytes: number, message: string): DistributionError {
  return new DistributionError("BLOB_UPLOAD_INVALID", message, { status: 416, headers: uploadHeaders(repository, id, bytes) });
}

export function uploadHeaders(repository: string, id: string, bytes: number): Record<string, string> {
  // "0-0" for an empty one is what Docker's registry says, too; the format has no better word.
  return { location: `/v2/${repository}/blobs/uploads/${id}`, range: `0-${Math.max(0, bytes - 1)}`, "docker-upload-uuid": id };
}
