import { ENGINE } from "./hart-state.ts";

/**
 * Layout of the translation caches in a hart's area, shared by the MMU (fills and flushes) and generated code (looks up).
 *
 * One *set* per translation context, so that traps between U and S keep their entries. A set is three direct-mapped
 * tables, for loads, stores and fetches, of 16-byte entries:
 *
 *   +0  i64 tag      page-aligned virtual address
 *   +8  i32 addend   load, store: add to the low half of the address for the place in linear memory
 *                    fetch: address of the frame of decoded entries (decode-cache.ts)
 *
 * Behind them, for loads and stores of all contexts but MPRV, a *second level* of two larger direct-mapped tables whose entries
 * hold also whose they are:
 *
 *   +0  i64 tag      page-aligned virtual address + the value of SECOND_GENERATION when it was made
 *   +8  i32 addend
 *   +12 i32 set      address of the context's set
 *
 * A hit in a set is `((tag ^ address) & (~0xfff | bytes - 1)) == 0`, which also sends misaligned accesses to the slow path. An
 * invalid entry holds a tag that belongs to another index, so no address can match it.
 */
export const TLB_ENTRY_BYTES = 16;

/** What a translation is for. */
export const Access = { READ: 0, WRITE: 1, EXECUTE: 2 } as const;
export type Access = (typeof Access)[keyof typeof Access];

/** Entries per table. Larger tables miss less but make sfence.vma dearer; see interpreter.bench.ts. */
export const LOAD_ENTRIES = 512;
export const STORE_ENTRIES = 512;
export const FETCH_ENTRIES = 1024;

/** Offsets of the tables in a set. */
export const LOAD_TABLE = 0;
export const STORE_TABLE = LOAD_TABLE + LOAD_ENTRIES * TLB_ENTRY_BYTES;
export const FETCH_TABLE = STORE_TABLE + STORE_ENTRIES * TLB_ENTRY_BYTES;
export const SET_BYTES = FETCH_TABLE + FETCH_ENTRIES * TLB_ENTRY_BYTES;

/**
 * Translation contexts. MPRV is emptied whenever it is chosen. VS, VS_SUM and VU are a guest's (V = 1): their entries combine
 * both stages of translation.
 */
export const Context = { M: 0, S: 1, S_SUM: 2, U: 3, MPRV: 4, VS: 5, VS_SUM: 6, VU: 7 } as const;
export type Context = (typeof Context)[keyof typeof Context];
export const CONTEXTS = 8;

/** Entries per table of the second level: 64 MiB of pages, 256 KiB of memory that is committed as it is used. */
export const SECOND_ENTRIES = 16_384;
/** Generations fit the offset bits of a tag; 0 is that of empty entries. */
export const SECOND_GENERATIONS = 4096;

/** Offset of the sets in the hart area. */
export const TLB_SETS = ENGINE;
export const SECOND_LOAD = TLB_SETS + CONTEXTS * SET_BYTES;
export const SECOND_STORE = SECOND_LOAD + SECOND_ENTRIES * TLB_ENTRY_BYTES;
export const TLB_END = SECOND_STORE + SECOND_ENTRIES * TLB_ENTRY_BYTES;

/** Byte offset of an address's entry in a table, from bits 12 and up: `(address >> 8) & mask`. */
export const entryMask = (entries: number): number => (entries - 1) * TLB_ENTRY_BYTES;
