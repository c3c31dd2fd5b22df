import type { HartCells } from "./cells.ts";
import { INSTRET } from "./hart-state.ts";
import { EXIT_COUNTS, ExitKind, TLB_MISSES, TRAP_COUNTS, WFI_COUNT } from "./mailbox.ts";

/**
 * What the hpm counters can count. The standard events have the numbers of SBI's event_idx (SBI 2.0, section 11.2), as on QEMU's
 * `virt`; our own have RAW and a number (perf: `-e r20001`). Counts run from the hart's creation, whether a counter looks or not.
 */
export interface HpmEvent {
  /** Value of mhpmevent. */
  readonly number: number;
  readonly name: string;
  /** At most 2^53. */
  count(cells: HartCells): number;
}

const RAW = 0x2_0000;
const sum = (cells: HartCells, at: number, from: number, to: number): number => {
  let total = 0;
  for (let n = from; n < to; n++) total += cells.f64[(at >> 3) + n]!;
  return total;
};
const tlbMisses = (access: 0 | 1 | 2) => (cells: HartCells) => cells.f64[(TLB_MISSES >> 3) + access]!;
const exits = (...kinds: readonly number[]) => (cells: HartCells) => kinds.reduce((total, kind) => total + cells.f64[(EXIT_COUNTS >> 3) + kind]!, 0);
const traps = (...causes: readonly number[]) => (cells: HartCells) => causes.reduce((total, cause) => total + cells.f64[(TRAP_COUNTS >> 3) + cause]!, 0);
const retired = (cells: HartCells): number => cells.asNumber(INSTRET);

export const HPM_EVENTS: readonly HpmEvent[] = [
  { number: 1, name: "cycles", count: retired }, // one instruction a cycle
  { number: 2, name: "instructions", count: retired },
  { number: 0x1_0019, name: "dTLB-load-misses", count: tlbMisses(0) },
  { number: 0x1_001b, name: "dTLB-store-misses", count: tlbMisses(1) },
  { number: 0x1_0021, name: "iTLB-load-misses", count: tlbMisses(2) },
  { number: RAW | 1, name: "exceptions", count: (cells) => sum(cells, TRAP_COUNTS, 0, 32) },
  { number: RAW | 2, name: "interrupts", count: (cells) => sum(cells, TRAP_COUNTS, 32, 64) },
  { number: RAW | 3, name: "page-faults", count: traps(12, 13, 15, 20, 21, 23) },
  { number: RAW | 4, name: "environment-calls", count: traps(8, 9, 10, 11) },
  { number: RAW | 5, name: "device-reads", count: exits(ExitKind.MMIO_READ) },
  { number: RAW | 6, name: "device-writes", count: exits(ExitKind.MMIO_WRITE) },
  { number: RAW | 7, name: "pages-asked-for", count: exits(ExitKind.PAGE) },
  { number: RAW | 8, name: "wfi", count: exits(WFI_COUNT) },
];
const BY_NUMBER: ReadonlyMap<number, HpmEvent> = new Map(HPM_EVENTS.map((event) => [event.number, event]));

export const hpmEvent = (number: bigint): HpmEvent | undefined => (number < 1n << 32n ? BY_NUMBER.get(Number(number)) : undefined);
