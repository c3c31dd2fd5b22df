import { guestProgram } from "./guest-program.ts";

const WORKERS = 4;
const CALL = { exit: 93, futex: 98, clone: 220, munmap: 215, mmap: 222, mprotect: 226, madvise: 233, wait4: 260 };
const CLONE = { VM: 0x100, SIGCHLD: 17 };
const FUTEX = { WAIT: 0, WAKE: 1 };
/** With each kind of atomic instruction in a round. */
const ADDITIONS = 100;
const TICKS_PER_SECOND = 10_000_000;
/** What differs from worker to worker: its rounds, then its stack. */
const STACK = 4096;

/** Exit status of the program when something is not as it must be. */
export const SMP_STRESS_FAILURES: Readonly<Record<number, string>> = {
  1: "amoadd.d lost an addition", 2: "lr.d/sc.d lost an addition", 3: "two were in the critical section of a futex mutex",
  4: "a worker did not end as it should", 5: "amoor.w and amoand.w on neighbouring bytes lost a bit", 10: "a system call failed",
  11: "a page does not hold what was stored in it", 12: "a page that was given back still has its old content", 13: "a child did not end as it should",
};

/**
 * Four processes that share their memory (a static riscv64 program for Linux), for `seconds`: additions with AMOs and with LR/SC,
 * a futex mutex around an addition that is not atomic, pages mapped, protected, given back and unmapped, which every hart must
 * hear of, and children that only end. Exit status 0, or one of SMP_STRESS_FAILURES.
 */
