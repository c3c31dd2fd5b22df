import { assemble } from "@polyvisor/isa";
import { guestProgram } from "./guest-program.ts";

/**
 * A virtual machine monitor of a page, for the guest's own /dev/kvm (Linux, Documentation/virt/kvm/api.rst): a static riscv64
 * program that makes a VM with 64 KiB of memory and one virtual CPU, runs `NESTED_GUEST` on it, and answers its exits. Bytes
 * that the nested guest stores to CONSOLE appear on standard output; a load from QUESTION gives 6; anything unexpected ends it
 * with the number of the step or exit as its status.
 */
export const NESTED_GUEST_OUTPUT = [
  "virtual supervisor, translation on",
  "mmio 000000000000002a",
  "sbi 0000000000001234",
  "timer 0000000000000003",
  "page fault 000000000000000d at 0000000040000000",
  "powered off",
].join("\n");

const GUEST = 0x8000_0000n;
const CONSOLE = 0x1000_0000n;
const QUESTION = 0x1000_0008n;

/** What runs in VS-mode: Sv39, MMIO both ways, an SBI call of its own, three timer interrupts, a page fault, power off. */
const NESTED_GUEST = `
  start:
    la sp, stack
    la t0, trap
    csrw stvec, t0
    # Identity: the gigabyte of memory and, for the console, the first one.
    la t0, root
    li t1, ${(GUEST >> 2n) | 0xcfn}
    sd t1, 16(t0)
    li t1, 0xcf
    sd t1, 0(t0)
    srli t0, t0, 12
    li t1, ${8n << 60n}
    or t0, t0, t1
    csrw satp, t0
    sfence.vma
    la a0, paging
    call print

    la a0, mmio
    call print
    li t0, ${QUESTION}
    lw t1, 0(t0)
    li t2, 7
    mul a0, t1, t2
    call hex

    la a0, sbi
    call print
    li a7, 0x8000001 # experimental: KVM hands it to the monitor
    li a6, 0
    li a0, 0x1200
    li a1, 0x34
    ecall
    mv a0, a1
    call hex

    # Three timer interrupts by stimecmp.
    la a0, timer
    call print
    li s2, 0
    li t0, 0x20
    csrw sie, t0
    csrr t0, time
    csrw stimecmp, t0
    csrsi sstatus, 2
  wait:
    wfi
    li t0, 3
    bltu s2, t0, wait
    csrci sstatus, 2
    mv a0, s2
    call hex

    la a0, fault
    call print
    li t0, 0x40000000
    li s3, 0
    lw t1, 0(t0) # not mapped: the handler skips it
    mv a0, s3
    call value
    la a0, at
    call print
    csrr a0, stval
    call hex

    li a7, 0x53525354
    li a6, 0
    li a0, 0
    li a1, 0
    ecall
  hang:
    j hang

    .align 2
  trap:
    csrr s3, scause
    bltz s3, interrupt
    csrr s4, sepc
    addi s4, s4, 4
    csrw sepc, s4
    sret
  interrupt:
    addi s2, s2, 1
    csrr s3, time
    li s4, 2000
    add s3, s3, s4
    csrw stimecmp, s3
    li s4, 3
    bltu s2, s4, 1f
    li s4, -1
    csrw stimecmp, s4
  1:
    sret

  # print(a0): text up to a zero byte
  print:
    li t0, ${CONSOLE}
  1:
    lbu t1, 0(a0)
    beqz t1, 2f
    sb t1, 0(t0)
    addi a0, a0, 1
    j 1b
  2:
    ret
  # hex(a0): 16 digits and a newline; value(a0): the digits
  hex:
    mv s0, ra
    call value
    li t1, 10
    sb t1, 0(t0)
    jr s0
  value:
    li t0, ${CONSOLE}
    li t2, 60
  1:
    srl t1, a0, t2
    andi t1, t1, 15
    addi t1, t1, 48
    li t3, 58
    bltu t1, t3, 2f
    addi t1, t1, 39
  2:
    sb t1, 0(t0)
    addi t2, t2, -4
    bgez t2, 1b
    ret

  paging: .asciz "virtual supervisor, translation on\\n"
  mmio: .asciz "mmio "
  sbi: .asciz "sbi "
  timer: .asciz "timer "
  fault: .asciz "page fault "
  at: .asciz " at "
    .balign 4096
  root: .space 4096
  stack:`;

