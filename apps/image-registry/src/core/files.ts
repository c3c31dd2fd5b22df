import type { BlobFiles } from "./blob-files.ts";
import type { Catalogue } from "./distribution/catalogue.ts";

/**
 * What the core needs of a filesystem, below one root. Paths use "/" and never leave the root.
 * adapters/node-files.ts is the real one; testing/memory-files.ts loses what was not synced, on request.
 */
export interface Files {
  /** "read": must exist. "update": must exist, writable. "create": must not exist; parent directories are made. */
  open(path: string, mode: "read" | "update" | "create"): Promise<File>;
  /** Moves a file or directory over `to` (which it replaces if both are files) and makes the move durable. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a whole directory, durably; nothing happens when it is not there. */
  remove(path: string): Promise<void>;
  /** Undefined when it is not there. `changedUnixMs`: when its bytes or its name last changed. */
  stat(path: string): Promise<{ bytes: number; changedUnixMs: number } | undefined>;
  /** Names in a directory, sorted; none when it is not there or no directory. */
  list(path: string): Promise<string[]>;
  /** Takes a lock that ends with the process, whichever way that ends. Undefined: somebody still has it after `waitMs`. */
  lock(path: string, waitMs?: number): Promise<Lock | undefined>;
}

export interface File {
  readonly bytes: number;
  /** Fills `target` from `position`; what lies past the end reads as zero. */
  read(position: number, target: Uint8Array): Promise<void>;
  write(position: number, data: Uint8Array): Promise<void>;
  /** {@link read}, {@link write}, {@link sync} before they return, where that will hardly keep anybody waiting. False: not done, use those. */
  readNow(position: number, target: Uint8Array): boolean;
  writeNow(position: number, data: Uint8Array): boolean;
  syncNow(): boolean;
  /** Several pieces, one after another, in one operation. */
  writeAll(position: number, pieces: readonly Uint8Array[]): Promise<void>;
  /** Sets the length; a longer file grows by a hole. */
  truncate(bytes: number): Promise<void>;
  /** Everything written before is durable when this resolves. */
  sync(): Promise<void>;
  /** Bytes that really take space. */
  allocatedBytes(): Promise<number>;
  close(): Promise<void>;
}

export interface Lock {
  release(): Promise<void>;
}

export type StorageProblem = "not-found" | "exists" | "no-space" | "io";

export class StorageError extends Error {
  readonly problem: StorageProblem;
  constructor(problem: StorageProblem, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "StorageError";
    this.problem = problem;
  }
}

/** SHA-256, given by the composition root. */
export interface Hash {
  update(data: Uint8Array): void;
  /** 64 lower-case hex digits; ends the hash. */
  hex(): string;
}

/** zstd (RFC 8878), given by the composition root. */
export interface Zstd {
  /** One frame. */
  compress(data: Uint8Array): Promise<Uint8Array>;
  /** The content of one frame; rejects when that is no frame, or has more than `maxBytes`. */
  decompress(frame: Uint8Array, maxBytes: number): Promise<Uint8Array>;
}

/** What the core is given besides its configuration. */
export interface Storage {
  readonly files: Files;
  readonly newHash: () => Hash;
  readonly zstd: Zstd;
  /** RFC 1951; at most `maxBytes` come out, what follows the end is ignored. */
  readonly inflateRaw: (data: Uint8Array, maxBytes: number) => Promise<Uint8Array>;
  /** The start of zstd data; at most `maxBytes` come out, what follows them is ignored. */
  readonly unzstdPrefix: (data: Uint8Array, maxBytes: number) => Promise<Uint8Array>;
  /** A name that no other process uses. */
  readonly uniqueName: () => string;
  /** Where whole blobs are; default: blobs/ of `files`. */
  readonly blobFiles?: BlobFiles;
  /** Where that is, for people. */
  readonly description: string;
  /** Which repository has what. */
  readonly catalogue: Catalogue;
}

/** Any string as one path component, the same on filesystems that ignore case. */
export function encodeName(name: string): string {
  return name.replace(/[^a-z0-9._-]|^\./g, (c) => `%${c.codePointAt(0)?.toString(16)};`);
}

export function decodeName(component: string): string {
  return component.replace(/%([0-9a-f]+);/g, (_m, hex: string) => String.fromCodePoint(Number.parseInt(hex, 16)));
}

/** A small file at once; undefined when it is not there. */
export async function readSmallFile(files: Files, path: string, limitBytes: number): Promise<Uint8Array | undefined> {
  let file: File;
  try {
    file = await files.open(path, "read");
  } catch (error) {
    if (error instanceof StorageError && error.problem === "not-found") return undefined;
    throw error;
  }
  try {
    if (file.bytes > limitBytes) throw new StorageError("io", `${path} has ${file.bytes} bytes, expected at most ${limitBytes}; it is damaged`);
    const data = new Uint8Array(file.bytes);
    await file.read(0, data);
    return data;
  } finally {
    await file.close();
  }
}

/** Appears whole or not at all, and is durable when this resolves. */
export async function writeAtomically(storage: Storage, path: string, data: Uint8Array): Promise<void> {
  const scratch = `tmp/${storage.uniqueName()}`;
  try {
    const file = await storage.files.open(scratch, "create");
    try {
      await file.write(0, data);
      await file.sync();
    } finally {
      await file.close();
    }
    await storage.files.rename(scratch, path);
  } catch (error) {
    await storage.files.remove(scratch).catch(() => {});
    throw error;
  }
}
