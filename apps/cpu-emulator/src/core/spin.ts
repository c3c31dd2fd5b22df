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
