import { createHash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TOPOLOGIES, type Topology } from "../src/stack/home.ts";
import { isAlive } from "../src/stack/lock-file.ts";
import { Hv } from "./hv.ts";

/** The result of some work that uses memory, the scheduler and pipes; the same on every correct machine. */
const WORK = "seq 1 20000 | sha256sum; for i in 1 2 3 4; do (seq 1 5000 | md5sum) & done; wait";
const results = new Map<string, string>();

for (const topology of TOPOLOGIES) {
  describe(`debian/minimal on the ${topology} topology`, () => {
    const hv = new Hv();
    beforeAll(async () => {
      await hv.ok("up", "web", "--topology", topology);
    });
    afterAll(() => hv.close());

    it("runs Debian's kernel: commands answer with their output and status", async () => {
      expect(await hv.ok("exec", "web", "--", "uname", "-srm")).toMatch(/^Linux 6\.\S+ riscv64\n$/);
      expect(await hv.ok("exec", "web", "--", "printf", "%s|", "a'b", "$HOME", "two words")).toBe("a'b|$HOME|two words|");
      expect(await hv.sh("web", "echo out; echo err >&2; exit 42")).toEqual({ status: 42, stdout: "out\n", stderr: "err\n" });
    });

    it("hands standard input on; a command whose caller leaves, or that takes too long, is killed", async () => {
      const input = randomBytes(20_001);
      const { stdout } = await hv.run(["exec", "-i", "web", "--", "sha256sum"], { input });
      expect(stdout).toBe(`${createHash("sha256").update(input).digest("hex")}  -\n`);
      const { status, stderr } = await hv.run(["exec", "web", "--timeout", "1", "--", "sleep", "1234"]);
      expect(status, stderr).toBe(1);
      await hv.run(["exec", "web", "--", "sleep", "1235"], { timeoutMs: 1500 }).catch(() => {});
      await expect.poll(() => hv.sh("web", "pgrep -x sleep -a | grep 123 || true").then(({ stdout: pids }) => pids), { timeout: 30_000, interval: 500 }).toBe("");
    });

    it("is listed with its services, every message seen was executed", async () => {
      expect(await hv.json("status", "web")).toMatchObject({ name: "web", state: "running", topology, agentReady: true });
      const [list] = await hv.json<{ services: { service: string; state: string; pid: number }[] }[]>("services");
      expect(list!.services.map((each) => each.state)).toEqual(Array(6).fill("serving"));
      expect(new Set(list!.services.map((each) => each.pid)).size).toBe(topology === "processes" ? 6 : 1);
      const stats = await hv.json<{ instructions: number; planes: { plane: string; seen: number; executed: number }[] }>("stats", "web");
      expect(stats.instructions).toBeGreaterThan(1e8);
      expect(new Set(stats.planes.map((each) => each.plane))).toContain("exits");
    });

    it("computes the same with one hart and with two whose engine changes three times while they boot", async () => {
      results.set(`${topology}, 1 hart`, sorted((await hv.sh("web", WORK)).stdout));
      // As processes of one host the first maps its RAM; the second gets every page by message.
      const booting = hv.ok("up", "two", "--topology", topology, "--cpus", "2", "--lease", "coherent");
      for (const engine of ["interpreter", "dynamic", "interpreter"]) await changeEngine(hv, "two", engine);
      await booting;
      expect(await hv.json("status", "two")).toMatchObject({ engine: "interpreter" });
      await hv.ok("set", "two", "--engine", "dynamic");
      expect((await hv.ok("exec", "two", "--", "nproc")).trim()).toBe("2");
      results.set(`${topology}, 2 harts`, sorted((await hv.sh("two", WORK)).stdout));
      const pages = async (name: string) => (await hv.json<{ planes: { plane: string; seen: number }[] }>("stats", name)).planes.find(({ plane }) => plane === "pages")!.seen;
      expect(await pages("web")).toBeLessThan(10);
      expect(await pages("two")).toBeGreaterThan(100);
      expect(new Set(results.values()).size).toBe(1);
    });

    it("suspends to RAM with its second hart off, and goes on at a key on its console (SBI SUSP)", async () => {
      const asleep = hv.sh("two", "echo enabled > /sys/class/tty/ttyS0/power/wakeup && echo mem > /sys/power/state && dmesg | grep -c 'PM: suspend exit'; nproc");
      const suspended = async () => (await hv.ok("stats", "two", "--json")).includes('"sbi-susp"');
      await expect.poll(suspended, { timeout: 20_000, interval: 300 }).toBe(true);
      await hv.run(["console", "two"], { input: "\n" });
      expect(await asleep).toMatchObject({ status: 0, stdout: "1\n2\n" });
      await hv.ok("destroy", "two");
    });

    it("64 MiB on ext4 are the same after halt and up", async () => {
      expect(await hv.sh("web", "modprobe ext4 && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt")).toMatchObject({ status: 0 });
      const written = await hv.sh("web", "dd if=/dev/urandom of=/mnt/data bs=1M count=64 2>/dev/null && sync && sha256sum /mnt/data && umount /mnt");
      expect(written.status, written.stderr).toBe(0);
      await hv.ok("halt", "web");
      expect(await hv.json("status", "web")).toMatchObject({ state: "halted", reason: "halted" });
      await hv.ok("up", "web");
      const read = await hv.sh("web", "modprobe ext4 && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && sha256sum /mnt/data");
      expect(read.stdout).toBe(written.stdout);
      await hv.sh("web", "umount /mnt");
    });

    it.runIf(topology === "embedded")("two deterministic boots have the same instructions and the same messages, whichever engine runs them", async () => {
      const [first, second] = [await deterministicBoot(hv, "dynamic"), await deterministicBoot(hv, "interpreter")];
      expect(second).toEqual(first);
      expect(first.instructions).toBeGreaterThan(5e8);
      expect(first.messages.hits).toBeGreaterThan(1000);
    });

    mediation(hv);
    if (topology === "processes") crash(hv);

    it("destroy leaves nothing of the machine", async () => {
      await hv.ok("destroy", "web");
      expect(await hv.json("status")).toEqual([]);
      expect((await hv.run(["exec", "web", "--", "true"])).stderr).toContain("there is no machine");
    });
  });
}

