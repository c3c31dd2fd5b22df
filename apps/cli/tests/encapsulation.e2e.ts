/** Disks and whole machines: snapshots, clones, one-file export and import, disks of other programs, and that nothing is left. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Hv } from "./hv.ts";
import { MachineFile, sha256 } from "./machine-file.ts";

const hv = new Hv();
afterAll(() => hv.close(), 120_000);

const qemuIo = spawnSync("qemu-io", ["--version"]).status === 0;
if (!qemuIo) console.warn("qemu-io is not here: disks that QEMU changed are left out (Debian: apt-get install qemu-utils)");

const BLOCK = 4096;
/** Reads a block of the machine's disk in the guest; the first bytes as text. */
const readBlock = async (machine: string, block: number): Promise<string> => (await hv.sh(machine, `dd if=/dev/vda bs=${BLOCK} skip=${block} count=1 2>/dev/null | head -c 5`)).stdout;
const writeBlock = (machine: string, block: number, text: string): Promise<unknown> =>
  hv.sh(machine, `printf %s ${text} | dd of=/dev/vda bs=${BLOCK} seek=${block} conv=notrunc 2>/dev/null && sync`);
/** Where the box's ext4 has nothing. */
const FREE = 60_000;

/** Bytes that blobs and disks take on the host's disk. */
const used = (): number =>
  ["blobs", "disks", "layers"].reduce((sum, folder) => {
    const path = join(hv.home, "registry", folder);
    return sum + readdirSync(path, { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).reduce((bytes, each) => bytes + statSync(join(each.parentPath, each.name)).blocks * 512, 0);
  }, 0);

interface Leaks {
  readonly leaks: readonly unknown[];
}

describe("a machine", () => {
  it("is kept, cloned, moved in one file and restored, each with its own content; nothing is left in the end", { timeout: 600_000 }, async () => {
    const file = (name: string): string => join(hv.home, name);
    await hv.ok("up", "one");
    await writeBlock("one", FREE, "first");
    await hv.ok("snapshot", "save", "one", "s1");
    await hv.ok("clone", "one", "two"); // both while it runs
    await writeBlock("one", FREE, "later");
    const disks = await hv.json<{ id: string; allocatedBytes: string; layers: number }[]>("disk", "ls");
    expect(disks.map(({ id, layers }) => [id, layers])).toEqual([["one/disk0", 1], ["one/snapshots/s1", 1], ["two/disk0", 1]]);
    expect(await readBlock("one", FREE)).toBe("later");

    // Three of one box run now; beside the first, each takes what it writes and no more.
    const before = used();
    await Promise.all([hv.ok("up", "two"), hv.ok("up", "four")]);
    await Promise.all(["two", "four"].map((machine) => hv.sh(machine, "dd if=/dev/urandom of=/dev/vda bs=1M seek=100 count=1 conv=fsync 2>/dev/null")));
    const added = used() - before;
    expect(added).toBeGreaterThanOrEqual(2 << 20);
    expect(added).toBeLessThan((2 << 20) + 128 * 1024);
    await hv.ok("destroy", "four");
    expect(await readBlock("two", FREE)).toBe("first");
    await writeBlock("two", FREE + 1, "other");
    await hv.ok("halt", "two");
    await hv.ok("snapshot", "export", "two", file("two.pv"));
    await hv.ok("destroy", "two");

    await hv.ok("import", file("two.pv"), "three");
    await hv.ok("up", "three");
    expect([await readBlock("three", FREE), await readBlock("three", FREE + 1)]).toEqual(["first", "other"]);
    await hv.ok("destroy", "three");

    expect((await hv.run(["snapshot", "restore", "one", "s1"])).stderr).toMatch(/is running; halt it first/);
    await hv.ok("halt", "one");
    await hv.ok("snapshot", "restore", "one", "s1");

    if (qemuIo) {
      // QEMU finds what the guest wrote, and the guest what QEMU wrote.
      await hv.ok("disk", "export", "one", file("one.qcow2"));
      const qemu = (...commands: string[]): string => spawnSync("qemu-io", ["-f", "qcow2", ...commands.flatMap((command) => ["-c", command]), file("one.qcow2")], { encoding: "utf8" }).stdout;
      expect(qemu(`read -v ${FREE * BLOCK} 512`)).toMatch(/66 69 72 73 74/); // "first"
      expect(qemu(`write -P 0x71 ${(FREE + 2) * BLOCK} ${BLOCK}`)).toMatch(/wrote 4096/);
      await hv.ok("disk", "import", "one", file("one.qcow2"), "--size", "300M");
    }
    await hv.ok("up", "one");
    expect(await readBlock("one", FREE)).toBe("first");
    if (qemuIo) {
      expect(await readBlock("one", FREE + 2)).toBe("qqqqq");
      expect((await hv.sh("one", "cat /sys/block/vda/size")).stdout.trim()).toBe(String((300 << 20) / 512));
    }
    await hv.ok("destroy", "one"); // with its snapshot
    expect((await hv.json<Leaks>("leaks")).leaks).toEqual([]);
    expect(await hv.json("disk", "ls")).toEqual([]);
    for (const folder of ["layers", "tmp", "disks"]) expect(existsSync(join(hv.home, "registry", folder)) ? readdirSync(join(hv.home, "registry", folder)) : []).toEqual([]);
  });

  it("is suspended under load, moved in one file, and goes on elsewhere with 2 harts on another topology and engine: processes, tmpfs, open files, disk", { timeout: 300_000 }, async () => {
    const pv = join(hv.home, "saved.pv");
    await hv.ok("up", "here", "--cpus", "2");
    const digest = (machine: string, path: string) => hv.sh(machine, `sha256sum < ${path}`);
    // Between the guest's opening and writing it, the file is empty.
    const count = async (machine: string, path: string): Promise<number> => Number((await hv.sh(machine, `while v=$(tail -n 1 ${path}); [ -z "$v" ]; do :; done; echo "$v"`)).stdout);
    await hv.sh("here", "mkdir -p /run/t /mnt; mount -t tmpfs t /run/t; mount /dev/vda /mnt; head -c 300000 /dev/urandom > /run/t/file; dd if=/dev/urandom of=/mnt/file bs=64k count=10 2>/dev/null");
    const busy = (loop: string) => hv.sh("here", `(${loop}) >/dev/null 2>&1 </dev/null &`);
    await busy("exec 3>>/mnt/log; i=0; while :; do i=$((i+1)); echo $i >&3; echo $i > /run/t/count; sleep 0.05; done");
    await busy("while :; do dd if=/dev/zero of=/mnt/load bs=64k count=16; sync; ping -c 3 -i 0.2 10.0.2.2; done");
    const before = [await digest("here", "/run/t/file"), await digest("here", "/mnt/file")];
    const counted = await count("here", "/run/t/count");

    await hv.ok("snapshot", "save", "here", "live", "--memory");
    expect(await count("here", "/run/t/count")).toBeGreaterThanOrEqual(counted);
    await hv.ok("suspend", "here");
    expect(await hv.json("status", "here")).toMatchObject({ state: "saved" });
    expect((await hv.run(["disk", "resize", "here", "1G"])).stderr).toMatch(/is suspended/);
    await hv.ok("snapshot", "export", "here", pv);
    await hv.ok("destroy", "here");
    expect((await hv.json<Leaks>("leaks")).leaks).toEqual([]);

    await hv.ok("import", pv, "there", "--topology", "processes");
    await hv.ok("set", "there", "--engine", "interpreter");
    await hv.ok("resume", "there");
    expect([await digest("there", "/run/t/file"), await digest("there", "/mnt/file")]).toEqual(before);
    const [ram, disk] = [await count("there", "/run/t/count"), await count("there", "/mnt/log")];
    expect(ram).toBeGreaterThan(counted);
    await hv.sh("there", "sleep 1");
    expect(await count("there", "/run/t/count")).toBeGreaterThan(ram);
    expect(await count("there", "/mnt/log")).toBeGreaterThan(disk);
    expect((await hv.sh("there", "ping -c 1 -W 5 10.0.2.2 >/dev/null; echo $?")).stdout.trim()).toBe("0");
    await hv.ok("destroy", "there");
    expect((await hv.json<Leaks>("leaks")).leaks).toEqual([]);
  });

  it("files that are cut, damaged, foreign or empty → refused, saying what is wrong; no machine, no disk", { timeout: 240_000 }, async () => {
    const pv = join(hv.home, "two.pv");
    const whole = existsSync(pv) ? readFileSync(pv) : Buffer.alloc(0);
    expect(whole.length).toBeGreaterThan(10_000_000);
    const damaged = Buffer.from(whole);
    damaged[whole.length - 5000]! ^= 0xff;
    for (const [name, bytes, message] of [
      ["cut.pv", whole.subarray(0, whole.length / 2), /truncated|damaged/],
      ["damaged.pv", damaged, /other bytes than its digest says|damaged/],
      ["foreign.pv", Buffer.from("this is no archive at all, but long enough to be looked at".repeat(50)), /damaged or no archive/],
      ["empty.pv", Buffer.alloc(0), /is empty/],
    ] as const) {
      writeFileSync(join(hv.home, name), bytes);
      const { status, stderr } = await hv.run(["import", join(hv.home, name), "bad"]);
      expect([name, status]).toEqual([name, 1]);
      expect(stderr).toMatch(message);
    }
    expect(await hv.json("status")).toEqual([]);
    expect((await hv.json<Leaks>("leaks")).leaks).toEqual([]);
  });

  it("files whose saved memory, harts or devices are cut, exchanged or lie about their size → refused where it shows; a machine that cannot go on keeps its state, and nothing is left of it in the end", { timeout: 240_000 }, async () => {
    const whole = await MachineFile.read(join(hv.home, "saved.pv"));
    const path = join(hv.home, "hostile.pv");
    /** The index of a chunked image (libs/image-spec, chunked-disk.ts) after a change, with the digest of the chunks that go with it. */
    const index = (file: MachineFile, change: (bytes: Buffer) => void): Buffer => {
      const bytes = Buffer.from(file.content("memoryIndex"));
      Buffer.from(sha256(file.content("memoryChunks")).slice("sha256:".length), "hex").copy(bytes, 32);
      bytes.writeBigUInt64LE(BigInt(file.content("memoryChunks").length), 24);
      change(bytes);
      return bytes;
    };
    const chunks = whole.content("memoryChunks");
    const flipped = Buffer.from(chunks);
    flipped[chunks.length >> 1]! ^= 0x10;

    await hv.ok("registry", "gc", "--grace", "0"); // what the machine has left: a file may leave out what is here already

    // What shows in the file alone: no machine comes of it.
    const refused: [what: string, change: (file: MachineFile) => void, message: RegExp][] = [
      ["memory cut", (file) => file.blobs.set(file.layer("memoryChunks").digest, chunks.subarray(0, chunks.length / 2)), /other bytes than its digest says/],
      ["memory left out", (file) => file.blobs.delete(file.layer("memoryChunks").digest), /lacks blob/],
      ["memory's size in the manifest is another", (file) => void file.layer("memoryChunks").size++, /lacks blob/],
      ["memory cut, and manifest and index agree", (file) => { file.replace("memoryChunks", chunks.subarray(0, chunks.length / 2)); file.replace("memoryIndex", index(file, () => {})); }, /end.*the blob's end/],
      ["more memory than the machine has", (file) => file.replace("memoryIndex", index(file, (bytes) => bytes.writeBigUInt64LE(bytes.readBigUInt64LE(16) * 2n, 16))), /the machine's RAM/],
      ["harts' state is a bomb", (file) => file.replace("harts", Buffer.alloc(5 << 20)), /more than 4194304 bytes/],
    ];
    for (const [what, change, message] of refused) {
      const file = whole.copy();
      change(file);
      await file.write(path);
      const { status, stderr } = await hv.run(["import", path, "bad"]);
      expect([what, status, stderr]).toEqual([what, 1, expect.stringMatching(message)]);
    }
    expect(await hv.json("status")).toEqual([]);

    // What only its owner can tell: refused when the machine is to go on.
    const suspect: [what: string, change: (file: MachineFile) => void, message: RegExp][] = [
      ["a chunk of memory", (file) => { file.replace("memoryChunks", flipped); file.replace("memoryIndex", index(file, () => {})); }, /bytes \d+ to \d+ are damaged[^]*hv halt bad gives its kept state up/],
      ["harts", (file) => file.replace("harts", Buffer.alloc(3000, 0xa5)), /restoreHarts: 3000 bytes that do not begin with/],
      ["devices", (file) => file.replace("board", Buffer.alloc(3000, 0xa5)), /restoreBoard: 3000 bytes that do not begin with/],
    ];
    for (const [what, change, message] of suspect) {
      const file = whole.copy();
      change(file);
      await file.write(path);
      await hv.ok("import", path, "bad");
      const { status, stderr } = await hv.run(["resume", "bad"]);
      expect([what, status, stderr]).toEqual([what, 1, expect.stringMatching(message)]);
      expect(await hv.json("status", "bad")).toMatchObject({ state: "saved" });
      await hv.ok("destroy", "bad");
    }
    expect((await hv.json<Leaks>("leaks")).leaks).toEqual([]);
    expect(await hv.json("disk", "ls")).toEqual([]);
  });
});
