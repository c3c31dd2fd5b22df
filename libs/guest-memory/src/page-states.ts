/** A run of neighbouring pages in the same state. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
  readonly state: number;
}

/** A small number per page (a lease's access, a migration phase ...); all start as 0. */
export class PageStates {
  readonly #states: Uint8Array;
  constructor(pages: number) {
    this.#states = new Uint8Array(pages);
  }
  get pages(): number {
    return this.#states.length;
  }
  get(page: number): number {
    return this.#states[page] ?? 0;
  }
  set(first: number, count: number, state: number): void {
    this.#states.fill(state, first, first + count);
  }
  /** Neighbouring pages in equal state, in order, inside `first .. first + count`. */
  *runs(first = 0, count: number = this.pages - first): Generator<PageRun, void, void> {
    const end = Math.min(first + count, this.pages);
    for (let start = first; start < end; ) {
      const state = this.#states[start]!;
      let next = start + 1;
      while (next < end && this.#states[next] === state) next++;
      yield { first: start, count: next - start, state };
      start = next;
    }
  }
}
