import { constants, fdatasync, fdatasyncSync, fstat, ftruncate, open as openFd, read as readFd, readSync, statSync, write as writeFd, writeSync, writev as writevFd, close as closeFd, type Stats } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { createHash, randomUUID } from "node:crypto";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { nodeInflateRaw, nodeUnzstdPrefix, nodeZstd } from "./node-compression.ts";
import { Promptness } from "./promptness.ts";
import { SqliteCatalogue } from "./sqlite-catalogue.ts";
import { StorageError, type File, type Files, type Lock, type Storage } from "../core/files.ts";

// Callback functions on descriptors: half the time of FileHandle's for the 4 KiB operations of a disk.
const fd = {
  open: promisify(openFd),
  stat: promisify(fstat) as (fd: number) => Promise<Stats>,
  /** With the length, where it has changed; without times, which would cost the journal a transaction. */
  sync: promisify(fdatasync),
  truncate: promisify(ftruncate),
  close: promisify(closeFd),
  read: (handle: number, target: Uint8Array, position: number): Promise<number> =>
    new Promise((resolve, reject) => readFd(handle, target, 0, target.length, position, (error, n) => (error ? reject(error) : resolve(n)))),
  write: (handle: number, data: Uint8Array, position: number): Promise<number> =>
    new Promise((resolve, reject) => writeFd(handle, data, 0, data.length, position, (error, n) => (error ? reject(error) : resolve(n)))),
  writev: (handle: number, pieces: readonly Uint8Array[], position: number): Promise<number> =>
    new Promise((resolve, reject) => writevFd(handle, pieces, position, (error, n) => (error ? reject(error) : resolve(n)))),
};
/** IOV_MAX of Linux (writev(2)). */
const MAX_PIECES = 1024;

/** The machine's filesystem below `root`, which is made if it is not there. */
export async function nodeStorage(root: string): Promise<Storage> {
  await guarded(`make ${root}`, () => mkdir(join(root, "tmp"), { recursive: true }));
  await removeLeftovers(join(root, "tmp"));
  return {
    files: new NodeFiles(root),
    newHash: () => {
      const hash = createHash("sha256");
      return { update: (data) => void hash.update(data), hex: () => hash.digest("hex") };
    },
    zstd: nodeZstd,
    inflateRaw: nodeInflateRaw,
    unzstdPrefix: nodeUnzstdPrefix,
    uniqueName: () => `${process.pid}-${randomUUID()}`,
    description: root,
    catalogue: new SqliteCatalogue(join(root, "catalogue.sqlite")),
  };
}

