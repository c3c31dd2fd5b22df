import { FRAME_CELLS, FRAMES, PAGE_HALFWORDS, type DecodeCache } from "../../decode-cache.ts";
import type { HartCells } from "../../cells.ts";
import { lengthOf, pairs } from "./recording.ts";
import type { AheadRegion } from "./translate-ahead.ts";

/** What the interpreter tells about code that is reached. */
export interface CodeWatcher {
  /** The entry of a halfword of a frame has just been decoded. */
  decoded(frame: number, index: number): void;
  /** Fetches from a virtual page now lead to a frame (its address). */
  fetched(low: number, high: number, frame: number): void;
}

/** A region in its place: the engine's view of it. */
export interface PlacedRegion {
  readonly region: AheadRegion;
  /** Frame of each of the region's pages, -1 while it is not known. */
  readonly frames: number[];
}

export interface LibraryOptions {
  readonly cache: DecodeCache;
  readonly cells: HartCells;
  /** Whether an entry leads to translated code already. */
  translated(entry: number): boolean;
  /** The region's code lies in these frames: enter it from now on through the entries in frame number `page` of them. */
  place(placed: PlacedRegion, page: number): void;
}

/**
 * The regions of a static translation, and where they are in this guest. One is put in place when the first instruction
 * of its code is decoded and the instructions of its first page are all there; each further page joins when fetches lead to
 * a page, at the right distance, with the right instructions. Until then the region's code leaves at its border, as it does
 * when the page is mapped elsewhere. Nothing is believed but the bytes: whoever made the translation, and from what.
 */
export class AheadLibrary implements CodeWatcher {
  readonly #options: LibraryOptions;
  readonly #i32: Int32Array;
  /** By halfword of the page and word of the first instruction. */
  readonly #byStart = new Map<number, AheadRegion[]>();
  /** Halfwords of pages at which any region starts. */
  readonly #starts = new Uint8Array(PAGE_HALFWORDS);
  readonly #placed = new Map<AheadRegion, PlacedRegion>();
  /** Virtual page by frame, as fetched last, and the other way round. */
  readonly #pageOf = new Float64Array(FRAMES).fill(NaN);
  readonly #frameOf = new Map<number, number>();
  /** Placed regions by the virtual page that they wait for. */
  readonly #waiting = new Map<number, Map<PlacedRegion, number>>();
  #count = 0;
  #active = false;

  constructor(options: LibraryOptions) {
    this.#options = options;
    this.#i32 = new Int32Array(options.cells.buffer);
  }

  get active(): boolean {
    return this.#active;
  }
  /** Begins or ends; nothing is in place then, and fetches are looked up anew. */
  set active(active: boolean) {
    this.#active = active;
    this.#pageOf.fill(NaN);
    this.#frameOf.clear();
  }
  get regions(): number {
    return this.#count;
  }
  get placed(): number {
    return this.#placed.size;
  }

