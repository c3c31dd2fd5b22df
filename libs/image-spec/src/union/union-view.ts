/**
 * What a union mount of an image's layers shows, and where each file comes from (OCI image-spec 1.1, layer.md): later layers lie over
 * earlier ones, whiteouts hide what lies below them, opaque directories hide everything that does. Only names and attributes are
 * kept, nothing is ever unpacked; what could do harm when it is, is refused or remarked.
 */
import type { TarHeader } from "../tar/index.ts";
import { readLayerPath } from "./layer-path.ts";

export interface UnionFile {
  /** Absolute; where the entry lands, links on its way followed. */
  readonly path: string;
  readonly layer: number;
  readonly kind: "file" | "symlink" | "directory" | "character-device" | "block-device" | "fifo";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  /** Of symbolic links. */
  readonly target: string;
  readonly device: { readonly major: number; readonly minor: number };
  /** Of hard links: the other name of the same file. */
  readonly linkTo: string | undefined;
  /** Of the content, where the reader of the layer computed it. */
  readonly sha256: string | undefined;
}

/** What happened to a path, bottom layer first. */
export type UnionEvent =
  | { readonly what: "put"; readonly layer: number; readonly file: UnionFile }
  | { readonly what: "whiteout" | "opaque" | "covered"; readonly layer: number; /** The whiteout's directory, or what took the place of a parent. */ readonly by: string };

export interface LayerProblem {
  readonly layer: number;
  /** As it stands in the archive. */
  readonly entry: string;
  /** "refused": the entry is left out of the view, and whoever unpacks the layer should, too. */
  readonly level: "refused" | "warning";
  readonly why: string;
}

export interface LayerSummary {
  /** Files that no lower layer shows. */
  added: number;
  /** Files over one of a lower layer. */
  changed: number;
  /** Files of lower layers that are hidden by whiteouts and opaque directories. */
  removed: number;
  whiteouts: number;
  opaque: number;
  /** Content of its files. */
  bytes: number;
  /** Files of this layer that the finished image shows, and their bytes. */
  visible: number;
  visibleBytes: number;
}

export interface LayerInput extends TarHeader {
  readonly sha256?: string;
}

interface Node {
  file: UnionFile;
  readonly children: Map<string, Node>;
}

/** As many as Linux follows (path_resolution(7)). */
const SYMLINK_LIMIT = 40;
/** Of all layers together: a hundred times a full operating system, and still no danger to memory. */
const ENTRY_LIMIT = 5_000_000;
const PROBLEM_LIMIT = 1000;

export class UnionView {
  readonly problems: LayerProblem[] = [];
  #problemCount = 0;
  readonly #summaries: LayerSummary[] = [];
  readonly #events = new Map<string, UnionEvent[]>();
  readonly #root: Node = { file: impliedDirectory("/", -1), children: new Map() };
  #entries = 0;

  /** Problems beyond the first thousand are counted only. */
  get problemCount(): number {
    return this.#problemCount;
  }

