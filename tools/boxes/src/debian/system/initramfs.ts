import { cpio, type CpioEntry } from "../../archive/cpio.ts";
import type { ModuleTree } from "../../modules/module-tree.ts";
import { guestText } from "./guest-files.ts";

/** Busybox, the modules of the root filesystem and /init: a tenth of what initramfs-tools makes, and that much less guest time. */
export function systemInitramfs(parts: { busybox: Uint8Array; release: string; modules: ModuleTree }): Uint8Array {
  const text = (path: string, content: string, mode = 0o644): CpioEntry => ({ path, kind: "file", data: new TextEncoder().encode(content), mode });
  const tree = `lib/modules/${parts.release}`;
  const applets = ["sh", "mount", "modprobe", "sleep", "cat", "switch_root", "setsid", "cttyhack", "ls", "poweroff", "dmesg", "vi"];
  return cpio([
    ...["dev", "proc", "sys", "root", "bin", "sbin"].map((path): CpioEntry => ({ path, kind: "directory" })),
    { path: "dev/console", kind: "character-device", major: 5, minor: 1 },
    { path: "bin/busybox", kind: "file", data: parts.busybox, mode: 0o755 },
    ...applets.map((name): CpioEntry => ({ path: `bin/${name}`, kind: "symlink", target: "busybox" })),
    { path: "sbin/modprobe", kind: "symlink", target: "/bin/busybox" },
    text("init", guestText("init"), 0o755),
    ...parts.modules.modules.map((m): CpioEntry => ({ path: `${tree}/${m.path}`, kind: "file", data: m.data })),
    text(`${tree}/modules.dep`, parts.modules.dep),
    text(`${tree}/modules.alias`, parts.modules.alias),
    text(`${tree}/modules.softdep`, parts.modules.softdep),
    text(`${tree}/modules.symbols`, ""),
  ]);
}