  /** Regions whose functions are in the table. */
  add(regions: readonly AheadRegion[]): void {
    for (const region of regions) {
      const [offset, word] = startOf(region);
      const key = keyOf(offset >> 1, word);
      const others = this.#byStart.get(key);
      if (others) others.push(region);
      else this.#byStart.set(key, [region]);
      this.#starts[offset >> 1] = 1;
      this.#count++;
      if (this.#active) this.#lookForDecoded(region);
    }
  }
  /** Code that was decoded before the region came. */
  #lookForDecoded(region: AheadRegion): void {
    const { cache } = this.#options;
    const index = region.recorded.start >> 1;
    for (let frame = 0; frame < FRAMES; frame++) {
      if (Number.isNaN(this.#pageOf[frame]!)) continue;
      const entry = cache.entryAddress(frame, index);
      if ((this.#i32[entry >> 2]! & 0xffff) !== 0) this.decoded(frame, index);
    }
  }

  decoded(frame: number, index: number): void {
    if (!this.#active || index >= PAGE_HALFWORDS || this.#starts[index] === 0) return;
    const { cache } = this.#options;
    const low = cache.halfword(frame, index);
    const word = (low & 3) === 3 && index < PAGE_HALFWORDS - 1 ? low | (cache.halfword(frame, index + 1) << 16) : low;
    const candidates = this.#byStart.get(keyOf(index, word));
    if (!candidates || this.#options.translated(cache.entryAddress(frame, index))) return;
    const region = candidates.find((candidate) => !this.#placed.has(candidate) && this.#matches(candidate, 0, frame));
    if (region) this.#place(region, frame);
  }

  #place(region: AheadRegion, frame: number): void {
    const placed: PlacedRegion = { region, frames: region.pages.map(() => -1) };
    this.#placed.set(region, placed);
    const virtual = this.#pageOf[frame]!;
    for (const [number, page] of region.pages.entries()) {
      if (number === 0) this.#join(placed, 0, frame);
      else if (!this.#tryJoin(placed, number, this.#frameOf.get(virtual + page))) {
        let waiting = this.#waiting.get(virtual + page);
        if (!waiting) this.#waiting.set(virtual + page, (waiting = new Map()));
        waiting.set(placed, number);
      }
    }
  }
  #tryJoin(placed: PlacedRegion, number: number, frame: number | undefined): boolean {
    if (frame === undefined || !this.#matches(placed.region, number, frame)) return false;
    this.#join(placed, number, frame);
    return true;
  }
  #join(placed: PlacedRegion, number: number, frame: number): void {
    placed.frames[number] = frame;
    this.#cell(placed.region, number, this.#options.cache.entryAddress(frame, 0));
    this.#options.place(placed, number);
  }
  #cell({ cell }: AheadRegion, number: number, value: number): void {
    this.#i32[(this.#options.cells.base + FRAME_CELLS + (cell + number) * 4) >> 2] = value;
  }

  /** Whether the instructions of one of a region's pages are those of a frame. */
  #matches({ recorded, pages }: AheadRegion, number: number, frame: number): boolean {
    const { cache } = this.#options;
    const from = pages[number]! * 4096;
    const same = (offset: number, halfword: number): boolean =>
      offset < from || offset >= from + 4096 || cache.halfword(frame, (offset - from) >> 1) === (halfword & 0xffff);
    for (const [offset, word] of pairs(recorded.words)) {
      if (!same(offset, word) || (lengthOf(word) === 4 && !same(offset + 2, word >>> 16))) return false;
    }
    return true;
  }

  fetched(low: number, high: number, address: number): void {
    if (!this.#active) return;
    const { cache } = this.#options;
    const frame = cache.frameIndex(address);
    const page = (high >>> 0) * 0x10_0000 + (low >>> 12);
    if (this.#pageOf[frame] === page) return;
    this.#forget(frame);
    this.#pageOf[frame] = page;
    this.#frameOf.set(page, frame);
    const waiting = this.#waiting.get(page);
    for (const [placed, number] of waiting ?? []) if (this.#tryJoin(placed, number, frame)) waiting!.delete(placed);
    if (waiting?.size === 0) this.#waiting.delete(page);
    // Decoded before somebody looked: by another engine, or where another page's entries led.
    for (let index = 0; index < PAGE_HALFWORDS; index++) {
      if (this.#starts[index] !== 0 && (this.#i32[cache.entryAddress(frame, index) >> 2]! & 0xffff) !== 0) this.decoded(frame, index);
    }
  }
  /** A frame stands for another page from now on. */
  frameGone(frame: number): void {
    this.#forget(frame);
    this.#pageOf[frame] = NaN;
  }
  #forget(frame: number): void {
    const page = this.#pageOf[frame]!;
    if (this.#frameOf.get(page) === frame) this.#frameOf.delete(page);
  }

  /** The engine has given the region up: some of its code has changed or is gone. */
  dropped(placed: PlacedRegion): void {
    this.#placed.delete(placed.region);
    placed.region.pages.forEach((_, number) => this.#cell(placed.region, number, 0));
    for (const [page, waiting] of this.#waiting) if (waiting.delete(placed) && waiting.size === 0) this.#waiting.delete(page);
  }
}

/** One bit per 8 bytes of a page: where a region's instructions are. */
export function usedBytes({ recorded, pages }: AheadRegion, number: number): Uint32Array {
  const from = pages[number]! * 4096;
  const used = new Uint32Array(16);
  const mark = (offset: number): void => {
    const at = offset - from;
    if (at >= 0 && at < 4096) used[at >> 8]! |= 1 << ((at >> 3) & 31);
  };
  for (const [offset, word] of pairs(recorded.words)) {
    mark(offset);
    mark(offset + lengthOf(word) - 2);
  }
  return used;
}

function startOf({ recorded }: AheadRegion): [number, number] {
  for (const pair of pairs(recorded.words)) if (pair[0] === recorded.start) return pair;
  throw new Error("a region translated ahead does not contain its first instruction");
}
const keyOf = (index: number, word: number): number => index * 2 ** 32 + (word >>> 0);
