import { createHash } from "node:crypto";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { BoxConfig } from "@polyvisor/contracts/image";

/** A file of a built box, in the cache directory. */
export interface BuiltFile {
  readonly path: string;
  readonly bytes: number;
  /** 64 hex digits. */
  readonly sha256: string;
  /** The same as one zstd frame, smaller than what the image-registry makes on the spot (pack-file.ts). */
  readonly packed?: Omit<BuiltFile, "packed">;
}

/** What a recipe answers: files on this machine and the machine defaults that fit them. */
export interface BuiltBox {
  /** e.g. "debian/minimal". */
  readonly name: string;
  /** e.g. "13". */
  readonly tag: string;
  readonly kernel: BuiltFile;
  readonly initrd?: BuiltFile;
  /** Raw base disk, formatted; absent when this machine has no way to make a filesystem (the log says so). */
  readonly disk?: BuiltFile;
  readonly config: BoxConfig;
  /** Where each input came from: package → version and sha256. */
  readonly sources: Readonly<Record<string, string>>;
  /** True when nothing had to be done. */
  readonly fromCache: boolean;
}

/** One step of a build. Bytes are given where the step has an end that is known. */
export interface BuildProgress {
  readonly step: string;
  readonly doneBytes?: number;
  readonly totalBytes?: number;
}

export interface BuildOptions {
  /** Packages, lists and results are kept here. */
  readonly cacheDir: string;
  readonly onProgress?: (progress: BuildProgress) => void;
  readonly log?: (line: string) => void;
  /** Asks the mirror again even when a built box is in the cache. */
  readonly refresh?: boolean;
  /** Default: the process's own. `HV_DEBIAN_MIRROR`, `HV_BOX_CACHE` and `PATH` are read. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** A build that cannot go on; the message says what to do. */
export class BoxBuildError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "BoxBuildError";
  }
}

/** Writes one file of a box; it appears whole or not at all. */
export function writeResult(path: string, data: Uint8Array): BuiltFile {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.part`, data);
  renameSync(`${path}.part`, path);
  return { path, bytes: data.length, sha256: createHash("sha256").update(data).digest("hex") };
}
