import type { HartCells } from "./cells.ts";
import { CSRS, PRIVILEGE, SECOND_GENERATION, TLB_SET, TLB_STALE, VIRTUAL } from "./hart-state.ts";
import {
  Access, CONTEXTS, Context, FETCH_ENTRIES, FETCH_TABLE, LOAD_ENTRIES, LOAD_TABLE, SECOND_ENTRIES, SECOND_GENERATIONS, SECOND_LOAD,
  SECOND_STORE, SET_BYTES, STORE_ENTRIES, STORE_TABLE, TLB_ENTRY_BYTES, TLB_SETS, entryMask,
} from "./tlb.ts";

// Indices of the low 32-bit words of CSRs in the cells, and fields of mstatus.
export const MSTATUS = (CSRS + 0x300 * 8) >> 2;
export const SATP = (CSRS + 0x180 * 8) >> 2;
export const VSSTATUS = (CSRS + 0x200 * 8) >> 2;
export const SUM = 1 << 18;
export const MXR = 1 << 19;
export const MPRV = 1 << 17;

const GUEST_CONTEXTS = (1 << Context.VS) | (1 << Context.VS_SUM) | (1 << Context.VU);

/** Positions in #superpages: one byte per 2 MiB region and one per 1 GiB region, hashed, lower and upper half apart. */
const SUPERPAGE_REGIONS = 4096;
function megaRegion(low: number, high: number): number {
  return ((low >>> 21) & 0x3ff) | (high < 0 ? 0x400 : 0);
}
function gigaRegion(low: number, high: number): number {
  return 0x800 | (((low >>> 30) | (high << 2)) & 0x3ff) | (high < 0 ? 0x400 : 0);
}

/**
 * The translations that a hart keeps (layout: tlb.ts): which set is in use, what is stale, what a flush takes away. Knows
 * nothing of page tables; mmu.ts walks them and fills entries in.
 */
export class Tlb {
  flushes = 0;
  pageFlushes = 0;
  /** Addends of all fetch TLB entries, and of some that were since replaced. */
  readonly fetched = new Set<number>();

  readonly #cells: HartCells;
  readonly #i32: Int32Array;
  /** Index in #i32 of the first word of the sets. */
  readonly #sets: number;
  /** Regions from which a superpage was cached since the last flush. */
  readonly #superpages = new Uint8Array(SUPERPAGE_REGIONS);
  #mxr = 0;
  /** vsstatus.MXR and the hypervisor's sstatus.MXR when guests' entries were made. */
  #guestMxr = 0;
  #satpMode = 0;

  /** `i32`: the linear memory in which the cells lie. */
  constructor(i32: Int32Array, cells: HartCells) {
    this.#cells = cells;
    this.#i32 = i32;
    this.#sets = (cells.base + TLB_SETS) >> 2;
    this.#stale = (1 << CONTEXTS) - 1;
    this.#forgetSecond();
    this.contextChanged();
  }

