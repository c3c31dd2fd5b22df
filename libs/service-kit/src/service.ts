import type { Contract, Implementation, ServiceDefinition } from "@polyvisor/contracts";
import type { Logger } from "pino";
import type { EventBus } from "./events.ts";

/** Time, injected so that cores never call Date or timers themselves. */
export interface Clock {
  /** Unix time, milliseconds. */
  now(): number;
  /** Monotonic, milliseconds, with sub-microsecond digits. */
  monotonic(): number;
  /** Calls `run` once after `ms`; the answer cancels it. */
  after(ms: number, run: () => void): () => void;
}

/** What every service gets from its composition root besides its configuration and its peers' ports. */
export interface ServiceContext {
  readonly log: Logger;
  readonly events: EventBus;
  readonly clock: Clock;
}

/** A started service: what its public `createService(config, peers, context)` answers. */
export interface RunningService<D extends ServiceDefinition> {
  readonly contract: Contract<D>;
  readonly implementation: Implementation<D>;
  /** Facts for KitService.Describe, read when asked. */
  describe?(): Record<string, string>;
  /** Stops work, flushes, frees. Idempotent; resolves when nothing of it runs any more. */
  close(): Promise<void>;
}
