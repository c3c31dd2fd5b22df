import { Firmware, InterruptLine } from "@polyvisor/contracts/cpu";
import { assemble } from "@polyvisor/isa";
import { ADDRESS_MAP } from "@polyvisor/machine";
import { FakeBus } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { bareMachine, RAM_BASE } from "./testing/bare-program.ts";

/**
 * 40 timer interrupts, every other one waited for in WFI, the others while it computes; each mixes the interrupted pc, the time and the
 * count of instructions into s1. At the end the digest, time and instret are stored, and `done` is set.
 */
const GUEST = assemble(
  `
  la t0, handler
  csrw stvec, t0
  li t0, 0x20
  csrw sie, t0
  li s0, 40
  li s1, 1
  csrr a0, time
  li t0, 2000
  add a0, a0, t0
  csrw stimecmp, a0
  csrsi sstatus, 2
work:
  addi s2, s2, 1
  mul s3, s2, s2
  add s1, s1, s3
  lw t1, 0(sp)
  andi t2, s0, 1
  beqz t2, 1f
  wfi
1: bnez s0, work
  csrci sstatus, 2
  la t0, result
  csrr t1, time
  csrr t2, instret
  sd s1, 8(t0)
  sd t1, 16(t0)
  sd t2, 24(t0)
  li t1, 1
  sd t1, 0(t0)
stay: j stay
  .balign 4
handler:
  csrr t3, sepc
  csrr t4, time
  csrr t5, instret
  slli t6, s1, 7
  add s1, s1, t6
  xor s1, s1, t3
  add s1, s1, t4
  xor s1, s1, t5
  addi s0, s0, -1
  li t3, 2345
  add t4, t4, t3
  csrw stimecmp, t4
  sret
  .balign 8
result: .dword 0, 0, 0, 0`,
  { base: RAM_BASE },
);
const RESULT = GUEST.labels.get("result")!;

/** Writes to a device that works for a while and then interrupts; mixes what it sees at once, in sip and in memory; powers off, and goes on counting. */
const DRIVER = assemble(
  `
  la t0, result
  li t1, ${FakeBus.SCRATCH}
  li s0, 6
again:
  sd s0, 0(t1)
  csrr t2, sip
  ld t3, 8(t0)
  slli s1, s1, 9
  add s1, s1, t2
  add s1, s1, t3
  addi s0, s0, -1
  bnez s0, again
  sd s1, 0(t0)
  li t1, ${ADDRESS_MAP.testFinisher.base}
  li t2, 0x5555
  sw t2, 0(t1)
stay: addi s2, s2, 1
  j stay
  .balign 8
result: .dword 0, 0`,
  { base: RAM_BASE },
);

/** Each settling takes the host a few milliseconds; the device's answer is in memory and on its line when it ends. */
async function drive(engine: string): Promise<{ seen: bigint; instructions: bigint }> {
  const machine = await bareMachine({ program: DRIVER.bytes, engine, deterministic: true, firmware: Firmware.BUILTIN });
  const { cpu, memory, bus, id } = machine;
  const result = DRIVER.labels.get("result")!;
  const lines = cpu.interrupts();
  let sequence = 0n;
  bus.settle = async () => {
    await new Promise((resolve) => setTimeout(resolve, 3 * Math.random()));
    const level = sequence % 2n === 0n;
    await memory.writeMemory({ machine: id, address: result + 8n, data: Uint8Array.of(Number(++sequence), 0, 0, 0, 0, 0, 0, 0) });
    lines.send({ machine: id, hart: 0, line: InterruptLine.SUPERVISOR_EXTERNAL, level, sequence, acknowledge: false });
  };
  const ended = bus.ended();
  await cpu.runHarts({ machine: id });
  await ended;
  const { harts } = await cpu.readStats({ machine: id }); // waits for the look at which the hart stops
  const { data } = await memory.readMemory({ machine: id, address: result, length: 8 });
  await machine.close();
  return { seen: new BigUint64Array(data.slice().buffer)[0]!, instructions: harts[0]!.instructions };
}

async function run(engine: string, deterministic: boolean): Promise<{ result: bigint[]; ms: number }> {
  const machine = await bareMachine({ program: GUEST.bytes, engine, deterministic, firmware: Firmware.BUILTIN });
  const { cpu, memory, id } = machine;
  const begun = performance.now();
  const { state } = await cpu.readHart({ machine: id, hart: 0 });
  await cpu.writeHart({ machine: id, state: { ...state!, x: state!.x.map((value, n) => (n === 2 ? RAM_BASE + 0x8000n : value)) } });
  await cpu.runHarts({ machine: id });
  const read = async (): Promise<bigint[]> => {
    const { data } = await memory.readMemory({ machine: id, address: RESULT, length: 32 });
    return [...new BigUint64Array(data.slice().buffer)];
  };
  await expect.poll(async () => (await read())[0], { timeout: 50_000 }).toBe(1n);
  const result = await read();
  await machine.close();
  return { result: result.slice(1), ms: performance.now() - begun };
}

describe("deterministic time", () => {
  it("timer interrupts hit the same instructions in every run and on every engine, whenever the host gets to it", { timeout: 200_000 }, async () => {
    const first = await run("interpreter", true);
    expect(first.result[1]).toBeGreaterThan(40n * 2345n);
    for (const engine of ["interpreter", "dynamic", "reference"]) expect((await run(engine, true)).result, engine).toEqual(first.result);
  });

  it("what a device does about a write is there at the next instruction, and the end of the machine at the same count", { timeout: 100_000 }, async () => {
    const first = await drive("interpreter");
    const seip = 1n << 9n;
    let seen = 0n;
    for (let n = 1n; n <= 6n; n++) seen = (seen << 9n) + (n % 2n === 1n ? seip : 0n) + n;
    expect(first).toEqual({ seen: BigInt.asUintN(64, seen), instructions: 20_000n });
    for (const engine of ["dynamic", "reference"]) expect(await drive(engine), engine).toEqual(first);
  });

  it("without it they do not", { timeout: 100_000 }, async () => {
    const [first, second] = [await run("interpreter", false), await run("interpreter", false)];
    expect(first.result).not.toEqual(second.result);
  });

  it("time follows the instructions: 50 of them are a tick of 100 ns", async () => {
    const machine = await bareMachine({ program: GUEST.bytes, deterministic: true, firmware: Firmware.BUILTIN });
    const { cpu, id } = machine;
    const { state } = await cpu.stepHart({ machine: id, hart: 0, instructions: 9n });
    expect(state!.csr.get(0xc01)).toBe(state!.instructions / 50n);
    // A saved hart goes on at its time.
    const { state: blob } = await cpu.saveHarts({ machine: id });
    await cpu.stepHart({ machine: id, hart: 0, instructions: 500n });
    const later = (await cpu.readHart({ machine: id, hart: 0 })).state!;
    expect(later.csr.get(0xc01)).toBe(later.instructions / 50n);
    await cpu.restoreHarts({ machine: id, state: blob });
    expect((await cpu.readHart({ machine: id, hart: 0 })).state).toEqual(state);
    await machine.close();
  });
});
