import { ContractError } from "@polyvisor/contracts";
import { isZero, sha256Of } from "@polyvisor/image-spec";
import { StorageError, type File, type Hash, type Storage } from "./files.ts";

/**
 * Content-addressed files: blobs/sha256/<2 hex>/<64 hex>. A blob is written to tmp/, hashed on the way, synced and
 * renamed: under its digest there is the whole blob or nothing, whatever dies when. Several processes may share the
 * root: two that write one blob rename the same bytes to the same name.
 */
export class BlobStore {
  readonly #storage: Storage;
  readonly #maxBytes: number;
  /** Blobs whose bytes this process has hashed: written, or verified, since it started. */
  readonly #verified = new Set<string>();

  constructor(storage: Storage, limits: { maxBytes: number }) {
    this.#storage = storage;
    this.#maxBytes = limits.maxBytes;
  }

  async stat(digest: string): Promise<number | undefined> {
    const file = await this.#openFile(digest);
    if (!file) return undefined;
    const bytes = file.bytes;
    await file.close();
    return bytes;
  }

  /** The blob's file, not verified: for reads by range. */
  async open(digest: string): Promise<File> {
    const file = await this.#openFile(digest);
    if (!file) throw new ContractError("not-found", `there is no blob ${digest}; write it first`);
    return file;
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
    await this.#storage.files.rename(blobPath(digest), aside).catch(() => {});
    return new ContractError("corrupt", `blob ${digest}: its bytes no longer have this digest (the disk damaged them); moved to ${aside}. Write the blob again`);
  }

  /** `expected` empty: whatever the digest turns out to be. `size` 0: not known. */
  async create(expected: { digest: string; size: number }): Promise<BlobWriter> {
    if (expected.digest !== "") sha256Of(expected.digest);
    if (expected.size > this.#maxBytes) throw this.#tooLarge(expected.size);
    const scratch = `tmp/${this.#storage.uniqueName()}`;
    const file = await this.#storage.files.open(scratch, "create");
    return new BlobWriter({ storage: this.#storage, file, scratch, expected, maxBytes: this.#maxBytes, onCommit: (digest) => this.#verified.add(digest) });
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

  #tooLarge(bytes: number): ContractError {
    return new ContractError("exhausted", `a blob of ${bytes} bytes: this store takes at most ${this.#maxBytes} (option maxBlobBytes)`);
  }

  async #openFile(digest: string): Promise<File | undefined> {
    try {
      return await this.#storage.files.open(blobPath(digest), "read");
    } catch (error) {
      if (error instanceof StorageError && error.problem === "not-found") return undefined;
      throw error;
    }
  }
}

export function blobPath(digest: string): string {
  const hex = sha256Of(digest);
  return `blobs/sha256/${hex.slice(0, 2)}/${hex}`;
}

const ZERO_PIECE = 64 * 1024;

/** One blob on its way in. Ends with commit or discard. */
export class BlobWriter {
  readonly #storage: Storage;
  readonly #file: File;
  readonly #scratch: string;
  readonly #expected: { readonly digest: string; readonly size: number };
  readonly #maxBytes: number;
  readonly #onCommit: (digest: string) => void;
  readonly #hash: Hash;
  #bytes = 0;
  #ended = false;

  constructor(parts: { storage: Storage; file: File; scratch: string; expected: { digest: string; size: number }; maxBytes: number; onCommit: (digest: string) => void }) {
    this.#storage = parts.storage;
    this.#file = parts.file;
    this.#scratch = parts.scratch;
    this.#expected = parts.expected;
    this.#maxBytes = parts.maxBytes;
    this.#onCommit = parts.onCommit;
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
    await this.#file.sync();
    await this.#file.close();
    this.#ended = true;
    try {
      await this.#storage.files.rename(this.#scratch, blobPath(digest));
      this.#onCommit(digest);
    } catch (error) {
      await this.#storage.files.remove(this.#scratch).catch(() => {});
      throw error;
    }
    return { digest, bytes: this.#bytes };
  }

  async discard(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#file.close().catch(() => {});
    await this.#storage.files.remove(this.#scratch).catch(() => {});
  }
}
