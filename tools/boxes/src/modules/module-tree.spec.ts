import { describe, expect, it } from "vitest";
import { readModuleInfo } from "./modinfo.ts";
import { moduleTree } from "./module-tree.ts";

/** The smallest ELF64 file with a .modinfo section. */
function ko(modinfo: readonly string[]): Uint8Array {
  const info = new TextEncoder().encode(modinfo.map((s) => `${s}\0`).join(""));
  const names = new TextEncoder().encode("\0.modinfo\0.shstrtab\0");
  const table = 64 + info.length + names.length;
  const bytes = new Uint8Array(table + 3 * 64);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setBigUint64(0x28, BigInt(table), true);
  view.setUint16(0x3a, 64, true);
  view.setUint16(0x3c, 3, true);
  view.setUint16(0x3e, 2, true);
  bytes.set(info, 64);
  bytes.set(names, 64 + info.length);
  const section = (index: number, name: number, offset: number, size: number): void => {
    view.setUint32(table + index * 64, name, true);
    view.setBigUint64(table + index * 64 + 0x18, BigInt(offset), true);
    view.setBigUint64(table + index * 64 + 0x20, BigInt(size), true);
  };
  section(1, 1, 64, info.length);
  section(2, 10, 64 + info.length, names.length);
  return bytes;
}

const module = (name: string, ...more: string[]): [string, Uint8Array] => [name, ko([`name=${name}`, ...more])];
const files = new Map<string, Uint8Array>([
  module("ext4", "depends=mbcache,jbd2", "softdep=pre: crc32c", "alias=fs-ext4"),
  module("jbd2", "depends=crc16"),
  module("crc16", "depends="),
  module("mbcache"),
  module("crc32c_generic", "alias=crypto-crc32c"),
  module("a_b", "depends=c-d"),
  module("c_d", "softdep=pre: nowhere post: later"),
]);
const source = {
  paths: new Map([...files.keys()].map((name) => [name, `kernel/${name.replace("_", "-")}.ko.xz`])),
  builtin: new Set(["virtio"]),
  read: async (path: string): Promise<Uint8Array> => files.get(path.slice(7, -6).replace("-", "_")) as Uint8Array,
};

describe(".modinfo", () => {
  it("gives names, dependencies, aliases and soft dependencies", () => {
    const info = readModuleInfo(ko(["name=x", "depends=a,b", "alias=c", "alias=d", "softdep=pre: e f post: g"]), "x.ko");
    expect(info).toEqual({ name: "x", depends: ["a", "b"], aliases: ["c", "d"], softBefore: ["e", "f"], softAfter: ["g"] });
  });
  it("refuses what is no module", () => {
    expect(() => readModuleInfo(new Uint8Array(10), "x.ko")).toThrow("x.ko: not a little-endian ELF64 file");
    expect(() => readModuleInfo(ko(["license=GPL"]), "x.ko")).toThrow("no name=");
    expect(() => readModuleInfo(ko(["name=x"]).subarray(0, 100), "x.ko")).toThrow(/truncated/);
  });
});

describe("a module tree", () => {
  it("closes under dependencies and soft dependencies; modprobe's lines load the deepest first", async () => {
    const tree = await moduleTree(["ext4", "virtio"], source, { crc32c: "crc32c_generic" });
    expect(tree.missing).toEqual([]);
    expect(tree.modules.map((m) => m.path)).toEqual(["kernel/crc16.ko", "kernel/crc32c-generic.ko", "kernel/ext4.ko", "kernel/jbd2.ko", "kernel/mbcache.ko"]);
    expect(tree.order).toEqual(["kernel/crc16.ko", "kernel/crc32c-generic.ko", "kernel/mbcache.ko", "kernel/jbd2.ko", "kernel/ext4.ko"]); // insmod in this order
    const line = tree.dep.split("\n").find((l) => l.startsWith("kernel/ext4.ko:"));
    // Read from the right: crc32c before all, crc16 before jbd2.
    expect(line).toBe("kernel/ext4.ko: kernel/jbd2.ko kernel/crc16.ko kernel/mbcache.ko kernel/crc32c-generic.ko");
    expect(tree.alias).toContain("alias fs-ext4 ext4\n");
    expect(tree.softdep).toBe("softdep ext4 pre: crc32c\n");
  });
  it("names what is missing; soft dependencies may be", async () => {
    const tree = await moduleTree(["a-b", "nothing"], source, {});
    expect(tree.missing).toEqual(["nothing"]);
    expect(tree.dep).toContain("kernel/a-b.ko: kernel/c-d.ko\n");
  });
});
