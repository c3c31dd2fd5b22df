import type { UnionFile, UnionView } from "./union-view.ts";

export interface Difference {
  /** A added, C changed, D deleted, as `docker diff` says. */
  readonly change: "A" | "C" | "D";
  readonly path: string;
  readonly before: UnionFile | undefined;
  readonly after: UnionFile | undefined;
  /** Of a change: what differs. */
  readonly what: readonly string[];
}

/** What differs between what two unions show. Times do not count: two builds of the same thing differ in them. */
export function compareUnions(before: UnionView, after: UnionView): Difference[] {
  const left = new Map([...before.files()].map((file) => [file.path, file]));
  const right = new Map([...after.files()].map((file) => [file.path, file]));
  const differences: Difference[] = [];
  for (const [path, file] of left) if (!right.has(path)) differences.push({ change: "D", path, before: file, after: undefined, what: [] });
  for (const [path, file] of right) {
    const old = left.get(path);
    if (!old) differences.push({ change: "A", path, before: undefined, after: file, what: [] });
    else {
      const what = changes(old, file);
      if (what.length > 0) differences.push({ change: "C", path, before: old, after: file, what });
    }
  }
  return differences.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

function changes(a: UnionFile, b: UnionFile): string[] {
  const what: string[] = [];
  if (a.kind !== b.kind) return [`${a.kind} → ${b.kind}`];
  if (a.mode !== b.mode) what.push(`mode ${a.mode.toString(8)} → ${b.mode.toString(8)}`);
  if (a.uid !== b.uid || a.gid !== b.gid) what.push(`owner ${a.uid}:${a.gid} → ${b.uid}:${b.gid}`);
  if (a.target !== b.target) what.push(`target ${a.target} → ${b.target}`);
  if (a.size !== b.size) what.push(`size ${a.size} → ${b.size}`);
  else if (a.kind === "file" && a.sha256 !== b.sha256) what.push("content");
  if (a.device.major !== b.device.major || a.device.minor !== b.device.minor) what.push(`device ${a.device.major}:${a.device.minor} → ${b.device.major}:${b.device.minor}`);
  return what;
}
