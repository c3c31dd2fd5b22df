import { giveBytesBack, takeBytes } from "@polyvisor/contracts";
import type { BaseImage } from "./base-image.ts";
import { CHUNK_BYTES, CHUNKS_PER_PAGE, ChunkMap, ChunkState } from "./chunk-map.ts";
import { StorageError, type File } from "./files.ts";
import { RangeQueue } from "./range-queue.ts";

export const SECTOR_BYTES = 512;

/** The files of a writable layer, and what lies below it. */
export interface DiskParts {
  readonly base: BaseImage | undefined;
  readonly data: File;
  readonly map: File;
}

/** The parts as they are now. An operation takes them once: {@link LayeredDisk.freeze} puts others in their place. */
interface Layers extends DiskParts {
  readonly states: ChunkMap;
}

/**
 * An open disk: a read-only base (or none: zeros) below a writable layer of two files, `data` (sparse, as long as the
 * disk) and `map` (which chunks of `data` count). Positions and lengths are bytes, multiples of 512, inside the disk;
 * the caller checks them.
 *
 * Crash safety. A write goes to `data` first; its chunks are marked in memory only. A flush copies the marks, syncs
 * `data`, then writes the copied marks and syncs `map`. So a mark on disk always speaks of bytes that are on disk, and
 * a death at any point leaves each sector old or new, never something else.
 */
export class LayeredDisk {
  readonly bytes: number;
  readonly readOnly: boolean;
  #layers: Layers;
  readonly #writes = new RangeQueue();
  #flushing: Promise<void> | undefined;
  #nextFlush: Promise<void> | undefined;
  #syncFailure: unknown;

  constructor({ bytes, readOnly, ...parts }: { bytes: number; readOnly: boolean } & DiskParts) {
    this.bytes = bytes;
    this.readOnly = readOnly;
    this.#layers = { ...parts, states: new ChunkMap(parts.map) };
  }

  /** The bytes are the caller's, to give back to the pool when he has done with them. */
  async read(position: number, length: number): Promise<Uint8Array> {
    const { states, data, base } = this.#layers;
    const target = takeBytes(length);
    await states.load(chunkOf(position), chunkOf(position + length - 1));
    for (const { at, part, state } of runs(states, position, target)) {
      if (state === ChunkState.DATA) await data.read(at, part);
      else if (state === ChunkState.BASE && base) await base.read(at, part);
      else part.fill(0);
    }
    return target;
  }

  /** The same before it returns, where everything is at hand; else undefined. */
  readNow(position: number, length: number): Uint8Array | undefined {
    const { states, data, base } = this.#layers;
    if (!states.loaded(chunkOf(position), chunkOf(position + length - 1))) return undefined;
    const target = takeBytes(length);
    for (const { at, part, state } of runs(states, position, target)) {
      const from = state === ChunkState.DATA ? data : state === ChunkState.BASE ? base : undefined;
      if (!from) part.fill(0);
      else if (!from.readNow(at, part)) {
        giveBytesBack(target);
        return undefined;
      }
    }
    return target;
  }

