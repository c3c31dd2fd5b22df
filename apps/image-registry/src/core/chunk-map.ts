import type { File } from "./files.ts";

/** Where the bytes of a chunk are. Two bits each in the map file; the fourth value is damage. */
export const ChunkState = { BASE: 0, DATA: 1, ZERO: 2 } as const;
export type ChunkState = (typeof ChunkState)[keyof typeof ChunkState];

/**
 * 4 KiB: what Linux filesystems write at once, so that copying up from the base is rare. Larger chunks would make the
 * map smaller (it is 1/16384 of the disk) at the price of reading and writing up to a chunk for 4 KiB.
 */
export const CHUNK_BYTES = 4096;
const CHUNKS_PER_BYTE = 4;
const PAGE_BYTES = 4096;
export const CHUNKS_PER_PAGE = PAGE_BYTES * CHUNKS_PER_BYTE;

export function mapBytes(diskBytes: number): number {
  const pages = Math.ceil(diskBytes / CHUNK_BYTES / CHUNKS_PER_PAGE);
  return pages * PAGE_BYTES;
}

/**
 * The allocation map of a writable layer. Pages are read when first touched, so that opening a disk of any size costs
 * the same; changes stay in memory until {@link takeDirty} and {@link write} put them into the file, after the data
 * they speak of is durable. A torn write of a page is harmless: each byte is its old or its new value, and both name
 * places whose bytes are right.
 */
export class ChunkMap {
  readonly #file: File;
  readonly #pages = new Map<number, Uint8Array>();
  readonly #loading = new Map<number, Promise<Uint8Array>>();
  readonly #dirty = new Set<number>();

  constructor(file: File) {
    this.#file = file;
  }

  /** Whether the states of these chunks are readable at once. */
  loaded(firstChunk: number, lastChunk: number): boolean {
    const last = Math.floor(lastChunk / CHUNKS_PER_PAGE);
    for (let page = Math.floor(firstChunk / CHUNKS_PER_PAGE); page <= last; page++) if (!this.#pages.has(page)) return false;
    return true;
  }

  /** Makes the states of these chunks readable at once. */
  async load(firstChunk: number, lastChunk: number): Promise<void> {
    const last = Math.floor(lastChunk / CHUNKS_PER_PAGE);
    for (let page = Math.floor(firstChunk / CHUNKS_PER_PAGE); page <= last; page++) {
      if (!this.#pages.has(page)) await this.#loadPage(page);
    }
  }

  /** Only after {@link load}. */
  get(chunk: number): ChunkState {
    const page = this.#pages.get(Math.floor(chunk / CHUNKS_PER_PAGE)) as Uint8Array;
    const index = chunk % CHUNKS_PER_PAGE;
    const state = ((page[index >> 2] as number) >> ((index & 3) * 2)) & 3;
    if (state === 3) throw damaged(chunk);
    return state as ChunkState;
  }

  /** Only after {@link load}. */
  set(chunk: number, state: ChunkState): void {
    const number = Math.floor(chunk / CHUNKS_PER_PAGE);
    const page = this.#pages.get(number) as Uint8Array;
    const index = chunk % CHUNKS_PER_PAGE;
    const shift = (index & 3) * 2;
    const before = page[index >> 2] as number;
    const after = (before & ~(3 << shift)) | (state << shift);
    if (after === before) return;
    page[index >> 2] = after;
    this.#dirty.add(number);
  }

  /** Copies of the changed pages, which count as unchanged from now on. */
  takeDirty(): Map<number, Uint8Array> {
    const taken = new Map([...this.#dirty].map((page) => [page, (this.#pages.get(page) as Uint8Array).slice()]));
    this.#dirty.clear();
    return taken;
  }

  /** Puts pages of {@link takeDirty} into the file and makes them durable. */
  async write(pages: ReadonlyMap<number, Uint8Array>): Promise<void> {
    if (pages.size === 0) return;
    try {
      for (const [page, bytes] of pages) await this.#file.write(page * PAGE_BYTES, bytes);
      await this.#file.sync();
    } catch (error) {
      for (const page of pages.keys()) this.#dirty.add(page);
      throw error;
    }
  }

  /** The same before it returns. False: not done, or not to the end; the pages count as changed again. */
  writeNow(pages: ReadonlyMap<number, Uint8Array>): boolean {
    let done = pages.size === 0;
    try {
      if (!done) done = [...pages].every(([page, bytes]) => this.#file.writeNow(page * PAGE_BYTES, bytes)) && this.#file.syncNow();
      return done;
    } finally {
      if (!done) this.putBack(pages);
    }
  }

  /** Pages whose data could not be made durable stay changed. */
  putBack(pages: ReadonlyMap<number, Uint8Array>): void {
    for (const page of pages.keys()) this.#dirty.add(page);
  }

  #loadPage(page: number): Promise<Uint8Array> {
    let loading = this.#loading.get(page);
    if (!loading) {
      loading = this.#readPage(page).finally(() => this.#loading.delete(page));
      this.#loading.set(page, loading);
    }
    return loading;
  }

  async #readPage(page: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(PAGE_BYTES);
    await this.#file.read(page * PAGE_BYTES, bytes);
    this.#pages.set(page, bytes);
    return bytes;
  }
}

/** Calls `found` for every chunk of one page of a map's file that is not in the base; `index` counts within the page. */
export async function forEachMarked(file: File, page: number, found: (index: number, state: ChunkState) => void): Promise<void> {
  const bytes = new Uint8Array(PAGE_BYTES);
  await file.read(page * PAGE_BYTES, bytes);
  for (let i = 0; i < PAGE_BYTES; i++) {
    const four = bytes[i] as number;
    if (four === 0) continue; // most of most maps
    for (let k = 0; k < CHUNKS_PER_BYTE; k++) {
      const state = (four >> (k * 2)) & 3;
      if (state === 3) throw damaged(page * CHUNKS_PER_PAGE + i * CHUNKS_PER_BYTE + k);
      if (state !== ChunkState.BASE) found(i * CHUNKS_PER_BYTE + k, state as ChunkState);
    }
  }
}

const damaged = (chunk: number): Error => new Error(`the disk's map is damaged: chunk ${chunk} has state 3`);
