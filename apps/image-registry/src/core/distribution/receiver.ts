import type { File, Hash } from "../files.ts";

/** What may wait to be written before the sender is held back. */
const WAITING_LIMIT_BYTES = 2 * 1024 * 1024;

/** Appends a stream to a file: pieces are hashed as they come, and written together while the one before is being written. */
export class Receiver {
  /** Bytes of the file when everything taken is written. */
  end: number;
  readonly #file: File;
  readonly #hash: Hash;
  #pieces: Uint8Array[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;
  #error: unknown;

  constructor(file: File, hash: Hash) {
    this.#file = file;
    this.#hash = hash;
    this.end = file.bytes;
  }

  /** Resolves when more may come. The bytes must not change afterwards. */
  async take(piece: Uint8Array): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    this.#hash.update(piece);
    this.#pieces.push(piece);
    this.#waitingBytes += piece.length;
    this.end += piece.length;
    this.#writing ??= this.#write();
    if (this.#waitingBytes > WAITING_LIMIT_BYTES) await this.#writing;
  }

  /** Resolves when everything taken is in the file. After a failure the file has what was written, and `end` says so. */
  async drain(): Promise<void> {
    await this.#writing;
    if (this.#error !== undefined) throw this.#error;
  }

  async #write(): Promise<void> {
    try {
      while (this.#pieces.length > 0) {
        const pieces = this.#pieces;
        this.#pieces = [];
        this.#waitingBytes = 0;
        await this.#file.writeAll(this.#file.bytes, pieces);
      }
    } catch (error) {
      this.#error = error;
    } finally {
      this.#writing = undefined;
    }
  }
}
