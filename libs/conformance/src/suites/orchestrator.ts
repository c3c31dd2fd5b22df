import assert from "node:assert/strict";
import { ContractError, messages, type Channel, type Condition } from "@polyvisor/contracts";
import { Action, Rule } from "@polyvisor/contracts/mediation";
import {
  type ExecOutput,
  type Machine,
  MachineSpec,
  MachineState,
  ORCHESTRATOR,
  type OrchestratorPort,
  type StartProgress,
} from "@polyvisor/contracts/orchestrator";
import type { ConformanceSuite } from "../suite.ts";

/** A blob that no registry has: machines from it can be made but never started. */
const NO_KERNEL = `sha256:${"0".repeat(64)}`;
const BOX = "debian/minimal";
const BOOT_MS = 180_000;

const specOf = (name: string, fields: Partial<MachineSpec> = {}): { spec: MachineSpec } => ({
  spec: MachineSpec.fromPartial({ name, kernelDigest: NO_KERNEL, memoryBytes: 64n << 20n, harts: 1, ...fields }),
});

async function refused(call: Promise<unknown>, condition: Condition): Promise<void> {
  const error = await call.then(
    () => assert.fail(`succeeded; expected "${condition}"`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ContractError, String(error));
  assert.equal(error.condition, condition, error.message);
}
const closed = (channel: Channel<never, unknown> | Channel<any, any>): Promise<void> =>
  new Promise((resolve, reject) => channel.onClose((error) => (error ? reject(error) : resolve())));

async function stateOf(port: OrchestratorPort, name: string): Promise<MachineState> {
  return (await port.getMachine({ name })).machine!.state;
}

async function start(port: OrchestratorPort, name: string): Promise<StartProgress[]> {
  const progress: StartProgress[] = [];
  for await (const each of messages(port.startMachine({ name }))) progress.push(each);
  return progress;
}

async function exec(port: OrchestratorPort, name: string, command: string[]): Promise<{ status: number; stdout: string }> {
  const channel = port.exec();
  channel.send({ name, command, stdin: new Uint8Array(0), stdinClosed: true, timeoutMs: 60_000 });
  let stdout = "";
  for await (const output of messages(channel as unknown as Channel<never, ExecOutput>)) {
    stdout += new TextDecoder().decode(output.stdout);
    if (output.exited) return { status: output.exitStatus, stdout };
  }
  return assert.fail("the stream ended without an exit status");
}

export const ORCHESTRATOR_SUITE: ConformanceSuite<(typeof ORCHESTRATOR)["definition"]> = {
  contract: ORCHESTRATOR,
  cases: [
    {
      requirement: "ORC-1",
      title: "a created machine is listed in state CREATED",
      async run(port, { unique }) {
        const name = unique("made");
        const { machine } = await port.createMachine(specOf(name));
        assert.equal(machine!.state, MachineState.CREATED);
        assert.ok((await port.listMachines({})).machines.some((each) => each.spec!.name === name));
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-2",
      title: "specs that can never work are refused",
      async run(port, { unique }) {
        const name = unique("bad");
        const bad: Partial<MachineSpec>[] = [
          { name: "No/Slash" },
          { name: "" },
          { kernelDigest: "" },
          { kernelDigest: "sha256:12" },
          { harts: 9 },
          { memoryBytes: 4096n },
          { memoryBytes: (64n << 20n) + 1n },
        ];
        for (const fields of bad) await refused(port.createMachine(specOf(name, fields)), "invalid");
        await refused(port.createMachine(specOf(name, { kernelDigest: "", box: "no-such-box" })), "not-found");
        await refused(port.getMachine({ name }), "not-found");
      },
    },
    {
      requirement: "ORC-3",
      title: "creating again is idempotent for the same spec and refused for another",
      async run(port, { unique }) {
        const name = unique("twice");
        await port.createMachine(specOf(name));
        await port.createMachine(specOf(name));
        await refused(port.createMachine(specOf(name, { harts: 2 })), "already-exists");
        assert.equal((await port.getMachine({ name })).machine!.spec!.harts, 1);
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-4",
      title: "calls on an unknown machine are not-found",
      async run(port, { unique }) {
        const name = unique("nobody");
        await refused(port.getMachine({ name }), "not-found");
        await refused(port.haltMachine({ name, force: true, timeoutMs: 0 }), "not-found");
        await refused(port.destroyMachine({ name }), "not-found");
        await refused(port.readMachineStats({ name }), "not-found");
        await refused(start(port, name), "not-found");
        await refused(closed(port.watchMachine({ name })), "not-found");
      },
    },
    {
      requirement: "ORC-6",
      title: "a start that fails says why and leaves the machine ABORTED; it can be tried again, halted and destroyed",
      async run(port, { unique }) {
        const name = unique("broken");
        await port.createMachine(specOf(name));
        for (let attempt = 0; attempt < 2; attempt++) {
          await refused(start(port, name), "not-found");
          const { machine } = await port.getMachine({ name });
          assert.equal(machine!.state, MachineState.ABORTED);
          assert.ok(machine!.reason.length > 0);
        }
        const { machine } = await port.haltMachine({ name, force: false, timeoutMs: 0 });
        assert.equal(machine!.state, MachineState.HALTED);
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-8",
      title: "after destroy the name is free again",
      async run(port, { unique }) {
        const name = unique("again");
        await port.createMachine(specOf(name));
        await port.destroyMachine({ name });
        await refused(port.getMachine({ name }), "not-found");
        await port.createMachine(specOf(name, { harts: 2 }));
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-11",
      title: "a watch sends the present state, every change, and ends with destruction",
      async run(port, { unique, within }) {
        const name = unique("watched");
        await port.createMachine(specOf(name));
        const watch = port.watchMachine({ name });
        const states: MachineState[] = [];
        watch.onMessage(({ machine }: { machine?: Machine | undefined }) => states.push(machine!.state));
        await start(port, name).catch(() => {});
        await port.destroyMachine({ name });
        await within(5000, closed(watch), "the watch's end");
        assert.equal(states[0], MachineState.CREATED);
        assert.equal(states.at(-1), MachineState.DESTROYED);
        assert.ok(states.includes(MachineState.STARTING) && states.includes(MachineState.ABORTED), states.join());
      },
    },
    {
      requirement: "ORC-14",
      title: "exec and console on a machine that does not run are refused",
      async run(port, { unique, within }) {
        const name = unique("still");
        await port.createMachine(specOf(name));
        await refused(within(5000, exec(port, name, ["true"]), "exec"), "precondition");
        const console = port.attachConsole();
        console.send({ name, console: "", data: new Uint8Array(0), noReplay: false });
        await refused(within(5000, closed(console), "console"), "precondition");
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-23",
      title: "debugging a machine that does not run, or does not exist, is refused",
      async run(port, { unique, within }) {
        const name = unique("still");
        await port.createMachine(specOf(name));
        for (const [machine, condition] of [[name, "precondition"], [unique("nobody"), "not-found"]] as const) {
          const debug = port.debug();
          debug.send({ name: machine, packet: new TextEncoder().encode("?") });
          await refused(within(5000, closed(debug), "debug"), condition);
          await refused(port.readCpu({ name: machine }), condition); // ORC-25
          await refused(port.walkCpuAddress({ name: machine, hart: 0, address: 0n }), condition);
          await refused(port.readCpuCode({ name: machine, hart: 0, address: undefined, count: 1 }), condition);
          await refused(port.readCpuProfile({ name: machine, spots: 1 }), condition);
        }
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-24",
      title: "the engine of a stopped machine is changed for its next start; an unknown one is refused",
      async run(port, { unique }) {
        const name = unique("engine");
        await port.createMachine(specOf(name));
        const { machine } = await port.setMachineEngine({ name, engine: "reference" });
        assert.equal(machine!.spec!.engine, "reference");
        await refused(port.setMachineEngine({ name, engine: "turbo" }), "invalid");
        await port.createMachine(specOf(name));
        assert.equal((await port.getMachine({ name })).machine!.spec!.engine, "reference");
        await refused(port.setMachineEngine({ name: unique("nobody"), engine: "reference" }), "not-found");
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-15",
      title: "exec without a command, or with one that is too long, is invalid",
      async run(port, { unique, within }) {
        const name = unique("words");
        await port.createMachine(specOf(name));
        await refused(within(5000, exec(port, name, []), "exec"), "invalid");
        await refused(within(5000, exec(port, name, ["echo", "x".repeat(3000)]), "exec"), "invalid");
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-17",
      title: "a machine that never ran has executed nothing",
      async run(port, { unique }) {
        const name = unique("idle");
        await port.createMachine(specOf(name));
        assert.equal((await port.readMachineStats({ name })).instructions, 0n);
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-18",
      title: "every service is listed, with a state",
      async run(port, { within }) {
        const { services } = await within(2000, port.listServices({}), "listServices");
        assert.ok(services.length > 0);
        for (const service of services) assert.match(service.state, /^(serving|unreachable)$/);
        assert.equal(new Set(services.map((service) => service.service)).size, services.length);
      },
    },
    {
      requirement: "ORC-19",
      title: "a rule is refused whole: bad expression, no action, taken id",
      async run(port, { unique }) {
        const id = unique("rule");
        const observe = { machine: id, action: Action.OBSERVE };
        await refused(port.addRule({ rule: Rule.fromPartial({ ...observe, id, expression: "message.(" }) }), "invalid");
        await refused(port.addRule({ rule: Rule.fromPartial({ id, machine: id }) }), "invalid");
        assert.ok(!(await port.listRules({})).rules.some((rule) => rule.id === id));
        await port.addRule({ rule: Rule.fromPartial({ ...observe, id }) });
        await refused(port.addRule({ rule: Rule.fromPartial({ ...observe, id }) }), "already-exists");
        await port.removeRule({ id });
      },
    },
    {
      requirement: "ORC-20",
      title: "a rule is listed once and removed everywhere; removing it again says that it was not there",
      async run(port, { unique }) {
        const { rule } = await port.addRule({ rule: Rule.fromPartial({ machine: unique("m"), action: Action.OBSERVE }) });
        assert.ok(rule!.id);
        assert.equal((await port.listRules({})).rules.filter((each) => each.id === rule!.id).length, 1);
        assert.deepEqual(await port.removeRule({ id: rule!.id }), { removed: true });
        assert.deepEqual(await port.removeRule({ id: rule!.id }), { removed: false });
        assert.ok(!(await port.listRules({})).rules.some((each) => each.id === rule!.id));
      },
    },
    {
      requirement: "ORC-21",
      title: "a trace with a bad expression is refused",
      async run(port, { within }) {
        await refused(within(5000, closed(port.trace({ machine: "", plane: "", expression: "message.(" })), "the trace's end"), "invalid");
      },
    },
    {
      requirement: "ORC-22",
      title: "only a machine that runs can be suspended",
      async run(port, { unique }) {
        await refused(port.saveMachine({ name: unique("nobody") }), "not-found");
        const name = unique("save");
        await port.createMachine(specOf(name));
        await refused(port.saveMachine({ name }), "precondition");
        await refused(port.saveSnapshot({ name, snapshot: "s", note: "", memory: true }), "precondition");
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-5",
      title: "a box boots, executes commands, halts and boots again; nothing is left after destroy",
      needs: ["boot"],
      async run(port, { unique, within }) {
        const name = unique("boot");
        await port.createMachine(specOf(name, { kernelDigest: "", box: BOX, memoryBytes: 0n }));
        const [first, second] = await within(BOOT_MS, Promise.all([start(port, name), start(port, name)]), "the boot");
        assert.deepEqual(second.map((each) => each.stage), first.map((each) => each.stage)); // ORC-9
        assert.deepEqual(first.filter((each) => each.done).length, 1);
        assert.ok(first.at(-1)!.machine!.agentReady);
        assert.equal((await start(port, name)).length, 1);
        const quoted = await exec(port, name, ["printf", "%s", `a'b "$HOME" \\`]); // ORC-13
        assert.deepEqual(quoted, { status: 0, stdout: `a'b "$HOME" \\` });
        assert.equal((await exec(port, name, ["sh", "-c", "exit 42"])).status, 42);
        await exec(port, name, ["sh", "-c", "mkdir -p /run/s; echo here > /run/s/file"]);
        const { machine: saved } = await within(60_000, port.saveMachine({ name }, { timeoutMs: 60_000 }), "the suspension"); // ORC-22
        assert.equal(saved!.state, MachineState.SAVED);
        await within(60_000, start(port, name), "going on");
        assert.deepEqual(await exec(port, name, ["cat", "/run/s/file"]), { status: 0, stdout: "here\n" });
        const { machine } = await within(60_000, port.haltMachine({ name, force: false, timeoutMs: 30_000 }, { timeoutMs: 60_000 }), "the halt"); // ORC-7
        assert.equal(machine!.state, MachineState.HALTED);
        assert.ok((await port.readMachineStats({ name })).instructions > 0n); // ORC-17
        await port.destroyMachine({ name });
      },
    },
    {
      requirement: "ORC-31",
      title: "a clone of a suspended machine goes on with what ran in it, but not beside its original on one network",
      needs: ["boot"],
      async run(port, { unique, within }) {
        const [name, clone] = [unique("saved"), unique("clone")];
        await port.createMachine(specOf(name, { kernelDigest: "", box: BOX, memoryBytes: 0n }));
        await within(BOOT_MS, start(port, name), "the boot");
        await exec(port, name, ["sh", "-c", "mkdir -p /run/s; echo here > /run/s/file"]);
        await within(60_000, port.saveMachine({ name }, { timeoutMs: 60_000 }), "the suspension");
        assert.equal((await port.cloneMachine({ name, newName: clone })).machine!.state, MachineState.SAVED);
        await within(60_000, start(port, name), "going on");
        await refused(start(port, clone), "conflict"); // ORC-36: the guest's MAC address is in use
        await port.destroyMachine({ name });
        await within(60_000, start(port, clone), "the clone's going on");
        assert.deepEqual(await exec(port, clone, ["cat", "/run/s/file"]), { status: 0, stdout: "here\n" });
        await port.destroyMachine({ name: clone });
      },
    },
    {
      requirement: "ORC-10",
      title: "a guest that powers itself off is HALTED, and its console ends with that state",
      needs: ["boot"],
      async run(port, { unique, within }) {
        const name = unique("off");
        await port.createMachine(specOf(name, { kernelDigest: "", box: BOX, memoryBytes: 0n }));
        await within(BOOT_MS, start(port, name), "the boot");
        const console = port.attachConsole(); // ORC-16
        let state = "";
        console.onMessage((output) => (state = output.state || state));
        console.send({ name, console: "", data: new Uint8Array(0), noReplay: true });
        await exec(port, name, ["poweroff"]).catch(() => {});
        await within(30_000, closed(console), "the console's end");
        assert.equal(state, "halted");
        assert.equal(await stateOf(port, name), MachineState.HALTED);
        await port.destroyMachine({ name });
      },
    },
  ],
};
