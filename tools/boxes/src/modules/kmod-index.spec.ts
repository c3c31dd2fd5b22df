import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { kmodIndex } from "./kmod-index.ts";

const env = { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" };
const hasKmod = spawnSync("modprobe", ["--version"], { env }).status === 0;
if (!hasKmod) console.log("kmod's indexes are not judged by modprobe: this machine has none");

/** Looks a key up the way libkmod does, wildcards left out. */
function lookup(index: Uint8Array, key: string): string[] {
  const view = new DataView(index.buffer);
  expect([view.getUint32(0), view.getUint32(4)]).toEqual([0xb007f457, 0x00020001]);
  const string = (at: number): string => Buffer.from(index.subarray(at, index.indexOf(0, at))).toString("latin1");
  const walk = (offset: number, rest: string): string[] => {
    let at = offset & 0x0fff_ffff;
    if (offset & 0x8000_0000) {
      const prefix = string(at);
      if (!rest.startsWith(prefix)) return [];
      rest = rest.slice(prefix.length);
      at += prefix.length + 1;
    }
    let next = 0;
    if (offset & 0x2000_0000) {
      const [first = 0, last = 0] = [index[at], index[at + 1]];
      const character = rest === "" ? -1 : rest.charCodeAt(0);
      if (character >= first && character <= last) next = view.getUint32(at + 2 + 4 * (character - first));
      at += 2 + 4 * (last - first + 1);
    }
    if (rest !== "") return next === 0 ? [] : walk(next, rest.slice(1));
    if (!(offset & 0x4000_0000)) return [];
    const values: string[] = [];
    let value = at + 4;
    for (let left = view.getUint32(at); left > 0; left--) {
      values.push(string(value + 4));
      value = index.indexOf(0, value + 4) + 1;
    }
    return values;
  };
  return walk(view.getUint32(8), key);
}

describe("a kmod index", () => {
  const entries = [["virtio_blk", "a"], ["virtio_net", "b"], ["virtio", "c"], ["x", "d"], ["x", "e", 1], ["x", "d"], ["xt_mark", "f"]] as const;
  it("finds every key with its values in order, and no other", () => {
    const index = kmodIndex(entries);
    expect(["virtio_blk", "virtio_net", "virtio", "x", "xt_mark"].map((key) => lookup(index, key))).toEqual([["a"], ["b"], ["c"], ["d", "e"], ["f"]]);
    for (const key of ["virti", "virtio_", "virtio_bl", "virtio_blkk", "", "y"]) expect(lookup(index, key)).toEqual([]);
    expect(lookup(kmodIndex([]), "x")).toEqual([]);
  });
  it.skipIf(!hasKmod)("is what kmod's modprobe reads: names, dependencies, aliases", () => {
    const folder = mkdtempSync(join(tmpdir(), "pv-kmod-"));
    try {
      const modules = join(folder, "lib/modules/1.2");
      mkdirSync(join(modules, "kernel"), { recursive: true });
      for (const name of ["ext4", "jbd2"]) writeFileSync(join(modules, `kernel/${name}.ko`), "");
      writeFileSync(join(modules, "modules.dep.bin"), kmodIndex([["ext4", "kernel/ext4.ko: kernel/jbd2.ko"], ["jbd2", "kernel/jbd2.ko:"]]));
      writeFileSync(join(modules, "modules.alias.bin"), kmodIndex([["virtio:d00000002v*", "ext4"]]));
      writeFileSync(join(modules, "modules.builtin.bin"), kmodIndex([["fuse", ""]]));
      for (const name of ["symbols", "builtin.alias"]) writeFileSync(join(modules, `modules.${name}.bin`), kmodIndex([]));
      writeFileSync(join(modules, "modules.softdep"), "");
      const modprobe = (...args: string[]): string => {
        const { stdout, stderr } = spawnSync("modprobe", ["-d", folder, "-S", "1.2", "-n", "-D", ...args], { encoding: "utf8", env });
        return (stdout + stderr).replaceAll(folder, "");
      };
      expect(modprobe("ext4").trim()).toBe("insmod /lib/modules/1.2/kernel/jbd2.ko \ninsmod /lib/modules/1.2/kernel/ext4.ko");
      expect(modprobe("virtio:d00000002v000000ff")).toContain("ext4.ko");
      expect(modprobe("fuse")).toContain("builtin fuse");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
