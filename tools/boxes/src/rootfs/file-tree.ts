/** A filesystem's content in memory, with owners, modes and device nodes that the host need not be able to store. */
export interface Attributes {
  /** Permission bits, with set-user-ID, set-group-ID and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970. */
  readonly mtime: number;
}
export interface FileNode extends Attributes {
  readonly kind: "file";
  readonly data: Uint8Array;
}
export interface SymlinkNode extends Attributes {
  readonly kind: "symlink";
  readonly target: string;
}
export interface DeviceNode extends Attributes {
  readonly kind: "character-device" | "block-device" | "fifo";
  readonly device: { readonly major: number; readonly minor: number };
}
export interface DirectoryNode extends Attributes {
  readonly kind: "directory";
  readonly entries: Map<string, TreeNode>;
}
/** A node that stands in two directories is a hard link. */
export type TreeNode = FileNode | SymlinkNode | DeviceNode | DirectoryNode;

/** As many as Linux follows (path_resolution(7), MAXSYMLINKS). */
const SYMLINK_LIMIT = 40;

export class FileTree {
  /** Of what is made from now on without a time of its own. */
  mtime: number;
  #root: DirectoryNode;

  constructor(mtime = 0) {
    this.mtime = mtime;
    this.#root = { kind: "directory", mode: 0o755, uid: 0, gid: 0, mtime, entries: new Map() };
  }

  get root(): DirectoryNode {
    return this.#root;
  }

  /** The node at an absolute path (the leading slash may be left out); symlinks on the way are followed, the last is not. */
  find(path: string): TreeNode | undefined {
    const parts = split(path);
    const name = parts.pop();
    if (name === undefined) return this.#root;
    return this.#directory(parts, false)?.entries.get(name);
  }

  /** The file's text; undefined if there is none. Symlinks are followed. */
  text(path: string): string | undefined {
    let at = path;
    for (let links = 0; links < SYMLINK_LIMIT; links++) {
      const node = this.find(at);
      if (node?.kind === "file") return new TextDecoder().decode(node.data);
      if (node?.kind !== "symlink") return undefined;
      at = node.target.startsWith("/") ? node.target : `${at.slice(0, at.lastIndexOf("/"))}/${node.target}`;
    }
    return undefined;
  }

  /** Puts a node where there is none yet or replaces one; missing directories are made. */
  put(path: string, node: TreeNode): void {
    const parts = split(path);
    const name = parts.pop();
    if (name === undefined) {
      if (node.kind !== "directory") throw new Error("the root of a tree is a directory");
      this.#root = { ...node, entries: this.#root.entries };
      return;
    }
    const directory = this.#directory(parts, true) as DirectoryNode;
    const there = directory.entries.get(name);
    if (there?.kind === "directory" && node.kind !== "directory") throw new Error(`/${path}: a directory is there already`);
    directory.entries.set(name, there?.kind === "directory" && node.kind === "directory" ? { ...node, entries: there.entries } : node);
  }

  file(path: string, data: Uint8Array | string, attributes: Partial<Attributes> = {}): void {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    this.put(path, { kind: "file", data: bytes, ...this.#attributes(0o644, attributes) });
  }

  symlink(path: string, target: string, attributes: Partial<Attributes> = {}): void {
    this.put(path, { kind: "symlink", target, ...this.#attributes(0o777, attributes) });
  }

  directory(path: string, attributes: Partial<Attributes> = {}): void {
    this.put(path, { kind: "directory", entries: new Map(), ...this.#attributes(0o755, attributes) });
  }

  /** Changes owner, group, mode or time of what is there. */
  change(path: string, attributes: Partial<Attributes>): void {
    const node = this.find(path);
    if (!node) throw new Error(`${path} is not in the tree`);
    this.put(path, { ...node, ...attributes });
  }

  /** The newest time of all nodes. */
  newest(): number {
    let newest = 0;
    for (const [, node] of this.walk()) if (node.mtime > newest) newest = node.mtime;
    return newest;
  }

  remove(path: string): void {
    const parts = split(path);
    const name = parts.pop();
    if (name !== undefined) this.#directory(parts, false)?.entries.delete(name);
  }

  /** Every node with its absolute path, directories before what they hold, names in code-unit order. */
  *walk(): Generator<[path: string, node: TreeNode]> {
    yield* walk("", this.#root);
  }

  #attributes(mode: number, given: Partial<Attributes>): Attributes {
    return { mode, uid: 0, gid: 0, mtime: this.mtime, ...given };
  }

  /** The directory of these names; undefined if it is absent and not to be made. */
  #directory(parts: readonly string[], make: boolean): DirectoryNode | undefined {
    const left = parts.toReversed();
    const stack: DirectoryNode[] = [this.#root];
    for (let links = 0; left.length > 0; ) {
      const name = left.pop() as string;
      const here = stack.at(-1) as DirectoryNode;
      if (name === "..") {
        if (stack.length > 1) stack.pop();
        continue;
      }
      let next = here.entries.get(name);
      if (!next) {
        if (!make) return undefined;
        next = { kind: "directory", entries: new Map(), ...this.#attributes(0o755, {}) };
        here.entries.set(name, next);
      }
      if (next.kind === "symlink") {
        if (++links > SYMLINK_LIMIT) throw new Error(`/${parts.join("/")}: too many symbolic links`);
        if (next.target.startsWith("/")) stack.length = 1;
        left.push(...split(next.target).toReversed());
      } else if (next.kind === "directory") {
        stack.push(next);
      } else {
        throw new Error(`/${parts.join("/")}: ${name} is a ${next.kind}, not a directory`);
      }
    }
    return stack.at(-1);
  }
}

function* walk(path: string, node: TreeNode): Generator<[string, TreeNode]> {
  yield [path === "" ? "/" : path, node];
  if (node.kind !== "directory") return;
  for (const name of [...node.entries.keys()].sort()) yield* walk(`${path}/${name}`, node.entries.get(name) as TreeNode);
}

const split = (path: string): string[] => path.split("/").filter((part) => part !== "" && part !== ".");
