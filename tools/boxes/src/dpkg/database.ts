/**
 * dpkg's database of installed packages below /var/lib/dpkg, as dpkg 1.22 writes it (dpkg(1), FILES; deb-triggers(5)), so that apt and
 * dpkg in the guest go on from there.
 */
import { createHash } from "node:crypto";
import type { FileTree } from "../rootfs/file-tree.ts";
import type { UnpackedPackage } from "./package.ts";

const DIR = "/var/lib/dpkg";
/** In the control archive, but not in the info directory. */
const NOT_INFO = new Set(["control"]);

export function writeDpkgDatabase(tree: FileTree, packages: readonly UnpackedPackage[], architecture: string): void {
  const sorted = packages.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const text = (path: string, lines: readonly string[]): void => tree.file(`${DIR}/${path}`, lines.map((line) => `${line}\n`).join(""));
  text("status", sorted.map((p) => statusParagraph(tree, p)));
  text("available", []);
  text("arch-native", [architecture]);
  text("lock", []);
  tree.change(`${DIR}/lock`, { mode: 0o640 });
  tree.directory(`${DIR}/updates`);
  tree.directory(`${DIR}/parts`);
  text("diversions", []);
  text("info/format", ["1"]);
  for (const p of sorted) {
    const base = `info/${p.name}${p.multiArchSame ? `:${p.architecture}` : ""}`;
    text(`${base}.list`, p.paths.map((path) => (path === "/" ? "/." : path)));
    for (const [member, data] of p.members) {
      if (NOT_INFO.has(member)) continue;
      const script = /^(pre|post)(inst|rm)$|^config$/.test(member);
      tree.file(`${DIR}/${base}.${member}`, data, { mode: script ? 0o755 : 0o644 });
    }
  }
  writeTriggers(text, sorted);
}

function statusParagraph(tree: FileTree, p: UnpackedPackage): string {
  const lines: string[] = [];
  for (const [field, value] of p.control.entries()) {
    lines.push(`${field}: ${value}`);
    if (field === "Package") lines.push("Status: install ok installed");
  }
  const conffiles = text(p.members.get("conffiles")).split("\n").filter((line) => line.startsWith("/"));
  if (conffiles.length > 0) lines.push("Conffiles:", ...conffiles.map((path) => ` ${path} ${md5(tree, path)}`));
  return `${lines.join("\n")}\n`;
}

/** Interests by name in one file per trigger, those on paths in "File". */
function writeTriggers(write: (path: string, lines: readonly string[]) => void, packages: readonly UnpackedPackage[]): void {
  const named = new Map<string, string[]>();
  const files: string[] = [];
  for (const p of packages) {
    for (const line of text(p.members.get("triggers")).split("\n")) {
      const [directive = "", trigger = ""] = line.trim().split(/\s+/);
      if (!directive.startsWith("interest")) continue;
      const who = `${p.name}${p.multiArchSame ? `:${p.architecture}` : ""}${directive === "interest-noawait" ? "/noawait" : ""}`;
      if (trigger.startsWith("/")) files.push(`${trigger} ${who}`);
      else named.set(trigger, [...(named.get(trigger) ?? []), who]);
    }
  }
  write("triggers/File", files);
  write("triggers/Lock", []);
  write("triggers/Unincorp", []);
  for (const [trigger, who] of named) write(`triggers/${trigger}`, who);
}

function md5(tree: FileTree, path: string): string {
  const node = tree.find(path);
  return node?.kind === "file" ? createHash("md5").update(node.data).digest("hex") : "newconffile";
}

const text = (data: Uint8Array | undefined): string => (data ? new TextDecoder().decode(data) : "");
