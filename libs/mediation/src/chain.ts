/**
 * The mediation chain: every contract call and every stream message passes it before the callee's core sees it
 * (architecture page, section 4). Adapters call {@link MediationChain.pass}; with nothing installed that is one branch.
 */

export type Plane = "control" | "exits" | "interrupts" | "pages" | "dma" | "frames" | "blocks" | "console";
export const PLANES: readonly Plane[] = ["control", "exits", "interrupts", "pages", "dma", "frames", "blocks", "console"];
export type Direction = "request" | "response";

/** Where in a contract a message passes: one object per service, method and direction. */
export interface MediationPoint {
  readonly service: string;
  readonly plane: Plane;
  readonly method: string;
  readonly direction: Direction;
}

/** seen = executed + denied + dropped whenever no message is in flight. */
export interface Counters {
  seen: number;
  executed: number;
  denied: number;
  dropped: number;
  modified: number;
  duplicated: number;
}

/**
 * One direction of one channel. Messages of a lane never overtake each other: while one is delayed, those behind it
 * wait too. Unary calls have no lane.
 */
export class Lane {
  #waiting: (() => void)[] = [];
  #held = false;
  #draining = false;

  /** Runs `step` now, or after the delayed message and those behind it. The end of a stream enters too. */
  enter(step: () => void): void {
    if (this.#held || this.#draining) this.#waiting.push(step);
    else step();
  }
  /** The message in hand is delayed. */
  hold(): void {
    this.#held = true;
  }
  /** The delayed message is through; those behind it follow, until one of them is delayed itself. */
  release(): void {
    this.#held = false;
    this.#draining = true;
    while (!this.#held && this.#waiting.length > 0) this.#waiting.shift()!();
    this.#draining = false;
  }
}

/** What the chain may do with one message. Exactly one of the three is called, `deliver` more than once to duplicate. */
export interface Handling<T> {
  /** Streams: keeps order when a message is delayed. */
  readonly lane?: Lane;
  /** Hands the (possibly modified) message to the callee. */
  deliver(message: T): void;
  /** Refuses it; the adapter answers what the contract says a denied message looks like. `message` is the refused one. */
  deny(reason: string, message: T): void;
  /** Forgets it silently. */
  drop(message: T): void;
}

/** The decision part, replaceable: {@link RuleSet} implements it with rules and CEL. */
export interface Mediator {
  /** True while a rule or observer is installed, or a delayed message is still on its way. */
  readonly active: boolean;
  handle<T>(point: MediationPoint, machine: string, message: T, handling: Handling<T>, counters: Counters): void;
}

/** Points × machines that are counted apart; a caller that makes up machine names shares one entry beyond that. */
const COUNTERS_MAX = 8192;
const OTHER_MACHINES = "(other)";

export class MediationChain {
  readonly mediator: Mediator;
  readonly #counters = new Map<string, { point: MediationPoint; machine: string; counters: Counters }>();

  constructor(mediator: Mediator) {
    this.mediator = mediator;
  }

  /** The counters of one point and machine; adapters keep the object and pass it back. */
  countersOf(point: MediationPoint, machine: string): Counters {
    const key = `${point.service}/${point.method}/${point.direction}/${machine}`;
    let entry = this.#counters.get(key);
    if (!entry) {
      if (this.#counters.size >= COUNTERS_MAX && machine !== OTHER_MACHINES) return this.countersOf(point, OTHER_MACHINES);
      entry = { point, machine, counters: { seen: 0, executed: 0, denied: 0, dropped: 0, modified: 0, duplicated: 0 } };
      this.#counters.set(key, entry);
    }
    return entry.counters;
  }

  /** All counters; of one machine when given. */
  read(machine?: string): { point: MediationPoint; machine: string; counters: Counters }[] {
    return [...this.#counters.values()].filter((e) => machine === undefined || e.machine === machine);
  }

  /** Forgets the counters of a destroyed machine. */
  forget(machine: string): void {
    for (const [key, e] of this.#counters) if (e.machine === machine) this.#counters.delete(key);
  }

  /** The hot path: counts, and delivers at once unless a rule or observer is installed. */
  pass<T>(point: MediationPoint, counters: Counters, machine: string, message: T, handling: Handling<T>): void {
    counters.seen++;
    if (!this.mediator.active) {
      counters.executed++;
      handling.deliver(message);
      return;
    }
    this.mediator.handle(point, machine, message, handling, counters);
  }
}

/** A mediator that never has rules: for pieces that run alone in tests. */
export const NO_MEDIATION: Mediator = {
  active: false,
  handle(_point, _machine, message, handling, counters) {
    counters.executed++;
    handling.deliver(message);
  },
};