  /** Lays a layer over those before. Whiteouts hide lower layers only, wherever they stand in the archive. */
  addLayer(entries: readonly LayerInput[]): void {
    const layer = this.#summaries.length;
    const summary: LayerSummary = { added: 0, changed: 0, removed: 0, whiteouts: 0, opaque: 0, bytes: 0, visible: 0, visibleBytes: 0 };
    this.#summaries.push(summary);
    this.#entries += entries.length;
    if (this.#entries > ENTRY_LIMIT) throw new Error(`the image has more than ${ENTRY_LIMIT} entries; they are not shown`);
    const puts: { entry: LayerInput; parts: readonly string[] }[] = [];
    for (const entry of entries) {
      const path = readLayerPath(entry.path);
      if (path.kind === "refused") this.#problem(layer, entry, "refused", path.why);
      else if (path.kind === "entry") puts.push({ entry, parts: path.parts });
      else if (path.kind === "whiteout") this.#whiteout(layer, entry, path.directory, path.name, summary);
      else if (path.kind === "opaque") this.#opaque(layer, path.directory, summary);
    }
    const seen = new Set<string>();
    for (const { entry, parts } of puts) this.#put(layer, entry, parts, summary, seen);
  }

  /** One for each layer. */
  layers(): LayerSummary[] {
    for (const summary of this.#summaries) summary.visible = summary.visibleBytes = 0;
    for (const file of this.files()) {
      const summary = this.#summaries[file.layer];
      if (!summary || file.kind === "directory") continue;
      summary.visible++;
      summary.visibleBytes += file.linkTo === undefined ? file.size : 0;
    }
    return this.#summaries;
  }

  /** Everything that the union shows, by path. */
  *files(): Generator<UnionFile> {
    yield* walk(this.#root);
  }

  /** The file that a path shows; links on the way are followed, the last one is not. */
  find(path: string): UnionFile | undefined {
    const parts = path.split("/").filter(Boolean);
    const name = parts.pop();
    if (name === undefined) return this.#root.file;
    return this.#directory(parts)?.node.children.get(name)?.file;
  }

  /** The history of a path, bottom layer first; of the path that links on its way lead to. */
  history(path: string): { path: string; events: readonly UnionEvent[] } {
    const parts = path.split("/").filter(Boolean);
    const name = parts.pop();
    const directory = this.#directory(parts);
    const landed = name === undefined ? "/" : `${directory?.path ?? `/${parts.join("/")}`}/${name}`.replace(/^\/+/, "/");
    return { path: landed, events: this.#events.get(landed) ?? [] };
  }

  /** Every path that any layer ever had below a directory, hidden ones included. */
  paths(below = "/"): string[] {
    const prefix = below === "/" ? "/" : `${below.replace(/\/+$/, "")}/`;
    return [...this.#events.keys()].filter((path) => path.startsWith(prefix)).sort();
  }

  #whiteout(layer: number, entry: LayerInput, directory: readonly string[], name: string, summary: LayerSummary): void {
    summary.whiteouts++;
    const parent = this.#directory(directory);
    const node = parent?.node.children.get(name);
    if (!parent || !node) {
      this.#problem(layer, entry, "warning", "a whiteout of something that no lower layer has");
      return;
    }
    parent.node.children.delete(name);
    summary.removed += this.#hide(node, { what: "whiteout", layer, by: parent.path });
  }

  #opaque(layer: number, directory: readonly string[], summary: LayerSummary): void {
    summary.opaque++;
    const found = this.#directory(directory);
    if (!found) return;
    for (const child of found.node.children.values()) summary.removed += this.#hide(child, { what: "opaque", layer, by: found.path });
    found.node.children.clear();
  }

  #put(layer: number, entry: LayerInput, parts: readonly string[], summary: LayerSummary, seen: Set<string>): void {
    if (entry.kind === "unknown") return this.#problem(layer, entry, "refused", "a kind of file that tar does not define");
    const name = parts.at(-1);
    if (name === undefined) {
      this.#root.file = { ...fileOf(entry, "/", layer), kind: "directory" };
      return;
    }
    const parent = this.#makeDirectory(parts.slice(0, -1), layer);
    if (typeof parent === "string") return this.#problem(layer, entry, "refused", parent);
    const path = `${parent.path === "/" ? "" : parent.path}/${name}`;
    if (parent.path !== `/${parts.slice(0, -1).join("/")}`) this.#problem(layer, entry, "warning", `a link on its way leads it to ${path}`);
    const there = parent.node.children.get(name);
    const linked = entry.kind === "hard-link" ? this.#linked(entry, layer) : undefined;
    if (typeof linked === "string") return this.#problem(layer, entry, "refused", linked);
    const file = fileOf(entry, path, layer, linked);
    this.#remark(entry, file);
    if (seen.has(path) && !(file.kind === "directory" && there?.file.kind === "directory")) this.#problem(layer, entry, "warning", "the layer has this path twice; the later one counts");
    seen.add(path);
    if (file.kind !== "directory") summary.bytes += file.linkTo === undefined ? file.size : 0;
    if (there?.file.kind === "directory" && file.kind !== "directory") for (const child of there.children.values()) this.#hide(child, { what: "covered", layer, by: path });
    const lower = there !== undefined && there.file.layer !== layer && there.file.layer >= 0;
    if (file.kind !== "directory" || !there) summary[lower ? "changed" : "added"]++;
    const children = file.kind === "directory" && there?.file.kind === "directory" ? there.children : new Map<string, Node>();
    parent.node.children.set(name, { file, children });
    this.#event(path, { what: "put", layer, file });
  }

  #linked(entry: LayerInput, layer: number): UnionFile | string {
    const target = readLayerPath(entry.target);
    if (target.kind !== "entry") return `a hard link to ${shown(entry.target)}: ${target.kind === "refused" ? target.why : "a whiteout"}`;
    const file = this.find(`/${target.parts.join("/")}`);
    if (!file) return `a hard link to ${shown(entry.target)}, which is not in the image`;
    if (file.kind === "directory") return `a hard link to the directory ${shown(entry.target)}`;
    if (file.layer !== layer) this.#problem(layer, entry, "warning", `a hard link to a file of layer ${file.layer}: unpacking copies it up`);
    return file;
  }

  /** What is allowed, and worth a look. */
  #remark(entry: LayerInput, file: UnionFile): void {
    if (file.kind === "character-device" || file.kind === "block-device") {
      const zero = file.kind === "character-device" && file.device.major === 0 && file.device.minor === 0;
      this.#problem(file.layer, entry, "warning", zero ? "a character device 0:0: a whiteout of overlayfs that OCI layers do not have" : `a ${file.kind} ${file.device.major}:${file.device.minor}`);
    }
    if (file.kind === "symlink" && climbsOut(file)) this.#problem(file.layer, entry, "warning", `a symbolic link that points above the root (${shown(file.target)}); in the image it ends at the root`);
  }

