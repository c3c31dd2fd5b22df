import { assemble } from "@polyvisor/isa";
import { ContractError } from "@polyvisor/contracts";
import { Access } from "@polyvisor/contracts/memory";
import { FakeBus } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { bareMachine, RAM_BASE, type BareMachine, type BareProgram } from "./testing/bare-program.ts";

const COUNTER = { COUNTER: FakeBus.COUNTER };
/** Counts in memory for ever: word at RAM + 0x8000. */
const COUNT = `
  li s0, 0x80008000
1: lw t0, 0(s0)
  addi t0, t0, 1
  sw t0, 0(s0)
  j 1b`;

async function start(source: string, options: Partial<BareProgram> = {}): Promise<BareMachine> {
  const machine = await bareMachine({ program: assemble(source, { base: RAM_BASE, symbols: COUNTER }).bytes, lease: "coherent", ...options });
  await machine.cpu.runHarts({ machine: machine.id });
  return machine;
}
/** The reason of the harts' failure. */
function failure(machine: BareMachine): Promise<string> {
  return new Promise((resolve) =>
    machine.cpu.watchHarts({ machine: machine.id }).onMessage((event) => {
      if (event.state === "failed") resolve(event.reason);
    }),
  );
}
const condition = (promise: Promise<unknown>): Promise<string> =>
  promise.then(() => "ok", (error: unknown) => (error instanceof ContractError ? error.condition : String(error)));
const word = async (machine: BareMachine): Promise<number> => {
  const { data } = await machine.memory.readMemory({ machine: machine.id, address: 0x8000_8000n, length: 4 });
  return new DataView(data.buffer, data.byteOffset).getUint32(0, true);
};
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe("coherent pages under running harts", () => {
  it("remote reads see what the hart writes, remote writes are seen by the hart", async () => {
    const machine = await start(COUNT);
    while ((await word(machine)) < 1000) await pause(1);
    await machine.cpu.pauseHarts({ machine: machine.id });
    const before = await word(machine);
    await machine.memory.writeMemory({ machine: machine.id, address: 0x8000_8000n, data: Uint8Array.of(0, 0, 0, 0x40) });
    await machine.cpu.runHarts({ machine: machine.id });
    await pause(20);
    expect(before).toBeLessThan(0x4000_0000);
    expect(await word(machine)).toBeGreaterThan(0x4000_0000);
    await machine.close();
  });

  it("pages recalled again and again: no increment is lost", async () => {
    const machine = await start(COUNT, { harts: 1 });
    const executed = async (): Promise<bigint> => (await machine.cpu.readHart({ machine: machine.id, hart: 0 })).state!.instructions;
    for (let i = 0; i < 30; i++) {
      const before = await executed();
      await machine.fakeMemory.recall(machine.id, RAM_BASE, 16, i % 2 ? Access.READ : Access.NONE);
      while ((await executed()) === before) await pause(1);
    }
    await machine.cpu.pauseHarts({ machine: machine.id });
    const { state } = await machine.cpu.readHart({ machine: machine.id, hart: 0 });
    await machine.fakeMemory.recall(machine.id, RAM_BASE, 16);
    // Four instructions per round; li may take two.
    expect(await word(machine)).toBe(Math.floor(Number(state!.instructions - 2n) / 4) + (Number(state!.instructions - 2n) % 4 === 3 ? 1 : 0));
    expect(await word(machine)).toBeGreaterThan(50);
    await machine.close();
  });
});

describe("neighbours that fail (CPU-12)", () => {
  it("the page lease ends → failed with the reason; calls answer precondition; destroy works", async () => {
    const machine = await start(COUNT);
    const reason = failure(machine);
    machine.fakeMemory.breakLease(machine.id);
    expect(await reason).toContain("the memory-manager is gone");
    expect(await condition(machine.cpu.runHarts({ machine: machine.id }))).toBe("precondition");
    expect((await machine.cpu.readHart({ machine: machine.id, hart: 0 })).state!.status).toBe("failed");
    expect(machine.context.facts.map(({ fact }) => fact)).toContain("harts-failed");
    await machine.cpu.destroyHarts({ machine: machine.id });
    await machine.close();
  });

  it("the exit stream ends while a hart waits for an answer → failed, the hart is not left waiting", async () => {
    const machine = await bareMachine({
      program: assemble("li s0, COUNTER\n ld t0, 0(s0)\n1: j 1b", { base: RAM_BASE, symbols: COUNTER }).bytes, harts: 2,
    });
    machine.bus.delay = () => new Promise(() => {});
    await machine.cpu.runHarts({ machine: machine.id });
    while (machine.bus.exits.length === 0) await pause(1);
    const reason = failure(machine);
    machine.bus.breakStreams();
    expect(await reason).toContain("the device-bus is gone");
    await machine.close();
    expect(machine.bus.openStreams).toBe(0);
  });

  it("a hart that waits for a device for ever can still be destroyed, also while a step waits for it", async () => {
    const machine = await bareMachine({ program: assemble("li s0, COUNTER\n ld t0, 0(s0)\n1: j 1b", { base: RAM_BASE, symbols: COUNTER }).bytes });
    machine.bus.delay = () => new Promise(() => {});
    const step = condition(machine.cpu.stepHart({ machine: machine.id, hart: 0, instructions: 100n }));
    while (machine.bus.exits.length === 0) await pause(1);
    await machine.cpu.destroyHarts({ machine: machine.id });
    expect(await step).toBe("not-found");
    await machine.close();
  });

  it("no space for the machine → createHarts passes the error on and leaves nothing behind", async () => {
    const machine = await start(COUNT);
    const request = { harts: 1, engine: "", firmware: 1 as const, entry: RAM_BASE, deviceTree: 0n, ramBase: RAM_BASE, ramBytes: 4096n, deterministic: false, cpu: "", code: [] };
    expect(await condition(machine.cpu.createHarts({ ...request, machine: "nobody" }))).toBe("not-found");
    expect(await condition(machine.cpu.readHart({ machine: "nobody", hart: 0 }))).toBe("not-found");
    await machine.close();
  });

  it("RAM outside the space → access fault of the guest", async () => {
    const machine = await start(`
      la t0, handler
      csrw mtvec, t0
      li s0, 0x90000000
      lw t0, 0(s0)
    handler: csrr s1, mcause
    1: j 1b`);
    let cause = 0n;
    while (cause === 0n) {
      await pause(1);
      cause = (await machine.cpu.readHart({ machine: machine.id, hart: 0 })).state!.x[9]!;
    }
    expect(cause).toBe(5n);
    await machine.close();
  });
});
