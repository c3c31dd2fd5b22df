import { Csr, HPM_MASK, row } from "./csr-row.ts";
import { counter } from "./csr-rules.ts";
import { INSTRET } from "./hart-state.ts";
import { hpmEvent } from "./hpm-events.ts";
import type { Privileged } from "./privileged.ts";

/**
 * Counters (Zicntr, Zihpm; sections 3.1.10 to 3.1.12, 4.1.5). Something is counted anyway (instructions retired, an event); the
 * cell of a machine register holds the difference to it, or the value itself while mcountinhibit stops the counter.
 * cycle counts instructions, as an IPC-1 machine would.
 */
const CY = 0;
const IR = 2;
export const COUNTER_NUMBERS: readonly number[] = Array.from({ length: 32 }, (_, n) => n).filter((n) => n === CY || n === IR || (HPM_MASK >> n) & 1);

const stopped = (hart: Privileged, n: number): boolean => ((hart.cells.csr32(Csr.MCOUNTINHIBIT) >>> n) & 1) === 1;
const eventCell = (n: number): number => Csr.MCOUNTINHIBIT + n; // mhpmevent3 is 0x323
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** What counter `n` counts, now. */
function source({ cells }: Privileged, n: number): bigint {
  if (n === CY || n === IR) return cells.u64[INSTRET >> 3]!;
  return BigInt(hpmEvent(cells.csr(eventCell(n)))?.count(cells) ?? 0);
}
export function readCounter(hart: Privileged, n: number): bigint {
  const cell = hart.cells.csr(Csr.MCYCLE + n);
  return stopped(hart, n) ? cell : u64(cell + source(hart, n));
}
/** The counter reads `value` from now on. */
export function setCounter(hart: Privileged, n: number, value: bigint): void {
  hart.cells.setCsr(Csr.MCYCLE + n, u64(stopped(hart, n) ? value : value - source(hart, n)));
}
/** Does `change` to what the counters of `mask` count; their values stay. */
function keeping(hart: Privileged, mask: number, change: () => void): void {
  const kept = COUNTER_NUMBERS.filter((n) => (mask >> n) & 1).map((n) => [n, readCounter(hart, n)] as const);
  change();
  for (const [n, value] of kept) setCounter(hart, n, value);
}

/** mcountinhibit: bits of counters that there are. */
export function inhibit(hart: Privileged, value: number): void {
  const next = value & (HPM_MASK | (1 << CY) | (1 << IR));
  keeping(hart, next ^ hart.cells.csr32(Csr.MCOUNTINHIBIT), () => hart.cells.setCsr(Csr.MCOUNTINHIBIT, BigInt(next)));
}
/** mhpmevent `n`; an event that there is not becomes 0, none. */
export function selectEvent(hart: Privileged, n: number, value: bigint): void {
  keeping(hart, 1 << n, () => hart.cells.setCsr(eventCell(n), hpmEvent(value) ? value : 0n));
}

export function defineCounters(): void {
  row(Csr.MCOUNTINHIBIT, {
    name: "mcountinhibit",
    read: (hart) => hart.cells.csr(Csr.MCOUNTINHIBIT),
    write: (hart, value) => inhibit(hart, Number(value & 0xffff_ffffn)),
  });
  for (const n of COUNTER_NUMBERS) {
    const name = n === CY ? "cycle" : n === IR ? "instret" : `hpmcounter${n}`;
    row(Csr.MCYCLE + n, {
      name: `m${name}`,
      read: (hart) => readCounter(hart, n),
      // A write takes effect after its instruction, which a running cycle or instret counts.
      write: (hart, value) => setCounter(hart, n, n > IR || stopped(hart, n) ? value : value - 1n),
    });
    row(Csr.CYCLE + n, { name, legal: (hart) => counter(hart, Csr.CYCLE + n), read: (hart) => readCounter(hart, n), write: () => {} });
    if (n > IR) {
      row(eventCell(n), {
        name: `mhpmevent${n}`,
        read: (hart) => hart.cells.csr(eventCell(n)),
        write: (hart, value) => selectEvent(hart, n, value),
      });
    }
  }
  for (let n = 3; n < 32; n++) {
    if (!COUNTER_NUMBERS.includes(n)) row(Csr.CYCLE + n, { name: `hpmcounter${n}`, legal: (hart) => counter(hart, Csr.CYCLE + n), read: () => 0n, write: () => {} });
  }
}
