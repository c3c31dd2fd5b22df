import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { assemble } from "@polyvisor/isa";
import { connectNatsBus, type CloudEvent } from "@polyvisor/service-kit";
import { testContext } from "@polyvisor/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Hv } from "./hv.ts";

interface Service {
  readonly service: string;
  readonly address: string;
}

describe("the services as processes", () => {
  const hv = new Hv();
  let services: Service[];
  let natsUrl: string;
  const addressOf = (name: string): string => services.find(({ service }) => service === name)!.address;

  beforeAll(async () => {
    await hv.ok("stack", "up", "--topology", "processes");
    const [list] = await hv.json<{ services: Service[]; daemon: { helpers: { address: string }[] } }[]>("services");
    services = list!.services;
    natsUrl = list!.daemon.helpers[0]!.address;
  });
  afterAll(() => hv.close());

  it.each(["memory-manager", "device-bus", "network-fabric", "image-registry", "orchestrator"])("%s conforms to its contract", async (service) => {
    expect(await hv.ok("conform", service, "--endpoint", addressOf(service))).toMatch(/ 0 failed, .*: conforms/);
  });

  it("a cpu-emulator that is not part of a stack conforms to its contract, every case", async () => {
    const directory = mkdtempSync(join(tmpdir(), "hv-cpu-"));
    const endpoint = `unix:${join(directory, "cpu.sock")}`;
    const main = fileURLToPath(new URL("main.ts", import.meta.resolve("@polyvisor/cpu-emulator")));
    const env = { ...process.env, PV_MEMORY_MANAGER: `unix:${directory}/memory-manager.sock`, PV_DEVICE_BUS: `unix:${directory}/device-bus.sock` };
    const child = spawn(process.execPath, [main, "--listen", endpoint], { env, stdio: "ignore" });
    try {
      expect(await hv.ok("conform", "cpu-emulator", "--endpoint", endpoint, "--neighbours", directory)).toMatch(/ 0 failed, 0 skipped: conforms/);
    } finally {
      child.kill();
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it("facts of a machine's life are on NATS, with CloudEvents attributes", async () => {
    const bus = await connectNatsBus(natsUrl, { name: "e2e", log: testContext().log });
    const events: CloudEvent[] = [];
    bus.subscribe("pv.v1.facts.>", (event) => events.push(event));
    await hv.ok("up", "facts", "--topology", "processes");
    // Its address comes from the fabric's DHCP server a moment later.
    await expect.poll(() => hv.sh("facts", "ip address show eth0").then(({ stdout }) => stdout), { timeout: 60_000, interval: 1000 }).toContain("inet 10.0.2.15/24");
    expect((await hv.sh("facts", "ping -c 1 10.0.2.2")).status).toBe(0);
    await hv.ok("destroy", "facts");
    await expect.poll(() => events.map(({ fact }) => fact), { timeout: 10_000 }).toContain("machine-destroyed");
    await bus.close();
    const facts = events.map(({ fact }) => fact);
    for (const fact of ["space-created", "disk-created", "port-attached", "board-created", "harts-running", "machine-running", "lease-granted"]) expect(facts).toContain(fact);
    expect(events[0]).toMatchObject({ specversion: "1.0", machine: "facts", source: expect.stringMatching(/^\/polyvisor\//) });
  });
});

describe("guests that need no download", () => {
  const hv = new Hv();
  afterAll(() => hv.close());

  it("the tiny box prints, takes traps and timer interrupts, and powers off", async () => {
    const { status, stdout } = await hv.run(["up", "t", "--box", "tiny", "--console"]);
    expect(status).toBe(0);
    expect(stdout).toContain("primes below 2000: 303");
    expect(stdout).toContain("timer: 1 2 3 4 5");
    expect(await hv.json("status", "t")).toMatchObject({ state: "halted" });
  });

  it("hv run: serial port on stdout, exit status from the test finisher, on both engines", async () => {
    const program = join(hv.home, "program.bin");
    const source = `
      li t0, 0x10000000
      li t1, 'K'
      sb t1, 0(t0)
      li t0, 0x100000
      li t1, (9 << 16) | 0x3333
      sw t1, 0(t0)
    1: j 1b`;
    writeFileSync(program, assemble(source, { base: 0x8000_0000n }).bytes);
    for (const engine of ["interpreter", "reference", "static", "recording"]) expect(await hv.run(["run", "--engine", engine, program])).toMatchObject({ status: 9, stdout: "K" });
    expect(await hv.json("status")).toHaveLength(1); // the tiny one: hv run leaves no machine
  });
});

const FIRMWARE = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin";
if (!existsSync(FIRMWARE)) console.log(`skipped: booting with Debian's OpenSBI, ${FIRMWARE} is absent (Debian: apt-get install opensbi)`);

describe.skipIf(!existsSync(FIRMWARE))("an M-mode firmware", () => {
  const hv = new Hv();
  afterAll(() => hv.close());

  it("Debian's OpenSBI starts the kernel on two harts", async () => {
    await hv.ok("up", "fw", "--firmware", FIRMWARE, "--cpus", "2");
    const log = (await hv.sh("fw", "dmesg; nproc")).stdout;
    expect(log).toMatch(/SBI implementation ID=0x1 /); // SBI spec, section 4.3: 1 is OpenSBI
    expect(log.trim().split("\n").at(-1)).toBe("2");
    await hv.ok("destroy", "fw");
  });
});
