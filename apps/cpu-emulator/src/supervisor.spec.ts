import { assemble } from "@polyvisor/isa";
import { Firmware } from "@polyvisor/contracts/cpu";
import { describe, expect, it } from "vitest";
import { bareMachine, RAM_BASE, type BareMachine, type BareProgram } from "./testing/bare-program.ts";

const SYMBOLS = { HSM: 0x48_534dn, IPI: 0x73_5049n, TIME: 0x5449_4d45n, RFENCE: 0x5246_4e43n, SRST: 0x5352_5354n, DBCN: 0x4442_434en, SUSP: 0x5355_5350n };
const POWER_OFF = `
power_off:
  li a7, SRST
  li a6, 0
  li a0, 0
  li a1, 0
  ecall
`;

/** Runs a program on the built-in firmware until it powers off. */
async function boot(source: string, options: Partial<BareProgram> = {}): Promise<BareMachine> {
  const { bytes } = assemble(source, { base: RAM_BASE, symbols: SYMBOLS });
  const machine = await bareMachine({ program: bytes, firmware: Firmware.BUILTIN, ...options });
  const ended = machine.bus.ended();
  await machine.cpu.runHarts({ machine: machine.id });
  const timeout = new Promise<string>((resolve) => setTimeout(() => resolve("did not power off"), 8000).unref());
  const result = await Promise.race([ended, timeout]);
  if (result !== -1) {
    const states = await Promise.all(Array.from({ length: options.harts ?? 1 }, (_, hart) => machine.cpu.readHart({ machine: machine.id, hart })));
    await machine.close();
    const harts = states.map(({ state }) => `${state?.status} at 0x${state?.pc.toString(16)}, scause ${state?.csr.get(0x142)}`);
    throw new Error(`${result}; output ${JSON.stringify(machine.bus.output)}; ${harts.join("; ")}`);
  }
  return machine;
}

