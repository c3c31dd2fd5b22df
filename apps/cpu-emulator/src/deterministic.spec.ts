import { Firmware } from "@polyvisor/contracts/cpu";
import { assemble } from "@polyvisor/isa";
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