/** As soon as there is such a machine with harts to change. */
async function changeEngine(hv: Hv, machine: string, engine: string): Promise<void> {
  await expect.poll(() => hv.run(["set", machine, "--engine", engine]).then(({ status }) => status), { timeout: 60_000, interval: 50 }).toBe(0);
}

/** Lines that come from processes side by side arrive in any order. */
function sorted(text: string): string {
  return text.trim().split("\n").toSorted().join("\n");
}

/** Debian boots to its shell and powers itself off 4 s of its own time later, undisturbed by anybody. */
const BOOT_AND_END = 'rdinit=/bin/sh -- -c "busybox mknod /dev/null c 1 3; (busybox sleep 4; busybox kill -USR2 1) & exec /init"';

interface BootRecord {
  readonly instructions: number;
  readonly exits: Record<string, number>;
  readonly messages: { readonly hits: number; readonly digest: string };
}

async function deterministicBoot(hv: Hv, engine: string): Promise<BootRecord> {
  await hv.ok("mediate", "add", "--id", "all", "--machine", "same", "--where", 'plane in ["exits", "interrupts", "dma", "blocks"]', "--digest");
  await hv.ok("up", "same", "--deterministic", "--engine", engine, "--append", BOOT_AND_END);
  await expect.poll(() => hv.json<{ state: string }>("status", "same").then(({ state }) => state), { timeout: 60_000, interval: 300 }).toBe("halted");
  const { instructions, exits } = await hv.json<BootRecord>("stats", "same");
  const { hits, digest } = (await hv.json<(BootRecord["messages"] & { id: string })[]>("mediate", "ls")).find(({ id }) => id === "all")!;
  await hv.ok("mediate", "rm", "all");
  await hv.ok("destroy", "same");
  return { instructions, exits, messages: { hits, digest } };
}