for (const engine of ["interpreter", "reference", "dynamic"]) {
  describe(`supervisor software on the built-in firmware, ${engine} engine`, () => {
    it("prints through the debug console, reads from it, and powers off", async () => {
      const machine = await boot(`
        li a7, DBCN
        li a6, 0
        li a0, 6
        la a1, text
        li a2, 0
        ecall
        mv s0, a1         # bytes written
        li a6, 2
        addi a0, s0, 48
        ecall
        j power_off
        text: .asciz "hello "
        .balign 4
        ${POWER_OFF}`, { engine });
      expect(machine.bus.output).toBe("hello 6");
      await machine.close();
    });

    it("suspends to RAM and begins again at the resume address when its timer's interrupt is pending (SBI SUSP)", async () => {
      const machine = await boot(`
        li t0, 0x20
        csrw sie, t0
        rdtime a0
        li t0, 20000 # 2 ms
        add a0, a0, t0
        li a7, TIME
        li a6, 0
        ecall
        li s0, 65
        li a7, SUSP
        li a0, 0
        la a1, resume
        li a2, 66
        ecall
        addi a0, a0, 48 # it must not return
      put:
        li a7, DBCN
        li a6, 2
        ecall
        j power_off
      resume:
        mv s1, a0       # the hart's number
        mv a0, a1
        beqz s1, put
        li a0, 63
        j put
        ${POWER_OFF}`, { engine });
      expect(machine.bus.output).toBe("B");
      const { harts: [stats] } = await machine.cpu.readStats({ machine: machine.id });
      expect(stats?.instructions).toBeLessThan(1000n);
      await machine.close();
    });

    it("another hart's aligned stores are seen whole", async () => {
      const machine = await boot(`
        li a7, HSM
        li a6, 0
        li a0, 1
        la a1, writer
        ecall
        la t0, word
        li s0, 20000
      look:
        ld t1, 0(t0)
        addi t1, t1, 1   # 0 or 1
        li t2, 2
        bgeu t1, t2, torn
        lw t1, 8(t0)
        addi t1, t1, 1
        bgeu t1, t2, torn
        addi s0, s0, -1
        bnez s0, look
        li a0, 49
      put:
        li a7, DBCN
        li a6, 2
        ecall
        j power_off
      torn:
        li a0, 48
        j put
      writer:
        la t0, word
        li t1, 0
      1:
        not t1, t1
        sd t1, 0(t0)
        sw t1, 8(t0)
        j 1b
        .balign 16
      word: .dword 0, 0
        ${POWER_OFF}`, { engine, harts: 2 });
      expect(machine.bus.output).toBe("1");
      await machine.close();
    });

    it("sleeps in WFI until the SBI timer's interrupt, using hardly any CPU", async () => {
      const machine = await boot(`
        la t0, handler
        csrw stvec, t0
        li t0, 0x20
        csrw sie, t0
        csrsi sstatus, 2
        rdtime s1
        li t0, 2000000    # 200 ms
        add a0, s1, t0
        li a7, TIME
        li a6, 0
        ecall
      1: wfi
        beqz s2, 1b
        j power_off
        handler:
        rdtime s2
        sub s3, s2, s1
        csrr s4, scause
        li t0, -1
        csrw stimecmp, t0
        sret
        ${POWER_OFF}`, { engine });
      const { state } = await machine.cpu.readHart({ machine: machine.id, hart: 0 });
      const { harts } = await machine.cpu.readStats({ machine: machine.id });
      expect(state!.x[20]).toBe((1n << 63n) | 5n);
      expect(Number(state!.x[19])).toBeGreaterThanOrEqual(2_000_000);
      expect(Number(harts[0]!.instructions)).toBeLessThan(1000);
      expect(Number(harts[0]!.exits.get("wfi"))).toBeLessThan(10);
      expect(Number(harts[0]!.busyUs)).toBeLessThan(150_000);
      await machine.close();
    });

    it("a second hart is started, and they exchange interrupts and fences a hundred times", async () => {
      const machine = await boot(`
        # hart 0: start hart 1, then play ping
        mv s0, a0
        la s1, ball
        la t0, handler
        csrw stvec, t0
        csrwi sie, 2      # SSIE, taken with SIE = 0 only as a wake-up
        li a7, HSM
        li a6, 0
        li a0, 1
        la a1, second
        li a2, 77
        ecall
        bnez a0, fail
        li s2, 100
      ping: amoadd.w.aqrl t1, s2, (s1)   # ball += 100 (any change)
        li a7, IPI
        li a6, 0
        li a0, 2
        li a1, 0
        ecall
      1: wfi
        csrr t0, sip
        andi t0, t0, 2
        beqz t0, 1b
        csrci sip, 2
        li a7, RFENCE
        li a6, 1
        li a0, 2
        li a1, 0
        li a2, 0
        li a3, -1
        ecall
        bnez a0, fail
        addi s2, s2, -1
        bnez s2, ping
        lw s3, 0(s1)
        j power_off

      second:             # hart 1: a0 = 1, a1 = 77
        mv s4, a1
        la s1, ball
        csrwi sie, 2
      2: wfi
        csrr t0, sip
        andi t0, t0, 2
        beqz t0, 2b
        csrci sip, 2
        li t0, 1
        amoadd.w.aqrl t1, t0, (s1)
        li a7, RFENCE     # both may fence each other at once
        li a6, 0
        li a0, 1
        li a1, 0
        ecall
        li a7, IPI
        li a6, 0
        li a0, 1
        li a1, 0
        ecall
        j 2b

      fail: li a7, DBCN
        li a6, 2
        li a0, 33
        ecall
        j power_off
        .balign 4
      handler: j fail
      ball: .word 0
        .balign 4
        ${POWER_OFF}`, { engine, harts: 2 });
      const first = (await machine.cpu.readHart({ machine: machine.id, hart: 0 })).state!;
      const second = (await machine.cpu.readHart({ machine: machine.id, hart: 1 })).state!;
      expect(machine.bus.output).toBe("");
      expect([first.x[18], first.x[19], second.x[20]]).toEqual([0n, 5050n + 100n, 77n]);
      await machine.close();
    });

    it("an unaligned or refused device access is an access fault of the guest", async () => {
      const machine = await boot(`
        la t0, handler
        csrw stvec, t0
        li s1, 0x30000000
        lw t1, 0(s1)      # nothing there
        li s1, 0x101001
        lw t1, 0(s1)      # a device, misaligned
        j power_off
        .balign 4
        handler:
        csrr t0, scause
        slli s2, s2, 8
        or s2, s2, t0
        csrr t0, sepc
        addi t0, t0, 4
        csrw sepc, t0
        sret
        ${POWER_OFF}`, { engine });
      expect((await machine.cpu.readHart({ machine: machine.id, hart: 0 })).state!.x[18]).toBe(0x0505n);
      await machine.close();
    });
  });
}

describe("an idle loop as kernels write it", () => {
  it("WFI with SIE clear, then SIE on and off at once → the timer's interrupt is taken each time", async () => {
    const machine = await boot(`
      la t0, handler
      csrw stvec, t0
      li t0, 0x20
      csrw sie, t0
      li s2, 20
    arm: rdtime t0
      li t1, 20000        # 2 ms
      add t0, t0, t1
      csrw stimecmp, t0
    idle: wfi
      csrsi sstatus, 2
      csrci sstatus, 2
      addi s4, s4, 1
      beqz s3, idle
      li s3, 0
      addi s2, s2, -1
      bnez s2, arm
      j power_off
      .balign 4
    handler:
      li t0, -1
      csrw stimecmp, t0
      li s3, 1
      sret
      ${POWER_OFF}`);
    const { state } = await machine.cpu.readHart({ machine: machine.id, hart: 0 });
    expect(state!.x[18]).toBe(0n);
    expect(Number(state!.x[20])).toBeLessThan(100); // rounds of the idle loop
    await machine.close();
  });
});
