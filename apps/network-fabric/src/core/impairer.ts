import type { Frame, Impairment } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";

type Out = (frame: Frame) => void;

/** Frames that a long delay may hold back; more are lost and counted. */
const MAX_HELD_FRAMES = 4096;
const MAX_HELD_BYTES = 8 * 1024 * 1024;
/** A frame that is to be overtaken goes on its way after so long even if nothing comes by. */
const REORDER_WAIT_MS = 50;

/**
 * One direction of a bad line. Every decision is drawn from a generator that begins with the seed, so the same frames
 * meet the same fate.
 */
export class Impairer {
  readonly counters = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0, delayed: 0 };
  readonly #spec: Impairment;
  readonly #clock: Clock;
  readonly #out: Out;
  readonly #random: () => number;
  /** In order of arrival, which is the order of leaving. */
  #held: { frame: Frame; due: number }[] = [];
  #heldBytes = 0;
  #cancelTimer: (() => void) | undefined;
  #overtaken: { run: () => void; cancel: () => void } | undefined;

  constructor(spec: Impairment, clock: Clock, out: Out) {
    this.#spec = spec;
    this.#clock = clock;
    this.#out = out;
    this.#random = mulberry32(Number(BigInt.asUintN(32, spec.seed ^ (spec.seed >> 32n))));
  }

  pass(frame: Frame): void {
    const { loss, duplicate, reorder, corrupt } = this.#spec;
    // Always four draws: whether one kind of trouble is on must not change the others' sequence.
    const [lost, twice, late, flipped] = [this.#random() < loss, this.#random() < duplicate, this.#random() < reorder, this.#random() < corrupt];
    if (lost) return void this.counters.lost++;
    let passing = frame;
    if (flipped) {
      this.counters.corrupted++;
      const data = frame.data.slice();
      const bit = Math.floor(this.#random() * data.length * 8);
      data[bit >> 3]! ^= 1 << (bit & 7);
      passing = { ...frame, data };
    }
    if (late && !this.#overtaken) {
      this.counters.reordered++;
      const run = (): void => {
        this.#overtaken = undefined;
        this.#delay(passing);
      };
      this.#overtaken = { run, cancel: this.#clock.after(REORDER_WAIT_MS, run) };
      return;
    }
    this.#delay(passing);
    if (twice) {
      this.counters.duplicated++;
      this.#delay(passing);
    }
    const overtaken = this.#overtaken;
    overtaken?.cancel();
    overtaken?.run();
  }
  /** Forgets what is on its way. */
  close(): void {
    this.#cancelTimer?.();
    this.#overtaken?.cancel();
    this.#held = [];
  }

  #delay(frame: Frame): void {
    const { delayMs, jitterMs } = this.#spec;
    if (delayMs === 0 && jitterMs === 0) return this.#out(frame);
    if (this.#held.length >= MAX_HELD_FRAMES || this.#heldBytes + frame.data.length > MAX_HELD_BYTES) return void this.counters.lost++;
    this.counters.delayed++;
    const due = Math.max(this.#held.at(-1)?.due ?? 0, this.#clock.monotonic() + delayMs + this.#random() * jitterMs);
    this.#held.push({ frame, due });
    this.#heldBytes += frame.data.length;
    this.#arm();
  }
  #arm(): void {
    if (this.#cancelTimer || this.#held.length === 0) return;
    this.#cancelTimer = this.#clock.after(Math.max(0, this.#held[0]!.due - this.#clock.monotonic()), () => {
      this.#cancelTimer = undefined;
      const now = this.#clock.monotonic() + 0.5; // timers may be early by a rounding
      const count = this.#held.findIndex(({ due }) => due > now);
      for (const { frame } of this.#held.splice(0, count < 0 ? this.#held.length : count)) {
        this.#heldBytes -= frame.data.length;
        this.#out(frame);
      }
      this.#arm();
    });
  }
}

/** Tommy Ettinger's mulberry32: 32 bits of state, good enough to toss coins, and no bigint on the way of a frame. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