function mediation(hv: Hv): void {
  const sector = "1000"; // not one that a filesystem uses
  const read = `dd if=/dev/vda bs=512 skip=${sector} count=1 iflag=direct 2>/dev/null | head -c 1 | od -An -tu1`;

  it("a rule denies writes to sector 0: an I/O error in the guest, until it is removed", async () => {
    const write = "dd if=/dev/vda of=/tmp/s bs=512 count=1 2>/dev/null; dd if=/tmp/s of=/dev/vda bs=512 count=1 conv=fsync";
    const rule = await add(hv, "--plane", "blocks", "--machine", "web", "--where", "message.write.sector == 0", "--deny");
    const denied = await hv.sh("web", write);
    expect(denied.status).not.toBe(0);
    expect(denied.stderr).toMatch(/I\/O error|Input\/output error/);
    await hv.ok("mediate", "rm", rule);
    expect(await hv.sh("web", write)).toMatchObject({ status: 0 });
  });

  it("a rule changes one byte of every block read, until it is removed", async () => {
    await hv.sh("web", `printf A | dd of=/dev/vda bs=512 seek=${sector} conv=notrunc,fsync 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches`);
    const before = (await hv.sh("web", `echo 3 > /proc/sys/vm/drop_caches; ${read}`)).stdout.trim();
    expect(before).toBe("65");
    const rule = await add(hv, "--plane", "blocks", "--machine", "web", "--direction", "response", "--where", "size(message.data) > 0", "--modify", "data[0]=66");
    expect((await hv.sh("web", `echo 3 > /proc/sys/vm/drop_caches; ${read}`)).stdout.trim()).toBe("66");
    await hv.ok("mediate", "rm", rule);
    expect((await hv.sh("web", `echo 3 > /proc/sys/vm/drop_caches; ${read}`)).stdout.trim()).toBe("65");
  });

  it("a rule turns one console word into another, until it is removed", async () => {
    const uart = 0x1000_0000;
    const where = `message.mmioWrite.address == ${uart} && message.mmioWrite.value == ${"g".charCodeAt(0)}`;
    const rule = await add(hv, "--plane", "exits", "--machine", "web", "--where", where, "--modify", `mmioWrite.value=${"b".charCodeAt(0)}`);
    await hv.sh("web", "echo gold >/dev/ttyS0");
    await hv.ok("mediate", "rm", rule);
    await hv.sh("web", "echo good >/dev/ttyS0");
    const { stdout } = await hv.run(["console", "web"]);
    expect(stdout).toContain("bold");
    expect(stdout).not.toContain("gold");
    expect(stdout).toContain("good");
  });

  it("a trace shows messages of one plane, decoded", async () => {
    const tracing = hv.run(["trace", "web", "--plane", "blocks", "--limit", "2", "--json"], { timeoutMs: 60_000 });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await hv.sh("web", `echo 3 > /proc/sys/vm/drop_caches; ${read}`);
    const entries = (await tracing).stdout.trim().split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(entries).toHaveLength(2);
    for (const entry of entries) expect(entry).toMatchObject({ plane: "blocks", machine: "web", service: "image-registry" });
  });
}

async function add(hv: Hv, ...options: string[]): Promise<string> {
  return (await hv.json<{ id: string }>("mediate", "add", ...options)).id;
}

function crash(hv: Hv): void {
  it("the orchestrator killed under it comes back and finds the guest still running", async () => {
    const before = await hv.ok("exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id");
    const [list] = await hv.json<{ services: { service: string; pid: number }[] }[]>("services");
    process.kill(list!.services.find((each) => each.service === "orchestrator")!.pid, "SIGKILL");
    await expect.poll(() => hv.run(["exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id"]).then(({ stdout }) => stdout), { timeout: 30_000, interval: 500 }).toBe(before);
  });

  it("a service killed under it aborts the machine; up works again", async () => {
    const [list] = await hv.json<{ services: { service: string; pid: number }[] }[]>("services");
    process.kill(list!.services.find((each) => each.service === "cpu-emulator")!.pid, "SIGKILL");
    await expect.poll(() => hv.json<{ state: string }>("status", "web").then(({ state }) => state), { timeout: 15_000 }).toBe("aborted");
    await expect.poll(() => hv.run(["up", "web"]).then(({ status }) => status), { timeout: 120_000, interval: 2000 }).toBe(0);
    expect((await hv.ok("exec", "web", "--", "echo", "back")).trim()).toBe("back");
  });
}

describe("the daemon", () => {
  const hv = new Hv();
  afterAll(() => hv.close());
  const used: Topology = "embedded";

  it("is started once by commands that race for it, and leaves nothing when it is stopped", async () => {
    await Promise.all(Array.from({ length: 4 }, () => hv.ok("stack", "up", "--topology", used)));
    const stacks = await hv.json<{ pid: number }[]>("stack", "ls");
    expect(stacks).toHaveLength(1);
    expect(await hv.ok("stack", "down")).toContain(used);
    expect(isAlive({ pid: stacks[0]!.pid, started: "" })).toBe(false);
    expect(await hv.json("stack", "ls")).toEqual([]);
  });

  it("killed outright leaves no process behind once a stack is started or stopped again", async () => {
    await hv.ok("stack", "up", "--topology", "processes");
    const [info] = await hv.json<{ pid: number; processes: { pid: number; started: string }[] }[]>("stack", "ls");
    process.kill(info!.pid, "SIGKILL");
    await expect.poll(async () => (await hv.ok("stack", "down"), info!.processes.filter(isAlive)), { timeout: 20_000, interval: 500 }).toEqual([]);
  });

  it("errors say what to do next; wrong usage exits with 2", async () => {
    expect(await hv.run(["halt", "nobody"])).toMatchObject({ status: 1, stderr: expect.stringContaining("hv status lists the machines") });
    expect(await hv.run(["frobnicate"])).toMatchObject({ status: 2, stderr: expect.stringContaining("hv --help") });
    expect(await hv.run(["up", "x", "--cpus", "99"])).toMatchObject({ status: 2 });
  });
});