export function smpStress(seconds: number): Uint8Array {
  const call = (name: keyof typeof CALL): string => `li a7, ${CALL[name]}\n ecall`;
  const check = (failure: number, condition: string): string => `li s11, ${failure}\n ${condition}, failed`;
  return guestProgram(`
  start:
    rdtime s1
    li t0, ${seconds * TICKS_PER_SECOND}
    add s1, s1, t0 # the end
    li s0, 0
  begin:
    addi s0, s0, 1
    la a1, stacks
    li t0, ${STACK}
    mul t0, t0, s0
    add a1, a1, t0 # the end of its stack
    li a0, ${CLONE.VM | CLONE.SIGCHLD}
    li a2, 0
    li a3, 0
    li a4, 0
    ${call("clone")}
    ${check(10, "bltz a0")}
    beqz a0, worker
    li t0, ${WORKERS}
    bltu s0, t0, begin

  join:
    li a0, -1
    la a1, status
    li a2, 0
    li a3, 0
    ${call("wait4")}
    ${check(10, "bltz a0")}
    la t0, status
    lw t0, 0(t0)
    srli s11, t0, 8
    bnez s11, failed # the worker's own status
    ${check(4, "bnez t0")}
    addi s0, s0, -1
    bnez s0, join

    la s2, rounds
    ld s2, 0(s2)
    li s3, ${ADDITIONS}
    mul s3, s3, s2
    la t1, added
    ld t1, 0(t1)
    ${check(1, "bne s3, t1")}
    la t1, reserved
    ld t1, 0(t1)
    ${check(2, "bne s3, t1")}
    la t1, guarded
    ld t1, 0(t1)
    ${check(3, "bne s2, t1")}
    la t1, bits
    lw t1, 0(t1)
    ${check(5, "bnez t1")}
    li a0, 0
    ${call("exit")}

  worker: # s0: 1 to ${WORKERS}, s1: the end, s2: rounds
    li s2, 0
    li s3, 1
    addi t0, s0, -1
    slli t0, t0, 3
    sll s3, s3, t0 # its bit
  round:
    addi s2, s2, 1
    li s8, ${ADDITIONS}
  atomics:
    li s4, 1
    la t0, added
    amoadd.d zero, s4, (t0)
    la t0, reserved
  1:
    lr.d t1, (t0)
    addi t1, t1, 1
    sc.d t2, t1, (t0)
    bnez t2, 1b
    la t0, bits
    amoor.w zero, s3, (t0)
    not t1, s3
    amoand.w t2, t1, (t0)
    and t2, t2, s3
    ${check(5, "beqz t2")}
    addi s8, s8, -1
    bnez s8, atomics

    la s5, mutex # 0 free, 1 taken, 2 taken and waited for (Drepper, "Futexes Are Tricky")
    li t2, 1
  2:
    lr.w.aq t1, (s5)
    bnez t1, 3f
    sc.w t3, t2, (s5)
    bnez t3, 2b
    j 5f
  3:
    li t2, 2
    amoswap.w.aq t1, t2, (s5)
    beqz t1, 5f
    mv a0, s5
    li a1, ${FUTEX.WAIT}
    li a2, 2
    li a3, 0
    ${call("futex")}
    j 3b
  5:
    la t0, guarded
    ld t1, 0(t0)
    andi t2, s2, 7
    bnez t2, 6f
    li t3, 2000 # long enough for others to come and wait
  7:
    addi t3, t3, -1
    bnez t3, 7b
  6:
    addi t1, t1, 1
    sd t1, 0(t0)
    amoswap.w.rl t1, zero, (s5)
    li t2, 2
    bne t1, t2, 8f
    mv a0, s5
    li a1, ${FUTEX.WAKE}
    li a2, 1
    ${call("futex")}
  8:
    andi t0, s2, 15
    bnez t0, 9f
    call pages
  9:
    andi t0, s2, 255
    bnez t0, 10f
    call child
  10:
    rdtime t0
    bltu t0, s1, round
    la t0, rounds
    amoadd.d zero, s2, (t0)
    li a0, 0
    ${call("exit")}

  pages: # four of them
    mv s10, ra
    li a0, 0
    li a1, 16384
    li a2, 3
    li a3, 0x22 # MAP_PRIVATE | MAP_ANONYMOUS
    li a4, -1
    li a5, 0
    ${call("mmap")}
    ${check(10, "bltz a0")}
    mv s6, a0
    add s7, s2, s0
    call fill
    mv a0, s6
    li a1, 16384
    li a2, 1
    ${call("mprotect")}
    ${check(10, "bnez a0")}
    li s11, 11
    call compare
    mv a0, s6
    li a1, 16384
    li a2, 4 # MADV_DONTNEED
    ${call("madvise")}
    ${check(10, "bnez a0")}
    li s7, 0
    li s11, 12
    call compare
    mv a0, s6
    li a1, 16384
    ${call("munmap")}
    ${check(10, "bnez a0")}
    jr s10
  fill:
    li t0, 4
    mv t1, s6
    li t3, 4096
  1:
    sd s7, 8(t1)
    add t1, t1, t3
    addi t0, t0, -1
    bnez t0, 1b
    ret
  compare:
    li t0, 4
    mv t1, s6
    li t3, 4096
  1:
    ld t2, 8(t1)
    bne t2, s7, failed
    add t1, t1, t3
    addi t0, t0, -1
    bnez t0, 1b
    ret

  child:
    li a0, ${CLONE.SIGCHLD}
    li a1, 0
    li a2, 0
    li a3, 0
    li a4, 0
    ${call("clone")}
    ${check(10, "bltz a0")}
    bnez a0, 1f
    li a0, 7
    ${call("exit")}
  1:
    addi sp, sp, -16
    mv a1, sp
    li a2, 0
    li a3, 0
    ${call("wait4")}
    ${check(10, "bltz a0")}
    lw t0, 0(sp)
    addi sp, sp, 16
    li t1, 0x700
    ${check(13, "bne t0, t1")}
    ret

  failed:
    mv a0, s11
    ${call("exit")}

    .balign 64
  added: .dword 0
    .balign 64
  reserved: .dword 0
    .balign 64
  guarded: .dword 0
    .balign 64
  rounds: .dword 0
  mutex: .word 0
  bits: .word 0
  status: .word 0
    .balign 4096
  stacks: .space ${WORKERS * STACK}`);
}
