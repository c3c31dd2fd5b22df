import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { IMAGE } from "@polyvisor/contracts/image";
import { MEMORY } from "@polyvisor/contracts/memory";
import { NETWORK } from "@polyvisor/contracts/network";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Topology } from "../src/stack/home.ts";
import { isAlive } from "../src/stack/lock-file.ts";
import { bareGuest } from "./hostile-guest.ts";
import { Hv, type Outcome } from "./hv.ts";

const WRITE = "head -c 3000000 /dev/urandom > /tmp/d && dd if=/tmp/d of=/dev/vda bs=64k seek=16 conv=notrunc,fsync 2>/dev/null && md5sum < /tmp/d";
const READ = "dd if=/dev/vda bs=64k skip=16 count=46 2>/dev/null | head -c 3000000 | md5sum";

/** What the services hold, asked of themselves: machines with memory, disks, network ports. */
async function held(hv: Hv, topology: Topology): Promise<{ spaces: string[]; disks: string[]; ports: string[] }> {
  const at = (service: string): string => `unix:${join(hv.home, "stacks", topology, "run", topology === "embedded" ? "stack.sock" : `${service}.sock`)}`;
  const [memory, images, network] = [connectGrpc(MEMORY, at("memory-manager")), connectGrpc(IMAGE, at("image-registry")), connectGrpc(NETWORK, at("network-fabric"))];
  try {
    const [spaces, disks, ports] = await Promise.all([memory.port.listSpaces({}), images.port.listDisks({}), network.port.listPorts({ machine: "" })]);
    return { spaces: spaces.machines.toSorted(), disks: disks.disks.map(({ id }) => id).toSorted(), ports: ports.ports.map(({ id }) => id).toSorted() };
  } finally {
    for (const connection of [memory, images, network]) connection.close();
  }
}

const stateOf = (hv: Hv, name: string) => hv.json<{ state: string; reason: string }>("status", name);
const becomes = (hv: Hv, name: string, state: string) => expect.poll(() => stateOf(hv, name).then((now) => now.state), { timeout: 20_000, interval: 200 }).toBe(state);

function file(hv: Hv, name: string, bytes: Uint8Array | string): string {
  const path = join(hv.home, name);
  writeFileSync(path, bytes);
  return path;
}
/** A file of a built box in the cache. */
function boxFile(hv: Hv, name: string): string {
  const boxes = join(hv.home, "cache", "boxes");
  const box = readdirSync(boxes).find((each) => each.startsWith("debian-minimal"));
  if (!box) throw new Error(`no debian/minimal in ${boxes}`);
  return join(boxes, box, name);
}
function flipBit(path: string, at: number): void {
  const descriptor = openSync(path, "r+");
  const byte = new Uint8Array(1);
  readSync(descriptor, byte, 0, 1, at);
  writeSync(descriptor, Uint8Array.of(byte[0]! ^ 1), 0, 1, at);
  closeSync(descriptor);
}
/** An ELF file with one segment, and fields changed by `hostile`. */
function elf(hostile: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(0x1040);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  for (const [at, value] of [[16, 2], [18, 243], [54, 56], [56, 1], [52, 64]] as const) view.setUint16(at, value, true);
  for (const [at, value] of [[24, 0x8000_0000n], [32, 64n], [72, 0x1000n], [80, 0x8000_0000n], [88, 0x8000_0000n], [96, 64n], [104, 64n]] as const) view.setBigUint64(at, value, true);
  view.setUint32(64, 1, true);
  hostile(view);
  return bytes;
}

/** One home for the stacks of both topologies: they share its boxes. */
const hv = new Hv();
afterAll(() => hv.close());

