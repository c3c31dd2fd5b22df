/** What one call may take before it counts as slow; a megabyte from the page cache takes 0.1 to 0.3 ms. */
const SLOW_MS = 1;
/** What all calls may take in one turn of the event loop, so that others get theirs. */
const TURN_MS = 2;
/**
 * How many times as long as a slow call took none is made after it; twice as many after each further. One among fast ones is paid for once; a
 * device that is slow soon keeps nobody waiting. (32 calls in place of so much time: 18 % fewer syncs where others use the disk, too; ADR 59.)
 */
const FIRST_PAUSE = 1;
const LONGEST_PAUSE = 256;

/**
 * Decides whether a file operation is done on the spot instead of in a thread. The page cache answers in microseconds where the
 * way through a thread and back takes 50 to 100; a device that has to be asked would keep everybody in this process waiting.
 * Which it will be cannot be known, so the operations are timed: for a while after a slow one they go to threads.
 */
export class Promptness {
  readonly #now: () => number;
  readonly #afterTurn: (run: () => void) => void;
  #spentMs = 0;
  #waitsForTurn = false;
  #pausedUntilMs = -Infinity;
  #nextPause = FIRST_PAUSE;

  constructor(now: () => number = () => performance.now(), afterTurn: (run: () => void) => void = setImmediate) {
    this.#now = now;
    this.#afterTurn = afterTurn;
  }

  /** Runs the operation, or answers false. What it throws is thrown. */
  run(operation: () => void): boolean {
    if (this.#spentMs >= TURN_MS) return false;
    const begun = this.#now();
    if (begun < this.#pausedUntilMs) return false;
    if (!this.#waitsForTurn) {
      this.#waitsForTurn = true;
      this.#afterTurn(() => {
        this.#waitsForTurn = false;
        this.#spentMs = 0;
      });
    }
    try {
      operation();
    } finally {
      const ended = this.#now();
      const tookMs = ended - begun;
      this.#spentMs += tookMs;
      if (tookMs > SLOW_MS) {
        this.#pausedUntilMs = ended + this.#nextPause * tookMs;
        this.#nextPause = Math.min(2 * this.#nextPause, LONGEST_PAUSE);
      } else this.#nextPause = FIRST_PAUSE;
    }
    return true;
  }
}
