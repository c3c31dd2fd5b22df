import { readFileSync } from "node:fs";
import type { FileTree, TreeNode } from "../../rootfs/file-tree.ts";

/** Ours on the disk; path in the guest → file in `files/` (or debian/minimal's, where both have the same) and mode. */
const FILES: Readonly<Record<string, { readonly source: string; readonly mode?: number }>> = {
  "/usr/lib/polyvisor/hv-agent": { source: "../../files/hv-agent", mode: 0o755 },
  "/usr/lib/polyvisor/hv-stop": { source: "hv-stop", mode: 0o755 },
  "/usr/lib/polyvisor/hv-ssh-keys": { source: "hv-ssh-keys", mode: 0o755 },
  "/usr/lib/polyvisor/hv-resolv": { source: "hv-resolv", mode: 0o755 },
  "/usr/lib/systemd/system/hv-agent.service": { source: "hv-agent.service" },
  "/usr/lib/systemd/system/hv-growfs.service": { source: "hv-growfs.service" },
  "/usr/lib/systemd/system/hv-resolv.service": { source: "hv-resolv.service" },
  "/usr/lib/systemd/system/hv-resolv.path": { source: "hv-resolv.path" },
  "/etc/systemd/system/ssh.service.d/hv.conf": { source: "ssh.service.conf" },
  "/etc/systemd/system/systemd-udev-trigger.service.d/hv.conf": { source: "udev-trigger.conf" },
  "/etc/systemd/network/80-dhcp.network": { source: "80-dhcp.network" },
  "/etc/motd": { source: "motd" },
};
/** Not put on the disk as they are. */
const OTHERS = ["init", "sshd.conf", "boot-files.txt"];

export const guestText = (name: string): string => readFileSync(new URL(`./files/${name}`, import.meta.url), "utf8");

export function installGuestFiles(tree: FileTree): void {
  for (const [path, { source, mode }] of Object.entries(FILES)) tree.file(path, guestText(source), { mode: mode ?? 0o644 });
}

/**
 * What a boot to the login prompt reads, as it was found in the page cache of one (mincore(2) of every file): it lies together on the
 * disk, so that a machine whose disk comes lazily needs few chunks. A file that a package no longer has is no harm.
 */
export function bootFiles(tree: FileTree): TreeNode[] {
  const modules = tree.find("/usr/lib/modules");
  const release = modules?.kind === "directory" ? [...modules.entries.keys()][0] : undefined;
  const paths = guestText("boot-files.txt").split("\n").filter(Boolean);
  return paths.flatMap((path) => tree.find(path.replace("/modules/*/", `/modules/${release}/`)) ?? []);
}

/** All of them, for the recipe's key. */
export function guestFileTexts(): [path: string, text: string][] {
  return [...Object.entries(FILES).map(([path, { source }]): [string, string] => [path, guestText(source)]), ...OTHERS.map((name): [string, string] => [name, guestText(name)])];
}
