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
    const end = Math.min(position + target.length, this.bytes);
    const parts: Promise<void>[] = [];
    for (let at = position; at < end; ) {
      const chunk = Math.floor(at / CHUNK_BYTES);
      const page = Math.floor(chunk / CHUNKS_PER_PAGE);
      const owners = this.#owners.get(page) ?? (await this.#page(page));
      const owner = owners[chunk % CHUNKS_PER_PAGE] as number;
      // As far as the same layer goes on, within the page.
      const pageEnd = Math.min(end, (page + 1) * CHUNKS_PER_PAGE * CHUNK_BYTES);
      let stop = (chunk + 1) * CHUNK_BYTES;
      while (stop < pageEnd && owners[(stop / CHUNK_BYTES) % CHUNKS_PER_PAGE] === owner) stop += CHUNK_BYTES;
      stop = Math.min(stop, pageEnd);
      const part = target.subarray(at - position, stop - position);
      if (owner === BASE) parts.push(this.#readBase(at, part));
      else if (owner !== ZERO) parts.push((this.#layers[owner - 1] as FrozenLayer).data.read(at, part));
      at = stop;
    }
    await Promise.all(parts);
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

  async #readBase(position: number, target: Uint8Array): Promise<void> {
    await this.#base?.read(position, target);
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
