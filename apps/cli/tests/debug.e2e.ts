import { execFile, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TOPOLOGIES } from "../src/stack/home.ts";
import { Hv } from "./hv.ts";
import { SMP_STRESS_FAILURES, smpStress } from "./smp-stress.ts";

const GDB = "gdb-multiarch";
const missing = spawnSync(GDB, ["--version"]).error ? `${GDB} is not installed` : undefined;
if (missing) console.log(`debugging with GDB is not tested: ${missing}`);

const BIN = fileURLToPath(new URL("../bin/hv.mjs", import.meta.url));

/** `hv gdb` in the background; answers its port. */
async function openPort(hv: Hv, machine: string): Promise<{ port: number; server: ChildProcess }> {
  const server = spawn(process.execPath, [BIN, "gdb", machine, "--json"], { env: { ...process.env, HV_HOME: hv.home }, stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  for await (const chunk of server.stdout!) {
    text += String(chunk);
    if (text.includes("}")) break;
  }
  return { port: (JSON.parse(text) as { port: number }).port, server };
}

/** Runs GDB with these commands; answers all it said. */
function gdb(port: number, commands: readonly string[]): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "hv-gdb-"));
  const script = join(directory, "commands");
  const head = ["set pagination off", "set confirm off", "set architecture riscv:rv64", `target remote 127.0.0.1:${port}`];
  writeFileSync(script, `${[...head, ...commands].join("\n")}\n`);
  return new Promise((resolve, reject) => {
    execFile(GDB, ["-nx", "-batch", "-x", script], { timeout: 120_000, killSignal: "SIGKILL" }, (error, stdout, stderr) => {
      rmSync(directory, { recursive: true, force: true });
      if (error?.killed) reject(new Error(`gdb was still running after 120 s:\n${stdout}${stderr}`));
      else resolve(stdout + stderr);
    });
  });
}

for (const topology of TOPOLOGIES) {
  describe.skipIf(missing)(`Debian's kernel under GDB, ${topology} topology`, () => {
    const hv = new Hv();
    let port = 0;
    let server: ChildProcess | undefined;
    beforeAll(async () => {
      await hv.ok("up", "dbg", "--topology", topology, "--cpus", "2");
      ({ port, server } = await openPort(hv, "dbg"));
    });
    afterAll(async () => {
      if (server?.exitCode === null) {
        server.kill("SIGTERM");
        await once(server, "exit");
      }
      await hv.close();
    });

    it("breaks in schedule, steps, reads a CSR and memory, watches jiffies, and leaves the guest running", async () => {
      const symbols = (await hv.sh("dbg", "grep -E ' (schedule|jiffies)$' /proc/kallsyms")).stdout;
      const address = (name: string): string => `0x${new RegExp(`^([0-9a-f]{16}) . ${name}$`, "m").exec(symbols)![1]}`;
      const schedule = address("schedule");
      const said = await gdb(port, [
        "info threads",
        `break *${schedule}`, "continue",
        "printf \"at %#lx\\n\", $pc", "printf \"code %#x\\n\", *(unsigned short*)$pc",
        "stepi", "printf \"next %d\\n\", (int)($pc - " + schedule + ")",
        "printf \"satp mode %d\\n\", (int)((unsigned long)$satp >> 60)", "printf \"priv %d\\n\", (int)$priv",
        "x/1gx $sp",
        `monitor walk ${schedule}`,
        "delete", `watch *(long*)${address("jiffies")}`, "continue", "delete",
        `hbreak *${schedule}`, "continue", "delete",
        "detach",
      ]);
      expect(said).toMatch(/Thread 1 \(hart 0 \(paused\)\)[^]*Thread 2 \(hart 1 \(paused\)\)/);
      expect(said).toMatch(/hit Breakpoint 1/);
      expect(said).toContain(`at ${schedule}`);
      expect(said).toMatch(/^code 0x[0-9a-f]+$/m);
      expect(said).not.toContain("code 0x9002"); // our ebreak does not show
      expect(said).toMatch(/^next [24]$/m);
      expect(said).toMatch(/^satp mode (8|9|10)$/m);
      expect(said).toMatch(/^priv 1$/m);
      expect(said).toMatch(/^0x[0-9a-f]{16}:\s+0x[0-9a-f]{16}$/m);
      expect(said).toMatch(/level 2 +entry 0x[0-9a-f]+ = 0x[0-9a-f]+ +V/);
      const [, before, after] = /Old value = (\d+)\s+New value = (\d+)/.exec(said)!;
      expect(BigInt(after!)).toBeGreaterThan(BigInt(before!)); // by more than one after an idle time
      expect(said).toMatch(/hit Breakpoint 3/);
      expect(said).toContain("detached");
      // It runs on, and nothing was left in its memory: schedule is where every command passes.
      expect((await hv.sh("dbg", "for i in 1 2 3; do sleep 0.1; done; echo well")).stdout).toBe("well\n");
    });

    if (topology === "embedded") looking(hv); // the same calls take the same way in both, after their contracts' suites

    it("Ctrl-C stops it, a debugger that is killed leaves it running, another may come", async () => {
      const first = spawn(GDB, ["-nx", "-q", "-ex", "set architecture riscv:rv64", "-ex", `target remote 127.0.0.1:${port}`, "-ex", "continue"], { stdio: ["pipe", "pipe", "pipe"] });
      let text = "";
      first.stdout.on("data", (chunk) => (text += String(chunk)));
      await expect.poll(() => text, { timeout: 60_000 }).toContain("Continuing");
      expect((await hv.sh("dbg", "echo while continued")).stdout).toBe("while continued\n");
      first.kill("SIGINT");
      await expect.poll(() => text, { timeout: 60_000 }).toContain("SIGINT");
      first.kill("SIGKILL");
      await once(first, "exit");
      expect((await hv.sh("dbg", "echo after")).stdout).toBe("after\n");
      expect(await gdb(port, ["p/x $mhartid", "detach"])).toMatch(/\$1 = 0x0/);
    });
  });
}

