import { readFileSync } from "node:fs";
import { cpio, type CpioEntry } from "../archive/cpio.ts";
import type { ModuleTree } from "../modules/module-tree.ts";

const file = (name: string): Uint8Array => readFileSync(new URL(`./files/${name}`, import.meta.url));

/** The scripts of the guest; part of the recipe's cache key. */
export function guestFiles(): CpioEntry[] {
  const program = (path: string, source: string): CpioEntry => ({ path, kind: "file", data: file(source), mode: 0o755 });
  return [
    program("init", "init"),
    program("sbin/hv-late", "hv-late"),
    program("sbin/hv-stop", "hv-stop"),
    program("sbin/hv-agent", "hv-agent"),
    program("usr/share/udhcpc/default.script", "udhcpc.script"),
    { path: "etc/profile", kind: "file", data: file("profile") },
  ];
}

/** Debian's busybox, its kernel's modules and our scripts as one archive; not compressed: unpacking is guest time. */
export function initramfs(parts: { busybox: Uint8Array; release: string; modules: ModuleTree; debianVersion: string }): Uint8Array {
  const text = (path: string, content: string): CpioEntry => ({ path, kind: "file", data: new TextEncoder().encode(content) });
  const tree = `lib/modules/${parts.release}`;
  const folders = ["dev", "proc", "sys", "run", "mnt", "usr/bin", "usr/sbin", "sbin", "bin", "var/log"];
  return cpio([
    ...folders.map((path): CpioEntry => ({ path, kind: "directory" })),
    { path: "tmp", kind: "directory", mode: 0o1777 },
    { path: "root", kind: "directory", mode: 0o700 },
    { path: "dev/console", kind: "character-device", major: 5, minor: 1 }, // stdin and stdout of /init
    { path: "bin/busybox", kind: "file", data: parts.busybox, mode: 0o755 },
    // The applets that /init uses before `busybox --install` makes the links of all the others.
    ...["bin/sh", "bin/mount", "bin/modprobe", "sbin/modprobe"].map((path): CpioEntry => ({ path, kind: "symlink", target: "/bin/busybox" })),
    ...guestFiles(),
    text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    text("etc/group", "root:x:0:\n"),
    text("etc/os-release", `PRETTY_NAME="Debian ${parts.debianVersion} minimal (Polyvisor)"\nID=debian\nVERSION_ID="${parts.debianVersion}"\n`),
    ...parts.modules.modules.map((m): CpioEntry => ({ path: `${tree}/${m.path}`, kind: "file", data: m.data })),
    text(`${tree}/modules.dep`, parts.modules.dep),
    text(`${tree}/modules.alias`, parts.modules.alias),
    text(`${tree}/modules.softdep`, parts.modules.softdep),
    text(`${tree}/modules.symbols`, ""),
  ]);
}
