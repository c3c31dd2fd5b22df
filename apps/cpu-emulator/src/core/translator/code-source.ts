import { decode, type Decoded } from "@polyvisor/isa";
import { FRAME_AREA, FRAME_BYTES, FRAMES, PAGE_HALFWORDS, PROFILE, PROFILE_MASK, SNAPSHOT_AREA, VERSIONS } from "../decode-cache.ts";
import { FETCH_ENTRIES, FETCH_TABLE, entryMask } from "../tlb.ts";

/**
 * Guest code as the translator reads it. Places are *offsets*: bytes from the start of the virtual page that holds the
 * region's first instruction, so that translated code does not depend on where its page is mapped.
 */
export interface CodeSource {
  /** The instruction at an offset; undefined where nothing was executed yet or the page is not known. */
  at(offset: number): SourceInstruction | undefined;
  /** Where the indirect jump at an offset went last. */
  target(offset: number): number | undefined;
  /** Frame of decoded code of the page that an offset lies in; -1: not known. */
  frame(offset: number): number;
}

export interface SourceInstruction {
  readonly word: number;
  readonly length: 2 | 4;
  /** Undefined: illegal. */
  readonly decoded: Decoded | undefined;
}

/** What a hart asks for: the code from an entry on, as reached at `pc` with its translations of fetches. */
export interface CodeRequest {
  readonly frame: number;
  /** Halfword of the page. */
  readonly index: number;
  readonly pc: bigint;
  /** Byte address of the hart's active TLB set. */
  readonly tlbSet: number;
  /** Also what was never executed (tests: everything is translated at once). */
  readonly cold?: boolean;
}

/** Snapshots that a translation was made from. */
export interface SourceDependency {
  readonly frame: number;
  readonly version: number;
  /** One bit per 8 bytes of the page. */
  readonly used: Uint32Array;
}

/**
 * Reads the frames, snapshots and fetch TLB of a hart in the machine's shared memory, also from another thread: what
 * the hart changes meanwhile is found out by the versions, and the mapping of pages is only a guess that translated code
 * checks whenever it goes to another page.
 */
export class FrameSource implements CodeSource {
  readonly #request: CodeRequest;
  readonly #base: number;
  readonly #u16: Uint16Array;
  readonly #i32: Int32Array;
  readonly #i64: BigInt64Array;
  readonly #firstPage: bigint;
  /** Frames by page, counted from the region's first page. */
  readonly #frames = new Map<number, number>();
  readonly #used = new Map<number, SourceDependency>();

  /** `hartBase`: byte address of the hart's area. */
  constructor(buffer: ArrayBufferLike, hartBase: number, request: CodeRequest) {
    this.#request = request;
    this.#base = hartBase;
    this.#u16 = new Uint16Array(buffer);
    this.#i32 = new Int32Array(buffer);
    this.#i64 = new BigInt64Array(buffer);
    this.#firstPage = BigInt.asIntN(64, request.pc) & ~0xfffn;
    this.#frames.set(0, request.frame);
  }

  get dependencies(): SourceDependency[] {
    return [...this.#used.values()];
  }

  at(offset: number): SourceInstruction | undefined {
    if (offset < -FARTHEST || offset >= FARTHEST) return undefined;
    const frame = this.frame(offset);
    if (frame < 0) return undefined;
    const index = (offset & 0xfff) >> 1;
    if (!this.#request.cold && this.#u16[(this.#base + FRAME_AREA + frame * FRAME_BYTES + index * 8) >> 1] === 0) return undefined;
    const low = this.#halfword(frame, index);
    if ((low & 3) !== 3) return instruction(low, 2);
    if (index < PAGE_HALFWORDS - 1) return instruction(low | (this.#halfword(frame, index + 1) << 16), 4);
    const second = this.frame(offset + 2);
    return second < 0 ? undefined : instruction(low | (this.#halfword(second, 0) << 16), 4);
  }

  target(offset: number): number | undefined {
    const frame = this.frame(offset);
    if (frame < 0) return undefined;
    const entry = this.#base + FRAME_AREA + frame * FRAME_BYTES + ((offset & 0xfff) >> 1) * 8;
    const at = this.#base + PROFILE + ((entry << 1) & PROFILE_MASK);
    if (this.#i32[at >> 2] !== entry) return undefined;
    const distance = Number(this.#i64[(at + 8) >> 3]! - this.#firstPage);
    return distance >= -FARTHEST && distance < FARTHEST ? distance : undefined;
  }

  frame(offset: number): number {
    const page = Math.floor(offset / 4096);
    let frame = this.#frames.get(page);
    if (frame === undefined) this.#frames.set(page, (frame = this.#mapped(this.#firstPage + BigInt(page) * 4096n)));
    return frame;
  }

  #mapped(page: bigint): number {
    const low = Number(BigInt.asIntN(32, page));
    const entry = this.#request.tlbSet + FETCH_TABLE + ((low >>> 8) & entryMask(FETCH_ENTRIES));
    if (this.#i64[entry >> 3] !== BigInt.asIntN(64, page)) return -1;
    const frame = (this.#i32[(entry + 8) >> 2]! - this.#base - FRAME_AREA) / FRAME_BYTES;
    return Number.isInteger(frame) && frame >= 0 && frame < FRAMES ? frame : -1;
  }

  #halfword(frame: number, index: number): number {
    let used = this.#used.get(frame);
    if (!used) {
      const version = Atomics.load(this.#i32, ((this.#base + VERSIONS) >> 2) + frame);
      this.#used.set(frame, (used = { frame, version, used: new Uint32Array(16) }));
    }
    used.used[index >> 7]! |= 1 << ((index >> 2) & 31);
    return this.#u16[((this.#base + SNAPSHOT_AREA + frame * 4096) >> 1) + index]!;
  }
}

/** Translations reach no farther than this from their first page: offsets must fit 24 bits (lower-region.ts). */
const FARTHEST = 0x40_0000;

const decoded = new Map<number, SourceInstruction>();
/** Guests choose the words: the table is emptied when it has grown to this. */
const MOST_DECODED = 50_000;

function instruction(word: number, length: 2 | 4): SourceInstruction {
  let known = decoded.get(word);
  if (!known) {
    if (decoded.size >= MOST_DECODED) decoded.clear();
    decoded.set(word, (known = { word, length, decoded: decode(word) }));
  }
  return known;
}