function looking(hv: Hv): void {
  it("hv cpu shows registers, code, page walks and the profile; hv set changes the engine", async () => {
    const regs = await hv.json<{ harts: { x: Record<string, string>; csr: Record<string, string> }[] }>("cpu", "regs", "dbg");
    expect(regs.harts).toHaveLength(2);
    expect(BigInt(regs.harts[0]!.csr["satp"]!) >> 60n).toBeGreaterThan(7n);
    const stvec = regs.harts[0]!.csr["stvec"]!;
    expect((await hv.ok("cpu", "disas", "dbg", stvec, "--count", "3")).trim().split("\n")).toHaveLength(3);
    const walk = await hv.json<{ physical: string; steps: unknown[] }>("cpu", "walk", "dbg", stvec);
    expect(BigInt(walk.physical) & 0xfffn).toBe(BigInt(stvec) & 0xfffn);
    expect((await hv.ok("cpu", "walk", "dbg", "0x10")).split("\n").length).toBeGreaterThan(1);
    await hv.ok("set", "dbg", "--engine", "reference");
    expect(await hv.json("status", "dbg")).toMatchObject({ engine: "reference" }); // too slow to get anything done on a loaded host
    await hv.ok("set", "dbg", "--engine", "interpreter");
    expect(await hv.json("status", "dbg")).toMatchObject({ engine: "interpreter" });
    await hv.sh("dbg", "seq 1 30000 | sha256sum");
    expect(await hv.ok("cpu", "hot", "dbg")).toMatch(/samples by mode: .*\n[^]*%  [SU] /);
    for (const wrong of [["cpu", "walk", "dbg", "zz"], ["cpu", "regs", "dbg", "--hart", "7"], ["set", "dbg", "--engine", "turbo"], ["set", "dbg"]]) {
      expect((await hv.run(wrong)).status, wrong.join(" ")).not.toBe(0);
    }
  });

  it("atomics, futexes, shootdowns and children on both harts are right, also while the engine changes", async () => {
    const input = smpStress(12);
    const running = hv.run(["exec", "-i", "dbg", "--", "sh", "-c", "cat > /tmp/smp && chmod +x /tmp/smp && /tmp/smp"], { input });
    for (const engine of ["static", "interpreter", "recording", "dynamic"]) {
      await new Promise((resolve) => setTimeout(resolve, 2000));
      await hv.ok("set", "dbg", "--engine", engine);
    }
    const { status, stderr } = await running;
    expect(status, `${SMP_STRESS_FAILURES[status] ?? ""} ${stderr}`).toBe(0);
  });
}
