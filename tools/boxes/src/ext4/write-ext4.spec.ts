import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { FileTree, type TreeNode } from "../rootfs/file-tree.ts";
import { GROUP_BYTES } from "./geometry.ts";
import { writeExt4 } from "./write-ext4.ts";

const folders: string[] = [];
afterEach(() => folders.splice(0).forEach((path) => rmSync(path, { recursive: true, force: true })));
const missing = ["e2fsck", "debugfs"].filter((tool) => spawnSync(tool, ["-V"], { env: { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` } }).status !== 0);
if (missing.length > 0) console.log(`ext4 images are not judged by e2fsprogs: this machine has no ${missing.join(", ")}`);
const tool = (command: string, ...args: string[]): { status: number | null; stdout: string } => {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", env: { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, DEBUGFS_PAGER: "cat" } });
  return { status, stdout: stdout + stderr };
};

function write(tree: FileTree, groups = 1, first: TreeNode[] = []): string {
  const folder = mkdtempSync(join(tmpdir(), "pv-ext4-"));
  folders.push(folder);
  const path = join(folder, "disk");
  const identity = { uuid: new Uint8Array(16).fill(7), label: "test", time: 1_700_000_000 };
  writeExt4(tree.root, { path, bytes: groups * GROUP_BYTES, inodesPerGroup: 4096, journalBytes: 4 << 20, identity, first });
  return path;
}

function sample(): FileTree {
  const tree = new FileTree(1_700_000_000);
  tree.file("/etc/empty", "");
  tree.file("/bin/su", "x".repeat(5000), { mode: 0o4755, uid: 3, gid: 70_000 });
  tree.put("/bin/hard", tree.find("/bin/su")!);
  tree.symlink("/short", "bin/su");
  tree.symlink("/long", "x/".repeat(60));
  tree.put("/dev/null", { kind: "character-device", device: { major: 1, minor: 3 }, mode: 0o666, uid: 0, gid: 0, mtime: 5 });
  tree.put("/dev/far", { kind: "block-device", device: { major: 259, minor: 70_000 }, mode: 0o600, uid: 0, gid: 6, mtime: 5 });
  for (let i = 0; i < 700; i++) tree.file(`/many/file-with-a-long-name-${i}`, String(i));
  return tree;
}

describe("an ext4 image", () => {
  it("the same tree gives the same bytes, whatever order it was filled in", () => {
    const digest = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
    const other = new FileTree(1_700_000_000);
    for (const [path, node] of [...sample().walk()].reverse()) if (node.kind !== "directory") other.put(path, node);
    for (const [path, node] of sample().walk()) if (node.kind === "directory") other.change(path, { mode: node.mode });
    expect(digest(write(other))).toBe(digest(write(sample())));
  });
  it("too small, or with too many files → says so", () => {
    const tree = new FileTree();
    tree.file("/big", new Uint8Array(GROUP_BYTES));
    expect(() => write(tree)).toThrow(/full/);
    const many = new FileTree();
    for (let i = 0; i < 4200; i++) many.file(`/${i}`, "");
    expect(() => write(many)).toThrow(/4211 files, room for 4096/);
  });
  it.skipIf(missing.length > 0)("e2fsck finds nothing to repair; a file across groups keeps its content", () => {
    const tree = sample();
    const big = new Uint8Array(150 << 20);
    for (let i = 0; i < big.length; i += 4096) big[i] = i >> 12;
    tree.file("/big", big);
    const path = write(tree, 3);
    expect(tool("e2fsck", "-fn", path)).toMatchObject({ status: 0, stdout: expect.not.stringMatching(/[Ff]ix|clear/) });
    const out = join(path, "..", "out");
    tool("debugfs", "-R", `dump /big ${out}`, path);
    expect(Buffer.compare(readFileSync(out), big)).toBe(0);
  });
  it.skipIf(missing.length > 0)("what is to lie first has the lowest inodes and the first blocks behind the directories", () => {
    const tree = sample();
    const first = [tree.find("/many/file-with-a-long-name-500")!, tree.find("/bin/su")!];
    const path = write(tree, 1, first);
    expect(tool("e2fsck", "-fn", path)).toMatchObject({ status: 0, stdout: expect.not.stringMatching(/[Ff]ix|clear/) });
    const block = (file: string): number => Number(tool("debugfs", "-R", `blocks ${file}`, path).stdout.trim().split(/\s/)[0]);
    expect(block("/bin/su")).toBe(block("/many/file-with-a-long-name-500") + 1);
    expect(block("/bin/su")).toBeLessThan(block("/many/file-with-a-long-name-0"));
    expect(tool("debugfs", "-R", "stat /bin/su", path).stdout).toMatch(/Inode: 13 [^]*Links: 2/);
  });
  it.skipIf(missing.length > 0)("owners, modes, links, device numbers and times are what the tree says", () => {
    const path = write(sample());
    const stat = (file: string): string => tool("debugfs", "-R", `stat ${file}`, path).stdout;
    expect(stat("/bin/su")).toMatch(/Mode: {2}04755[^]*User: +3 +Group: 70000[^]*Size: 5000[^]*Links: 2[^]*mtime: 0x6553f100/);
    expect(stat("/short")).toMatch(/Type: symlink[^]*Fast link dest: "bin\/su"/);
    expect(tool("debugfs", "-R", "cat /long", path).stdout).toContain("x/".repeat(60));
    expect(stat("/dev/null")).toMatch(/Type: character special[^]*01:03/);
    expect(stat("/dev/far")).toMatch(/Type: block special[^]*major\/minor[^]*259:70000|259, *70000|Device major\/minor number: 259:70000/);
    expect(tool("debugfs", "-R", "ls -p /many", path).stdout.split("\n").filter((line) => line.includes("file-with"))).toHaveLength(700);
    expect(stat("/")).toMatch(/Links: 7/); // . .. bin dev etc many lost+found
  });
});