  /** Sets whose entries are stale; emptied when they are next chosen. Generated code looks here before it chooses one (system-function.ts). */
  get #stale(): number {
    return this.#cells.i32[TLB_STALE >> 2]!;
  }
  set #stale(contexts: number) {
    this.#cells.i32[TLB_STALE >> 2] = contexts;
  }
  get #context(): Context {
    return (((this.#cells.u32[TLB_SET >> 2]! >>> 2) - this.#sets) / (SET_BYTES >> 2)) as Context;
  }

  /** Index of a context's set in linear memory, in 32-bit words. */
  #set(context: Context): number {
    return this.#sets + context * (SET_BYTES >> 2);
  }

  contextChanged(): void {
    const cells = this.#cells.i32;
    const privilege = cells[PRIVILEGE >> 2]!;
    const status = cells[MSTATUS]!;
    if (cells[VIRTUAL >> 2]) return this.#guestContext(privilege, status);
    const mode = cells[SATP + 1]! >>> 28;
    if ((status & MXR) !== this.#mxr || mode !== this.#satpMode) {
      this.#mxr = status & MXR;
      this.#satpMode = mode;
      this.#stale |= ~(1 << Context.M) & ~GUEST_CONTEXTS;
      this.#forgetSecond();
    }
    let context: Context;
    if (privilege === 0) context = Context.U;
    else if (privilege === 1) context = status & SUM ? Context.S_SUM : Context.S;
    else if (status & MPRV && ((status >> 11) & 3) !== 3) {
      context = Context.MPRV;
      if (this.#context !== Context.MPRV) this.#stale |= 1 << Context.MPRV;
    } else context = Context.M;
    // mstatus.MPP or SUM may change while MPRV is in force.
    if (context === Context.MPRV) this.#stale |= 1 << Context.MPRV;
    this.#choose(context);
  }

  #guestContext(privilege: number, status: number): void {
    const mxr = (status & MXR) | ((this.#cells.i32[VSSTATUS]! & MXR) >> 1);
    if (mxr !== this.#guestMxr) {
      this.#guestMxr = mxr;
      this.#stale |= GUEST_CONTEXTS;
      this.#forgetSecond();
    }
    this.#choose(privilege === 0 ? Context.VU : status & SUM ? Context.VS_SUM : Context.VS);
  }

  flush(): void {
    this.flushes++;
    this.#superpages.fill(0);
    this.#stale = (1 << CONTEXTS) - 1;
    this.#forgetSecond();
    this.fetched.clear();
    this.#choose(this.#context);
  }

  flushGuest(): void {
    this.flushes++;
    this.#stale |= GUEST_CONTEXTS | (1 << Context.MPRV);
    this.#forgetSecond();
    this.#choose(this.#context);
  }

  /** Empties the second level, by making all of its entries those of an older generation. */
  #forgetSecond(): void {
    const cell = SECOND_GENERATION >> 2;
    let generation = this.#cells.i32[cell]! + 1;
    if (generation >= SECOND_GENERATIONS) {
      generation = 1;
      this.#i32.fill(0, this.#second(SECOND_LOAD), this.#second(SECOND_STORE) + (SECOND_ENTRIES * TLB_ENTRY_BYTES) / 4);
    }
    this.#cells.i32[cell] = generation;
  }
  /** Index in #i32 of a table of the second level. */
  #second(table: number): number {
    return this.#sets + ((table - TLB_SETS) >> 2);
  }

  /** sfence.vma of one address, in all address spaces. False, and nothing is done: it takes a flush. */
  flushPage(address: bigint): boolean {
    const [low, high] = [Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(64, address) >> 32n)];
    // Entries are by 4 KiB: where a superpage was seen, one fence may have to take many of them.
    if (this.#superpages[megaRegion(low, high)] || this.#superpages[gigaRegion(low, high)]) return false;
    this.pageFlushes++;
    for (const table of [SECOND_LOAD, SECOND_STORE]) this.#drop(this.#second(table), SECOND_ENTRIES, low);
    for (let context = 0; context < CONTEXTS; context++) {
      if (this.#stale & (1 << context)) continue;
      const set = this.#set(context as Context);
      this.#drop(set + (LOAD_TABLE >> 2), LOAD_ENTRIES, low);
      this.#drop(set + (STORE_TABLE >> 2), STORE_ENTRIES, low);
      this.#drop(set + (FETCH_TABLE >> 2), FETCH_ENTRIES, low);
    }
    return true;
  }

  /** A leaf at this level of the page tables was cached; 1 also for Svnapot. */
  sawSuperpage(low: number, high: number, level: number): void {
    this.#superpages[megaRegion(low, high)] = 1;
    if (level > 1) this.#superpages[gigaRegion(low, high)] = 1;
  }

  /** Empties the entry that an address may be in. */
  #drop(table: number, entries: number, low: number): void {
    const offset = (low >>> 8) & entryMask(entries);
    this.#i32[table + (offset >> 2)] = this.#i32[table + (offset >> 2) + 1] = offset === entryMask(entries) ? 0 : -1;
  }

  /** Forgets all fetch translations (frames moved, or fence.i). */
  flushFetch(): void {
    this.fetched.clear();
    for (let context = 0; context < CONTEXTS; context++) {
      if (this.#stale & (1 << context)) continue;
      this.#empty(this.#set(context as Context) + (FETCH_TABLE >> 2), FETCH_ENTRIES);
    }
  }

  #choose(context: Context): void {
    const set = this.#set(context);
    if (this.#stale & (1 << context)) {
      this.#stale &= ~(1 << context);
      this.#empty(set + (LOAD_TABLE >> 2), LOAD_ENTRIES);
      this.#empty(set + (STORE_TABLE >> 2), STORE_ENTRIES);
      this.#empty(set + (FETCH_TABLE >> 2), FETCH_ENTRIES);
    }
    this.#cells.i32[TLB_SET >> 2] = set << 2;
  }

  #empty(table: number, entries: number): void {
    const words = TLB_ENTRY_BYTES >> 2;
    this.#i32.fill(-1, table, table + entries * words); // tag -1 belongs to the last index …
    this.#i32.fill(0, table + (entries - 1) * words, table + entries * words); // … which gets the tag of index 0
  }

  /** Installs a translation. `addend` as in tlb.ts. */
  fill(access: Access, low: number, high: number, addend: number): void {
    if (access === Access.EXECUTE) this.fetched.add(addend);
    const set = this.#cells.u32[TLB_SET >> 2]! >>> 2;
    const table = access === Access.READ ? LOAD_TABLE : access === Access.WRITE ? STORE_TABLE : FETCH_TABLE;
    const entries = access === Access.READ ? LOAD_ENTRIES : access === Access.WRITE ? STORE_ENTRIES : FETCH_ENTRIES;
    const word = set + ((table + ((low >>> 8) & entryMask(entries))) >> 2);
    this.#i32[word] = low & ~0xfff;
    this.#i32[word + 1] = high;
    this.#i32[word + 2] = addend;
    if (access === Access.EXECUTE || this.#context === Context.MPRV) return;
    const second = this.#second(access === Access.READ ? SECOND_LOAD : SECOND_STORE) + (((low >>> 8) & entryMask(SECOND_ENTRIES)) >> 2);
    this.#i32[second] = (low & ~0xfff) | this.#cells.i32[SECOND_GENERATION >> 2]!;
    this.#i32[second + 1] = high;
    this.#i32[second + 2] = addend;
    this.#i32[second + 3] = set << 2;
  }
}
