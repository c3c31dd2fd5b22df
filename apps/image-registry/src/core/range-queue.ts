/**
 * Orders operations whose ranges overlap: each runs after all earlier ones it overlaps; others run side by side.
 */
export class RangeQueue {
  readonly #active = new Set<{ readonly first: number; readonly last: number; readonly done: Promise<void> }>();

  /** `first` and `last` are inclusive. */
  async run<T>(first: number, last: number, operation: () => Promise<T>): Promise<T> {
    const before = [...this.#active].filter((o) => o.first <= last && first <= o.last).map((o) => o.done);
    let finished!: () => void;
    const entry = { first, last, done: new Promise<void>((resolve) => (finished = resolve)) };
    this.#active.add(entry);
    try {
      if (before.length > 0) await Promise.all(before);
      return await operation();
    } finally {
      this.#active.delete(entry);
      finished();
    }
  }

  /** Whether an operation of this range would run without waiting. */
  free(first: number, last: number): boolean {
    for (const active of this.#active) if (active.first <= last && first <= active.last) return false;
    return true;
  }

  /** Resolves when everything that runs or waits now is over. */
  async idle(): Promise<void> {
    await Promise.all([...this.#active].map((o) => o.done));
  }
}
