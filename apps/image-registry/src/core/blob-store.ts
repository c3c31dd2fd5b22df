import { ContractError } from "@polyvisor/contracts";
import { isZero, sha256Of } from "@polyvisor/image-spec";
import { LocalBlobFiles, type BlobFiles } from "./blob-files.ts";
import { StorageError, type File, type Hash, type Storage } from "./files.ts";

export { blobPath } from "./blob-files.ts";

/**
 * Content-addressed files: blobs/sha256/<2 hex>/<64 hex>. A blob is written to tmp/, hashed on the way, synced and
 * renamed: under its digest there is the whole blob or nothing, whatever dies when. Several processes may share the
 * root: two that write one blob rename the same bytes to the same name.
 */
export class BlobStore {
  readonly files: BlobFiles;
  readonly maxBytes: number;
  readonly #storage: Storage;
  readonly #held = new Map<string, number>();
  readonly #removing = new Map<string, Promise<void>>();
  /** Blobs whose bytes this process has hashed: written, or verified, since it started. */
  readonly #verified = new Set<string>();

  constructor(storage: Storage, limits: { maxBytes: number }) {
    this.#storage = storage;
    this.files = storage.blobFiles ?? new LocalBlobFiles(storage.files);
    this.maxBytes = limits.maxBytes;
  }

  /** Runs something that stores a blob and only then says who needs it: garbage collection leaves the blob alone meanwhile. */
  async hold<T>(digest: string, run: () => Promise<T>): Promise<T> {
    this.#held.set(digest, (this.#held.get(digest) ?? 0) + 1);
    try {
      await this.#removing.get(digest);
      return await run();
    } finally {
      const left = this.#held.get(digest)! - 1;
      if (left > 0) this.#held.set(digest, left);
      else this.#held.delete(digest);
    }
  }
  /** Takes in a finished scratch file whose bytes have been hashed to `digest`; it is synced here. */
  adopt(file: File, scratch: string, digest: string): Promise<void> {
    return this.hold(digest, async () => {
      try {
        await file.sync();
      } catch (error) {
        // The kernel may have forgotten what it could not write: a second sync of the same file would lie.
        await file.close();
        await this.#storage.files.remove(scratch).catch(() => {});
        throw error;
      }
      await file.close();
      await this.files.adopt(scratch, digest);
      this.#verified.add(digest);
    });
  }