  /** Marks a subtree as gone; answers how many files (not directories) that were. */
  #hide(node: Node, event: UnionEvent): number {
    this.#event(node.file.path, event);
    let count = node.file.kind === "directory" ? 0 : 1;
    for (const child of node.children.values()) count += this.#hide(child, event);
    return count;
  }

  #event(path: string, event: UnionEvent): void {
    const events = this.#events.get(path);
    if (events) events.push(event);
    else this.#events.set(path, [event]);
  }

  #problem(layer: number, entry: LayerInput, level: LayerProblem["level"], why: string): void {
    this.#problemCount++;
    if (this.problems.length < PROBLEM_LIMIT) this.problems.push({ layer, entry: shown(entry.path), level, why });
  }

  /** The directory of these names, links followed inside the image; undefined if there is none. */
  #directory(parts: readonly string[]): { node: Node; path: string } | undefined {
    const found = this.#follow(parts, undefined);
    return typeof found === "string" ? undefined : found;
  }

  /** The same, missing ones made (archives may leave parents out); a text says why it cannot be. */
  #makeDirectory(parts: readonly string[], layer: number): { node: Node; path: string } | string {
    return this.#follow(parts, layer);
  }

  #follow(parts: readonly string[], makeInLayer: number | undefined): { node: Node; path: string } | string {
    const left = parts.toReversed();
    const stack: { node: Node; path: string }[] = [{ node: this.#root, path: "/" }];
    for (let links = 0; left.length > 0; ) {
      const name = left.pop() as string;
      const here = stack.at(-1)!;
      if (name === "..") {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const path = `${here.path === "/" ? "" : here.path}/${name}`;
      let next = here.node.children.get(name);
      if (!next) {
        if (makeInLayer === undefined) return `${path} is not there`;
        next = { file: impliedDirectory(path, makeInLayer), children: new Map() };
        here.node.children.set(name, next);
      }
      if (next.file.kind === "symlink") {
        if (++links > SYMLINK_LIMIT) return "links on its way lead in a circle";
        if (next.file.target.startsWith("/")) stack.length = 1;
        left.push(...next.file.target.split("/").filter((part) => part !== "" && part !== ".").toReversed());
      } else if (next.file.kind === "directory") {
        stack.push({ node: next, path });
      } else {
        return `${path}, on its way, is a ${next.file.kind}`;
      }
    }
    return stack.at(-1)!;
  }
}

/** A directory that no archive names. */
function impliedDirectory(path: string, layer: number): UnionFile {
  return { path, layer, kind: "directory", mode: 0o755, uid: 0, gid: 0, size: 0, mtime: 0, target: "", device: { major: 0, minor: 0 }, linkTo: undefined, sha256: undefined };
}

function fileOf(entry: LayerInput, path: string, layer: number, linked?: UnionFile): UnionFile {
  const { mode, uid, gid, size, mtime, target, device, sha256 } = entry;
  if (linked) return { ...linked, path, layer, linkTo: linked.linkTo ?? linked.path };
  return { path, layer, kind: entry.kind as UnionFile["kind"], mode, uid, gid, size, mtime, target: entry.kind === "symlink" ? target : "", device, linkTo: undefined, sha256 };
}

/** Does a relative link have more ".." than directories above it? */
function climbsOut({ path, target }: UnionFile): boolean {
  let depth = target.startsWith("/") ? 0 : path.split("/").length - 2;
  for (const part of target.split("/")) {
    if (part === "..") depth--;
    else if (part !== "" && part !== ".") depth++;
    if (depth < 0) return true;
  }
  return false;
}

function* walk(node: Node): Generator<UnionFile> {
  yield node.file;
  for (const name of [...node.children.keys()].sort()) yield* walk(node.children.get(name) as Node);
}

/** Text from an archive without what would steer a terminal (control and direction characters), and not endless. */
export function shown(text: string): string {
  const clean = [...text.slice(0, 400)].map((c) => (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(c) ? `\\x${c.codePointAt(0)!.toString(16).padStart(2, "0")}` : c)).join("");
  return clean.length > 200 ? `${clean.slice(0, 197)}...` : clean;
}
