import type { HartCells } from "./cells.ts";
import { HART_AREA_BYTES } from "./hart-state.ts";
import { TLB_END } from "./tlb.ts";

/**
 * Decoded code of one hart: a *frame* per physical page of code, found through the fetch TLB.
 *
 * Frame: one 8-byte entry per halfword of the page, then sentinels:
 *   +0 u16 op      handler number in generated code, 0 = not decoded yet
 *   +2 u8  a       register number * 8, see handlers.ts for which operand
 *   +3 u8  b       register number * 8
 *   +4 i32 imm     immediate, or bytes: rs2 * 8, rs3 * 8
 *
 * Entries are decoded lazily from a *snapshot* of the page taken when the frame was made. Stores are not watched:
 * RISC-V promises that new code is seen only after fence.i, which makes all frames suspect; a suspect frame is compared
 * with memory at once when it is in use, else when it is next entered, and only entries that changed are decoded again (ADR 0002).
 */
export const PAGE_HALFWORDS = 2048;
/** Entry of `op` PAGE_END after the last halfword. */
export const END_ENTRY = PAGE_HALFWORDS;
/** Where a 4-byte instruction that begins in the last halfword is decoded, and the sentinel after it. */
export const CROSSING_ENTRY = PAGE_HALFWORDS + 1;
export const CROSSING_WORD_ENTRY = PAGE_HALFWORDS + 2; // its `imm` holds the instruction word
export const CROSSING_END_ENTRY = PAGE_HALFWORDS + 3;
/** What the crossing entry was made from: at +0 the frame of the second half, at +4 the value of CODE_EPOCH. */
export const CROSSING_SOURCE_ENTRY = PAGE_HALFWORDS + 4;
export const FRAME_BYTES = (PAGE_HALFWORDS + 8) * 8;

export const FRAMES = 1536;
/** How many frames are given up at once when all are taken, so that the fetch TLB is flushed rarely. */
const EVICT_AT_ONCE = 64;

/**
 * Up to how many frames in the fetch TLB a fence.i compares at once; when there are more, their fetches are forgotten, so that
 * frames no longer in use are not compared again. A comparison is 0.15 µs, a forgotten fetch 1 µs. Linux's boot has 43,000 fences
 * with some 10 frames between them (it patches the entry of every function for ftrace).
 */
const COMPARED_AT_ONCE = 24;

/** Offset of an entry in the hart area that sends generated code to the PC cell; then frames, then snapshots. */
export const START_ENTRY = (TLB_END + 63) & ~63;
/** i32: changes whenever decoded code may have become wrong: fence.i, eviction. */
export const CODE_EPOCH = START_ENTRY + 32;
export const FRAME_AREA = START_ENTRY + 64;
export const SNAPSHOT_AREA = (FRAME_AREA + FRAMES * FRAME_BYTES + 4095) & ~4095;
export const DECODE_CACHE_END = SNAPSHOT_AREA + FRAMES * 4096;

/** u16 per entry, hashed by its address >> 2: how often it was jumped to (engine `dynamic`). */
export const COUNTERS = (DECODE_CACHE_END + 63) & ~63;
export const COUNTER_MASK = 0x1_fffe;
/** 16 bytes per indirect jump, hashed by its entry's address << 1: i32 the entry, at +8 i64 where it went last. */
export const PROFILE = COUNTERS + COUNTER_MASK + 2;
export const PROFILE_MASK = 0x3ff0;
/** i32 per frame: changes before and after its snapshot does; odd while it changes. */
export const VERSIONS = PROFILE + PROFILE_MASK + 16;
/** i32 per page of regions translated ahead: its frame, 0 while it is not known (translator/ahead). */
export const FRAME_CELLS = (VERSIONS + FRAMES * 4 + 63) & ~63;
export const MOST_FRAME_CELLS = 0x1_0000;
export const TRANSLATION_END = FRAME_CELLS + MOST_FRAME_CELLS * 4;
if (TRANSLATION_END > HART_AREA_BYTES) throw new Error("decode cache: FRAMES do not fit the hart area");

export interface DecodeCacheOptions {
  readonly memory: WebAssembly.Memory;
  readonly cells: HartCells;
  readonly ramPages: number;
  readonly ramOffset: number;
  /** Handler number of the sentinels. */
  readonly pageEndOp: number;
  /** Byte offset of the first 8-byte difference of two pages in linear memory at or after `from`, 4096 when equal. */
  readonly difference: (a: number, b: number, from: number) => number;
  /** Frames (addresses) that fetch translations may lead to; their pages are readable. */
  readonly fetched: ReadonlySet<number>;
  /** Fetch translations to frames are no longer valid. */
  readonly flushFetch: () => void;
}

/** What translations made from snapshots need to hear of (engine `dynamic`). */
export interface SnapshotListener {
  /** 8 bytes at this offset of a frame's snapshot were replaced, and their entries decode again. */
  bytesChanged(frame: number, offset: number): void;
  /** The frame no longer stands for its page. */
  frameGone(frame: number): void;
}

export class DecodeCache {
  framesMade = 0;
  framesCompared = 0;
  entriesReset = 0;
  evictions = 0;
  listener: SnapshotListener | undefined;

