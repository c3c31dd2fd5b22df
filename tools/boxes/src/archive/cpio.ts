/**
 * A cpio archive in the "newc" format, the one that Linux unpacks as its initramfs
 * (kernel Documentation/driver-api/early-userspace/buffer-format.rst).
 * Reproducible: entries are sorted, times are 0, owner is root.
 */
export type CpioEntry =
  | { readonly path: string; readonly kind: "directory"; readonly mode?: number }
  | { readonly path: string; readonly kind: "file"; readonly data: Uint8Array; readonly mode?: number }
  | { readonly path: string; readonly kind: "symlink"; readonly target: string }
  | { readonly path: string; readonly kind: "character-device"; readonly major: number; readonly minor: number; readonly mode?: number };

const S_IFLNK = 0o120000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFCHR = 0o020000;

/** Paths have no leading slash. Parent directories are added where they are missing. */
export function cpio(entries: readonly CpioEntry[]): Uint8Array {
  const byPath = new Map<string, CpioEntry>();
  for (const entry of entries) {
    const parts = entry.path.split("/");
    for (let i = 1; i < parts.length; i++) {
      const parent = parts.slice(0, i).join("/");
      if (!byPath.has(parent)) byPath.set(parent, { path: parent, kind: "directory" });
    }
    byPath.set(entry.path, entry);
  }
  // A directory sorts before what it holds, as the kernel needs it.
  const sorted = [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  const chunks: Uint8Array[] = [];
  let length = 0;
  const push = (bytes: Uint8Array): void => {
    chunks.push(bytes);
    length += bytes.length;
    const gap = -length & 3; // header + name, and data, are each padded to 4 bytes
    if (gap > 0) {
      chunks.push(new Uint8Array(gap));
      length += gap;
    }
  };
  let inode = 0;
  for (const entry of sorted) {
    const data = entry.kind === "file" ? entry.data : entry.kind === "symlink" ? text(entry.target) : new Uint8Array(0);
    const device: [number, number] = entry.kind === "character-device" ? [entry.major, entry.minor] : [0, 0];
    push(header({ path: entry.path, inode: ++inode, mode: modeOf(entry), size: data.length, device, links: entry.kind === "directory" ? 2 : 1 }));
    push(data);
  }
  push(header({ path: "TRAILER!!!", inode: 0, mode: 0, size: 0, device: [0, 0], links: 1 }));

  const archive = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    archive.set(chunk, at);
    at += chunk.length;
  }
  return archive;
}

function modeOf(entry: CpioEntry): number {
  switch (entry.kind) {
    case "directory":
      return S_IFDIR | (entry.mode ?? 0o755);
    case "file":
      return S_IFREG | (entry.mode ?? 0o644);
    case "symlink":
      return S_IFLNK | 0o777;
    case "character-device":
      return S_IFCHR | (entry.mode ?? 0o600);
  }
}

interface Header {
  readonly path: string;
  readonly inode: number;
  readonly mode: number;
  readonly size: number;
  readonly device: readonly [number, number];
  readonly links: number;
}

function header(h: Header): Uint8Array {
  const name = text(h.path);
  // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [h.inode, h.mode, 0, 0, h.links, 0, h.size, 0, 0, h.device[0], h.device[1], name.length + 1, 0];
  const head = text("070701" + fields.map((f) => f.toString(16).padStart(8, "0")).join(""));
  const bytes = new Uint8Array(head.length + name.length + 1);
  bytes.set(head);
  bytes.set(name, head.length);
  return bytes;
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
