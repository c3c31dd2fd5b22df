import type { Privileged } from "../privileged.ts";
import type { DebugEntry } from "./debug-table.ts";
import type { DebugHit } from "./hart-debug.ts";

/** What a debugger works on: one machine's harts, as `machine.ts` offers them. */
export interface DebugTarget {
  readonly name: string;
  /** The cores, to be read and written while the harts stand still. */
  readonly harts: readonly Privileged[];
  running(): boolean;
  pause(): Promise<void>;
  run(): Promise<void>;
  /** Executes one instruction on each of these harts, in this order, until one of them hits something. */
  step(harts: readonly number[], interrupts: boolean): Promise<void>;
  /** RAM, wherever its pages are held; undefined (false): not RAM. */
  readPhysical(address: bigint, length: number): Promise<Uint8Array | undefined>;
  writePhysical(address: bigint, data: Uint8Array): Promise<boolean>;
  /** What harts stop at from their next run or step on. They stand still. */
  setTable(entries: readonly DebugEntry[]): void;
  /** Why a hart stopped by itself since the last call; undefined: it did not. */
  takeHit(hart: number): DebugHit | undefined;
  status(hart: number): string;
}