describe("bad input, embedded", () => {
  beforeAll(async () => {
    await hv.ok("up", "good");
  });
  afterAll(async () => {
    await hv.run(["destroy", "good"]);
    await hv.ok("stack", "down");
  });

  const blobs = () => readdirSync(join(hv.home, "registry/blobs/sha256"), { recursive: true, encoding: "utf8" }).map((each) => join(hv.home, "registry/blobs/sha256", each));
  /** The stack is as before: the good machine works, and no service has anything of another. */
  const unharmed = async (): Promise<void> => {
    expect(await hv.ok("exec", "good", "--", "echo", "fine")).toBe("fine\n");
    expect(await held(hv, "embedded")).toEqual({ spaces: ["good"], disks: ["good/disk0"], ports: ["good/net0"] });
    expect((await hv.json<{ name: string }[]>("status")).map(({ name }) => name)).toEqual(["good"]);
  };

  it("a kernel that cannot run is refused with what to do about it, and leaves nothing", async () => {
    const image = readFileSync(boxFile(hv, "Image"));
    const cases: [string, Uint8Array, RegExp][] = [
      ["cut", image.subarray(0, 1_000_000), /it is truncated; copy it again/],
      ["gz", Uint8Array.of(0x1f, 0x8b, 8, 0, 1, 2, 3), /decompress it \(gunzip\)/],
      ["phoff", elf((view) => view.setBigUint64(32, 2n ** 64n - 8n, true)), /program header table .* is it truncated\?/],
      ["memsz", elf((view) => view.setBigUint64(104, 2n ** 64n - 1n, true)), /give the machine more memory/],
      ["low", elf((view) => (view.setBigUint64(88, 0n, true), view.setBigUint64(24, 0n, true))), /link it for 0x80000000/],
      ["entry", elf((view) => view.setBigUint64(24, 0x8000_0800n, true)), /entry 0x80000800 lies in none of its segments/],
      ["x86", elf((view) => view.setUint16(18, 62, true)), /expected RISC-V/],
    ];
    for (const [name, bytes, message] of cases) {
      const { status, stderr } = await hv.run(["run", "--timeout", "5", file(hv, `${name}.bin`, bytes)]);
      expect.soft(stderr, name).toMatch(message);
      expect.soft(status, name).toBe(1);
    }
    expect(await hv.run(["run", file(hv, "empty.bin", "")])).toMatchObject({ status: 1, stderr: expect.stringContaining("is empty") });
    await unharmed();
  });

  it("a machine that cannot be is refused, with the limits", async () => {
    const cases: [string[], RegExp][] = [
      [["bad", "--memory", "0"], /expected an amount/],
      [["bad", "--memory", "99G"], /at most 3984M with 1 CPUs/],
      [["bad", "--memory", "5K"], /at least 1 MiB/],
      [["bad", "--cpus", "0"], /from 1 to 8/],
      [["bad", "--cpus", "99"], /from 1 to 8/],
      [["a/b"], /name "a\/b"; expected 1 to 63 of a-z/],
      [["../x"], /name "\.\.\/x"; expected/],
      [["bad", "--box", "no/such"], /hv box ls lists the boxes/],
      [["bad", "--firmware", "/no/such/file"], /there is no such file/],
    ];
    for (const [args, message] of cases) {
      const { status, stderr } = await hv.run(["up", ...args]);
      expect.soft(stderr, args.join(" ")).toMatch(message);
      expect.soft(status, args.join(" ")).not.toBe(0);
    }
    // What only the start can tell leaves the machine's name, and other settings take its place.
    expect((await hv.run(["up", "small", "--memory", "1M"])).stderr).toMatch(/give the machine more memory/);
    expect(await stateOf(hv, "small")).toMatchObject({ state: "aborted" });
    expect((await held(hv, "embedded")).spaces).toEqual(["good"]);
    expect((await hv.run(["up", "small", "--memory", "2M"])).stderr).toMatch(/give the machine more memory/);
    await hv.ok("destroy", "small");
    await unharmed();
  });

  it("a box that the host's disk has damaged is told from a whole one, and building it again heals it", async () => {
    const digest = (await hv.ok("box", "build", "tiny")).trim().split(" ").at(-1)!;
    const path = (of: string): string => blobs().find((each) => each.endsWith(of.slice("sha256:".length)))!;
    const manifest = JSON.parse(readFileSync(path(digest), "utf8")) as { layers: { digest: string }[] };
    const image = manifest.layers[0]!.digest;

    flipBit(path(image), 100);
    expect((await hv.run(["up", "t", "--box", "tiny"])).stderr).toMatch(/no longer have this digest.*hv box build tiny/s);
    expect((await hv.run(["up", "t"])).stderr).toMatch(/there is no blob.*hv box build tiny/s); // it was moved aside
    await hv.ok("box", "build", "tiny");
    await hv.ok("up", "t");
    await hv.ok("destroy", "t");

    truncateSync(path(digest), 20); // the manifest
    expect((await hv.run(["up", "t", "--box", "tiny"])).stderr).toMatch(/box tiny is damaged .* building it again/);
    await hv.ok("destroy", "t");
    await hv.ok("up", "t", "--box", "tiny");
    await hv.ok("destroy", "t");
    await unharmed();
  });

  it("a guest that writes anything to any register and queue, and one that floods its devices, harm nobody", async () => {
    const disk = file(hv, "disk.img", new Uint8Array(8 << 20));
    const log = join(hv.home, "stacks/embedded/logs/daemon.log");
    const logged = statSync(log).size;
    const before = (await hv.sh("good", WRITE)).stdout;
    for (const kind of ["noise", "flood"] as const) {
      await hv.ok("up", kind, "--kernel", file(hv, `${kind}.img`, bareGuest(kind, 0x9e37_79b9_7f4a_7c15n)), "--disk", disk, "--firmware", "none");
    }
    await new Promise((resolve) => setTimeout(resolve, 4000));
    expect((await hv.sh("good", `echo 3 > /proc/sys/vm/drop_caches; ${READ}`)).stdout).toBe(before);
    // It did reach the devices: they moved data for it, and broke time and again.
    const { devices } = await hv.json<{ devices: Record<string, number> }>("stats", "noise");
    expect(devices["dma.requests"]).toBeGreaterThan(200);
    for (const device of ["agent", "disk0", "net0", "rng0"]) expect(devices[`${device}.needs-reset`], device).toBeGreaterThan(20);
    expect((await hv.json<{ exits: Record<string, number> }>("stats", "flood")).exits["mmio-write"]).toBeGreaterThan(50_000);
    for (const kind of ["noise", "flood"]) expect(await stateOf(hv, kind)).toMatchObject({ state: "running" });
    await Promise.all([hv.ok("destroy", "noise"), hv.ok("destroy", "flood")]);
    expect(statSync(log).size - logged).toBeLessThan(100_000);
    await unharmed();
  });

  it("two commands that race on a machine both succeed, or one is told of the conflict", async () => {
    const idle = ["--kernel", file(hv, "idle.img", bareGuest("idle")), "--firmware", "none"];
    const race = async (...commands: string[][]): Promise<Outcome[]> => {
      const outcomes = await Promise.all(commands.map((command) => hv.run(command)));
      for (const { status, stderr } of outcomes) if (status !== 0) expect(stderr).toMatch(/try again when that is over|exists with other settings|cut short by another command|no machine/);
      expect(outcomes.some(({ status }) => status === 0)).toBe(true);
      return outcomes;
    };
    expect((await race(["up", "x", ...idle], ["up", "x", ...idle])).map(({ status }) => status)).toEqual([0, 0]);
    expect(await stateOf(hv, "x")).toMatchObject({ state: "running" });
    expect((await race(["halt", "x"], ["halt", "x"])).map(({ status }) => status)).toEqual([0, 0]);
    expect(await stateOf(hv, "x")).toMatchObject({ state: "halted" });
    await race(["up", "x"], ["halt", "x"]);
    expect(["running", "halted"]).toContain((await stateOf(hv, "x")).state);
    const [, destroyed] = await race(["up", "x"], ["destroy", "x"]);
    if (destroyed!.status !== 0 || (await hv.run(["status", "x"])).status === 0) await hv.ok("destroy", "x");
    await race(["up", "y", ...idle, "--memory", "32M"], ["up", "y", ...idle, "--memory", "48M"]);
    await race(["destroy", "y"], ["destroy", "y"]);
    await unharmed();
  });

  it("a daemon killed under its machines: they are aborted, come up again, and have what they had synced", async () => {
    const written = await hv.sh("good", WRITE);
    expect(written.status, written.stderr).toBe(0);
    const [{ pid }] = await hv.json<[{ pid: number }]>("stack", "ls");
    process.kill(pid, "SIGKILL");
    await expect.poll(() => isAlive({ pid, started: "" })).toBe(false);
    expect(await stateOf(hv, "good")).toMatchObject({ state: "aborted", reason: expect.stringContaining("its stack ended") });
    await hv.ok("up", "good");
    expect((await hv.sh("good", READ)).stdout).toBe(written.stdout);
    await unharmed();
  });
});

