import type { BaseImage } from "./base-image.ts";
import { CHUNK_BYTES, CHUNKS_PER_PAGE, ChunkState, forEachMarked } from "./chunk-map.ts";
import type { File } from "./files.ts";

/** A layer that is written no more: its `data` and `map` files. */
export interface FrozenLayer {
  readonly data: File;
  readonly map: File;
}

/** Owners of a chunk, beside layer numbers from 1: the base, and nobody (it is zero). */
const BASE = 0;
const ZERO = 255;
/** The page of the table is not made yet. */
const UNKNOWN = -1;
/** Frozen layers of one disk: what a byte can number. */
export const MAX_FROZEN_LAYERS = 200;

/**
 * The read-only layers of a disk above its base, seen as one image. For every chunk a table says which layer has it; a
 * page of the table is made when it is first touched, by reading that page of every layer's map. So a read costs the
 * same under 1 layer and under 100.
 */
export class FrozenLayers implements BaseImage {
  readonly bytes: number;
  readonly #base: BaseImage | undefined;
  /** Bottom first. */
  readonly #layers: readonly FrozenLayer[];
  readonly #owners = new Map<number, Uint8Array>();

  constructor(bytes: number, base: BaseImage | undefined, layers: readonly FrozenLayer[]) {
    this.bytes = bytes;
    this.#base = base;
    this.#layers = layers;
  }

  /** The same with one more layer on top. Takes the place of this one, which is not closed. */
  under(layer: FrozenLayer): FrozenLayers {
    return new FrozenLayers(this.bytes, this.#base, [...this.#layers, layer]);
  }

  async read(position: number, target: Uint8Array): Promise<void> {
    const pageOf = (at: number): number => Math.floor(at / CHUNK_BYTES / CHUNKS_PER_PAGE);
    for (let page = pageOf(position); page <= pageOf(Math.min(position + target.length, this.bytes) - 1); page++) {
      if (!this.#owners.has(page)) await this.#page(page);
    }
    const parts: Promise<void>[] = [];
    for (const { at, part, owner } of this.#runs(position, target)) {
      if (owner === ZERO || (owner === BASE && !this.#base)) part.fill(0);
      else parts.push(this.#owner(owner).read(at, part));
    }
    await Promise.all(parts);
  }

  readNow(position: number, target: Uint8Array): boolean {
    for (const { at, part, owner } of this.#runs(position, target)) {
      if (owner === UNKNOWN) return false;
      if (owner === ZERO || (owner === BASE && !this.#base)) part.fill(0);
      else if (!this.#owner(owner).readNow(at, part)) return false;
    }
    return true;
  }

  /** The parts of a read, as far as one layer goes each, within a page; what lies past the end becomes zero. */
  *#runs(position: number, target: Uint8Array): Generator<{ at: number; part: Uint8Array; owner: number }, void> {
    const end = Math.min(position + target.length, this.bytes);
    for (let at = position; at < end; ) {
      const chunk = Math.floor(at / CHUNK_BYTES);
      const page = Math.floor(chunk / CHUNKS_PER_PAGE);
      const owners = this.#owners.get(page);
      const owner = owners ? (owners[chunk % CHUNKS_PER_PAGE] as number) : UNKNOWN;
      const pageEnd = Math.min(end, (page + 1) * CHUNKS_PER_PAGE * CHUNK_BYTES);
      let stop = (chunk + 1) * CHUNK_BYTES;
      while (stop < pageEnd && owners && owners[(stop / CHUNK_BYTES) % CHUNKS_PER_PAGE] === owner) stop += CHUNK_BYTES;
      stop = Math.min(stop, pageEnd);
      yield { at, part: target.subarray(at - position, stop - position), owner };
      at = stop;
    }
    if (end < position + target.length) target.fill(0, Math.max(0, end - position));
  }

  #owner(owner: number): BaseImage {
    return owner === BASE ? (this.#base as BaseImage) : (this.#layers[owner - 1] as FrozenLayer).data;
  }

  /** The ranges that the layers change over the base, in order; `zero`: they read as zero. */
  async *changes(): AsyncGenerator<{ position: number; length: number; zero: boolean }> {
    let run: { position: number; length: number; zero: boolean } | undefined;
    const chunks = Math.ceil(this.bytes / CHUNK_BYTES);
    for (let chunk = 0; chunk < chunks; chunk++) {
      const page = Math.floor(chunk / CHUNKS_PER_PAGE);
      const owner = (this.#owners.get(page) ?? (await this.#page(page)))[chunk % CHUNKS_PER_PAGE] as number;
      if (run && (owner === BASE || run.zero !== (owner === ZERO))) {
        yield run;
        run = undefined;
      }
      if (owner === BASE) continue;
      const position = chunk * CHUNK_BYTES;
      run ??= { position, length: 0, zero: owner === ZERO };
      run.length = Math.min((chunk + 1) * CHUNK_BYTES, this.bytes) - run.position;
    }
    if (run) yield run;
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#layers.flatMap(({ data, map }) => [data.close(), map.close()]), this.#base?.close()]);
  }

  /** Bottom to top: what a layer does not have keeps its owner. */
  async #page(page: number): Promise<Uint8Array> {
    const owners = new Uint8Array(CHUNKS_PER_PAGE);
    for (const [i, { map }] of this.#layers.entries()) {
      await forEachMarked(map, page, (index, state) => (owners[index] = state === ChunkState.ZERO ? ZERO : i + 1));
    }
    this.#owners.set(page, owners);
    return owners;
  }
}
