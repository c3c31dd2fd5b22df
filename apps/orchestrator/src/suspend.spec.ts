import { ContractError, mediated, messages } from "@polyvisor/contracts";
import { MachineSpec, MachineState, ORCHESTRATOR, type OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { macOf } from "./core/nics.ts";
import { createService } from "./index.ts";
import { testContext } from "./testing/context.ts";
import { FakeServices } from "./testing/fake-services.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

async function service(stateDir: string, fakes: FakeServices) {
  const created = await createService({ stateDir, topology: "embedded", network: "nat", agentTimeoutMs: 150 }, fakes.peers, testContext());
  closers.push(() => created.close());
  return { port: mediated(ORCHESTRATOR, created.implementation), close: () => created.close() };
}
/** A machine `web` that runs. */
async function running() {
  const stateDir = mkdtempSync(join(tmpdir(), "pv-suspend-"));
  closers.push(() => rmSync(stateDir, { recursive: true }));
  const failures = new Map<string, ContractError>();
  const fakes = new FakeServices({ failures });
  const first = await service(stateDir, fakes);
  await first.port.createMachine({ spec: MachineSpec.fromPartial({ name: "web", box: "tiny" }) });
  await start(first.port);
  return { ...first, fakes, failures, again: (other = fakes) => first.close().then(() => service(stateDir, other)) };
}
async function start(port: OrchestratorPort, name = "web"): Promise<string[]> {
  const stages: string[] = [];
  for await (const { stage } of messages(port.startMachine({ name }))) stages.push(stage);
  return stages;
}
const state = async (port: OrchestratorPort): Promise<MachineState> => (await port.getMachine({ name: "web" })).machine!.state;
const settled = async (port: OrchestratorPort, wanted: MachineState): Promise<void> => {
  for (let n = 0; (await state(port)) !== wanted && n < 100; n++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(await state(port)).toBe(wanted);
};
const refusal = (promise: Promise<unknown>): Promise<ContractError> => promise.then(() => expect.fail("was not refused"), (error) => error as ContractError);

describe("a suspended machine", () => {
  it("is in no service, pinned, and goes on with what was kept, memory first and the board last", async () => {
    const { port, fakes } = await running();
    const { machine, savedBytes } = await port.saveMachine({ name: "web" });
    expect([machine!.state, savedBytes, fakes.holds("web")]).toEqual([MachineState.SAVED, 17n, []]);
    expect(fakes.pins.get("saved/web")).toHaveLength(4);
    expect([...fakes.disks.keys()]).toEqual(["web/disk0"]);
    const populated = fakes.machine("web").populated.length;
    expect(await start(port)).toEqual(["resolve", "network", "memory", "network", "harts", "board", "restore", "boot", "ready"]);
    expect(fakes.machine("web").restored).toEqual(["memory sha256:index", "harts 1,2", "board 3"]);
    expect([fakes.machine("web").populated.length, fakes.pins.has("saved/web"), await state(port)]).toEqual([populated, false, MachineState.RUNNING]);
  });

  it("whose state cannot be kept runs on", async () => {
    const { port, fakes, failures } = await running();
    failures.set("snapshotSpace", new ContractError("exhausted", "no room"));
    expect(await refusal(port.saveMachine({ name: "web" }))).toMatchObject({ condition: "exhausted", message: expect.stringMatching(/no room; it runs on/) });
    expect([await state(port), [...fakes.machine("web").paused]]).toEqual([MachineState.RUNNING, []]);
  });

  it("whose state a service refuses stays suspended, with the reason, and nothing is left in the services", async () => {
    const { port, fakes, failures } = await running();
    await port.saveMachine({ name: "web" });
    failures.set("restoreBoard", new ContractError("invalid", "of another machine"));
    expect(await refusal(start(port))).toMatchObject({ condition: "invalid" });
    expect([(await port.getMachine({ name: "web" })).machine!.reason, await state(port), fakes.holds("web")]).toEqual([expect.stringMatching(/of another machine/), MachineState.SAVED, []]);
    failures.clear();
    await start(port);
    expect(await state(port)).toBe(MachineState.RUNNING);
  });

  it("is still suspended after a restart of the orchestrator; one that was being suspended goes on, or is aborted with its services", async () => {
    const { port, again, fakes } = await running();
    await port.saveMachine({ name: "web" });
    const second = await again();
    await settled(second.port, MachineState.SAVED);
    await start(second.port);

    // Killed in the middle: the harts stand still, the record says SAVING.
    let reached!: () => void;
    const saving = new Promise<void>((resolve) => (reached = resolve));
    const { memory } = fakes.peers;
    (fakes.peers as { memory: typeof memory }).memory = new Proxy(memory, { get: (target, name) => (name === "snapshotSpace" ? () => (reached(), new Promise(() => {})) : Reflect.get(target, name)) });
    void second.port.saveMachine({ name: "web" }).catch(() => {});
    await saving;
    expect([await state(second.port), fakes.machine("web").paused.size]).toEqual([MachineState.SAVING, 2]);
    await second.close();
    (fakes.peers as { memory: typeof memory }).memory = memory;
    const third = await again();
    await settled(third.port, MachineState.RUNNING);
    expect([...fakes.machine("web").paused]).toEqual([]);
  });

  it("gives its state up when it is halted, and all of it when it is destroyed", async () => {
    const { port, fakes } = await running();
    await port.saveMachine({ name: "web" });
    expect(await refusal(port.resizeMachineDisk({ name: "web", bytes: 1n << 21n, mayShrink: false }))).toMatchObject({ condition: "precondition", message: expect.stringMatching(/is suspended/) });
    await port.haltMachine({ name: "web", force: false, timeoutMs: 0 });
    expect([await state(port), fakes.pins.has("saved/web")]).toEqual([MachineState.HALTED, false]);
    expect(await start(port)).not.toContain("restore");
    await port.saveMachine({ name: "web" });
    await port.destroyMachine({ name: "web" });
    expect([fakes.pins.has("saved/web"), fakes.disks.size]).toEqual([false, 0]);
  });

  it("is cloned with all that runs in it: its own disk and pins, the addresses that the guest knows, so not beside it on one network", async () => {
    const { port, fakes } = await running();
    await port.saveMachine({ name: "web" });
    const { machine } = await port.cloneMachine({ name: "web", newName: "copy" });
    const { mac } = machine!.spec!.nics[0]!;
    expect([machine!.state, await state(port), mac]).toEqual([MachineState.SAVED, MachineState.SAVED, macOf("web")]);
    expect([fakes.pins.get("saved/copy"), [...fakes.disks.keys()]]).toEqual([fakes.pins.get("saved/web"), ["web/disk0", "copy/disk0"]]);

    await start(port);
    const refused = await refusal(start(port, "copy"));
    expect([refused.condition, refused.message]).toEqual(["conflict", expect.stringMatching(/has the address .*, which web has on network nat; halt or suspend web first/)]);
    expect([(await port.getMachine({ name: "copy" })).machine!.state, fakes.holds("copy")]).toEqual([MachineState.SAVED, []]);
    await port.haltMachine({ name: "web", force: true, timeoutMs: 0 }); // the original is gone, its clone has its own
    expect(await start(port, "copy")).toContain("restore");
    expect(fakes.machine("copy").restored).toEqual(["memory sha256:index", "harts 1,2", "board 3"]);
    await port.destroyMachine({ name: "copy" });
    await port.destroyMachine({ name: "web" });
    expect([[...fakes.pins.keys()].filter((owner) => owner.startsWith("saved/")), fakes.disks.size]).toEqual([[], 0]);
  });

  it("whose clone cannot be made stays as it is, and nothing of the clone is left", async () => {
    const { port, fakes, failures } = await running();
    await port.saveMachine({ name: "web" });
    failures.set("resolveBox", new ContractError("unavailable", "gone"));
    const pins = [...fakes.pins.keys()];
    expect(await refusal(port.cloneMachine({ name: "web", newName: "copy" }))).toMatchObject({ condition: "unavailable" });
    expect([[...fakes.pins.keys()], [...fakes.disks.keys()], await state(port)]).toEqual([pins, ["web/disk0"], MachineState.SAVED]);
  });

  it("can be gone back to by a snapshot with memory, made while the guest ran on", async () => {
    const { port, fakes } = await running();
    const { snapshot } = await port.saveSnapshot({ name: "web", snapshot: "s", note: "", memory: true });
    expect([snapshot!.memory, await state(port), [...fakes.machine("web").paused]]).toEqual([true, MachineState.RUNNING, []]);
    expect(fakes.pins.get("saved/web/s")).toHaveLength(4);
    await port.haltMachine({ name: "web", force: true, timeoutMs: 0 });
    await port.restoreSnapshot({ name: "web", snapshot: "s" });
    expect(await state(port)).toBe(MachineState.SAVED);
    expect(await start(port)).toContain("restore");
    await port.deleteSnapshot({ name: "web", snapshot: "s" });
    expect(fakes.pins.has("saved/web/s")).toBe(false);
  });
});
