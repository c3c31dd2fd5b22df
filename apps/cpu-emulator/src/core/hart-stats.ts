import type { HartStats } from "@polyvisor/contracts/cpu";
import type { HartCells } from "./cells.ts";
import { INSTRET } from "./hart-state.ts";
import { EVENT_COUNTS, EVENT_NAMES, EXIT_COUNTS, EXIT_NAMES, IDLE_MS, PARK_MS, STARTED_MS, TRAP_COUNTS } from "./mailbox.ts";

/** The engines' own numbers, from the hart's last REPORT. */
export type HartReport = Record<string, number>;

const TRAP_NAMES: Record<number, string> = {
  0: "instruction-misaligned", 1: "instruction-access", 2: "illegal-instruction", 3: "breakpoint", 4: "load-misaligned",
  5: "load-access", 6: "store-misaligned", 7: "store-access", 8: "ecall-u", 9: "ecall-s", 10: "ecall-vs", 11: "ecall-m",
  12: "instruction-page", 13: "load-page", 15: "store-page",
  20: "instruction-guest-page", 21: "load-guest-page", 22: "virtual-instruction", 23: "store-guest-page",
  34: "guest-software-interrupt", 38: "guest-timer-interrupt", 42: "guest-external-interrupt",
  33: "supervisor-software-interrupt", 35: "machine-software-interrupt", 37: "supervisor-timer-interrupt",
  39: "machine-timer-interrupt", 41: "supervisor-external-interrupt", 43: "machine-external-interrupt",
};

/** What a hart has done, for ReadStats. Counters that are zero are left out. */
export function hartStats(cells: HartCells, report: HartReport, nowMs: number, pagesAcquired: number): HartStats {
  const exits = counters(cells, EXIT_COUNTS, 16, (n) => EXIT_NAMES[n]);
  const traps = counters(cells, TRAP_COUNTS, 64, (n) => TRAP_NAMES[n] ?? `cause-${n}`);
  const events = counters(cells, EVENT_COUNTS, EVENT_NAMES.length, (n) => EVENT_NAMES[n]);
  for (const [name, count] of Object.entries(report)) events.set(name, BigInt(Math.round(count)));
  const asleepSince = cells.f64[PARK_MS >> 3]!;
  const startedMs = cells.f64[STARTED_MS >> 3]!;
  const idle = cells.f64[IDLE_MS >> 3]! + (asleepSince > 0 ? nowMs - asleepSince : 0);
  return {
    hart: cells.hart,
    instructions: cells.u64[INSTRET >> 3]!,
    exits,
    traps,
    events,
    pagesAcquired: BigInt(pagesAcquired),
    busyUs: startedMs > 0 ? BigInt(Math.max(0, Math.round((nowMs - startedMs - idle) * 1000))) : 0n,
  };
}

function counters(cells: HartCells, at: number, count: number, name: (n: number) => string | undefined): Map<string, bigint> {
  const result = new Map<string, bigint>();
  for (let n = 0; n < count; n++) {
    const value = cells.f64[(at >> 3) + n]!;
    if (value > 0) result.set(name(n) ?? `${n}`, BigInt(value));
  }
  return result;
}
