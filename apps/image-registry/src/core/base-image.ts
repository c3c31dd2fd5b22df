import type { StackedIndex } from "@polyvisor/image-spec";
import type { ChunkSource } from "./chunk-source.ts";

/** What lies below a disk's own layers: read-only bytes; past their end, zeros. A plain blob's `File` is one. */
export interface BaseImage {
  readonly bytes: number;
  /** Fills `target` from `position`. */
  read(position: number, target: Uint8Array): Promise<void>;
  /** The same before it returns, where what is needed is at hand. False: not done; `target` may have been written to. */
  readNow(position: number, target: Uint8Array): boolean;
  close(): Promise<void>;
}

/** Hears of every chunk that is read, and keeps what a later boot can use. */
export interface BootRecorder {
  touch(chunk: number): void;
  save(): Promise<void>;
}

/** Chunks that are unpacked ahead of a reader that goes through the disk in order. */
const AHEAD = 4;
/** Reads in order before one counts as such a reader: a boot is mostly two reads here and two there, and of a lazily pulled image moves bytes. */
const STREAK = 3;

/** A chunked image as bytes. */
export class ChunkedBase implements BaseImage {
  readonly bytes: number;
  readonly #source: ChunkSource;
  readonly #stack: StackedIndex;
  readonly #learn: BootRecorder | undefined;
  #expectedNext = -1;
  #streak = 0;

  constructor(source: ChunkSource, stack: StackedIndex, learn?: BootRecorder) {
    this.bytes = stack.diskBytes;
    this.#source = source;
    this.#stack = stack;
    this.#learn = learn;
  }

  async read(position: number, target: Uint8Array): Promise<void> {
    const { first, last, end } = this.#range(position, target);
    const wanted: Promise<Uint8Array | undefined>[] = [];
    for (let chunk = first; chunk <= last; chunk++) {
      this.#learn?.touch(chunk);
      wanted.push(this.#source.chunk(this.#stack, chunk));
    }
    this.#follow(position, end, last);
    const contents = await Promise.all(wanted);
    for (const [i, content] of contents.entries()) this.#copy(content, first + i, position, target);
  }

  readNow(position: number, target: Uint8Array): boolean {
    const { first, last, end } = this.#range(position, target);
    for (let chunk = first; chunk <= last; chunk++) {
      const content = this.#source.chunkNow(this.#stack, chunk);
      if (content === "away") return false;
      this.#copy(content, chunk, position, target);
    }
    for (let chunk = first; chunk <= last; chunk++) this.#learn?.touch(chunk);
    this.#follow(position, end, last);
    return true;
  }

  /** The chunks of a read; none (`last` before `first`) behind the end. */
  #range(position: number, target: Uint8Array): { first: number; last: number; end: number } {
    const { chunkBytes } = this.#stack;
    const end = Math.min(position + target.length, this.bytes);
    const first = Math.floor(position / chunkBytes);
    return { first, last: end > position ? Math.floor((end - 1) / chunkBytes) : first - 1, end };
  }

  /** Puts a chunk's part of a read where it belongs, zeros included. */
  #copy(content: Uint8Array | undefined, chunk: number, position: number, target: Uint8Array): void {
    const { chunkBytes } = this.#stack;
    const start = chunk * chunkBytes;
    const from = Math.max(position, start);
    const to = Math.min(position + target.length, start + chunkBytes);
    const part = content?.subarray(from - start, to - start);
    if (part) target.set(part, from - position);
    target.fill(0, from - position + (part?.length ?? 0), to - position);
  }

  #follow(position: number, end: number, last: number): void {
    this.#streak = position === this.#expectedNext ? this.#streak + 1 : 0;
    if (this.#streak >= STREAK) this.#readAhead(last);
    this.#expectedNext = end;
  }

  /** Has a chunk unpacked soon; that it cannot be had is the business of whoever really reads it. */
  prefetch(chunk: number): Promise<void> {
    return this.#source.chunk(this.#stack, chunk).then(
      () => {},
      () => {},
    );
  }

  async close(): Promise<void> {
    await this.#learn?.save().catch(() => {}); // it is only advice
  }

  #readAhead(last: number): void {
    const stop = Math.min(last + AHEAD, Math.ceil(this.bytes / this.#stack.chunkBytes) - 1);
    for (let chunk = last + 1; chunk <= stop; chunk++) void this.prefetch(chunk);
  }
}