describe("killed services, processes", () => {
  const idle = file(hv, "idle.img", bareGuest("idle"));
  const disk = file(hv, "disk.img", new Uint8Array(1 << 20));
  const services = async () =>
    (await hv.json<{ topology: string; services: { service: string; pid: number; state: string }[] }[]>("services")).find(({ topology }) => topology === "processes")!.services;
  const kill = async (service: string): Promise<void> => {
    process.kill((await services()).find((each) => each.service === service)!.pid, "SIGKILL");
  };
  beforeAll(async () => {
    await hv.ok("up", "m", "--topology", "processes", "--kernel", idle, "--disk", disk, "--firmware", "none");
  });

  it.each(["cpu-emulator", "memory-manager", "device-bus", "image-registry"])("%s: the machine is aborted, the reason names it, up works at once", async (service) => {
    await kill(service);
    await becomes(hv, "m", "aborted");
    expect((await stateOf(hv, "m")).reason).toContain(service);
    await hv.ok("up", "m");
    expect(await held(hv, "processes")).toEqual({ spaces: ["m"], disks: ["m/disk0"], ports: ["m/net0"] });
  });

  it("network-fabric: it comes back, the machine has run on, its NIC has a port again", async () => {
    const before = (await services()).find(({ service }) => service === "network-fabric")!.pid;
    await kill("network-fabric");
    await expect.poll(() => services().then((all) => all.find(({ service, state }) => service === "network-fabric" && state === "serving")?.pid ?? before), { timeout: 30_000, interval: 200 }).not.toBe(before);
    await expect.poll(() => held(hv, "processes").then(({ ports }) => ports), { timeout: 30_000, interval: 200 }).toEqual(["m/net0"]);
    expect(await stateOf(hv, "m")).toMatchObject({ state: "running" });
  });

  it("orchestrator: it comes back and finds the machine running", async () => {
    const before = await hv.json<{ instructions: number }>("stats", "m");
    await kill("orchestrator");
    await expect.poll(() => hv.run(["status", "m", "--json"]).then(({ stdout }) => stdout), { timeout: 20_000, interval: 300 }).toContain('"running"');
    expect((await hv.json<{ instructions: number }>("stats", "m")).instructions).toBeGreaterThanOrEqual(before.instructions);
    await hv.ok("halt", "m");
    expect((await held(hv, "processes")).spaces).toEqual([]);
  });

  /** Starts a machine and kills a service a moment after its harts have begun to run; a boot takes seconds. */
  const killInMidBoot = async (service: string): Promise<Outcome> => {
    const { pid } = (await services()).find((each) => each.service === service)!;
    let shown = "";
    let killed = false;
    const outcome = await hv.run(["up", "web", "--topology", "processes"], {
      onStderr: (text) => {
        shown += text;
        if (killed || !shown.includes("waiting for the guest agent")) return;
        killed = true;
        setTimeout(() => process.kill(pid, "SIGKILL"), 500);
      },
    });
    expect(killed, shown).toBe(true);
    return outcome;
  };

  it.each(["memory-manager", "device-bus"])("%s, in mid-boot: up says that it went; the next one boots", async (service) => {
    expect(await killInMidBoot(service)).toMatchObject({ status: 1, stderr: expect.stringContaining(service) });
    expect(await stateOf(hv, "web")).toMatchObject({ state: "aborted" });
    await hv.ok("up", "web");
    expect(await hv.ok("exec", "web", "--", "echo", "booted")).toBe("booted\n");
    await hv.ok("halt", "web");
  });

  it("orchestrator, in mid-boot: up says that it went; it comes back, finds the guest booting, and up waits for it", async () => {
    expect(await killInMidBoot("orchestrator")).toMatchObject({ status: 1, stderr: expect.stringMatching(/orchestrator|unavailable|connection/i) });
    await expect.poll(() => hv.run(["up", "web"]).then(({ status }) => status), { timeout: 60_000, interval: 500 }).toBe(0);
    expect(await hv.ok("exec", "web", "--", "echo", "booted")).toBe("booted\n");
  });

  it("what a guest had synced survives a kill of the image-registry", async () => {
    const written = await hv.sh("web", WRITE);
    expect(written.status, written.stderr).toBe(0);
    await kill("image-registry");
    await becomes(hv, "web", "aborted");
    await hv.ok("up", "web");
    expect((await hv.sh("web", READ)).stdout).toBe(written.stdout);
  });

  it("no process and no socket stays behind", async () => {
    const pids = (await services()).map(({ pid }) => pid);
    await Promise.all([hv.ok("destroy", "web"), hv.ok("destroy", "m")]);
    expect(await held(hv, "processes")).toEqual({ spaces: [], disks: [], ports: [] });
    await hv.ok("stack", "down");
    expect(pids.filter((pid) => isAlive({ pid, started: "" }))).toEqual([]);
    expect(existsSync(join(hv.home, "stacks/processes/run"))).toBe(false);
  });
});

