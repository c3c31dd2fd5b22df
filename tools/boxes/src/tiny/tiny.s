# A guest of our own: an S-mode program for any machine with the board map of libs/machine and an SBI. It greets over
# the serial port, takes a breakpoint and an illegal instruction, counts timer interrupts, and powers off.
#
# build.ts defines: UART, FINISHER (addresses), TICK (timer counts between two interrupts), IMAGE_BYTES.

# The header of a RISC-V boot image (kernel Documentation/arch/riscv/boot-image-header.rst): what is loaded as a Linux
# kernel is started with the hart's id in a0 and the device tree's address in a1.
header:
        j       start
        nop
        .dword  0x200000                # text_offset: 2 MiB above the start of RAM
        .dword  IMAGE_BYTES             # image_size, with the stack
        .dword  0                       # flags: little-endian
        .word   2                       # version 0.2
        .word   0
        .dword  0
        .ascii  "RISCV"                 # magic
        .space  3
        .ascii  "RSC"                   # magic2
        .byte   5
        .word   0

start:
        la      sp, stack_top
        la      t0, trap
        csrw    stvec, t0
        mv      s1, a0                  # hart id

        la      a0, greeting
        call    print
        mv      a0, s1
        call    print_number
        la      a0, newline
        call    print

# Two traps: ebreak, and a machine-mode register that supervisor mode must not read.
        la      a0, text_traps
        call    print
        ebreak
        csrr    t0, mstatus
        la      t0, traps
        ld      a0, 0(t0)
        call    print_number
        la      a0, text_taken
        call    print

# Something to compute: primes below 2000 by trial division.
        la      a0, text_primes
        call    print
        li      s2, 0                   # how many
        li      s3, 2                   # candidate
next_candidate:
        li      t0, 2
divide: mul     t1, t0, t0
        bgtu    t1, s3, is_prime
        remu    t2, s3, t0
        beqz    t2, not_prime
        addi    t0, t0, 1
        j       divide
is_prime:
        addi    s2, s2, 1
not_prime:
        addi    s3, s3, 1
        li      t0, 2000
        bltu    s3, t0, next_candidate
        mv      a0, s2
        call    print_number
        la      a0, newline
        call    print

# Five timer interrupts. Interrupts are off between the look at the counter and wfi, so that none is slept through:
# wfi ends when one is pending, taken or not (privileged spec, 3.3.3).
        la      a0, text_ticks
        call    print
        li      t0, 32                  # sie.STIE
        csrw    sie, t0
        li      s4, 0                   # ticks seen
next_tick:
        rdtime  a0
        li      t0, TICK
        add     a0, a0, t0
        call    set_timer
sleep:  csrci   sstatus, 2              # SIE
        la      t0, ticks
        ld      t1, 0(t0)
        bne     t1, s4, ticked
        wfi
        csrsi   sstatus, 2
        j       sleep
ticked: mv      s4, t1
        mv      a0, s4
        call    print_number
        la      a0, space
        call    print
        li      t0, 5
        bltu    s4, t0, next_tick
        la      a0, newline
        call    print

# SBI system reset (EID "SRST", function 0): shut down, no reason. Where it is missing, the test finisher.
        la      a0, farewell
        call    print
        li      a7, 0x53525354
        li      a6, 0
        li      a0, 0
        li      a1, 0
        ecall
        li      t0, FINISHER
        li      t1, 0x5555              # FINISHER_PASS
        sw      t1, 0(t0)
stop:   wfi
        j       stop

# SBI timer (EID "TIME", function 0): one interrupt when `time` reaches a0.
set_timer:
        li      a7, 0x54494d45
        li      a6, 0
        ecall
        ret

# Prints the zero-terminated text at a0: writes THR whenever LSR bit 5 says it is empty (16550).
print:  li      t0, UART
print_next:
        lbu     t1, 0(a0)
        beqz    t1, print_end
print_wait:
        lbu     t2, 5(t0)
        andi    t2, t2, 0x20
        beqz    t2, print_wait
        sb      t1, 0(t0)
        addi    a0, a0, 1
        j       print_next
print_end:
        ret

# Prints a0 in decimal.
print_number:
        addi    sp, sp, -48
        sd      ra, 40(sp)
        addi    t0, sp, 32
        sb      zero, 0(t0)
        li      t1, 10
digit:  remu    t2, a0, t1
        divu    a0, a0, t1
        addi    t2, t2, 48              # "0"
        addi    t0, t0, -1
        sb      t2, 0(t0)
        bnez    a0, digit
        mv      a0, t0
        call    print
        ld      ra, 40(sp)
        addi    sp, sp, 48
        ret

# All traps. An interrupt (scause < 0) is our timer's: count it and ask for no more. An exception is one of our two,
# both of four bytes: count it and go on behind it.
        .balign 4
trap:   addi    sp, sp, -64
        sd      ra, 0(sp)
        sd      t0, 8(sp)
        sd      t1, 16(sp)
        sd      a0, 24(sp)
        sd      a1, 32(sp)
        sd      a6, 40(sp)
        sd      a7, 48(sp)
        csrr    t0, scause
        bltz    t0, interrupt
        la      t0, traps
        ld      t1, 0(t0)
        addi    t1, t1, 1
        sd      t1, 0(t0)
        csrr    t0, sepc
        addi    t0, t0, 4
        csrw    sepc, t0
        j       trap_end
interrupt:
        la      t0, ticks
        ld      t1, 0(t0)
        addi    t1, t1, 1
        sd      t1, 0(t0)
        li      a0, -1
        call    set_timer
trap_end:
        ld      ra, 0(sp)
        ld      t0, 8(sp)
        ld      t1, 16(sp)
        ld      a0, 24(sp)
        ld      a1, 32(sp)
        ld      a6, 40(sp)
        ld      a7, 48(sp)
        addi    sp, sp, 64
        sret

greeting:       .asciz "Polyvisor tiny guest: hello from hart "
text_traps:     .asciz "traps: "
text_taken:     .asciz " taken, and on we go\n"
text_primes:    .asciz "primes below 2000: "
text_ticks:     .asciz "timer: "
farewell:       .asciz "powering off\n"
space:          .asciz " "
newline:        .asciz "\n"

        .balign 16
traps:  .dword  0
ticks:  .dword  0
stack:  .space  1024
        .balign 16
stack_top:
end:
