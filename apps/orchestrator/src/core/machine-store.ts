import type { MachineSpec, MachineState } from "@polyvisor/contracts/orchestrator";
import type { SavedState } from "./saved-machine.ts";

/** The disk that a machine was given at its first start; it outlives halts and box updates. */
export interface MachineDisk {
  readonly id: string;
  readonly baseDigest: string;
  /** Empty: the base is plain bytes; else the type of a chunked image's index. */
  readonly baseMediaType: string;
  readonly bytes: bigint;
}

/** What the orchestrator knows of one machine: all of it survives a restart. */
export interface MachineRecord {
  readonly name: string;
  /** As the user asked; compared when the same name is created again. */
  readonly requested: MachineSpec;
  /** With the box's defaults filled in. */
  spec: MachineSpec;
  state: MachineState;
  reason: string;
  exitCode: number;
  createdUnixMs: number;
  startedUnixMs: number;
  disk: MachineDisk | undefined;
  /** Where the guest goes on: set before it is taken out of the services, gone before it runs again. */
  saved: SavedState | undefined;
}

/** A machine's settings and disk content of one moment. */
export interface SnapshotRecord {
  readonly machine: string;
  readonly name: string;
  readonly createdUnixMs: number;
  readonly note: string;
  readonly whileRunning: boolean;
  readonly spec: MachineSpec;
  /** A disk of the image-registry that nobody opens; undefined: the machine has none. */
  readonly disk: MachineDisk | undefined;
  /** Of the same moment as the disk; undefined: none was kept. */
  readonly saved: SavedState | undefined;
}

/** Durable state: a call returns when the change would survive a crash of the process. */
export interface MachineStore {
  list(): MachineRecord[];
  save(record: MachineRecord): void;
  remove(name: string): void;
  /** Of all machines, oldest first. */
  snapshots(): SnapshotRecord[];
  saveSnapshot(record: SnapshotRecord): void;
  removeSnapshot(machine: string, name: string): void;
  close(): void;
}
