/**
 * A short busy wait before sleeping. Waking a thread that sleeps in a futex costs 30 µs and more where the core has gone
 * idle (measured on a 2-core virtual machine: device round trip 80 µs asleep, 6 µs awake), so whoever expects an answer
 * within that time looks for it first. A place where looking does not pay stops doing it, and tries again now and then.
 */
export class SpinWait {
  readonly #rounds: number;
  #misses = 0;

  /** `rounds` × about 30 ns. */
  constructor(rounds: number) {
    this.#rounds = rounds;
  }

  /** True as soon as the word differs from `value`; false after the busy wait. */
  until(words: Int32Array, index: number, value: number): boolean {
    // After 8 misses in a row one try in 64 is made.
    if (this.#misses >= 8 && ++this.#misses % 64 !== 0) return Atomics.load(words, index) !== value;
    for (let round = 0; round < this.#rounds; round++) {
      if (Atomics.load(words, index) !== value) {
        this.#misses = 0;
        return true;
      }
      Atomics.pause();
    }
    this.#misses++;
    return false;
  }
}

/** Looks for about 6 µs whether a word changes: between two turns of an event loop that polls. */
export function glance(words: Int32Array, index: number, value: number): boolean {
  for (let round = 0; round < 200; round++) {
    if (Atomics.load(words, index) !== value) return true;
    Atomics.pause();
  }
  return false;
}

/** Waits up to this long are worth looking for; KVM's default on x86. */
const LONGEST_POLL_MS = 0.2;
const FIRST_POLL_MS = 0.02;
/** One look takes microseconds. */
const LOST_CORE_MS = 0.1;
/** Waits without looking after that. */
const PAUSE_WAITS = 500;

/**
 * How long to look before a sleep, learnt from the sleeps before (Linux, Documentation/virt/kvm/halt-polling.rst): longer after a
 * sleep that looking would have spared, not at all after one that it would not. So who does I/O is woken at once, and who is
 * idle costs nothing.
 */
export class HaltPoll {
  /** For the next sleep. */
  windowMs = 0;
  #pause = 0;

  /** Tells how long the wait was, looking included. */
  waited(ms: number): void {
    if (this.#pause > 0) this.#pause--;
    else if (ms > LONGEST_POLL_MS) this.windowMs = 0;
    else if (ms > this.windowMs) this.windowMs = Math.min(Math.max(FIRST_POLL_MS, 2 * ms), LONGEST_POLL_MS);
  }

  /** Tells how long one look took. Who lost his core by looking has others beside him who need it, perhaps to wake him. */
  looked(ms: number): boolean {
    if (ms < LOST_CORE_MS) return true;
    this.windowMs = 0;
    this.#pause = PAUSE_WAITS;
    return false;
  }
}
