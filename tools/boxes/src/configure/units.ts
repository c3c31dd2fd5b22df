import type { FileTree } from "../rootfs/file-tree.ts";

const UNITS = "/usr/lib/systemd/system";

/** What `systemctl enable` does: the links that the unit's [Install] section asks for (systemd.unit(5)), `Also=` included. */
export function enableUnit(tree: FileTree, unit: string, seen = new Set<string>()): void {
  if (seen.has(unit)) return;
  seen.add(unit);
  const folder = [`/etc/systemd/system`, UNITS].find((each) => tree.find(`${each}/${unit}`));
  const text = folder && tree.text(`${folder}/${unit}`);
  if (!text) throw new Error(`there is no unit ${unit} to enable`);
  for (const [key, value] of installSection(text)) {
    for (const word of value.split(/\s+/).filter(Boolean)) {
      if (key === "WantedBy") tree.symlink(`/etc/systemd/system/${word}.wants/${unit}`, `${folder}/${unit}`);
      else if (key === "RequiredBy") tree.symlink(`/etc/systemd/system/${word}.requires/${unit}`, `${folder}/${unit}`);
      else if (key === "Alias") tree.symlink(`/etc/systemd/system/${word}`, `${folder}/${unit}`);
      else if (key === "Also") enableUnit(tree, word, seen);
    }
  }
}

export function maskUnit(tree: FileTree, unit: string): void {
  tree.symlink(`/etc/systemd/system/${unit}`, "/dev/null");
}

function installSection(text: string): [key: string, value: string][] {
  const pairs: [string, string][] = [];
  let section = "";
  for (const line of text.split("\n")) {
    const header = /^\[(.+)\]$/.exec(line.trim());
    if (header) section = header[1] as string;
    const pair = /^([A-Za-z]+)=(.*)$/.exec(line.trim());
    if (section === "Install" && pair) pairs.push([pair[1] as string, pair[2] as string]);
  }
  return pairs;
}

/** Takes a unit out of what a package's own `.wants` directory pulls in (systemd.unit(5): a link to /dev/null hides the entry). */
export function maskDependency(tree: FileTree, target: string, unit: string): void {
  tree.symlink(`/etc/systemd/system/${target}.wants/${unit}`, "/dev/null");
}