  readonly #options: DecodeCacheOptions;
  readonly #bytes: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #i32: Int32Array;
  readonly #base: number;
  /** Frame of a RAM page, -1 = none. */
  readonly #frameOf: Int16Array;
  readonly #pageOf = new Int32Array(FRAMES).fill(-1);
  /** Value of #epoch when the snapshot was last known to be right. */
  readonly #checked = new Float64Array(FRAMES);
  #epoch = 1;
  #next = 0;
  #free = 0; // frames from #next on that may be taken without evicting

  constructor(options: DecodeCacheOptions) {
    this.#options = options;
    this.#base = options.cells.base;
    this.#bytes = new Uint8Array(options.memory.buffer);
    this.#u16 = new Uint16Array(options.memory.buffer);
    this.#i32 = new Int32Array(options.memory.buffer);
    this.#frameOf = new Int16Array(options.ramPages).fill(-1);
    this.#free = FRAMES;
  }

  /** fence.i: what was decoded so far must be compared with memory before it runs again. */
  suspectAll(): void {
    this.#epoch++;
    const { fetched } = this.#options;
    if (fetched.size > COMPARED_AT_ONCE) return this.#changed();
    this.#i32[(this.#base + CODE_EPOCH) >> 2]!++;
    for (const address of fetched) {
      const frame = this.frameIndex(address);
      this.#compare(frame, this.#pageOf[frame]!);
    }
  }

  #changed(): void {
    this.#i32[(this.#base + CODE_EPOCH) >> 2]!++;
    this.#options.flushFetch();
  }

  /**
   * The frame (its address in linear memory) of a RAM page whose content is readable now. `keep` is a frame that must
   * survive an eviction.
   */
  frame(page: number, keep = -1): number {
    let frame = this.#frameOf[page]!;
    if (frame < 0) frame = this.#make(page, keep);
    else if (this.#checked[frame] !== this.#epoch) this.#compare(frame, page);
    return this.#address(frame);
  }

  frameIndex(entry: number): number {
    return ((entry - this.#base - FRAME_AREA) / FRAME_BYTES) | 0;
  }

  /** Address of the entry of a halfword of a frame's page. */
  entryAddress(frame: number, index: number): number {
    return this.#address(frame) + index * 8;
  }

  /** Which entry of its frame an entry's address is. */
  entryIndex(entry: number): number {
    return ((entry - this.#base - FRAME_AREA) % FRAME_BYTES) >> 3;
  }

  /** Changes with every change of a frame's snapshot. */
  version(frame: number): number {
    return this.#i32[((this.#base + VERSIONS) >> 2) + frame]!;
  }

  /** Around a change of a snapshot, so that a translator in another thread finds out (a sequence lock). */
  #changing(frame: number): void {
    Atomics.add(this.#i32, ((this.#base + VERSIONS) >> 2) + frame, 1);
  }

  #address(frame: number): number {
    return this.#base + FRAME_AREA + frame * FRAME_BYTES;
  }

  /** A halfword of a frame's page, as it was when the snapshot was taken. */
  halfword(frame: number, index: number): number {
    return this.#u16[((this.#base + SNAPSHOT_AREA + frame * 4096) >> 1) + index]!;
  }

  #make(page: number, keep: number): number {
    if (this.#free === 0) this.#evict(keep);
    const frame = this.#next;
    this.#next = (this.#next + 1) % FRAMES;
    this.#free--;
    if (this.#pageOf[frame] !== -1) return this.#make(page, keep); // kept by the eviction
    this.framesMade++;
    this.#pageOf[frame] = page;
    this.#frameOf[page] = frame;
    this.#checked[frame] = this.#epoch;
    const source = this.#options.ramOffset + page * 4096;
    const address = this.#address(frame);
    this.#changing(frame);
    this.#bytes.copyWithin(this.#base + SNAPSHOT_AREA + frame * 4096, source, source + 4096);
    this.#i32.fill(0, address >> 2, (address + FRAME_BYTES) >> 2);
    for (const entry of [END_ENTRY, CROSSING_END_ENTRY]) this.#u16[(address + entry * 8) >> 1] = this.#options.pageEndOp;
    this.#changing(frame);
    return frame;
  }

  #evict(keep: number): void {
    this.evictions++;
    for (let i = 0; i < EVICT_AT_ONCE; i++) {
      const frame = (this.#next + i) % FRAMES;
      if (frame === keep) continue;
      const page = this.#pageOf[frame]!;
      if (page < 0) continue;
      this.#frameOf[page] = -1;
      this.#pageOf[frame] = -1;
      this.listener?.frameGone(frame);
    }
    this.#free = EVICT_AT_ONCE;
    this.#changed();
  }

  #compare(frame: number, page: number): void {
    this.framesCompared++;
    this.#checked[frame] = this.#epoch;
    const snapshot = this.#base + SNAPSHOT_AREA + frame * 4096;
    const source = this.#options.ramOffset + page * 4096;
    const address = this.#address(frame);
    for (let at = 0; (at = this.#options.difference(snapshot, source, at)) < 4096; at += 8) {
      this.#changing(frame);
      this.#bytes.copyWithin(snapshot + at, source + at, source + at + 8);
      // Four halfwords changed, and a 4-byte instruction may begin one before them.
      for (let index = Math.max(0, (at >> 1) - 1); index < (at >> 1) + 4; index++) {
        this.entriesReset++;
        this.#i32[(address + index * 8) >> 2] = 0;
        this.#i32[(address + index * 8 + 4) >> 2] = 0;
      }
      this.#changing(frame);
      this.listener?.bytesChanged(frame, at);
    }
  }
}
