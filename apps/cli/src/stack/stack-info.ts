import { readFileSync, renameSync, writeFileSync } from "node:fs";
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
  /** Child processes; none in the embedded topology. */
  readonly processes: readonly ProcessInfo[];
}
export interface ProcessInfo {
  readonly name: string;
  readonly pid: number;
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

export function writeStackInfo(path: string, info: StackInfo): void {
  writeFileSync(`${path}.new`, JSON.stringify(info, undefined, 2));
  renameSync(`${path}.new`, path);
}