  async write(position: number, data: Uint8Array): Promise<void> {
    const end = position + data.length;
    const first = chunkOf(position);
    const last = chunkOf(end - 1);
    await this.#writes.run(first, last, async () => {
      const { states, data: file } = this.#layers;
      await states.load(first, last);
      const start = await this.#copyUpTo(position);
      const stop = await this.#copyUpFrom(end);
      if (start.length === 0 && stop.length === 0) {
        await file.write(position, data);
      } else {
        const merged = new Uint8Array(start.length + data.length + stop.length);
        merged.set(start);
        merged.set(data, start.length);
        merged.set(stop, start.length + data.length);
        await file.write(position - start.length, merged);
      }
      for (let chunk = first; chunk <= last; chunk++) states.set(chunk, ChunkState.DATA);
    });
  }

  /** The same before it returns, where no other write is in the way and nothing has to be copied up. False: not done. */
  writeNow(position: number, data: Uint8Array): boolean {
    const end = position + data.length;
    const first = chunkOf(position);
    const last = chunkOf(end - 1);
    const { states, data: file } = this.#layers;
    if (!this.#writes.free(first, last) || !states.loaded(first, last) || !this.#isWhole(position) || !this.#isWhole(end)) return false;
    if (!file.writeNow(position, data)) return false;
    for (let chunk = first; chunk <= last; chunk++) states.set(chunk, ChunkState.DATA);
    return true;
  }

  /** Reads as zero afterwards. Whole chunks cost a mark only. */
  async writeZeroes(position: number, length: number): Promise<void> {
    const end = position + length;
    const wholeStart = Math.ceil(position / CHUNK_BYTES) * CHUNK_BYTES;
    const wholeEnd = end === this.bytes ? end : Math.floor(end / CHUNK_BYTES) * CHUNK_BYTES;
    if (wholeStart >= wholeEnd) return this.write(position, new Uint8Array(length));
    if (wholeStart > position) await this.write(position, new Uint8Array(wholeStart - position));
    if (end > wholeEnd) await this.write(wholeEnd, new Uint8Array(end - wholeEnd));
    // One page of the map at a time: a whole large disk may be asked for, and others want their turn.
    const last = chunkOf(wholeEnd - 1);
    for (let first = chunkOf(wholeStart); first <= last; ) {
      const stop = Math.min(last, first - (first % CHUNKS_PER_PAGE) + CHUNKS_PER_PAGE - 1);
      const start = first;
      await this.#writes.run(start, stop, async () => {
        const { states } = this.#layers;
        await states.load(start, stop);
        for (let chunk = start; chunk <= stop; chunk++) states.set(chunk, ChunkState.ZERO);
      });
      first = stop + 1;
    }
  }

  /** Discarded sectors read as zero: one of the values that a disk may give, and the one that leaks nothing. */
  async discard(position: number, length: number): Promise<void> {
    const start = Math.ceil(position / CHUNK_BYTES) * CHUNK_BYTES;
    const end = position + length === this.bytes ? this.bytes : Math.floor((position + length) / CHUNK_BYTES) * CHUNK_BYTES;
    if (start < end) await this.writeZeroes(start, end - start);
  }

  /** Everything answered before is durable when this resolves. Flushes that wait for a running one become one. */
  flush(): Promise<void> {
    if (!this.#flushing) {
      this.#flushing = this.#flush().finally(() => (this.#flushing = undefined));
      return this.#flushing;
    }
    this.#nextFlush ??= this.#flushing
      .catch(() => {})
      .then(() => {
        this.#nextFlush = undefined;
        return this.flush();
      });
    return this.#nextFlush;
  }

  /** Finishes what runs, flushes, and closes the files. */
  async close(): Promise<void> {
    await this.#writes.idle();
    try {
      if (!this.readOnly) await this.flush();
    } finally {
      const { data, map, base } = this.#layers;
      await Promise.allSettled([data.close(), map.close(), base?.close()]);
    }
  }

  /**
   * Puts a new writable layer on top of what is written now: everything answered before is durable in the old layer
   * when `exchange` is called with it; it answers the parts to go on with, of which the old files are to be the base's.
   * Writes wait meanwhile, reads go on. If it throws, nothing has changed.
   */
  async freeze(exchange: (old: DiskParts) => Promise<DiskParts>): Promise<void> {
    await this.#writes.run(0, Number.POSITIVE_INFINITY, async () => {
      await this.flush(); // also when one is running: that one may have taken the marks too early
      const parts = await exchange(this.#layers);
      this.#layers = { ...parts, states: new ChunkMap(parts.map) };
    });
  }

  /** The same before it returns, where no other flush is on and the files are prompt. False: not done. */
  flushNow(): boolean {
    if (this.#flushing || this.#syncFailure !== undefined) return false;
    const { states, data } = this.#layers;
    const marks = states.takeDirty();
    try {
      if (!data.syncNow()) {
        states.putBack(marks);
        return false;
      }
    } catch (error) {
      throw this.#dataLost(marks, error);
    }
    try {
      return states.writeNow(marks);
    } catch (error) {
      throw this.#marksLost(error);
    }
  }

  async #flush(): Promise<void> {
    if (this.#syncFailure !== undefined) throw this.#syncFailure;
    const { states, data } = this.#layers;
    const marks = states.takeDirty();
    try {
      await data.sync();
    } catch (error) {
      throw this.#dataLost(marks, error);
    }
    try {
      await states.write(marks);
    } catch (error) {
      throw this.#marksLost(error);
    }
  }

  /** After a failed sync the kernel may have forgotten what it could not write: a second try would lie. */
  #dataLost(marks: ReadonlyMap<number, Uint8Array>, error: unknown): unknown {
    this.#layers.states.putBack(marks);
    this.#syncFailure = error;
    return error;
  }

  /** A full disk refuses the write itself and loses nothing: the flush may be tried again. */
  #marksLost(error: unknown): unknown {
    if (!(error instanceof StorageError && error.problem === "no-space")) this.#syncFailure = error;
    return error;
  }

  /** The bytes of the first chunk that stand before `position` and are not in `data` yet. */
  async #copyUpTo(position: number): Promise<Uint8Array> {
    const start = Math.floor(position / CHUNK_BYTES) * CHUNK_BYTES;
    return this.#isWhole(position) ? NOTHING : this.read(start, position - start);
  }

  /** The bytes of the last chunk that stand after `end` and are not in `data` yet. */
  async #copyUpFrom(end: number): Promise<Uint8Array> {
    const stop = Math.min(Math.ceil(end / CHUNK_BYTES) * CHUNK_BYTES, this.bytes);
    return this.#isWhole(end) ? NOTHING : this.read(end, stop - end);
  }

  /** Whether a write may begin or end here without its chunk's other bytes: it is a chunk's border, or they are in `data`. */
  #isWhole(position: number): boolean {
    return position % CHUNK_BYTES === 0 || position === this.bytes || this.#layers.states.get(chunkOf(position)) === ChunkState.DATA;
  }
}

/** A read in runs of chunks that are in the same state. */
function* runs(states: ChunkMap, position: number, target: Uint8Array): Generator<{ at: number; part: Uint8Array; state: ChunkState }, void> {
  const end = position + target.length;
  for (let at = position; at < end; ) {
    const state = states.get(chunkOf(at));
    let stop = chunkEnd(at);
    while (stop < end && states.get(chunkOf(stop)) === state) stop += CHUNK_BYTES;
    stop = Math.min(stop, end);
    yield { at, part: target.subarray(at - position, stop - position), state };
    at = stop;
  }
}

const NOTHING = new Uint8Array(0);
const chunkOf = (position: number): number => Math.floor(position / CHUNK_BYTES);
const chunkEnd = (position: number): number => (chunkOf(position) + 1) * CHUNK_BYTES;
