import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { isAlive } from "./lock-file.ts";
import type { Topology } from "./home.ts";

/** What a daemon says of itself in `daemon.json` while it serves. */
export interface StackInfo {
  readonly topology: Topology;
  readonly pid: number;
  /** See `startOf` in lock-file.ts. */
  readonly started: string;
  readonly startedUnixMs: number;
  /** gRPC targets. */
  readonly orchestrator: string;
  readonly images: string;
  readonly network?: string;
  /** Child processes; none in the embedded topology. */
  readonly processes: readonly ProcessInfo[];
}
export interface ProcessInfo {
  readonly name: string;
  readonly pid: number;
  readonly started: string;
  readonly address: string;
}

/** Undefined when no living daemon serves there. */
export function readStackInfo(path: string): StackInfo | undefined {
  try {
    const info = JSON.parse(readFileSync(path, "utf8")) as StackInfo;
    return isAlive(info) ? info : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Ends what a daemon that was killed has left: its services end by themselves when it does, its nats-server cannot. Only
 * for the holder of the stack's lock, or when nobody holds it.
 */
export function endLeftovers(path: string): void {
  let info: StackInfo;
  try {
    info = JSON.parse(readFileSync(path, "utf8")) as StackInfo;
  } catch {
    return;
  }
  for (const each of info.processes) if (each.started !== "" && isAlive(each)) process.kill(each.pid, "SIGTERM");
  rmSync(path, { force: true });
}

export function writeStackInfo(path: string, info: StackInfo): void {
  writeFileSync(`${path}.new`, JSON.stringify(info, undefined, 2));
  renameSync(`${path}.new`, path);
}
