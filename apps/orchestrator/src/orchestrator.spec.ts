import { ContractError, mediated, messages } from "@polyvisor/contracts";
import { Action, Rule } from "@polyvisor/contracts/mediation";
import { MachineSpec, MachineState, ORCHESTRATOR, type OrchestratorPort, type StartProgress } from "@polyvisor/contracts/orchestrator";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { createService } from "./index.ts";
import { testContext } from "./testing/context.ts";
import { FakeServices, type FakeOptions } from "./testing/fake-services.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

interface Bench {
  port: OrchestratorPort;
  fakes: FakeServices;
  facts: string[];
  restart(fakes?: FakeServices): Promise<Bench>;
}

async function bench(options: FakeOptions = {}, stateDir?: string, given?: FakeServices): Promise<Bench> {
  const fakes = given ?? new FakeServices(options);
  const facts: string[] = [];
  let dir = stateDir;
  if (!dir) {
    dir = mkdtempSync(join(tmpdir(), "pv-orc-"));
    closers.push(() => rmSync(dir!, { recursive: true }));
  }
  const service = await createService({ stateDir: dir, topology: "embedded", network: "nat", agentTimeoutMs: 150 }, fakes.peers, testContext(facts));
  closers.push(() => service.close());
  const port = mediated(ORCHESTRATOR, service.implementation);
  return {
    port,
    fakes,
    facts,
    restart: async (other) => {
      await service.close();
      return bench(options, dir, other ?? fakes);
    },
  };
}

const spec = (fields: Partial<MachineSpec> = {}): { spec: MachineSpec } => ({ spec: MachineSpec.fromPartial({ name: "web", box: "tiny", ...fields }) });

