import { decode } from "@polyvisor/isa";
import type { HartCells } from "../cells.ts";
import { PC } from "../hart-state.ts";
import { STOP_ADDRESS, STOP_KIND } from "../mailbox.ts";
import { Access, type Mmu } from "../mmu.ts";
import { accessesOf } from "./access-recorder.ts";
import type { PageWatch } from "../engine.ts";
import { DebugKind, readDebugTable, type DebugEntry } from "./debug-table.ts";

/** Why a hart stopped for the debugger. `alias`: the ebreak of a breakpoint, reached through another virtual address. */
export interface DebugHit {
  readonly kind: DebugKind | typeof ALIAS;
  readonly address: bigint;
}
export const ALIAS = 8;

interface Page {
  readonly low: number;
  readonly high: number;
}

/**
 * The debugger's part of one hart. No engine knows about it: software breakpoints are ebreaks, and pages with hardware
 * breakpoints or watched data get no TLB entry, so that every access to them comes to the MMU; the hart loop then steps over
 * the instruction with the reference engine and looks exactly.
 */
export class HartDebug implements PageWatch {
  bypass = false;
  hit: DebugHit | undefined;
  readonly #cells: HartCells;
  readonly #mmu: Mmu;
  readonly #u16: Uint16Array;
  #soft: DebugEntry[] = [];
  readonly #hard = new Set<bigint>();
  #watched: DebugEntry[] = [];
  #codePages: Page[] = [];
  #dataPages: Page[] = [];

  constructor(cells: HartCells, mmu: Mmu) {
    this.#cells = cells;
    this.#mmu = mmu;
    this.#u16 = new Uint16Array(cells.buffer);
  }

  /** Takes over the table; the caller flushes the TLB. */
  load(): void {
    const entries = readDebugTable(this.#cells.buffer);
    this.hit = undefined;
    this.#soft = entries.filter(({ kind }) => kind === DebugKind.SOFT);
    this.#hard.clear();
    const hard = entries.filter(({ kind }) => kind === DebugKind.HARD);
    for (const { address } of hard) this.#hard.add(address);
    this.#watched = entries.filter(({ kind }) => kind >= DebugKind.WATCH_WRITE);
    this.#codePages = pagesOf(hard);
    this.#dataPages = pagesOf(this.#watched);
    this.#mmu.watch = hard.length + this.#watched.length > 0 ? this : undefined;
  }

  /** The core executes ebreak: true when it is the debugger's, which leaves it unexecuted. */
  ebreak(): boolean {
    if (this.#soft.length === 0) return false;
    const pc = this.#cells.u64[PC >> 3]!;
    if (this.#soft.some(({ address }) => address === pc)) {
      this.hit = { kind: DebugKind.SOFT, address: pc };
      return true;
    }
    const place = this.#place(pc);
    const alias = place >= 0 && this.#soft.some(({ physical }) => Number(physical) === this.#mmu.physicalOf(place));
    if (alias) this.hit = { kind: ALIAS, address: pc };
    return alias;
  }

  stops(low: number, high: number, access: Access): boolean {
    if (this.bypass) return false;
    const pages = access === Access.EXECUTE ? this.#codePages : this.#dataPages;
    for (const page of pages) if (page.low === low >>> 12 && page.high === high) return true;
    return false;
  }

  /** After DEBUG_CAUSE: executes one instruction by `step`, and sets `hit` when that is what the debugger waits for. */
  pass(step: () => void): void {
    const pc = this.#cells.u64[PC >> 3]!;
    if (this.#hard.has(pc)) {
      this.hit = { kind: DebugKind.HARD, address: pc };
      return;
    }
    this.bypass = true;
    const watched = this.#watched.length > 0 ? this.#touched(pc) : undefined;
    step();
    this.bypass = false;
    if (watched) this.hit = { kind: watched.kind, address: watched.address };
  }

  /** The watched range that the instruction at pc will touch. */
  #touched(pc: bigint): DebugEntry | undefined {
    const word = this.#word(pc);
    const decoded = word === undefined ? undefined : decode(word);
    if (!decoded) return undefined;
    const accesses = accessesOf(decoded, this.#cells);
    return this.#watched.find((entry) =>
      accesses.some(({ address, bytes, reads, writes }) => {
        const wanted = entry.kind === DebugKind.WATCH_ACCESS || (entry.kind === DebugKind.WATCH_READ ? reads : writes);
        return wanted && address < entry.address + BigInt(entry.length) && entry.address < address + BigInt(bytes);
      }),
    );
  }
  #word(pc: bigint): number | undefined {
    const first = this.#place(pc);
    if (first < 0) return undefined;
    const low = this.#u16[first >>> 1]!;
    if ((low & 3) !== 3) return low;
    const second = this.#place(BigInt.asUintN(64, pc + 2n));
    return second < 0 ? undefined : low | (this.#u16[second >>> 1]! << 16);
  }
  /** Where an instruction lies in linear memory; negative: nowhere. */
  #place(address: bigint): number {
    return this.#mmu.translate(Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(64, address) >> 32n), Access.EXECUTE, true);
  }
}

/** The host's side: why a hart stopped by itself, once. */
export function takeHit(cells: HartCells): DebugHit | undefined {
  const kind = Atomics.exchange(cells.i32, STOP_KIND >> 2, 0);
  return kind === 0 ? undefined : { kind: (kind - 1) as DebugHit["kind"], address: cells.u64[STOP_ADDRESS >> 3]! };
}

function pagesOf(entries: readonly DebugEntry[]): Page[] {
  const numbers = new Set<bigint>();
  for (const { address, length } of entries) {
    for (let page = address >> 12n; page <= (address + BigInt(Math.max(1, length)) - 1n) >> 12n; page++) numbers.add(page);
  }
  return [...numbers].map((number) => ({ low: Number(number & 0xf_ffffn), high: Number(BigInt.asIntN(32, number >> 20n)) }));
}