describe("a full disk", () => {
  const small = new Hv();
  const registry = join(small.home, "registry");
  mkdirSync(registry);
  const mount = spawnSync("mount", ["-t", "tmpfs", "-o", "size=90m", "tmpfs", registry], { encoding: "utf8" });
  const mounted = mount.status === 0;
  if (!mounted) console.warn(`skipped: a full disk needs root, to mount a small one (${(mount.stderr || String(mount.error)).trim()})`);
  afterAll(async () => {
    await small.run(["stack", "down"]);
    if (mounted) expect(spawnSync("umount", [registry]).status).toBe(0);
    await small.close();
  });

  it.skipIf(!mounted)("is an I/O error to the guest that fills it, nothing to the other one, and over when there is room again", async () => {
    await Promise.all([small.ok("up", "greedy"), small.ok("up", "modest")]);
    const written = await small.sh("modest", WRITE);
    expect(written.status, written.stderr).toBe(0);
    const filled = await small.sh("greedy", "head -c 1000000 /dev/urandom > /tmp/r; for i in $(seq 64); do cat /tmp/r; done | dd of=/dev/vda bs=1000000 iflag=fullblock conv=fsync");
    expect(filled.status).not.toBe(0);
    expect(filled.stderr).toMatch(/I\/O error|Input\/output error/);
    expect((await small.sh("modest", `echo 3 > /proc/sys/vm/drop_caches; ${READ}`)).stdout).toBe(written.stdout);
    expect((await small.run(["up", "third"])).status).not.toBe(0);
    await small.run(["destroy", "third"]);
    expect(await stateOf(small, "greedy")).toMatchObject({ state: "running" });
    await small.ok("destroy", "greedy");
    expect((await small.sh("modest", WRITE)).status).toBe(0);
    expect(await held(small, "embedded")).toEqual({ spaces: ["modest"], disks: ["modest/disk0"], ports: ["modest/net0"] });
  });
});
