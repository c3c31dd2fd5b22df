import type { FileTree } from "../rootfs/file-tree.ts";

export interface Alternative {
  /** e.g. "awk" */
  readonly name: string;
  /** The generic path, e.g. "/usr/bin/awk". */
  readonly link: string;
  readonly choices: readonly { readonly path: string; readonly priority: number }[];
  /** Follow the master: name, link, and the path beside each choice. */
  readonly slaves?: readonly { readonly name: string; readonly link: string; readonly path: string }[];
}

/** The links that update-alternatives(1) makes and its record of them, in automatic mode; the highest priority wins. */
export function writeAlternative(tree: FileTree, { name, link, choices, slaves = [] }: Alternative): void {
  const best = choices.toSorted((a, b) => b.priority - a.priority)[0];
  if (!best) return;
  const point = (from: string, as: string, to: string): void => {
    tree.symlink(from, `/etc/alternatives/${as}`);
    tree.symlink(`/etc/alternatives/${as}`, to);
  };
  point(link, name, best.path);
  for (const slave of slaves) point(slave.link, slave.name, slave.path);
  const record = [
    "auto", link, ...slaves.flatMap((s) => [s.name, s.link]), "",
    ...choices.toSorted((a, b) => (a.path < b.path ? -1 : 1)).flatMap((c) => [c.path, String(c.priority), ...slaves.map((s) => s.path)]), "",
  ];
  tree.file(`/var/lib/dpkg/alternatives/${name}`, record.map((line) => `${line}\n`).join(""));
}
