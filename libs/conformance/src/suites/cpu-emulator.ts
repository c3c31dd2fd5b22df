import assert from "node:assert/strict";
import { ContractError, messages, type Channel, type Condition } from "@polyvisor/contracts";
import { CPU, Firmware, InterruptLine, SavedHarts, type CpuPort, type CreateHartsRequest, type DebugResponse, type HartState } from "@polyvisor/contracts/cpu";
import type { ConformanceCase, ConformanceEnvironment, ConformanceSuite } from "../suite.ts";

const BASE = 0x8000_0000n;
const RAM_BYTES = 0x10_0000n;
const CODE = [
  0x00128293, // count:   addi t0, t0, 1
  0xffdff06f, //          j count
  0xc0102373, // clock:   csrr t1, time
  0x00128293, //          addi t0, t0, 1
  0xff9ff06f, //          j clock
  0x10500073, // sleep:   wfi
  0x00128293, //          addi t0, t0, 1
  0xff9ff06f, //          j sleep
  0x142023f3, // handler: csrr t2, scause
  0x0000006f, // stay:    j stay
];
const CLOCK = BASE + 8n;
const SLEEP = BASE + 0x14n;
const HANDLER = BASE + 0x20n;
const STAY = BASE + 0x24n;

/** What the fixture puts at the start of RAM (feature `bare-machine`; CONTRACT.md, "Fixture of the suite"). */
export const CPU_GUEST = { ramBase: BASE, ramBytes: Number(RAM_BYTES), program: new Uint8Array(new Uint32Array(CODE).buffer) };

const SSTATUS = 0x100;
const SIE = 0x104;
const STVEC = 0x105;
const MSTATUS = 0x300;
const MIE = 0x304;
const SEIE = 1n << 9n;
const T0 = 5;
const T1 = 6;
const T2 = 7;
const SUPERVISOR_EXTERNAL = (1n << 63n) | 9n;

