import type { Clock } from "@polyvisor/service-kit";

/** A clock that stands still until told to advance. */
export interface ManualClock extends Clock {
  /** Moves time forward, running what falls due in order, each at its own time. */
  advance(ms: number): void;
  /** Timers that have not run. */
  readonly pending: number;
}

export function manualClock(unixMs = 1_700_000_000_000): ManualClock {
  let elapsed = 0;
  let timers: { at: number; run: () => void }[] = [];
  return {
    now: () => unixMs + elapsed,
    monotonic: () => elapsed,
    after(ms, run) {
      const timer = { at: elapsed + Math.max(0, ms), run };
      timers.push(timer);
      return () => void (timers = timers.filter((other) => other !== timer));
    },
    advance(ms) {
      const end = elapsed + ms;
      for (;;) {
        const due = timers.filter(({ at }) => at <= end).reduce<(typeof timers)[number] | undefined>((a, b) => (a && a.at <= b.at ? a : b), undefined);
        if (!due) break;
        timers = timers.filter((timer) => timer !== due);
        elapsed = Math.max(elapsed, due.at);
        due.run();
      }
      elapsed = end;
    },
    get pending() {
      return timers.length;
    },
  };
}
