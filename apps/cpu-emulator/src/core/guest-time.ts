import { TIMEBASE_HZ } from "@polyvisor/machine";
import type { HartCells, MachineCells } from "./cells.ts";
import { INSTRET } from "./hart-state.ts";

const TICKS_PER_MS = TIMEBASE_HZ / 1000;

// Byte offsets from MACHINE_WORDS.
const EPOCH_MS = 0x10; // f64: host time at which the guest's mtime was 0
const FROZEN_TICKS = 0x18; // f64: mtime while frozen, -1 while it runs
const SKIPPED = 0x28; // f64: virtual time: instructions' worth of time that was slept

/** Virtual time: a tick of 100 ns each so many instructions, as if at 500 million a second. */
export const INSTRUCTIONS_PER_TICK = 50;

/**
 * The guest's `time` and `mtime`: host monotonic time since the machine's epoch, 10 MHz, the same on all harts. Only the
 * host side freezes and thaws it, while no hart is in guest code.
 *
 * With `counted`, time is virtual: that hart's retired instructions, and what it slept. Nothing freezes it but the hart.
 *
 * Ticks are doubles: exact for 28 years of uptime.
 */
export class GuestTime {
  readonly #cells: Float64Array;
  readonly #hostMs: () => number;
  readonly #counted: HartCells | undefined;

  /** `hostMs`: one monotonic clock for all threads of the machine (performance.now differs from thread to thread). */
  constructor(cells: MachineCells, hostMs: () => number, counted?: HartCells) {
    this.#cells = cells.f64;
    this.#counted = counted;
    this.#hostMs = hostMs;
  }
  ticks(): number {
    if (this.#counted) return Math.floor((this.#counted.asNumber(INSTRET) + this.#cells[SKIPPED >> 3]!) / INSTRUCTIONS_PER_TICK);
    const frozen = this.#cells[FROZEN_TICKS >> 3]!;
    if (frozen >= 0) return frozen;
    return Math.floor((this.#hostMs() - this.#cells[EPOCH_MS >> 3]!) * TICKS_PER_MS);
  }
  get virtual(): boolean {
    return this.#counted !== undefined;
  }
  /** Host milliseconds until the guest's clock reads `ticks`; negative when that is past. */
  msUntil(ticks: number): number {
    return (ticks - this.ticks()) / TICKS_PER_MS;
  }
  hostMs(): number {
    return this.#hostMs();
  }

  freeze(): void {
    this.#cells[FROZEN_TICKS >> 3] = this.ticks();
  }
  thaw(): void {
    const ticks = this.ticks();
    this.#cells[EPOCH_MS >> 3] = this.#hostMs() - ticks / TICKS_PER_MS;
    this.#cells[FROZEN_TICKS >> 3] = -1;
  }
  /** The guest writes mtime (CLINT). */
  set(ticks: number): void {
    if (this.#counted) {
      // Whole ticks: what was skipped follows from time and count, so a saved hart need not bring it.
      const counted = Math.floor(this.#counted.asNumber(INSTRET) / INSTRUCTIONS_PER_TICK);
      this.#cells[SKIPPED >> 3] = (ticks - counted) * INSTRUCTIONS_PER_TICK;
      return;
    }
    this.#cells[EPOCH_MS >> 3] = this.#hostMs() - ticks / TICKS_PER_MS;
  }
  /** Frozen at `ticks` (harts restored). */
  restore(ticks: number): void {
    if (this.#counted) return this.set(ticks);
    this.#cells[FROZEN_TICKS >> 3] = ticks;
  }
  /** mtime of a new machine: 0, frozen. */
  reset(): void {
    this.#cells[FROZEN_TICKS >> 3] = 0;
    this.#cells[SKIPPED >> 3] = 0;
  }
}
