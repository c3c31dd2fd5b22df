import type { HartCells } from "./cells.ts";
import { CSRS } from "./hart-state.ts";
import type { PmpAccess } from "./engine.ts";

/**
 * Physical Memory Protection (privileged spec 1.13, section 3.7): 16 entries, OFF / TOR / NAPOT, lock bits. The
 * granularity is a page (G = 10: NA4 cannot be selected and the low address bits are not kept), as software finds out by
 * writing ones to pmpaddr, so that one decision holds for a whole TLB entry.
 */
export const PMP_ENTRIES = 16;
const PMPCFG0 = 0x3a0;
const PMPADDR0 = 0x3b0;

const R = 1;
const W = 2;
const X = 4;
const A_TOR = 1;
const A_NA4 = 2;
const A_NAPOT = 3;
const LOCK = 0x80;

const G = 10n; // granularity 2^(G+2) bytes
const ADDRESS_MASK = (1n << 54n) - 1n;

interface Region {
  readonly first: bigint; // pages, inclusive
  readonly end: bigint; // exclusive
  readonly config: number;
}

export class Pmp {
  readonly #cells: HartCells;
  #regions: Region[] | undefined; // decoded on first use after a change

  constructor(cells: HartCells) {
    this.#cells = cells;
  }

  allows(physical: bigint, access: PmpAccess, privilege: number): boolean {
    const regions = (this.#regions ??= this.#decode());
    const page = physical >> 12n;
    for (const { first, end, config } of regions) {
      if (page < first || page >= end) continue;
      if (privilege === 3 && !(config & LOCK)) return true;
      return (config & (access === "read" ? R : access === "write" ? W : X)) !== 0;
    }
    // "If no PMP entry matches an M-mode access, it succeeds; S and U fail when at least one entry is implemented."
    return privilege === 3;
  }

  readConfig(number: number): bigint {
    return number < PMPCFG0 + PMP_ENTRIES / 4 ? this.#cells.csr(number) : 0n;
  }
  /** pmpcfg0, pmpcfg2 (RV64 has only even ones); the others hold no entries and stay zero. */
  writeConfig(number: number, value: bigint): void {
    const offset = CSRS + number * 8;
    if (number >= PMPCFG0 + PMP_ENTRIES / 4) return;
    for (let byte = 0; byte < 8; byte++) {
      const old = this.#cells.u8[offset + byte]!;
      if (old & LOCK) continue;
      let config = Number((value >> BigInt(byte * 8)) & 0x9fn);
      if ((config & (R | W)) === W) config = (config & ~7) | (old & 7); // reserved combination: keep
      if (((config >> 3) & 3) === A_NA4) config = (config & ~0x18) | (old & 0x18); // not selectable with G >= 1
      this.#cells.u8[offset + byte] = config;
    }
    this.#regions = undefined;
  }

  readAddress(number: number): bigint {
    const entry = number - PMPADDR0;
    if (entry >= PMP_ENTRIES) return 0n;
    const value = this.#cells.csr(number);
    // Section 3.7.1.1: with NAPOT bits G-2:0 read as ones, with OFF and TOR bits G-1:0 read as zeros.
    return ((this.#config(entry) >> 3) & 3) === A_NAPOT ? value | ((1n << (G - 1n)) - 1n) : value & ~((1n << G) - 1n);
  }
  writeAddress(number: number, value: bigint): void {
    const entry = number - PMPADDR0;
    if (entry >= PMP_ENTRIES || this.#config(entry) & LOCK) return;
    const next = entry + 1 < PMP_ENTRIES ? this.#config(entry + 1) : 0;
    if (next & LOCK && ((next >> 3) & 3) === A_TOR) return; // it is the base of a locked TOR region
    this.#cells.setCsr(number, value & ADDRESS_MASK);
    this.#regions = undefined;
  }

  /** One NAPOT entry over everything: what firmware leaves to S-mode when it protects nothing. */
  open(): void {
    this.#cells.setCsr(PMPADDR0, ADDRESS_MASK);
    this.#cells.setCsr(PMPCFG0, BigInt(R | W | X | (A_NAPOT << 3)));
    this.#regions = undefined;
  }
  /** Cells were written from outside. */
  changed(): void {
    this.#regions = undefined;
  }

  #config(entry: number): number {
    return this.#cells.u8[CSRS + (PMPCFG0 + (entry >> 3) * 2) * 8 + (entry & 7)]!;
  }
  #decode(): Region[] {
    const regions: Region[] = [];
    for (let entry = 0; entry < PMP_ENTRIES; entry++) {
      const config = this.#config(entry);
      const address = this.readAddress(PMPADDR0 + entry);
      switch ((config >> 3) & 3) {
        case A_TOR: {
          const first = entry === 0 ? 0n : (this.#cells.csr(PMPADDR0 + entry - 1) & ~((1n << G) - 1n)) >> G;
          const end = address >> G;
          if (end > first) regions.push({ first, end, config });
          break;
        }
        case A_NAPOT: {
          let ones = 0n;
          while ((address >> ones) & 1n) ones++;
          const pages = 1n << (ones + 3n - 12n); // 2^(ones + 3) bytes; at least a page because of readAddress
          const first = ((address >> ones) << ones) >> G;
          regions.push({ first, end: first + pages, config });
          break;
        }
      }
    }
    return regions;
  }
}
