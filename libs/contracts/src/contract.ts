import type { Plane } from "@polyvisor/mediation";
import type { ServiceDefinition } from "./port.ts";

/** How one method takes part in mediation. */
export interface MethodContract {
  readonly plane: Plane;
  /**
   * Streams only: what the *sender* of a denied message gets back, so that the guest sees something hardware could
   * do. Undefined or null: the message is dropped.
   */
  readonly deniedRequest?: (request: any, reason: string) => unknown | null;
  /** Streams only: what the receiver gets instead of a denied answer. Undefined or null: nothing. */
  readonly deniedResponse?: (response: any, reason: string) => unknown | null;
  /** Streams only: what still arrives of a message that is denied or dropped: its flow control. Undefined: nothing. */
  readonly lost?: (message: any) => unknown;
  /** Streams only: a hart stands still until the answer comes, so a server answers from a wakeful event loop. */
  readonly urgent?: boolean;
}

/** A contract = the generated definition + what mediation needs to know. One object per service, in `<service>.ts`. */
export interface Contract<D extends ServiceDefinition> {
  /** Service name as in `apps/`, e.g. "memory-manager". */
  readonly service: string;
  readonly definition: D;
  /** Methods not named here are on the control plane. */
  readonly methods: { readonly [M in keyof D]?: MethodContract };
}

/** Machine id of any message of any contract: every one carries `machine` (or `name` at the orchestrator's API). */
export function machineOf(message: any): string {
  return message?.machine || message?.name || message?.spec?.name || message?.port?.machine || "";
}
