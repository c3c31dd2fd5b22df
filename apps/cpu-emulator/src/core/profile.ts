import type { HartCells } from "./cells.ts";
import { PC, PRIVILEGE } from "./hart-state.ts";

/** Bytes of code that one counter stands for. */
export const SPOT_BYTES = 64;
/** Counters kept; when there are more, all are halved and what is left of them stays. */
const MOST_SPOTS = 8192;
const PC_HIGH_BITS = 0x1ff_ffff; // bits 56:32 of an address: Sv57 has no more
const LOW_UNITS = 2 ** 26; // 64-byte units in 4 GiB
const PRIVILEGE_UNIT = 2 ** 51;

export interface Spot {
  /** Virtual address of the first byte. */
  readonly address: bigint;
  readonly privilege: number;
  readonly samples: number;
}

/**
 * Where a hart spends its instructions: a sample of pc and privilege at the end of each full slice. No engine takes part; a
 * slice ends at a jump or a page's end, which is exact enough for 64 bytes.
 */
export class Profile {
  readonly #cells: HartCells;
  #counts = new Map<number, number>();

  constructor(cells: HartCells) {
    this.#cells = cells;
  }

  /** About 0.1 µs in a slice of 20 to 40. */
  sample(): void {
    const words = this.#cells.i32;
    const high = words[(PC >> 2) + 1]! & PC_HIGH_BITS;
    const key = words[PRIVILEGE >> 2]! * PRIVILEGE_UNIT + high * LOW_UNITS + (words[PC >> 2]! >>> 6);
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    if (this.#counts.size > MOST_SPOTS) this.#halve();
  }

  /** Pairs of key and samples, for {@link spotsOf}. */
  entries(): [number, number][] {
    return [...this.#counts];
  }

  #halve(): void {
    this.#counts = new Map(this.entries().map(([key, count]) => [key, count >> 1] as const).filter(([, count]) => count > 0));
  }
}

/** Several harts' entries as spots, hottest first. */
export function spotsOf(entries: Iterable<readonly [number, number]>): Spot[] {
  const sums = new Map<number, number>();
  for (const [key, count] of entries) sums.set(key, (sums.get(key) ?? 0) + count);
  return [...sums]
    .map(([key, samples]) => {
      const privilege = Math.floor(key / PRIVILEGE_UNIT);
      const units = BigInt(key - privilege * PRIVILEGE_UNIT);
      return { address: BigInt.asUintN(64, BigInt.asIntN(57, units * BigInt(SPOT_BYTES))), privilege, samples };
    })
    .toSorted((a, b) => b.samples - a.samples);
}
