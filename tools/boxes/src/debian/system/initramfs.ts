import { cpio, type CpioEntry } from "../../archive/cpio.ts";
import type { ModuleTree } from "../../modules/module-tree.ts";
import { guestText } from "./guest-files.ts";

/** Debian's klibc: the library and its programs. */
export const INITRAMFS_PACKAGES = ["libklibc", "klibc-utils"] as const;
/** What /init calls, and what helps in the shell that it leaves where there is no root filesystem. `halt` is `poweroff`, too. */
const PROGRAMS = ["sh", "mount", "insmod", "sleep", "cat", "run-init", "ls", "dmesg", "mkdir", "umount", "halt"];
const LIBRARY = /^usr\/lib\/klibc-[\w-]+\.so$/;
const PROGRAM = /^usr\/lib\/klibc\/bin\/([\w-]+)$/;
export const KLIBC_FILES = PROGRAMS.length + 1;

export const fromKlibc = (path: string): boolean => LIBRARY.test(path) || PROGRAMS.includes(PROGRAM.exec(path)?.[1] ?? "");

/**
 * klibc (a shell, mount and insmod in 220 KB; busybox has 1.6 MB, and a box that is pulled lazily moves all of its initial RAM disk), the
 * modules of the root filesystem, and /init.
 */
export function systemInitramfs(parts: { klibc: ReadonlyMap<string, Uint8Array>; release: string; modules: ModuleTree }): Uint8Array {
  const text = (path: string, content: string, mode = 0o644): CpioEntry => ({ path, kind: "file", data: new TextEncoder().encode(content), mode });
  const programs = [...parts.klibc].map(([path, data]): CpioEntry => {
    const program = PROGRAM.exec(path)?.[1]; // the library stays where it is: it is their ELF interpreter
    return { path: program ? `bin/${program}` : path, kind: "file", data, mode: 0o755 };
  });
  const tree = `lib/modules/${parts.release}`;
  return cpio([
    ...["dev", "proc", "sys", "root", "bin"].map((path): CpioEntry => ({ path, kind: "directory" })),
    { path: "dev/console", kind: "character-device", major: 5, minor: 1 },
    ...programs,
    { path: "bin/poweroff", kind: "symlink", target: "halt" },
    text("init", guestText("init"), 0o755),
    ...parts.modules.modules.map((m): CpioEntry => ({ path: `${tree}/${m.path}`, kind: "file", data: m.data })),
    text("lib/modules/order", parts.modules.order.map((path) => `/${tree}/${path}\n`).join("")),
  ]);
}
