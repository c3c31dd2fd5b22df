import { readModuleInfo, type ModuleInfo } from "./modinfo.ts";

export interface KernelModule {
  /** Path below /lib/modules/<release>/, e.g. "kernel/fs/ext4/ext4.ko". */
  readonly path: string;
  readonly data: Uint8Array;
  readonly info: ModuleInfo;
}

/** Modules chosen out of a kernel package, and modprobe's tables for them. */
export interface ModuleTree {
  /** By name. */
  readonly modules: readonly KernelModule[];
  /** Their paths in an order in which insmod can load them all. */
  readonly order: readonly string[];
  /** `modules.dep`, `modules.alias`, `modules.softdep` (formats: kmod's modules.dep(5), depmod(8)). */
  readonly dep: string;
  readonly alias: string;
  readonly softdep: string;
  /** Wanted, but neither a module of the package nor built in. */
  readonly missing: readonly string[];
}

export interface ModulePackage {
  /** Path of every module file by canonical name ("-" is "_"). */
  readonly paths: ReadonlyMap<string, string>;
  /** Names that are built into the kernel (modules.builtin). */
  readonly builtin: ReadonlySet<string>;
  /** The module's bytes, decompressed. */
  read(path: string): Promise<Uint8Array>;
}

export const canonicalName = (name: string): string => name.replaceAll("-", "_");

/**
 * Closes `wanted` under `depends=` and under `softdep=pre:`. Soft dependencies are often aliases
 * ("crypto-crc32c"); `softAliases` names the module of this package that answers each.
 */
export async function moduleTree(
  wanted: readonly string[],
  source: ModulePackage,
  softAliases: Readonly<Record<string, string>>,
): Promise<ModuleTree> {
  const chosen = new Map<string, KernelModule>();
  const before = new Map<string, string[]>();
  const missing: string[] = [];

  const visit = async (rawName: string, optional: boolean): Promise<string | undefined> => {
    const name = canonicalName(rawName);
    if (chosen.has(name)) return name;
    if (source.builtin.has(name)) return undefined;
    const path = source.paths.get(name);
    if (!path) {
      if (!optional) missing.push(name);
      return undefined;
    }
    const data = await source.read(path);
    const info = readModuleInfo(data, path);
    chosen.set(name, { path: path.replace(/\.(xz|zst|gz)$/, ""), data, info });
    const direct: string[] = [];
    for (const soft of info.softBefore) {
      const found = await visit(softAliases[soft] ?? soft, true);
      if (found) direct.push(found);
    }
    for (const hard of info.depends) {
      const found = await visit(hard, false);
      if (found) direct.push(found);
    }
    before.set(name, direct);
    return name;
  };
  for (const name of [...wanted].sort()) await visit(name, false);

  const names = [...chosen.keys()].sort();
  const load = (name: string): string[] => loadOrder(name, before);
  const pathOf = (name: string): string => (chosen.get(name) as KernelModule).path;
  // modprobe loads a line's right-hand side from its end: the deepest dependency stands last. Soft dependencies are
  // folded in because busybox's modprobe does not read modules.softdep.
  const dep = names.map((name) => `${pathOf(name)}: ${load(name).reverse().map(pathOf).join(" ")}`.trimEnd());
  const alias = names.flatMap((name) => (chosen.get(name) as KernelModule).info.aliases.map((a) => `alias ${a} ${name}`));
  const softdep = names.flatMap((name) => {
    const { softBefore, softAfter } = (chosen.get(name) as KernelModule).info;
    const pre = softBefore.length > 0 ? ` pre: ${softBefore.join(" ")}` : "";
    const post = softAfter.length > 0 ? ` post: ${softAfter.join(" ")}` : "";
    return pre || post ? [`softdep ${name}${pre}${post}`] : [];
  });
  return {
    modules: names.map((name) => chosen.get(name) as KernelModule),
    order: [...new Set(names.flatMap((name) => [...load(name), name]))].map(pathOf),
    dep: lines(dep),
    alias: lines(alias),
    softdep: lines(softdep),
    missing,
  };
}

/** Everything that must be loaded before `name`, deepest first, without `name`. */
function loadOrder(name: string, before: ReadonlyMap<string, readonly string[]>): string[] {
  const order: string[] = [];
  const seen = new Set([name]);
  const walk = (current: string): void => {
    for (const next of before.get(current) ?? []) {
      if (seen.has(next)) continue;
      seen.add(next);
      walk(next);
      order.push(next);
    }
  };
  walk(name);
  return order;
}

const lines = (all: readonly string[]): string => (all.length > 0 ? `${all.join("\n")}\n` : "");
