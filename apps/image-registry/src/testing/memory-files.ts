import { StorageError, type File, type Files, type Lock, type Storage } from "../core/files.ts";
import { createHash } from "node:crypto";
import { nodeInflateRaw, nodeUnzstdPrefix, nodeZstd } from "../adapters/node-compression.ts";
import { SqliteCatalogue } from "../adapters/sqlite-catalogue.ts";

const BLOCK = 512;

interface Node {
  /** What a running system reads. */
  cache: Uint8Array;
  /** What is on the platter. */
  durable: Uint8Array;
}

/**
 * A filesystem in memory that can lose its power: what was not synced is then lost, sector by sector, at random, as a
 * disk without a write barrier would. It can also be full. Names and renames are durable at once.
 */
export class MemoryFiles implements Files {
  readonly nodes = new Map<string, Node>();
  readonly #locks = new Set<string>();
  promptOperations = 0;
  /** Called before every write and sync; throws to make it fail. */
  beforeWrite: (path: string) => void = () => {};
  beforeSync: (path: string) => void = () => {};
  /** Called before every change of the directory and every write; throws to stop there. */
  beforeChange: (path: string) => void = () => {};

  /** Power is lost: every sector that was not synced keeps its old or its new content, as `choose` says. */
  crash(choose: () => boolean): void {
    for (const node of this.nodes.values()) {
      const after = node.cache.slice();
      for (let at = 0; at < after.length; at += BLOCK) {
        if (choose()) continue;
        const old = new Uint8Array(Math.min(BLOCK, after.length - at));
        old.set(node.durable.subarray(at, at + old.length));
        after.set(old, at);
      }
      node.cache = after;
      node.durable = after.slice();
    }
    this.#locks.clear();
  }

  async open(path: string, mode: "read" | "update" | "create"): Promise<File> {
    await Promise.resolve();
    let node = this.nodes.get(path);
    if (mode === "create") {
      this.beforeChange(path);
      if (node) throw new StorageError("exists", path);
      node = { cache: new Uint8Array(0), durable: new Uint8Array(0) };
      this.nodes.set(path, node);
    }
    if (!node) throw new StorageError("not-found", path);
    return new MemoryFile(this, path, node);
  }
  async rename(from: string, to: string): Promise<void> {
    this.beforeChange(to);
    for (const [path, node] of [...this.nodes]) {
      if (path !== from && !path.startsWith(`${from}/`)) continue;
      this.nodes.delete(path);
      this.nodes.set(to + path.slice(from.length), node);
    }
  }
  async remove(path: string): Promise<void> {
    this.beforeChange(path);
    for (const name of [...this.nodes.keys()]) if (name === path || name.startsWith(`${path}/`)) this.nodes.delete(name);
  }
  async stat(path: string): Promise<{ bytes: number; changedUnixMs: number } | undefined> {
    const node = this.nodes.get(path);
    return node && { bytes: node.cache.length, changedUnixMs: 0 };
  }
  async list(path: string): Promise<string[]> {
    const inside = [...this.nodes.keys()].filter((name) => name.startsWith(`${path}/`)).map((name) => name.slice(path.length + 1).split("/")[0] as string);
    return [...new Set(inside)].sort();
  }
  async lock(path: string): Promise<Lock | undefined> {
    if (this.#locks.has(path)) return undefined;
    this.#locks.add(path);
    return { release: async () => void this.#locks.delete(path) };
  }
}

class MemoryFile implements File {
  readonly #files: MemoryFiles;
  readonly #path: string;
  readonly #node: Node;
  constructor(files: MemoryFiles, path: string, node: Node) {
    this.#files = files;
    this.#path = path;
    this.#node = node;
  }
  get bytes(): number {
    return this.#node.cache.length;
  }
  async read(position: number, target: Uint8Array): Promise<void> {
    await Promise.resolve();
    const part = this.#node.cache.subarray(position, position + target.length);
    target.fill(0);
    target.set(part);
  }
  async write(position: number, data: Uint8Array): Promise<void> {
    const copy = data.slice();
    await Promise.resolve();
    this.#files.beforeChange(this.#path);
    this.#files.beforeWrite(this.#path);
    if (position + copy.length > this.#node.cache.length) await this.truncate(position + copy.length);
    this.#node.cache.set(copy, position);
  }
  /** Every third operation in all is not done at once. */
  readNow(position: number, target: Uint8Array): boolean {
    if (++this.#files.promptOperations % 3 === 0) return false;
    target.fill(0);
    target.set(this.#node.cache.subarray(position, position + target.length));
    return true;
  }
  writeNow(position: number, data: Uint8Array): boolean {
    if (++this.#files.promptOperations % 3 === 0 || position + data.length > this.#node.cache.length) return false;
    this.#files.beforeChange(this.#path);
    this.#files.beforeWrite(this.#path);
    this.#node.cache.set(data, position);
    return true;
  }
  syncNow(): boolean {
    if (++this.#files.promptOperations % 3 === 0) return false;
    this.#files.beforeSync(this.#path);
    this.#node.durable = this.#node.cache.slice();
    return true;
  }
  async writeAll(position: number, pieces: readonly Uint8Array[]): Promise<void> {
    let at = position;
    for (const piece of pieces) {
      await this.write(at, piece);
      at += piece.length;
    }
  }
  async truncate(bytes: number): Promise<void> {
    const cache = new Uint8Array(bytes);
    cache.set(this.#node.cache.subarray(0, bytes));
    this.#node.cache = cache;
  }
  async sync(): Promise<void> {
    this.#files.beforeSync(this.#path);
    const now = this.#node.cache.slice();
    await Promise.resolve();
    this.#node.durable = now;
  }
  async allocatedBytes(): Promise<number> {
    let blocks = 0;
    for (let at = 0; at < this.#node.cache.length; at += BLOCK) if (this.#node.cache.subarray(at, at + BLOCK).some((byte) => byte !== 0)) blocks++;
    return blocks * BLOCK;
  }
  async close(): Promise<void> {}
}

let names = 0;
export function memoryStorage(files = new MemoryFiles()): Storage & { files: MemoryFiles } {
  return {
    files,
    newHash: () => {
      const hash = createHash("sha256");
      return { update: (data) => void hash.update(data), hex: () => hash.digest("hex") };
    },
    zstd: nodeZstd,
    inflateRaw: nodeInflateRaw,
    unzstdPrefix: nodeUnzstdPrefix,
    uniqueName: () => `t${++names}`,
    description: "memory",
    catalogue: new SqliteCatalogue(":memory:"),
  };
}
