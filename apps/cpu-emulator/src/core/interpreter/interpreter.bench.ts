import { test } from "vitest";
import { BareMachine } from "./bare-machine.ts";

/** Numbers to compare engines by: MIPS of guest loops, in M-mode (TLB lookups on, no page tables). */
const PROGRAMS: Record<string, string> = {
  arithmetic: `
    li a0, 40000000
    li a1, 1
  1: add a1, a1, a0
    xori a2, a1, 85
    slli a3, a2, 3
    sub a1, a3, a1
    addi a0, a0, -1
    bnez a0, 1b
    wfi`,
  sieve: `
    li s0, 0x80100000
    li s1, 2000000
    li s4, 3
  0: mv t0, s0
    add t1, s0, s1
  1: sb zero, 0(t0)
    addi t0, t0, 1
    bne t0, t1, 1b
    li s2, 2
  2: add t0, s0, s2
    lbu t1, 0(t0)
    bnez t1, 4f
    slli t2, s2, 1
  3: bge t2, s1, 4f
    add t0, s0, t2
    li t1, 1
    sb t1, 0(t0)
    add t2, t2, s2
    j 3b
  4: addi s2, s2, 1
    mul t0, s2, s2
    blt t0, s1, 2b
    addi s4, s4, -1
    bnez s4, 0b
    wfi`,
  calls: `
    li sp, 0x80200000
    li a0, 32
    call fib
    wfi
  fib: li t0, 2
    blt a0, t0, 1f
    addi sp, sp, -32
    sd ra, 0(sp)
    sd s0, 8(sp)
    sd a0, 16(sp)
    addi a0, a0, -1
    call fib
    mv s0, a0
    ld a0, 16(sp)
    addi a0, a0, -2
    call fib
    add a0, a0, s0
    ld ra, 0(sp)
    ld s0, 8(sp)
    addi sp, sp, 32
  1: ret`,
  fp: `
    li a0, 10000000
    li t0, 0x6000
    csrs mstatus, t0
    li t1, 3
    fcvt.d.w fa0, t1
    fcvt.d.w fa1, a0
    fdiv.d fa2, fa0, fa1
  1: fmadd.d fa0, fa0, fa2, fa2
    fadd.d fa1, fa1, fa2
    fmul.d fa3, fa1, fa2
    addi a0, a0, -1
    bnez a0, 1b
    wfi`,
};

for (const [name, source] of Object.entries(PROGRAMS)) {
  test(name, { timeout: 60_000 }, async ({ bench }) => {
    let instructions = 0;
    let ms = 0;
    await bench(name, () => {
      const machine = new BareMachine();
      machine.load(source);
      machine.run(1_000_000); // compile
      const [start, before] = [performance.now(), machine.instret];
      machine.run(1e10);
      ms += performance.now() - start;
      instructions += Number(machine.instret - before);
    }).run({ iterations: 2, time: 0, warmupIterations: 0, warmupTime: 0 });
    console.log(`${name}: ${(instructions / 1e3 / ms).toFixed(0)} MIPS over ${(instructions / 1e6).toFixed(0)} M instructions`);
  });
}
