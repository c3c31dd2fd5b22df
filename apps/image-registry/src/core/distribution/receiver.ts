import type { File, Hash } from "../files.ts";

/** What may wait to be written before the sender is held back. */
const WAITING_LIMIT_BYTES = 2 * 1024 * 1024;

/** After so much a sync runs beside the writing: what is acknowledged waits for the last bytes only, not for all to reach the device. */
const SYNC_EVERY_BYTES = 32 * 1024 * 1024;
/** Smaller pieces are worth no call; node's own pool, which others share, makes none so large. */
const FREED_FROM_BYTES = 16 * 1024;

/** Appends a stream to a file: pieces are hashed as they come, and written together while the one before is being written. */
export class Receiver {
  /** Bytes of the file when everything taken is written. */
  end: number;
  readonly #file: File;
  readonly #hash: Hash;
  #pieces: Uint8Array[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;
  #unsyncedBytes = 0;
  #syncing: Promise<void> | undefined;
  #error: unknown;
  /** A sync failed: what the file shows may never reach the device, and a second sync would not say so. */
  lost = false;

  constructor(file: File, hash: Hash) {
    this.#file = file;
    this.#hash = hash;
    this.end = file.bytes;
  }

  /** Resolves when more may come. The piece is the receiver's now, and its memory is gone when it is written. */
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
    await this.#syncing;
    if (this.#error !== undefined) throw this.#error;
  }

  async #write(): Promise<void> {
    try {
      while (this.#pieces.length > 0) {
        const pieces = this.#pieces;
        this.#pieces = [];
        this.#unsyncedBytes += this.#waitingBytes;
        this.#waitingBytes = 0;
        await this.#file.writeAll(this.#file.bytes, pieces);
        pieces.forEach(free);
        if (this.#unsyncedBytes >= SYNC_EVERY_BYTES) this.#syncing ??= this.#sync();
      }
    } catch (error) {
      this.#error = error;
    } finally {
      this.#writing = undefined;
    }
  }

  async #sync(): Promise<void> {
    this.#unsyncedBytes = 0;
    try {
      await this.#file.sync();
    } catch (error) {
      this.lost = true;
      this.#error ??= error;
    } finally {
      this.#syncing = undefined;
    }
  }
}

/** Left to the garbage collector, pieces fill memory outside of its heap, and it answers with full collections: a quarter of a push's processor time. */
function free({ buffer, byteLength }: Uint8Array): void {
  if (byteLength >= FREED_FROM_BYTES && byteLength === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
