/** Something that wants to happen on one page. */
export interface PageOperation {
  /** Arrival order; operations on a page start in this order. */
  readonly order: number;
  readonly page: number;
  /** True for an access that may be in flight to the page's writer beside others of its kind. */
  readonly forwards: boolean;
  /** Runs when it is this operation's turn. May call `lock`, or `enterForward`, before it returns. */
  start(): void;
}

interface Gate {
  locked: boolean;
  /** Accesses in flight to `target`, the holder that had the page for writing when they were sent. */
  inFlight: number;
  target: number;
  readonly waiting: PageOperation[];
}

/**
 * Serialises what happens on each page, and only on that page. An operation never waits for a second page while it
 * holds a first, so two holders that want each other's pages cannot block each other.
 *
 * - A page is *locked* while holders are being asked to give it back.
 * - Accesses forwarded to the page's writer may overlap (the writer's stream keeps their order), but only as long as
 *   the writer stays the same: if it gives the page up, what follows waits until those in flight have come back, so
 *   that an access that has to be repeated is not overtaken by a later one.
 */
export class PageGates {
  readonly #gates = new Map<number, Gate>();
  readonly #writerOf: (page: number) => number | undefined;

  constructor(writerOf: (page: number) => number | undefined) {
    this.#writerOf = writerOf;
  }
  /** True when nothing is going on at the page. */
  idle(page: number): boolean {
    return !this.#gates.has(page);
  }
  /** Starts the operation now, or when it is its turn. */
  enter(operation: PageOperation): void {
    const gate = this.#gates.get(operation.page);
    if (!gate) return operation.start();
    const head = gate.waiting[0];
    if (this.#canStart(gate, operation) && (!head || operation.order < head.order)) return operation.start();
    let at = gate.waiting.length;
    while (at > 0 && gate.waiting[at - 1]!.order > operation.order) at--;
    gate.waiting.splice(at, 0, operation);
  }
  lock(page: number): void {
    this.#gate(page).locked = true;
  }
  unlock(page: number): void {
    const gate = this.#gates.get(page);
    if (!gate) return;
    gate.locked = false;
    this.#advance(page, gate);
  }
  enterForward(page: number, target: number): void {
    const gate = this.#gate(page);
    gate.inFlight++;
    gate.target = target;
  }
  /** Counts a forwarded access back without starting what waits: call `advance` after repeating it. */
  leaveForward(page: number): void {
    const gate = this.#gates.get(page);
    if (gate) gate.inFlight--;
  }
  /** Starts what can start at the page. */
  advance(page: number): void {
    const gate = this.#gates.get(page);
    if (gate) this.#advance(page, gate);
  }

  #gate(page: number): Gate {
    let gate = this.#gates.get(page);
    if (!gate) this.#gates.set(page, (gate = { locked: false, inFlight: 0, target: -1, waiting: [] }));
    return gate;
  }
  #canStart(gate: Gate, operation: PageOperation): boolean {
    if (gate.locked) return false;
    return gate.inFlight === 0 || (operation.forwards && this.#writerOf(operation.page) === gate.target);
  }
  #advance(page: number, gate: Gate): void {
    while (gate.waiting.length > 0 && this.#canStart(gate, gate.waiting[0]!)) gate.waiting.shift()!.start();
    if (!gate.locked && gate.inFlight === 0 && gate.waiting.length === 0 && this.#gates.get(page) === gate) {
      this.#gates.delete(page);
    }
  }
}
