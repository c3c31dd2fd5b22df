import { TIMEBASE_HZ } from "@polyvisor/machine";
import type { MachineCells } from "./cells.ts";

const TICKS_PER_MS = TIMEBASE_HZ / 1000;

// Byte offsets from MACHINE_WORDS.
const EPOCH_MS = 0x10; // f64: host time at which the guest's mtime was 0
const FROZEN_TICKS = 0x18; // f64: mtime while frozen, -1 while it runs

/**
 * The guest's `time` and `mtime`: host monotonic time since the machine's epoch, 10 MHz, the same on all harts. Only the
 * host side freezes and thaws it, while no hart is in guest code.
 *
 * Ticks are doubles: exact for 28 years of uptime.
 */
export class GuestTime {
  readonly #cells: Float64Array;
  readonly #hostMs: () => number;

  /** `hostMs`: one monotonic clock for all threads of the machine (performance.now differs from thread to thread). */
  constructor(cells: MachineCells, hostMs: () => number) {
    this.#cells = cells.f64;
    this.#hostMs = hostMs;
  }
  ticks(): number {
    const frozen = this.#cells[FROZEN_TICKS >> 3]!;
    if (frozen >= 0) return frozen;
    return Math.floor((this.#hostMs() - this.#cells[EPOCH_MS >> 3]!) * TICKS_PER_MS);
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
    this.#cells[EPOCH_MS >> 3] = this.#hostMs() - ticks / TICKS_PER_MS;
  }
  /** Frozen at `ticks` (harts restored). */
  restore(ticks: number): void {
    this.#cells[FROZEN_TICKS >> 3] = ticks;
  }
  /** mtime of a new machine: 0, frozen. */
  reset(): void {
    this.#cells[FROZEN_TICKS >> 3] = 0;
  }
}
