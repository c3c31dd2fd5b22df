import { MACHINE_WORDS } from "../hart-state.ts";

/**
 * What a debugger has set, in the words that all harts share: written by the host while the harts are parked, read by each
 * hart when it leaves the park. From 0x800 after MACHINE_WORDS (mailbox.ts and guest-time.ts use the beginning).
 */
const TABLE = MACHINE_WORDS + 0x800;
const ENTRIES = TABLE + 0x10;
const ENTRY_BYTES = 0x20; // kind, length: i32; virtual address, physical address: i64
export const MOST_ENTRIES = 56; // up to 0xf10 of the page

export const DebugKind = {
  /** An ebreak that the host has written over the instruction. */
  SOFT: 0,
  /** A pc, compared before the instruction; memory stays as it is. */
  HARD: 1,
  WATCH_WRITE: 2,
  WATCH_READ: 3,
  WATCH_ACCESS: 4,
} as const;
export type DebugKind = (typeof DebugKind)[keyof typeof DebugKind];

export interface DebugEntry {
  readonly kind: DebugKind;
  readonly address: bigint;
  /** Bytes: of the instruction, or watched. */
  readonly length: number;
  /** SOFT: where the ebreak was written. */
  readonly physical: bigint;
}

export function writeDebugTable(buffer: ArrayBufferLike, entries: readonly DebugEntry[]): void {
  const words = new Int32Array(buffer);
  const wide = new BigUint64Array(buffer);
  entries.slice(0, MOST_ENTRIES).forEach((entry, n) => {
    const at = ENTRIES + n * ENTRY_BYTES;
    words[at >> 2] = entry.kind;
    words[(at >> 2) + 1] = entry.length;
    wide[(at >> 3) + 1] = entry.address;
    wide[(at >> 3) + 2] = entry.physical;
  });
  Atomics.store(words, TABLE >> 2, Math.min(entries.length, MOST_ENTRIES));
}

export function readDebugTable(buffer: ArrayBufferLike): DebugEntry[] {
  const words = new Int32Array(buffer, 0, (ENTRIES + MOST_ENTRIES * ENTRY_BYTES) / 4);
  const wide = new BigUint64Array(buffer, 0, words.length / 2);
  return Array.from({ length: Atomics.load(words, TABLE >> 2) }, (_, n) => {
    const at = ENTRIES + n * ENTRY_BYTES;
    return { kind: words[at >> 2] as DebugKind, length: words[(at >> 2) + 1]!, address: wide[(at >> 3) + 1]!, physical: wide[(at >> 3) + 2]! };
  });
}
