import type { RtcClock } from "./goldfish-rtc.ts";

/** What a deterministic guest's clock shows when it starts: 2026-01-01T00:00:00Z, milliseconds since 1970. */
const EPOCH_MS = Date.UTC(2026, 0, 1);
/** The guest's `time` counts at 10 MHz. */
const TICKS_PER_MS = 10_000;

/** The clock of a deterministic board: it stands where the hart has last said that it is (DEV-19). */
export class GuestClock implements RtcClock {
  #ticks = 0;
  #due: { ticks: number; run: () => void }[] = [];

  now(): number {
    return EPOCH_MS + this.#ticks / TICKS_PER_MS;
  }
  after(ms: number, run: () => void): () => void {
    const timer = { ticks: this.#ticks + Math.ceil(ms * TICKS_PER_MS), run };
    this.#due.push(timer);
    return () => void (this.#due = this.#due.filter((other) => other !== timer));
  }

  /** Time does not go back. */
  advance(ticks: number): void {
    this.#ticks = Math.max(this.#ticks, ticks);
    const due = this.#due.filter((timer) => timer.ticks <= this.#ticks).toSorted((a, b) => a.ticks - b.ticks);
    this.#due = this.#due.filter((timer) => timer.ticks > this.#ticks);
    for (const { run } of due) run();
  }
  /** Ticks at which something is due; 0: nothing is. */
  get next(): number {
    return this.#due.reduce((next, { ticks }) => (next === 0 ? ticks : Math.min(next, ticks)), 0);
  }
}
