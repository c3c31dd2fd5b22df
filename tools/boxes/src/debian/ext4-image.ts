import { existsSync, mkdirSync, openSync, closeSync, ftruncateSync, rmSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { run } from "../apt/private-apt.ts";

export interface Ext4Options {
  readonly path: string;
  readonly bytes: number;
  readonly label: string;
  /** Fixed, so that the same recipe gives the same bytes. */
  readonly uuid: string;
  readonly env: NodeJS.ProcessEnv;
}

/** mke2fs of this machine: PATH, and the directories that an ordinary user's PATH leaves out. */
export function findMke2fs(env: NodeJS.ProcessEnv): string | undefined {
  const folders = [...(env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin", "/usr/local/sbin"];
  return folders.flatMap((f) => [join(f, "mke2fs"), join(f, "mkfs.ext4")]).find((p) => existsSync(p));
}

/** An empty ext4 filesystem in a sparse file; needs no root. The same options give the same bytes. */
export async function makeExt4(mke2fs: string, options: Ext4Options): Promise<void> {
  const { path, bytes, label, uuid } = options;
  rmSync(path, { force: true });
  mkdirSync(join(path, ".."), { recursive: true });
  const fd = openSync(path, "wx");
  ftruncateSync(fd, bytes);
  closeSync(fd);
  // Initialised tables now, not by the guest in the background; no reserved blocks; no resize slack.
  const extended = `hash_seed=${uuid},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0`;
  const args = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", label, "-U", uuid, "-O", "^resize_inode", "-E", extended, path];
  // E2FSPROGS_FAKE_TIME fixes every time stamp that mke2fs writes.
  await run(mke2fs, args, { env: { ...options.env, E2FSPROGS_FAKE_TIME: "1", MKE2FS_CONFIG: "/dev/null" } });
  if (statSync(path).size !== bytes) throw new Error(`mke2fs changed the size of ${path}`);
}