function request(machine: string, changes: Partial<CreateHartsRequest> = {}): CreateHartsRequest {
  return {
    machine, harts: 1, engine: "interpreter", firmware: Firmware.BUILTIN, entry: BASE, deviceTree: 0x8008_0000n,
    ramBase: BASE, ramBytes: RAM_BYTES, deterministic: false, cpu: "", code: [], ...changes,
  };
}
async function create(port: CpuPort, environment: ConformanceEnvironment, changes: Partial<CreateHartsRequest> = {}): Promise<string> {
  const machine = environment.unique("cpu");
  await environment.within(10_000, port.createHarts(request(machine, changes)), "createHarts");
  return machine;
}
async function read(port: CpuPort, machine: string, hart = 0): Promise<HartState> {
  const { state } = await port.readHart({ machine, hart });
  assert.ok(state, "readHart answered no state");
  return state;
}
async function refused(condition: Condition, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof ContractError, String(error));
    assert.equal(error.condition, condition, error.message);
    return true;
  });
}
/** A debugger's end of a Debug stream: one answer to each packet. */
function attachDebugger(port: CpuPort, machine: string, environment: ConformanceEnvironment) {
  const channel = port.debug();
  const answers = messages(channel as unknown as Channel<never, DebugResponse>)[Symbol.asyncIterator]();
  const ask = async (packet: string): Promise<string> => {
    channel.send({ machine, packet: new TextEncoder().encode(packet) });
    const { value } = await environment.within(5000, answers.next(), `the answer to ${packet}`);
    return new TextDecoder("latin1").decode(value?.packet);
  };
  return { channel, ask };
}
/** A blob as SaveHarts makes them (CPU-14). */
function savedBlob(saved: SavedHarts): Uint8Array {
  const payload = SavedHarts.encode(saved).finish();
  let crc = -1;
  for (const byte of payload) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb8_8320 & -(crc & 1));
  }
  const head = new Uint8Array(12);
  head.set(new TextEncoder().encode("PVHARTS\x01"));
  new DataView(head.buffer).setInt32(8, ~crc, true);
  return Uint8Array.of(...head, ...payload);
}
/** Polls until the condition holds. */
async function eventually(environment: ConformanceEnvironment, what: string, check: () => Promise<boolean>): Promise<void> {
  const poll = async (): Promise<void> => {
    while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  await environment.within(5000, poll(), what);
}

const needs = ["bare-machine"];
type Case = ConformanceCase<typeof CPU.definition>;

const cases: Case[] = [
  {
    requirement: "CPU-1",
    title: "requests that can never work → invalid, and nothing is created",
    async run(port, environment) {
      const machine = environment.unique("cpu");
      for (const changes of [
        { machine: "" }, { harts: 0 }, { harts: 9 }, { engine: "turbo" }, { firmware: Firmware.UNSPECIFIED },
        { ramBytes: 100n }, { ramBytes: 0n }, { ramBase: 0x8000_0001n }, { entry: BASE + 1n },
      ]) {
        await refused("invalid", port.createHarts(request(machine, changes)));
      }
      await refused("invalid", port.createHarts(request(machine, { deterministic: true, harts: 2 })));
      await refused("not-found", port.readHart({ machine, hart: 0 }));
    },
  },
  {
    requirement: "CPU-13",
    title: "an unknown CPU feature → invalid; mmu=sv39 and h=off are what the answer says and the harts do",
    needs,
    async run(port, environment) {
      const machine = environment.unique("cpu");
      await refused("invalid", port.createHarts(request(machine, { cpu: "turbo=on" })));
      await refused("invalid", port.createHarts(request(machine, { cpu: "mmu=sv64" })));
      const { isa, mmu } = await port.createHarts(request(machine, { cpu: "mmu=sv39,h=off" }));
      assert.equal(mmu, "riscv,sv39");
      assert.doesNotMatch(isa, /^rv64[a-z]*h/);
      const { state } = await port.readHart({ machine, hart: 0 });
      assert.ok(state);
      assert.equal(state.virtual, false);
      assert.equal((state.csr.get(0x301) ?? 0n) & (1n << 7n), 0n, "misa.H with h=off");
      const sv48 = 9n << 60n;
      await port.writeHart({ machine, state: { ...state, csr: new Map([[0x180, sv48]]) } });
      assert.equal((await port.readHart({ machine, hart: 0 })).state?.csr.get(0x180), 0n, "satp took Sv48 with mmu=sv39");
      await port.destroyHarts({ machine });
    },
  },
  {
    requirement: "CPU-1",
    title: "harts that exist → already-exists; the ISA string names RV64GC",
    needs,
    async run(port, environment) {
      const machine = environment.unique("cpu");
      const { isa } = await port.createHarts(request(machine));
      assert.match(isa, /^rv64imafdc/);
      await refused("already-exists", port.createHarts(request(machine)));
    },
  },
  {
    requirement: "CPU-2",
    title: "built-in firmware → hart 0 in S-mode at entry with a0 and a1, the others stopped",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment, { harts: 2 });
      const first = await read(port, machine);
      assert.deepEqual([first.pc, first.privilege, first.x[10], first.x[11]], [BASE, 1, 0n, 0x8008_0000n]);
      await port.runHarts({ machine });
      await eventually(environment, "hart 1 stopped", async () => (await read(port, machine, 1)).status === "stopped");
      assert.equal((await read(port, machine, 1)).instructions, 0n);
    },
  },
  {
    requirement: "CPU-2",
    title: "no firmware → all harts run from entry in M-mode with their ids in a0",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment, { harts: 2, firmware: Firmware.NONE });
      const second = await read(port, machine, 1);
      assert.deepEqual([second.pc, second.privilege, second.x[10]], [BASE, 3, 1n]);
      await port.runHarts({ machine });
      await eventually(environment, "hart 1 to count", async () => (await read(port, machine, 1)).instructions > 1000n);
    },
  },
  {
    requirement: "CPU-3",
    title: "run and pause are idempotent; paused harts stand still; time stands still with them",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const state = await read(port, machine);
      await port.writeHart({ machine, state: { ...state, pc: CLOCK } });
      await port.runHarts({ machine });
      await port.runHarts({ machine });
      await eventually(environment, "the hart to run", async () => (await read(port, machine)).instructions > 10_000n);
      await port.pauseHarts({ machine });
      await port.pauseHarts({ machine });
      const paused = await read(port, machine);
      assert.equal(paused.status, "paused");
      const { state: before } = await port.stepHart({ machine, hart: 0, instructions: 3n });
      await new Promise((resolve) => setTimeout(resolve, 60));
      assert.equal((await read(port, machine)).instructions, paused.instructions + 3n);
      const { state: after } = await port.stepHart({ machine, hart: 0, instructions: 3n });
      assert.ok(after!.x[T1]! - before!.x[T1]! < 200_000n, "60 ms of pause (600,000 ticks) were seen by the guest");
    },
  },
  {
    requirement: "CPU-3",
    title: "destroyed harts are not found, and can be created again",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      await port.runHarts({ machine });
      await port.destroyHarts({ machine });
      await refused("not-found", port.runHarts({ machine }));
      await refused("not-found", port.destroyHarts({ machine }));
      await port.createHarts(request(machine));
      assert.equal((await read(port, machine)).instructions, 0n);
    },
  },
  {
    requirement: "CPU-4",
    title: "a step executes exactly what was asked; a running hart is not stepped",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const { state, executed } = await port.stepHart({ machine, hart: 0, instructions: 7n });
      assert.deepEqual([executed, state?.instructions, state?.pc, state?.x[T0]], [7n, 7n, BASE + 4n, 4n]);
      await port.runHarts({ machine });
      await refused("precondition", port.stepHart({ machine, hart: 0, instructions: 1n }));
      await refused("precondition", port.writeHart({ machine, state: await read(port, machine) }));
    },
  },
  {
    requirement: "CPU-5",
    title: "written state is read back; malformed state → invalid and nothing changes",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const state = await read(port, machine);
      const x = state.x.map((_, n) => (n === 0 ? 0n : 0xffff_ffff_0000_0000n + BigInt(n)));
      const f = state.f.map((_, n) => BigInt(n) << 40n);
      const csr = new Map(state.csr).set(STVEC, HANDLER).set(MIE, SEIE).set(0x340, 0x1234_5678_9abc_def0n);
      await port.writeHart({ machine, state: { ...state, pc: CLOCK, x, f, csr, privilege: 3, instructions: 99n } });
      const back = await read(port, machine);
      assert.deepEqual([back.pc, back.x, back.f, back.privilege, back.instructions], [CLOCK, x, f, 3, 99n]);
      for (const number of [STVEC, MIE, 0x340]) assert.equal(back.csr.get(number), csr.get(number));
      for (const bad of [{ ...back, x: [1n] }, { ...back, privilege: 2 }, { ...back, pc: 0n, csr: new Map([[0x7ff, 1n]]) }]) {
        await refused("invalid", port.writeHart({ machine, state: bad }));
      }
      assert.deepEqual((await read(port, machine)).pc, CLOCK);
      await refused("not-found", port.readHart({ machine, hart: 1 }));
    },
  },
  {
    requirement: "CPU-6",
    title: "an acknowledged level is taken by a hart that enables it, and wakes it from WFI",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const state = await read(port, machine);
      const csr = new Map([[STVEC, HANDLER], [MIE, SEIE], [MSTATUS, state.csr.get(MSTATUS)! | 2n]]);
      await port.writeHart({ machine, state: { ...state, pc: SLEEP, csr } });
      await port.runHarts({ machine });
      await eventually(environment, "the hart to sleep", async () => (await read(port, machine)).status === "waiting");
      const interrupts = port.interrupts();
      const acks = messages(interrupts)[Symbol.asyncIterator]();
      interrupts.send({ machine, hart: 0, line: InterruptLine.SUPERVISOR_EXTERNAL, level: true, sequence: 1n, acknowledge: false });
      interrupts.send({ machine, hart: 0, line: InterruptLine.SUPERVISOR_EXTERNAL, level: true, sequence: 2n, acknowledge: true });
      const ack = await environment.within(2000, acks.next(), "the acknowledgement");
      assert.equal(ack.value?.sequence, 2n);
      await eventually(environment, "the interrupt", async () => (await read(port, machine)).x[T2] === SUPERVISOR_EXTERNAL);
      await port.pauseHarts({ machine });
      const taken = await read(port, machine);
      assert.equal(taken.pc, STAY);
      assert.equal(taken.csr.get(SSTATUS)! & 2n, 0n);
      assert.equal(taken.csr.get(SIE), SEIE);
      interrupts.close();
    },
  },
  {
    requirement: "CPU-6",
    title: "a sequence that does not increase, a hart or a machine that does not exist → the stream ends",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const good = { machine, hart: 0, line: InterruptLine.SUPERVISOR_EXTERNAL, level: false, sequence: 5n, acknowledge: false };
      for (const [condition, bad] of [
        ["invalid", good], ["invalid", { ...good, sequence: 6n, hart: 7 }], ["not-found", { ...good, sequence: 6n, machine: `${machine}-no` }],
      ] as const) {
        const stream = port.interrupts();
        const closed = new Promise<ContractError | undefined>((resolve) => stream.onClose(resolve));
        stream.send(good);
        stream.send(bad);
        assert.equal((await environment.within(2000, closed, "the end of the stream"))?.condition, condition);
      }
    },
  },
  {
    requirement: "CPU-7",
    title: "engines are changed while the harts run; the count goes on without a gap",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment, { engine: "reference" });
      await port.runHarts({ machine });
      await eventually(environment, "the hart to run", async () => (await read(port, machine)).instructions > 1000n);
      await port.setEngine({ machine, engine: "interpreter" });
      const before = (await read(port, machine)).instructions;
      await eventually(environment, "more instructions", async () => (await read(port, machine)).instructions > before + 100_000n);
      await port.pauseHarts({ machine });
      const state = await read(port, machine);
      assert.equal(state.x[T0], (state.instructions + 1n) / 2n);
      assert.equal((await port.readStats({ machine })).engine, "interpreter");
      await refused("invalid", port.setEngine({ machine, engine: "turbo" }));
      await refused("invalid", port.setEngine({ machine: `${machine}-no`, engine: "turbo" }));
      await refused("not-found", port.setEngine({ machine: `${machine}-no`, engine: "interpreter" }));
    },
  },
  {
    requirement: "CPU-8",
    title: "a watcher sees the present state, every change, and the end",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const states: string[] = [];
      const stream = port.watchHarts({ machine });
      const ended = new Promise<void>((resolve) => stream.onClose(() => resolve()));
      stream.onMessage((event) => states.push(event.state));
      await eventually(environment, "the first state", async () => states.length > 0);
      await port.runHarts({ machine });
      await port.pauseHarts({ machine });
      await port.destroyHarts({ machine });
      await environment.within(2000, ended, "the end of the stream");
      assert.deepEqual(states, ["created", "running", "paused", "destroyed"]);
    },
  },
  {
    requirement: "CPU-9",
    title: "statistics have an entry per hart and agree with the hart",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment, { harts: 2 });
      await port.stepHart({ machine, hart: 0, instructions: 11n });
      const { harts } = await port.readStats({ machine });
      assert.deepEqual(harts.map(({ hart, instructions }) => [hart, instructions]), [[0, 11n], [1, 0n]]);
    },
  },
  {
    requirement: "CPU-14",
    title: "saved harts restored in another machine go on as if nothing had happened",
    needs,
    async run(port, environment) {
      const first = await create(port, environment, { harts: 2 });
      const state = await read(port, first);
      const x = state.x.map((_, n) => (n === 0 ? 0n : BigInt(n) << 33n));
      const csr = new Map([[STVEC, HANDLER], [MIE, SEIE], [0x340, 77n]]);
      await port.writeHart({ machine: first, state: { ...state, x, csr } });
      await port.stepHart({ machine: first, hart: 0, instructions: 5n });
      const { state: blob } = await port.saveHarts({ machine: first });
      const saved = [await read(port, first, 0), await read(port, first, 1)];
      const second = await create(port, environment, { harts: 2 });
      await port.restoreHarts({ machine: second, state: blob });
      assert.deepEqual([await read(port, second, 0), await read(port, second, 1)], saved);
      const step = { hart: 0, instructions: 9n };
      assert.deepEqual(await port.stepHart({ machine: second, ...step }), await port.stepHart({ machine: first, ...step }));
      await port.runHarts({ machine: second });
      await refused("precondition", port.saveHarts({ machine: second }));
      await refused("precondition", port.restoreHarts({ machine: second, state: blob }));
    },
  },
  {
    requirement: "CPU-14",
    title: "a damaged state → corrupt; one of another machine or version → invalid; the harts stay as they were",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const { state: blob } = await port.saveHarts({ machine });
      await port.stepHart({ machine, hart: 0, instructions: 3n });
      const before = await read(port, machine);
      const changed = (at: number, to: number): Uint8Array => blob.map((byte, n) => (n === at ? to : byte));
      const damaged = [new Uint8Array(0), blob.subarray(0, 10), blob.subarray(0, -1), changed(0, 0), changed(blob.length >> 1, blob[blob.length >> 1]! ^ 1)];
      for (const state of damaged) await refused("corrupt", port.restoreHarts({ machine, state }));
      await refused("invalid", port.restoreHarts({ machine, state: changed(7, 99) }));
      const two = await create(port, environment, { harts: 2 });
      await refused("invalid", port.restoreHarts({ machine: two, state: blob }));
      const unfit = SavedHarts.decode(blob.subarray(12));
      unfit.harts[0]!.state!.csr.set(0x180, 3n << 60n); // satp with a mode that does not exist
      await refused("invalid", port.restoreHarts({ machine, state: savedBlob(unfit) }));
      unfit.harts[0]!.state!.csr.delete(0x180);
      unfit.harts[0]!.state!.csr.set(0x7ff, 1n);
      await refused("invalid", port.restoreHarts({ machine, state: savedBlob(unfit) }));
      assert.deepEqual(await read(port, machine), before);
      await refused("not-found", port.saveHarts({ machine: `${machine}-no` }));
    },
  },
  {
    requirement: "CPU-17",
    title: "deterministic time follows the instructions alone; two machines end in the same state",
    needs,
    async run(port, environment) {
      const states: HartState[] = [];
      for (let n = 0; n < 2; n++) {
        const machine = await create(port, environment, { deterministic: true });
        const state = await read(port, machine);
        await port.writeHart({ machine, state: { ...state, pc: CLOCK } });
        await port.stepHart({ machine, hart: 0, instructions: 1000n });
        await new Promise((resolve) => setTimeout(resolve, 20 * n));
        states.push((await port.stepHart({ machine, hart: 0, instructions: 1001n })).state!);
      }
      assert.deepEqual(states[1], states[0]);
      assert.equal(states[0]!.csr.get(0xc01), 2001n / 50n);
    },
  },
  {
    requirement: "CPU-16",
    title: "page walks, code and the profile of running harts; what is not there is an answer or an error",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      const state = await read(port, machine);
      const satp = (8n << 60n) | ((BASE + 0x1000n) >> 12n); // a root table of zeros
      await port.writeHart({ machine, state: { ...state, csr: new Map([[0x180, satp]]) } });
      const { walk } = await port.walkAddress({ machine, hart: 0, address: 0x1234n });
      assert.deepEqual([walk!.mode, walk!.root, walk!.steps.length, walk!.steps[0]!.entryAddress], ["Sv39", BASE + 0x1000n, 1, BASE + 0x1000n]);
      assert.notEqual(walk!.fault, "");
      assert.deepEqual(await port.readCode({ machine, hart: 0, address: BASE, count: 4 }), { lines: [] });
      await port.writeHart({ machine, state: { ...state, csr: new Map([[0x180, 0n]]) } });
      assert.equal((await port.walkAddress({ machine, hart: 0, address: BASE })).walk!.physical, BASE);
      const { lines } = await port.readCode({ machine, hart: 0, address: undefined, count: 2 });
      assert.deepEqual(lines.map(({ address, text }) => [address, text]), [[BASE, "addi t0,t0,1"], [BASE + 4n, "jal zero,0x80000000"]]);
      await refused("invalid", port.readCode({ machine, hart: 0, address: 0n, count: 5000 }));
      await refused("not-found", port.walkAddress({ machine, hart: 1, address: 0n }));
      await port.runHarts({ machine });
      await eventually(environment, "samples", async () => (await port.readProfile({ machine, spots: 1 })).spots.length > 0);
      const { spots, samplesByPrivilege } = await port.readProfile({ machine, spots: 5 });
      assert.deepEqual([spots[0]!.address, spots[0]!.privilege, [...samplesByPrivilege.keys()]], [BASE, 1, [1]]);
    },
  },
  {
    requirement: "CPU-15",
    title: "a debugger stops the harts, reads registers and memory, sets a breakpoint, and leaves them running",
    needs,
    async run(port, environment) {
      const machine = await create(port, environment);
      await port.runHarts({ machine });
      const { channel, ask } = attachDebugger(port, machine, environment);
      assert.match(await ask("?"), /^T05thread:1;/);
      assert.equal((await read(port, machine)).status, "paused");
      assert.equal(await ask("qfThreadInfo"), "m1");
      assert.equal((await ask("g")).length, 33 * 16);
      assert.equal(await ask("m80000000,8"), "938212006ff0dfff");
      assert.equal(await ask("m10,8"), "E0e");
      assert.equal(await ask("Z0,80000004,4"), "OK");
      assert.equal(await ask("m80000004,4"), "6ff0dfff");
      assert.match(await ask("vCont;c"), /^T05thread:1;swbreak:;/);
      assert.equal(await ask("p20"), "0400008000000000");
      assert.equal(await ask("nonsense"), "");
      assert.match(await ask("Pzz=1"), /^E/);
      const second = port.debug();
      const refusal = new Promise<ContractError | undefined>((resolve) => second.onClose(resolve));
      second.send({ machine, packet: new TextEncoder().encode("?") });
      assert.equal((await environment.within(2000, refusal, "the end of the second stream"))?.condition, "conflict");
      channel.close();
      await eventually(environment, "the harts to go on", async () => (await read(port, machine)).status === "running");
    },
  },
  {
    requirement: "CPU-15",
    title: "a machine without harts → the stream ends with not-found; a destroyed one tells the debugger",
    needs,
    async run(port, environment) {
      const nobody = port.debug();
      const refusal = new Promise<ContractError | undefined>((resolve) => nobody.onClose(resolve));
      nobody.send({ machine: environment.unique("cpu"), packet: new Uint8Array(0) });
      assert.equal((await environment.within(2000, refusal, "the end of the stream"))?.condition, "not-found");
      const machine = await create(port, environment);
      const { ask } = attachDebugger(port, machine, environment);
      await ask("?");
      const exit = ask("vCont;c");
      await eventually(environment, "the harts to run", async () => (await read(port, machine)).status === "running");
      await port.destroyHarts({ machine });
      assert.equal(await exit, "W00");
    },
  },
];

export const CPU_SUITE: ConformanceSuite<typeof CPU.definition> = { contract: CPU, cases };
