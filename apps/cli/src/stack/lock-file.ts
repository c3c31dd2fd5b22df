import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";

interface Owner {
  readonly pid: number;
  /** When that process started, so that a reused pid is not taken for it; empty where /proc is absent. */
  readonly started: string;
}

/**
 * A lock that one living process holds: a file with its pid. A file whose process is gone counts as absent. Creation is
 * by link(2), which is atomic and puts the whole content there at once.
 */
export class LockFile {
  readonly path: string;
  #held = false;

  constructor(path: string) {
    this.path = path;
  }

  /** True when this process holds the lock now; false when another living one does. */
  acquire(): boolean {
    const mine = `${this.path}.${process.pid}`;
    writeFileSync(mine, JSON.stringify({ pid: process.pid, started: startOf(process.pid) } satisfies Owner));
    try {
      for (let attempt = 0; attempt < 10; attempt++) {
        try {
          linkSync(mine, this.path);
          this.#held = true;
          return true;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
        }
        const before = read(this.path);
        if (before !== undefined && parseOwner(before) && isAlive(parseOwner(before)!)) return false;
        this.#removeStale(before);
      }
      return false;
    } finally {
      rmSync(mine, { force: true });
    }
  }

  /** The living process that holds the lock. */
  owner(): number | undefined {
    const owner = parseOwner(read(this.path) ?? "");
    return owner && isAlive(owner) ? owner.pid : undefined;
  }

  release(): void {
    if (this.#held) rmSync(this.path, { force: true });
    this.#held = false;
  }

  /** Moves the dead owner's file away. If somebody has replaced it meanwhile, theirs is put back. */
  #removeStale(content: string | undefined): void {
    if (content === undefined) return;
    const aside = `${this.path}.stale.${process.pid}`;
    try {
      renameSync(this.path, aside);
      if (read(aside) !== content) linkSync(aside, this.path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "EEXIST") throw error;
    } finally {
      rmSync(aside, { force: true });
    }
  }
}

/** Does the process still run (and has not merely inherited the pid)? */
export function isAlive({ pid, started }: Owner): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const now = startOf(pid);
  return now !== "zombie" && (started === "" || now === "" || now === started);
}

/** Start time of a process in clock ticks (proc(5), /proc/pid/stat field 22); "zombie" when it only waits for its parent. */
export function startOf(pid: number): string {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === undefined) return "";
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" ? "zombie" : (fields[19] ?? "");
}

function parseOwner(content: string): Owner | undefined {
  try {
    const { pid, started } = JSON.parse(content) as Owner;
    return Number.isInteger(pid) && pid > 0 ? { pid, started: String(started) } : undefined;
  } catch {
    return undefined;
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