  /** Removes a blob that `needed` says nobody needs, unless somebody holds it. Who comes to hold it meanwhile waits. */
  async removeGarbage(digest: string, needed: (digest: string) => boolean): Promise<boolean> {
    if (this.#held.has(digest) || needed(digest)) return false;
    this.#verified.delete(digest);
    const removing = this.files.remove(digest).finally(() => this.#removing.delete(digest));
    this.#removing.set(digest, removing.catch(() => {}));
    await removing;
    return true;
  }

  async stat(digest: string): Promise<number | undefined> {
    const file = await this.openIfHere(digest);
    if (!file) return undefined;
    const bytes = file.bytes;
    await file.close();
    return bytes;
  }

  /** The blob's file, not verified: for reads by range. */
  async open(digest: string): Promise<File> {
    const file = await this.openIfHere(digest);
    if (!file) throw new ContractError("not-found", `there is no blob ${digest}; write it first`);
    return file;
  }

  async openIfHere(digest: string): Promise<File | undefined> {
    try {
      return await this.files.open(digest);
    } catch (error) {
      if (error instanceof StorageError && error.problem === "not-found") return undefined;
      throw error;
    }
  }

  /** A whole small blob (manifest, config), verified. */
  async readSmall(digest: string, limitBytes: number): Promise<Uint8Array> {
    const file = await this.open(digest);
    try {
      if (file.bytes > limitBytes) throw new ContractError("invalid", `blob ${digest} has ${file.bytes} bytes, expected at most ${limitBytes}`);
      const data = new Uint8Array(file.bytes);
      await file.read(0, data);
      const hash = this.#storage.newHash();
      hash.update(data);
      if (hash.hex() !== sha256Of(digest)) throw await this.quarantine(digest);
      return data;
    } finally {
      await file.close();
    }
  }

  /** Reads the whole blob, once per process, and throws "corrupt" unless it has its digest. */
  async verify(digest: string): Promise<void> {
    if (this.#verified.has(digest)) return;
    const file = await this.open(digest);
    try {
      const hash = this.#storage.newHash();
      const piece = new Uint8Array(1 << 20);
      for (let at = 0; at < file.bytes; at += piece.length) {
        const part = piece.subarray(0, Math.min(piece.length, file.bytes - at));
        await file.read(at, part);
        hash.update(part);
      }
      if (hash.hex() !== sha256Of(digest)) throw await this.quarantine(digest);
      this.#verified.add(digest);
    } finally {
      await file.close();
    }
  }

  newHash(): Hash {
    return this.#storage.newHash();
  }

  /** Moves a damaged blob aside, so that writing it again heals the store. */
  async quarantine(digest: string): Promise<ContractError> {
    this.#verified.delete(digest);
    const aside = `corrupt/${sha256Of(digest)}-${this.#storage.uniqueName()}`;
    await this.files.quarantine(digest, aside);
    return new ContractError("corrupt", `blob ${digest}: its bytes no longer have this digest (the disk damaged them); moved to ${aside}. Write the blob again`);
  }

  /** `expected` empty: whatever the digest turns out to be. `size` 0: not known. */
  async create(expected: { digest: string; size: number }): Promise<BlobWriter> {
    if (expected.digest !== "") sha256Of(expected.digest);
    this.checkSize(expected.size);
    const scratch = `tmp/${this.#storage.uniqueName()}`;
    const file = await this.#storage.files.open(scratch, "create");
    return new BlobWriter({ storage: this.#storage, file, scratch, expected, maxBytes: this.maxBytes, adopt: (digest) => this.adopt(file, scratch, digest) });
  }

  /** A blob from memory. Answers its digest. */
  async put(data: Uint8Array): Promise<string> {
    const writer = await this.create({ digest: "", size: data.length });
    try {
      await writer.write(data);
      return (await writer.commit()).digest;
    } catch (error) {
      await writer.discard();
      throw error;
    }
  }

  /** Throws "exhausted" for more than this store takes. */
  checkSize(bytes: number): void {
    if (bytes > this.maxBytes) throw new ContractError("exhausted", `a blob of ${bytes} bytes: this store takes at most ${this.maxBytes} (option maxBlobBytes)`);
  }

}

const ZERO_PIECE = 64 * 1024;

/** One blob on its way in. Ends with commit or discard. */
export class BlobWriter {
  readonly #storage: Storage;
  readonly #file: File;
  readonly #scratch: string;
  readonly #expected: { readonly digest: string; readonly size: number };
  readonly #maxBytes: number;
  readonly #adopt: (digest: string) => Promise<void>;
  readonly #hash: Hash;
  #bytes = 0;
  #ended = false;

  constructor(parts: { storage: Storage; file: File; scratch: string; expected: { digest: string; size: number }; maxBytes: number; adopt: (digest: string) => Promise<void> }) {
    this.#storage = parts.storage;
    this.#file = parts.file;
    this.#scratch = parts.scratch;
    this.#expected = parts.expected;
    this.#maxBytes = parts.maxBytes;
    this.#adopt = parts.adopt;
    this.#hash = parts.storage.newHash();
  }

  async write(data: Uint8Array): Promise<void> {
    const end = this.#bytes + data.length;
    const limit = this.#expected.size > 0 ? this.#expected.size : this.#maxBytes;
    if (end > limit) {
      const why = this.#expected.size > 0 ? "than its first message announced" : "than this store takes (option maxBlobBytes)";
      throw new ContractError(this.#expected.size > 0 ? "invalid" : "exhausted", `the blob has more bytes ${why}: ${limit}`);
    }
    this.#hash.update(data);
    // Zeros become a hole: disk images are mostly that.
    for (let at = 0; at < data.length; at += ZERO_PIECE) {
      const piece = data.subarray(at, at + ZERO_PIECE);
      if (!isZero(piece)) await this.#file.write(this.#bytes + at, piece);
    }
    this.#bytes = end;
  }

  async commit(): Promise<{ digest: string; bytes: number }> {
    const digest = `sha256:${this.#hash.hex()}`;
    const { digest: wanted, size } = this.#expected;
    if (size > 0 && size !== this.#bytes) throw new ContractError("invalid", `the blob ended after ${this.#bytes} bytes; its first message announced ${size}`);
    if (wanted !== "" && wanted !== digest) throw new ContractError("corrupt", `the blob's bytes have digest ${digest}, expected ${wanted}; send it again`);
    await this.#file.truncate(this.#bytes);
    await this.#adopt(digest);
    this.#ended = true;
    return { digest, bytes: this.#bytes };
  }

  async discard(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#file.close().catch(() => {});
    await this.#storage.files.remove(this.#scratch).catch(() => {});
  }
}
