import type { FileTree } from "../rootfs/file-tree.ts";
import { kmodIndex } from "./kmod-index.ts";
import { canonicalName, type ModuleTree } from "./module-tree.ts";

/** Modules and the tables of depmod(8) for them, text and binary, below /usr/lib/modules/<release>. */
export function installModules(tree: FileTree, release: string, modules: ModuleTree, builtin: ReadonlySet<string>): void {
  const folder = `/usr/lib/modules/${release}`;
  for (const { path, data } of modules.modules) tree.file(`${folder}/${path}`, data);
  tree.file(`${folder}/modules.dep`, modules.dep);
  tree.file(`${folder}/modules.alias`, modules.alias);
  tree.file(`${folder}/modules.softdep`, modules.softdep);
  const lines = modules.dep.split("\n").filter(Boolean);
  const nameOf = (path: string): string => canonicalName((path.split("/").at(-1) as string).replace(/\.ko$/, ""));
  tree.file(`${folder}/modules.dep.bin`, kmodIndex(lines.map((line, i) => [nameOf(line.slice(0, line.indexOf(":"))), line, i])));
  const aliases = modules.alias.split("\n").filter(Boolean).map((line, i) => {
    const [, alias = "", name = ""] = line.split(" ");
    return [aliasKey(alias), name, i] as const;
  });
  tree.file(`${folder}/modules.alias.bin`, kmodIndex(aliases));
  tree.file(`${folder}/modules.builtin`, [...builtin].sort().map((name) => `kernel/${name}.ko\n`).join(""));
  tree.file(`${folder}/modules.builtin.bin`, kmodIndex([...builtin].sort().map((name) => [name, ""])));
  for (const empty of ["modules.symbols.bin", "modules.builtin.alias.bin"]) tree.file(`${folder}/${empty}`, kmodIndex([]));
}

/** As depmod writes keys: "-" is "_" outside of brackets (kmod, alias_normalize()). */
const aliasKey = (alias: string): string => alias.replaceAll(/\[[^\]]*\]|-/g, (part) => (part === "-" ? "_" : part));
