/** What one call may take before it counts as slow; a megabyte from the page cache takes 0.1 to 0.3 ms. */
const SLOW_MS = 1;
/** What all calls may take in one turn of the event loop, so that others get theirs. */
const TURN_MS = 2;
/** Calls that are not made after a slow one; twice as many after each further. */
const FIRST_PAUSE = 32;
const LONGEST_PAUSE = 4096;

/**
 * Decides whether a file operation is done on the spot instead of in a thread. The page cache answers in microseconds where the
 * way through a thread and back takes 50 to 100; a device that has to be asked would keep everybody in this process waiting.
 * Which it will be cannot be known, so the operations are timed: after a slow one the next ones go to threads.
 */
export class Promptness {
  readonly #now: () => number;
  readonly #afterTurn: (run: () => void) => void;
  #spentMs = 0;
  #waitsForTurn = false;
  #pause = 0;
  #nextPause = FIRST_PAUSE;

  constructor(now: () => number = () => performance.now(), afterTurn: (run: () => void) => void = setImmediate) {
    this.#now = now;
    this.#afterTurn = afterTurn;
  }

  /** Runs the operation, or answers false. What it throws is thrown. */
  run(operation: () => void): boolean {
    if (this.#pause > 0) {
      this.#pause--;
      return false;
    }
    if (this.#spentMs >= TURN_MS) return false;
    if (!this.#waitsForTurn) {
      this.#waitsForTurn = true;
      this.#afterTurn(() => {
        this.#waitsForTurn = false;
        this.#spentMs = 0;
      });
    }
    const begun = this.#now();
    try {
      operation();
    } finally {
      const tookMs = this.#now() - begun;
      this.#spentMs += tookMs;
      if (tookMs > SLOW_MS) {
        this.#pause = this.#nextPause;
        this.#nextPause = Math.min(2 * this.#nextPause, LONGEST_PAUSE);
      } else this.#nextPause = FIRST_PAUSE;
    }
    return true;
  }
}