const EXIT = { mmio: 6, systemEvent: 24, riscvSbi: 35 };
/** Offsets in struct kvm_run. */
const RUN = { exitReason: 8, address: 32, data: 40, length: 48, isWrite: 52, sbiArguments: 48, sbiReturn: 96 };
const CALL = { ioctl: 29, openat: 56, write: 64, exit: 93, mmap: 222 };
const IOCTL = {
  createVm: 0xae01, mmapSize: 0xae04, createVcpu: 0xae41, run: 0xae80, setMemory: 0x4020_ae46n, setRegister: 0x4010_aeacn,
};
const REGISTER_PC = 0x8030_0000_0200_0000n; // KVM_REG_RISCV | SIZE_U64 | CORE, regs.pc

function monitorSource(nested: Uint8Array): string {
  const step = (number: number): string => `li s11, ${number}\n bltz a0, failed`;
  const call = (name: keyof typeof CALL): string => `li a7, ${CALL[name]}\n ecall`;
  return `
  start:
    li a0, -100
    la a1, device
    li a2, 2
    li a3, 0
    ${call("openat")}
    ${step(1)}
    mv s0, a0 # kvm
    li a1, ${IOCTL.createVm}
    li a2, 0
    ${call("ioctl")}
    ${step(2)}
    mv s1, a0 # vm
    li a0, 0
    li a1, 0x10000
    li a2, 3
    li a3, 0x21 # MAP_SHARED | MAP_ANONYMOUS
    li a4, -1
    li a5, 0
    ${call("mmap")}
    ${step(3)}
    la t0, memory
    sd a0, 24(t0)
    la t1, nested
    la t2, nestedEnd
  copy:
    ld t3, 0(t1)
    sd t3, 0(a0)
    addi t1, t1, 8
    addi a0, a0, 8
    bltu t1, t2, copy
    mv a0, s1
    li a1, ${IOCTL.setMemory}
    la a2, memory
    ${call("ioctl")}
    ${step(4)}
    mv a0, s1
    li a1, ${IOCTL.createVcpu}
    li a2, 0
    ${call("ioctl")}
    ${step(5)}
    mv s2, a0 # vcpu
    mv a0, s0
    li a1, ${IOCTL.mmapSize}
    li a2, 0
    ${call("ioctl")}
    ${step(6)}
    mv a1, a0
    li a0, 0
    li a2, 3
    li a3, 1
    mv a4, s2
    li a5, 0
    ${call("mmap")}
    ${step(7)}
    mv s3, a0 # struct kvm_run
    mv a0, s2
    li a1, ${IOCTL.setRegister}
    la a2, register
    ${call("ioctl")}
    ${step(8)}

  run:
    mv a0, s2
    li a1, ${IOCTL.run}
    li a2, 0
    ${call("ioctl")}
    ${step(9)}
    lw t0, ${RUN.exitReason}(s3)
    li t1, ${EXIT.mmio}
    beq t0, t1, mmio
    li t1, ${EXIT.riscvSbi}
    beq t0, t1, sbi
    li t1, ${EXIT.systemEvent}
    beq t0, t1, off
    addi s11, t0, 100
    j failed
  mmio:
    ld t0, ${RUN.address}(s3)
    lbu t1, ${RUN.isWrite}(s3)
    li s11, 10
    beqz t1, read
    li t1, ${CONSOLE}
    bne t0, t1, failed
    li a0, 1
    addi a1, s3, ${RUN.data}
    li a2, 1
    ${call("write")}
    ${step(11)}
    j run
  read:
    li t1, ${QUESTION}
    bne t0, t1, failed
    li t1, 6
    sd t1, ${RUN.data}(s3)
    j run
  sbi: # answers the sum of its first two arguments
    ld t0, ${RUN.sbiArguments}(s3)
    ld t1, ${RUN.sbiArguments + 8}(s3)
    add t0, t0, t1
    sd zero, ${RUN.sbiReturn}(s3)
    sd t0, ${RUN.sbiReturn + 8}(s3)
    j run
  off:
    li a0, 1
    la a1, farewell
    li a2, 12
    ${call("write")}
    li a0, 0
    ${call("exit")}
  failed:
    mv a0, s11
    ${call("exit")}

  device: .asciz "/dev/kvm"
  farewell: .ascii "powered off\\n"
    .balign 8
  memory: .dword 0, ${GUEST}, 0x10000, 0
  register: .dword ${REGISTER_PC}, entry
  entry: .dword ${GUEST}
  nested:
    .byte ${[...nested].join(", ")}
    .balign 8
  nestedEnd:`;
}

/** The monitor with its nested guest inside, as an ELF executable. */
export function nestedGuestMonitor(): Uint8Array {
  return guestProgram(monitorSource(assemble(NESTED_GUEST, { base: GUEST }).bytes));
}
