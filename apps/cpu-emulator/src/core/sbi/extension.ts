import type { HartCells } from "../cells.ts";
import type { ExitReason } from "../engine.ts";
import type { EventName, HartMailbox } from "../mailbox.ts";
import type { GuestMemory } from "../physical.ts";
import type { Privileged } from "../privileged.ts";

/** Standard error codes (SBI 2.0, table 1). */
export const SbiError = {
  SUCCESS: 0n, FAILED: -1n, NOT_SUPPORTED: -2n, INVALID_PARAM: -3n, DENIED: -4n, INVALID_ADDRESS: -5n,
  ALREADY_AVAILABLE: -6n, ALREADY_STARTED: -7n, ALREADY_STOPPED: -8n, NO_SHMEM: -9n,
} as const;

/** What an extension gets: one hart's view of the machine. */
export interface SbiContext {
  readonly core: Privileged;
  /** All harts' cells, by hart id. */
  readonly harts: readonly HartCells[];
  readonly mailbox: HartMailbox;
  /** Guest memory, for calls that take addresses. */
  readonly memory: GuestMemory;
  hasExtension(id: bigint): boolean;
  /** This hart's fences, for calls whose mask includes the caller. */
  fenceI(): void;
  flushTlb(): void;
}

export interface SbiResult {
  error: bigint;
  value?: bigint;
  /** Leave guest code for this reason (the hart stopped, or waits). */
  leave?: ExitReason;
  /** Legacy extensions answer in a0 alone (chapter 5). */
  legacy?: boolean;
}

export interface SbiExtension {
  readonly id: number;
  readonly counts: EventName;
  /** Undefined: the extension has no such function. */
  call(context: SbiContext, fid: number, args: readonly bigint[]): SbiResult | undefined;
}