/** What processes that are gone were writing; names begin with the writer's process id. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const pid = Number.parseInt(name, 10);
    if (pid > 0 && pid !== process.pid && !isAlive(pid)) await rm(join(folder, name), { recursive: true, force: true }).catch(() => {});
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

export class NodeFiles implements Files {
  readonly #root: string;
  readonly #promptness = { cache: new Promptness(), device: new Promptness() };
  constructor(root: string) {
    this.#root = root;
  }

  async open(path: string, mode: "read" | "update" | "create"): Promise<File> {
    const full = join(this.#root, path);
    return guarded(`${mode} ${path}`, async () => {
      if (mode === "create") {
        const create = (): Promise<number> => fd.open(full, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
        return new NodeFile(path, (await withFolder(full, create)).value, 0, this.#promptness);
      }
      const handle = await fd.open(full, mode === "read" ? constants.O_RDONLY : constants.O_RDWR);
      return new NodeFile(path, handle, (await fd.stat(handle)).size, this.#promptness);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return guarded(`rename ${from} to ${to}`, async () => {
      const target = join(this.#root, to);
      // The directory's own entries first, so that it never appears without them.
      const source = join(this.#root, from);
      if (statSync(source).isDirectory()) await syncDirectory(source); // in the cache: not worth a thread
      const { made } = await withFolder(target, () => rename(source, target));
      // Its entry, and the entries of the directories that were made for it.
      const highest = made === undefined ? dirname(target) : dirname(made);
      for (let folder = dirname(target); folder.length >= highest.length; folder = dirname(folder)) await syncDirectory(folder);
    });
  }

  remove(path: string): Promise<void> {
    return guarded(`remove ${path}`, async () => {
      const full = join(this.#root, path);
      await rm(full, { recursive: true, force: true });
      await syncDirectory(dirname(full));
    });
  }

  stat(path: string): Promise<{ bytes: number; changedUnixMs: number } | undefined> {
    return guarded(`stat ${path}`, async () => {
      const found = await stat(join(this.#root, path)).catch((error: unknown) => {
        if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return undefined;
        throw error;
      });
      return found && { bytes: found.size, changedUnixMs: found.ctimeMs };
    });
  }

  list(path: string): Promise<string[]> {
    return guarded(`list ${path}`, async () => {
      try {
        return (await readdir(join(this.#root, path))).sort();
      } catch (error) {
        if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return [];
        throw error;
      }
    });
  }

  /**
   * SQLite's file lock: the kernel lets go of it when the process ends, even by SIGKILL, so no lock is ever stale and
   * no process id has to be believed. It also excludes a second opener in the same process.
   */
  async lock(path: string, waitMs = 0): Promise<Lock | undefined> {
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(join(this.#root, path), { timeout: waitMs });
      database.exec("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=MEMORY; BEGIN EXCLUSIVE");
      const held = database;
      return { release: async () => void (held.isOpen && held.close()) };
    } catch (error) {
      database?.close();
      if (/database is locked|SQLITE_BUSY/.test(String(error))) return undefined;
      throw new StorageError("io", `lock ${path}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/** Of what the page cache answers, and of what waits for the device. */
interface FilePromptness {
  readonly cache: Promptness;
  readonly device: Promptness;
}

class NodeFile implements File {
  bytes: number;
  readonly #path: string;
  readonly #fd: number;
  readonly #promptness: FilePromptness;
  #closed = false;

  constructor(path: string, handle: number, bytes: number, promptness: FilePromptness) {
    this.#promptness = promptness;
    this.#path = path;
    this.#fd = handle;
    this.bytes = bytes;
  }

  read(position: number, target: Uint8Array): Promise<void> {
    return guarded(`read ${this.#path}`, async () => {
      for (let done = 0; done < target.length; ) {
        const n = await fd.read(this.#fd, target.subarray(done), position + done);
        if (n === 0) {
          target.fill(0, done);
          return;
        }
        done += n;
      }
    });
  }

  write(position: number, data: Uint8Array): Promise<void> {
    return guarded(`write ${this.#path}`, async () => {
      for (let done = 0; done < data.length; ) done += await fd.write(this.#fd, data.subarray(done), position + done);
      this.bytes = Math.max(this.bytes, position + data.length);
    });
  }

  readNow(position: number, target: Uint8Array): boolean {
    return this.#promptness.cache.run(() =>
      guardedNow(`read ${this.#path}`, () => {
        for (let done = 0; done < target.length; ) {
          const n = readSync(this.#fd, target, done, target.length - done, position + done);
          if (n === 0) return void target.fill(0, done);
          done += n;
        }
      }),
    );
  }

  writeNow(position: number, data: Uint8Array): boolean {
    return this.#promptness.cache.run(() =>
      guardedNow(`write ${this.#path}`, () => {
        for (let done = 0; done < data.length; ) done += writeSync(this.#fd, data, done, data.length - done, position + done);
        this.bytes = Math.max(this.bytes, position + data.length);
      }),
    );
  }

  syncNow(): boolean {
    return this.#promptness.device.run(() => guardedNow(`sync ${this.#path}`, () => fdatasyncSync(this.#fd)));
  }

  writeAll(position: number, pieces: readonly Uint8Array[]): Promise<void> {
    return guarded(`write ${this.#path}`, async () => {
      let at = position;
      for (let rest = pieces; rest.length > 0; ) {
        let n = await fd.writev(this.#fd, rest.slice(0, MAX_PIECES), at);
        at += n;
        let whole = 0;
        while (whole < rest.length && n >= rest[whole]!.length) n -= rest[whole++]!.length;
        rest = n > 0 ? [rest[whole]!.subarray(n), ...rest.slice(whole + 1)] : rest.slice(whole);
      }
      this.bytes = Math.max(this.bytes, at);
    });
  }

  truncate(bytes: number): Promise<void> {
    return guarded(`resize ${this.#path}`, async () => {
      await fd.truncate(this.#fd, bytes);
      this.bytes = bytes;
    });
  }

  sync(): Promise<void> {
    return guarded(`sync ${this.#path}`, () => fd.sync(this.#fd));
  }

  allocatedBytes(): Promise<number> {
    return guarded(`stat ${this.#path}`, async () => (await fd.stat(this.#fd)).blocks * 512);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await guarded(`close ${this.#path}`, () => fd.close(this.#fd));
  }
}

/** Runs what needs the folder of a path, which is nearly always there; makes it when it is not, and says from where on. */
async function withFolder<T>(path: string, run: () => Promise<T>): Promise<{ value: T; made: string | undefined }> {
  try {
    return { value: await run(), made: undefined };
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    const made = await mkdir(dirname(path), { recursive: true });
    return { value: await run(), made };
  }
}

async function syncDirectory(path: string): Promise<void> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if (codeOf(error) === "EISDIR" || codeOf(error) === "EPERM") return; // Windows has no such thing
    throw error;
  }
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const codeOf = (error: unknown): string => String((error as NodeJS.ErrnoException).code ?? "");

async function guarded<T>(operation: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw storageError(operation, error);
  }
}

function guardedNow(operation: string, run: () => void): void {
  try {
    run();
  } catch (error) {
    throw storageError(operation, error);
  }
}

function storageError(operation: string, error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  const code = codeOf(error);
  const message = `${operation}: ${(error as Error).message}`;
  if (code === "ENOENT") return new StorageError("not-found", message, { cause: error });
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") return new StorageError("no-space", message, { cause: error });
  if (code === "EEXIST" || code === "ENOTEMPTY") return new StorageError("exists", message, { cause: error });
  return new StorageError("io", message, { cause: error });
}
