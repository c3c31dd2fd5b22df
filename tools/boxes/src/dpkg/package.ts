import { readTar, type TarEntry } from "@polyvisor/image-spec";
import { plainPath } from "../archive/tar.ts";
import { packageFiles } from "../apt/private-apt.ts";
import type { FileTree, TreeNode } from "../rootfs/file-tree.ts";
import { type ControlParagraph, parseControl } from "./control.ts";

/** An unpacked package, as its database entry needs it. */
export interface UnpackedPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** Of what dpkg calls "same": its files in the database carry the architecture in their names. */
  readonly multiArchSame: boolean;
  readonly control: ControlParagraph;
  /** Members of the control archive: postinst, md5sums, conffiles, triggers … */
  readonly members: ReadonlyMap<string, Uint8Array>;
  /** Every path in the data archive, in its order, absolute. */
  readonly paths: readonly string[];
}

export interface Owners {
  readonly users: ReadonlyMap<string, number>;
  readonly groups: ReadonlyMap<string, number>;
}

/** Members that dpkg copies into its database as they are (dpkg's pkg_infodb); the rest of the control archive is in `status`. */
export async function unpackPackage(deb: string, tree: FileTree, options: { owners: Owners; excluded: (path: string) => boolean }): Promise<UnpackedPackage> {
  const members = new Map<string, Uint8Array>();
  await packageFiles(deb, async (tar) => {
    for await (const entry of readTar(tar)) if (entry.kind === "file") members.set(plainPath(entry.path), await entry.read());
  }, "--ctrl-tarfile");
  const controlFile = members.get("control");
  if (!controlFile) throw new Error(`${deb} has no control file`);
  const control = parseControl(new TextDecoder().decode(controlFile), deb);
  const field = (name: string): string => {
    const value = control.get(name);
    if (value === undefined) throw new Error(`${deb}: its control file has no ${name}`);
    return value;
  };
  const paths: string[] = [];
  await packageFiles(deb, async (tar) => {
    for await (const entry of readTar(tar)) {
      const path = `/${plainPath(entry.path)}`;
      paths.push(path);
      if (options.excluded(path)) continue;
      const there = tree.find(path);
      // The first package that brings a directory decides how it looks, as with dpkg; one may meet a link to a directory (/bin → usr/bin).
      if (entry.kind === "directory" && path !== "/" && (there?.kind === "directory" || there?.kind === "symlink")) continue;
      if (there && there.kind !== "directory" && !sameLink(there, entry)) throw new Error(`${deb}: ${path} is there already, from another package`);
      tree.put(path, await nodeOf(entry, tree, options.owners));
    }
  });
  return { name: field("Package"), version: field("Version"), architecture: field("Architecture"), multiArchSame: control.get("Multi-Arch") === "same", control, members, paths };
}

const sameLink = (node: TreeNode, entry: TarEntry): boolean => node.kind === "symlink" && entry.kind === "symlink" && node.target === entry.target;

async function nodeOf(entry: TarEntry, tree: FileTree, { users, groups }: Owners): Promise<TreeNode> {
  // dpkg looks owners up by name and falls back to the number.
  const common = { mode: entry.mode, uid: users.get(entry.userName) ?? entry.uid, gid: groups.get(entry.groupName) ?? entry.gid, mtime: entry.mtime };
  switch (entry.kind) {
    case "file":
      return { kind: "file", data: await entry.read(), ...common };
    case "directory":
      return { kind: "directory", entries: new Map(), ...common };
    case "symlink":
      return { kind: "symlink", target: entry.target, ...common };
    case "hard-link": {
      const node = tree.find(plainPath(entry.target));
      if (!node || node.kind === "directory") throw new Error(`${entry.path}: a hard link to ${entry.target}, which is not there`);
      return node;
    }
    case "character-device":
    case "block-device":
    case "fifo":
      return { kind: entry.kind, device: entry.device, ...common };
    default:
      throw new Error(`${entry.path}: a kind of file that tar does not define`);
  }
}