async function up(port: OrchestratorPort, fields: Partial<MachineSpec> = {}): Promise<StartProgress[]> {
  const { machine } = await port.createMachine(spec(fields));
  return collect(port, machine!.spec!.name);
}
async function collect(port: OrchestratorPort, name: string): Promise<StartProgress[]> {
  const all: StartProgress[] = [];
  for await (const progress of messages(port.startMachine({ name }))) all.push(progress);
  return all;
}
const stateOf = async (port: OrchestratorPort, name = "web"): Promise<MachineState> => (await port.getMachine({ name })).machine!.state;
async function eventually(check: () => boolean | Promise<boolean>): Promise<void> {
  for (let n = 0; n < 100; n++) {
    if (await check()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect.fail("did not happen within a second");
}
const rejection = (promise: Promise<unknown>): Promise<ContractError> => promise.then(() => expect.fail("was not refused"), (error) => error as ContractError);

describe("start", () => {
  it("walks the stages in order, then the machine runs and its agent is ready", async () => {
    const { port, fakes, facts } = await bench();
    const progress = await up(port);
    expect(progress.map((each) => each.stage)).toEqual(["resolve", "network", "memory", "disk", "network", "harts", "board", "memory", "boot", "ready"]);
    expect(progress.at(-1)).toMatchObject({ done: true, machine: { state: MachineState.RUNNING, agentReady: true, spec: { harts: 2, topology: "embedded" } } });
    expect(facts).toEqual(["web: machine-created", "web: machine-started", "web: machine-running"]);
    expect(fakes.holds("web")).toEqual(["board", "harts", "space", "port"]);
  });

  it("places kernel, initrd and device tree where the harts look for them", async () => {
    const { port, fakes } = await bench();
    await up(port, { bootArguments: "debug" });
    const { harts, board, populated } = fakes.machine("web");
    expect(harts).toMatchObject({ entry: 0x8020_0000n, firmware: 1, ramBytes: 64n << 20n });
    expect(harts!.deviceTree % 0x20_0000n).toBe(0n);
    expect(populated.map((each) => each.address)).toEqual([0x8020_0000n, 0x8040_0000n, harts!.deviceTree]);
    expect(board).toMatchObject({ initrdStart: 0x8040_0000n, initrdEnd: 0x8040_0000n + 5000n, isa: "rv64imafdc" });
    expect(board!.bootArguments).toBe("console=ttyS0 quiet debug hv.hostname=web hv.agent=hvc0");
    expect(board!.devices.map((device) => `${device.kind} ${device.id} ${device.backend}`)).toEqual([
      "console agent agent",
      "blk disk0 web/disk0",
      "net net0 web/net0",
      "rng rng0 ",
    ]);
  });

  it("waits for a service that is coming back after a crash", async () => {
    const { port, fakes } = await bench();
    fakes.silent.add("device-bus");
    const starting = up(port);
    await eventually(async () => (await port.listMachines({})).machines[0]?.state === MachineState.STARTING);
    expect(fakes.calls).not.toContain("createSpace");
    fakes.silent.clear();
    expect((await starting).at(-1)).toMatchObject({ done: true });
  });

  it("the user's own disk image is the disk's base, rounded up to whole sectors", async () => {
    const { port, fakes } = await bench();
    const digest = fakes.putBlob(new Uint8Array(1500));
    await up(port, { diskDigest: digest });
    expect([...fakes.disks.values()]).toMatchObject([{ id: "web/disk0", baseDigest: digest, bytes: 1536n }]);
  });

  it("of a running machine is done at once", async () => {
    const { port, fakes } = await bench();
    await up(port);
    const before = fakes.calls.length;
    expect(await collect(port, "web")).toMatchObject([{ stage: "ready", done: true }]);
    expect(fakes.calls.length).toBe(before);
  });

  it("twice at once is one start, and both callers see all of its progress", async () => {
    const { port, fakes } = await bench();
    await port.createMachine(spec());
    const [first, second] = await Promise.all([collect(port, "web"), collect(port, "web")]);
    expect(second).toEqual(first);
    expect(fakes.calls.filter((call) => call === "createBoard")).toHaveLength(1);
  });

  for (const method of ["createSpace", "createDisk", "createPort", "createHarts", "createBoard", "populate", "runHarts"]) {
    it(`leaves nothing behind when ${method} fails, and works when it no longer does`, async () => {
      const failures = new Map([[method, new ContractError("exhausted", "no room")]]);
      const { port, fakes, facts } = await bench({ failures });
      const error = await rejection(up(port));
      expect(error.condition).toBe("exhausted");
      expect(error.message).toMatch(/start web, \w+ .*no room/);
      expect(fakes.holds("web")).toEqual([]);
      expect(fakes.disks.size).toBe(0);
      expect(await stateOf(port)).toBe(MachineState.ABORTED);
      expect(facts.at(-1)).toBe("web: machine-aborted");
      failures.clear();
      expect((await collect(port, "web")).at(-1)!.done).toBe(true);
    });
  }

  it("fails with the end of the console when the agent stays silent", async () => {
    const { port, fakes } = await bench({ agent: false });
    const error = await rejection(up(port));
    expect(error.condition).toBe("timeout");
    expect(error.message).toContain("| Kernel panic - not syncing");
    expect(fakes.holds("web")).toEqual([]);
  });

  it("of an unknown box is refused when the machine is created", async () => {
    const { port } = await bench();
    expect((await rejection(port.createMachine(spec({ box: "none" })))).condition).toBe("not-found");
    expect((await port.listMachines({})).machines).toEqual([]);
  });
});

describe("create", () => {
  it("is idempotent for the same settings and refuses others", async () => {
    const { port } = await bench();
    await port.createMachine(spec());
    await port.createMachine(spec());
    expect((await rejection(port.createMachine(spec({ harts: 1 })))).condition).toBe("already-exists");
    expect((await port.listMachines({})).machines).toHaveLength(1);
  });

  it("other settings replace those of a machine whose first start failed", async () => {
    const { port } = await bench();
    await port.createMachine(spec({ box: "", kernelDigest: `sha256:${"0".repeat(64)}` }));
    await expect(collect(port, "web")).rejects.toThrow("hv up");
    const { machine } = await port.createMachine(spec());
    expect(machine).toMatchObject({ state: MachineState.CREATED, reason: "" });
    expect((await port.listMachines({})).machines).toHaveLength(1);
  });

  for (const [what, fields] of [
    ["a name with a slash", { name: "a/b" }],
    ["no kernel", { box: "" }],
    ["a bad digest", { kernelDigest: "sha256:1" }],
    ["nine CPUs", { harts: 9 }],
    ["an odd amount of memory", { memoryBytes: 1234567n }],
    ["more memory than can be addressed", { memoryBytes: 4n << 30n }],
    ["a line break in the boot arguments", { bootArguments: "a\nb" }],
  ] as const) {
    it(`refuses ${what}`, async () => {
      const { port } = await bench();
      expect((await rejection(port.createMachine(spec(fields)))).condition).toBe("invalid");
    });
  }
});

describe("halt and destroy", () => {
  it("halt asks the agent, then takes the machine out of all services and keeps its disk", async () => {
    const { port, fakes, facts } = await bench();
    await up(port);
    const { machine } = await port.haltMachine({ name: "web", force: false, timeoutMs: 0 });
    expect(machine).toMatchObject({ state: MachineState.HALTED, reason: "halted" });
    expect(fakes.holds("web")).toEqual([]);
    expect([...fakes.disks.keys()]).toEqual(["web/disk0"]);
    expect(facts.at(-1)).toBe("web: machine-halted");
    await collect(port, "web");
    expect(fakes.calls.filter((call) => call === "createDisk")).toHaveLength(1);
  });

  it("destroy leaves nothing, not even the name", async () => {
    const { port, fakes } = await bench();
    await up(port);
    await port.destroyMachine({ name: "web" });
    expect(fakes.holds("web")).toEqual([]);
    expect(fakes.disks.size).toBe(0);
    expect((await rejection(port.getMachine({ name: "web" }))).condition).toBe("not-found");
  });

  it("halt during a start is a conflict; destroy cuts the start short", async () => {
    const { port, fakes } = await bench({ agent: false });
    await port.createMachine(spec());
    const starting = rejection(collect(port, "web"));
    await eventually(() => fakes.machine("web").running);
    expect((await rejection(port.haltMachine({ name: "web", force: false, timeoutMs: 0 }))).condition).toBe("conflict");
    await port.destroyMachine({ name: "web" });
    expect((await starting).message).toContain("cut short");
    expect(fakes.holds("web")).toEqual([]);
  });

  it("destroy says what it could not remove and can be repeated", async () => {
    const failures = new Map<string, ContractError>();
    const { port } = await bench({ failures });
    await up(port);
    failures.set("destroySpace", new ContractError("unavailable", "socket closed"));
    expect((await rejection(port.destroyMachine({ name: "web" }))).message).toContain("memory-manager: space: socket closed");
    failures.clear();
    await port.destroyMachine({ name: "web" });
    expect((await port.listMachines({})).machines).toEqual([]);
  });
});

describe("what the guest does", () => {
  it("powering off halts the machine with the guest's exit code", async () => {
    const { port, fakes } = await bench();
    await up(port);
    fakes.machine("web").boardEvent("powered-off", 7);
    await eventually(async () => (await stateOf(port)) === MachineState.HALTED);
    expect((await port.getMachine({ name: "web" })).machine!.exitCode).toBe(7);
    expect(fakes.holds("web")).toEqual([]);
  });

  it("a reset starts it again on the same disk", async () => {
    const { port, fakes } = await bench();
    await up(port);
    fakes.machine("web").boardEvent("reset");
    await eventually(() => fakes.calls.filter((call) => call === "runHarts").length === 2);
    await eventually(async () => (await stateOf(port)) === MachineState.RUNNING);
    expect(fakes.calls.filter((call) => call === "createDisk")).toHaveLength(1);
  });

  it("a service that goes away aborts the machine, says why, and up works again", async () => {
    const { port, fakes, facts } = await bench();
    await up(port);
    for (const watch of fakes.machine("web").hartWatches) watch.close(new ContractError("unavailable", "connection dropped"));
    await eventually(async () => (await stateOf(port)) === MachineState.ABORTED);
    expect((await port.getMachine({ name: "web" })).machine!.reason).toContain("cpu-emulator stopped watching the harts: connection dropped");
    expect(facts.at(-1)).toBe("web: machine-aborted");
    expect((await collect(port, "web")).at(-1)!.done).toBe(true);
  });

  it("1 in tohost ends a bare program with 0, (code << 1) | 1 with its code; an ephemeral machine is then gone", async () => {
    const { port, fakes } = await bench();
    const kernelDigest = fakes.putBlob(new Uint8Array([0x13, 0, 0, 0]));
    await up(port, { box: "", kernelDigest, ephemeral: true, memoryBytes: 1n << 20n });
    expect(fakes.machine("web").harts).toMatchObject({ entry: 0x8000_0000n, firmware: 2 });
    const states: MachineState[] = [];
    const watch = port.watchMachine({ name: "web" });
    watch.onMessage(({ machine }) => states.push(machine!.state));
    fakes.machine("web").boardEvent("powered-off", 3);
    await eventually(() => watch.closed);
    expect(states).toEqual([MachineState.RUNNING, MachineState.HALTED, MachineState.DESTROYED]);
  });
});

describe("exec", () => {
  it("quotes the command, streams its output and ends with its status", async () => {
    const { port } = await bench();
    await up(port);
    const channel = port.exec();
    channel.send({ name: "web", command: ["echo", "it's", "$HOME"], stdin: new Uint8Array(0), stdinClosed: true, timeoutMs: 1000 });
    const outputs = [];
    for await (const output of messages(channel as never as ReturnType<typeof port.startMachine>)) outputs.push(output as never as Record<string, Uint8Array>);
    expect(new TextDecoder().decode(outputs[0]!["stdout"])).toBe(`echo 'it'\\''s' '$HOME'`);
    expect(new TextDecoder().decode(outputs[1]!["stderr"])).toBe("to stderr");
    expect(outputs.at(-1)).toMatchObject({ exited: true, exitStatus: 3 });
  });

  it("on a halted machine says what to do", async () => {
    const { port } = await bench();
    await port.createMachine(spec());
    const channel = port.exec();
    const closed = new Promise<ContractError>((resolve) => channel.onClose((error) => resolve(error!)));
    channel.send({ name: "web", command: ["id"], stdin: new Uint8Array(0), stdinClosed: true, timeoutMs: 0 });
    expect((await closed).message).toContain("hv up web");
  });
});

describe("consoles", () => {
  it("attach, type, follow a reboot, and end with the machine's state", async () => {
    const { port, fakes } = await bench();
    await up(port);
    const channel = port.attachConsole();
    let text = "";
    let state = "";
    channel.onMessage((output) => {
      text += new TextDecoder().decode(output.data);
      state = output.state || state;
    });
    channel.send({ name: "web", console: "", data: new Uint8Array(0), noReplay: false });
    channel.send({ name: "web", console: "", data: new TextEncoder().encode("ls"), noReplay: false });
    expect(text).toContain("echo ls");
    fakes.machine("web").boardEvent("reset");
    await eventually(async () => (await stateOf(port)) === MachineState.RUNNING && fakes.calls.filter((call) => call === "runHarts").length === 2);
    text = "";
    channel.send({ name: "web", console: "", data: new TextEncoder().encode("pwd"), noReplay: false });
    expect(text).toContain("echo pwd");
    await port.haltMachine({ name: "web", force: true, timeoutMs: 0 });
    expect(channel.closed).toBe(true);
    expect(state).toBe("halted");
  });
});

describe("a restart of the orchestrator", () => {
  it("finds running machines again, and their agent", async () => {
    const first = await bench();
    await up(first.port);
    const { port } = await first.restart();
    await eventually(async () => (await port.getMachine({ name: "web" })).machine!.agentReady);
    expect(await stateOf(port)).toBe(MachineState.RUNNING);
    await port.haltMachine({ name: "web", force: false, timeoutMs: 0 });
    expect(await stateOf(port)).toBe(MachineState.HALTED);
  });

  it("adopts a bare program too, which has no agent; an ephemeral one, which nobody waits for, is destroyed", async () => {
    const first = await bench();
    const kernelDigest = first.fakes.putBlob(new Uint8Array(64));
    await up(first.port, { name: "bare", box: "", kernelDigest });
    await up(first.port, { name: "once", box: "", kernelDigest, ephemeral: true });
    const { port, fakes } = await first.restart();
    await eventually(async () => (await port.listMachines({})).machines.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await stateOf(port, "bare")).toBe(MachineState.RUNNING);
    expect(fakes.holds("once")).toEqual([]);
  });

  it("a start that comes during the search waits for it", async () => {
    const first = await bench();
    await up(first.port);
    const { port } = await first.restart(new FakeServices());
    expect((await collect(port, "web")).at(-1)!.done).toBe(true);
  });

  it("aborts those whose services have forgotten them", async () => {
    const first = await bench();
    await up(first.port);
    const { port } = await first.restart(new FakeServices());
    await eventually(async () => (await stateOf(port)) === MachineState.ABORTED);
  });
});

describe("all services at once", () => {
  it("stats add up harts and name whose counters they are", async () => {
    const { port } = await bench();
    await up(port);
    const stats = await port.readMachineStats({ name: "web" });
    expect(stats).toMatchObject({ instructions: 200n, busyUs: 10n });
    expect(stats.exits.get("mmio-read")).toBe(4n);
    expect(stats.planes.map((plane) => plane.service)).toEqual(["cpu-emulator", "device-bus", "orchestrator"]);
  });

  it("a service that does not answer in a second is unreachable, the others are not held up", async () => {
    const { port, fakes } = await bench();
    fakes.silent.add("device-bus");
    const { services } = await port.listServices({});
    expect(services.map((service) => `${service.service} ${service.state}`)).toEqual(["cpu-emulator serving", "device-bus unreachable", "orchestrator serving"]);
  });

  it("a rule gets one id in every chain, its hits are summed, and removing it removes it everywhere", async () => {
    const { port, fakes } = await bench();
    const { rule } = await port.addRule({ rule: Rule.fromPartial({ action: Action.OBSERVE, plane: "blocks" }) });
    expect(rule!.id).toBe("r1");
    expect((await port.listRules({})).rules).toMatchObject([{ id: "r1", hits: 6n, service: "cpu-emulator,device-bus,orchestrator" }]);
    expect(await port.removeRule({ id: "r1" })).toEqual({ removed: true });
    expect([...fakes.rules.values()].every((rules) => rules.size === 0)).toBe(true);
    expect(await port.removeRule({ id: "r1" })).toEqual({ removed: false });
  });

  it("a rule that one service refuses is in none", async () => {
    const { port, fakes } = await bench();
    const error = await rejection(port.addRule({ rule: Rule.fromPartial({ action: Action.DENY, expression: "bad" }) }));
    expect(error.condition).toBe("invalid");
    expect([...fakes.rules.values()].every((rules) => rules.size === 0)).toBe(true);
  });

  it("a deny-everything rule spares the orchestrator, so that it can be removed", async () => {
    const { port, fakes } = await bench();
    await port.addRule({ rule: Rule.fromPartial({ action: Action.DENY }) });
    expect([...fakes.rules].filter(([, rules]) => rules.size > 0).map(([service]) => service)).toEqual(["cpu-emulator", "device-bus"]);
  });
});
