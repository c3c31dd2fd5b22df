# Measures what lies between instructions, in M-mode and S-mode on the bare board (RAM at 0x80000000, 128 MiB or more). Prints a line
# `name a b` (hexadecimal) per part and ends through the test finisher. Runs the same on Polyvisor and on `qemu-system-riscv64 -M virt -bios`.
.equ UART, 0x10000000
.equ UART_SCRATCH, 7
.equ FINISHER, 0x100000
.equ MTIMECMP, 0x2004000
.equ INTERRUPTS, 1500
.equ BUCKETS, 65536         # of a tick (100 ns) each; the last one takes what is later
.equ HISTOGRAM, 0x80800000
.equ POSTED, 20000
.equ ASKED, 20000
.equ ROOT, 0x80a00000       # Sv39: 0 and 2 GiB as they are, 4 GiB on as 512 pages from DATA
.equ MIDDLE, 0x80a01000
.equ LEAVES, 0x80a02000
.equ DATA, 0x81000000
.equ PAGES, 256             # fewer than any TLB has entries
.equ ROUNDS, 2000

start:
    csrr t0, mhartid
    bnez t0, park
    li sp, 0x80700000

# Latency of timer interrupts at unforeseeable times: what `time` says in the handler, less what the timer was set to. a = 99th percentile,
# b = median, both in ticks.
    li s6, 0
    call interrupts
    la a0, name_busy
    call report
    li s6, 1
    call interrupts
    la a0, name_waiting
    call report

# Reads of a device, each waited for; writes, which nobody waits for: the read behind them is answered when all are executed. The first ones
# warm the services up. a = ticks, b = exits.
    call asked
    call asked
    la a0, name_asked
    call report
    call posted
    call posted
    la a0, name_posted
    call report

# Translated loads from pages whose entries a fence has thrown away, from pages that are held, and the fence alone. a = ticks, b = loads.
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    csrw mcounteren, t0
    call tables
    li t0, (8 << 60) | (ROOT >> 12)
    csrw satp, t0
    sfence.vma
    li t0, 0x1800
    csrc mstatus, t0
    li t0, 0x800
    csrs mstatus, t0
    la t0, supervisor
    csrw mepc, t0
    mret
supervisor:
    li s8, 2                # warm, then measured
1:  li a0, 3
    call touch
    mv s4, a1
    li a0, 2
    call touch
    mv s5, a1
    li a0, 1
    call touch
    mv s6, a1
    addi s8, s8, -1
    bnez s8, 1b
    li s7, ROUNDS * PAGES
    mv a1, s4
    mv a2, s7
    la a0, name_miss
    call report
    mv a1, s5
    mv a2, s7
    la a0, name_hit
    call report
    mv a1, s6
    mv a2, s7
    la a0, name_fence
    call report
    li t0, FINISHER
    li t1, 0x5555
    sw t1, 0(t0)
park:
    wfi
    j park

# touch(a0: 1 = fence, 2 = load from each page, 3 = both) → a1 ticks
touch:
    li t0, ROUNDS
    li t5, 4096
    rdtime t6
1:  andi t1, a0, 1
    beqz t1, 2f
    sfence.vma
2:  andi t1, a0, 2
    beqz t1, 4f
    li t1, 0x100000000
    li t2, PAGES
3:  ld t3, 0(t1)
    add t1, t1, t5
    addi t2, t2, -1
    bnez t2, 3b
4:  addi t0, t0, -1
    bnez t0, 1b
    rdtime a1
    sub a1, a1, t6
    ret

tables:
    li t0, ROOT
    li t1, 0xc7             # V R W A D
    sd t1, 0(t0)
    li t1, (0x80000000 >> 2) | 0xcf
    sd t1, 16(t0)
    li t1, (MIDDLE >> 2) | 1
    sd t1, 32(t0)
    li t0, MIDDLE
    li t1, (LEAVES >> 2) | 1
    sd t1, 0(t0)
    li t0, LEAVES
    li t1, (DATA >> 2) | 0xc7
    li t2, 512
1:  sd t1, 0(t0)
    addi t1, t1, 1024
    addi t0, t0, 8
    addi t2, t2, -1
    bnez t2, 1b
    ret

# posted() → a1 ticks, a2 count
posted:
    li t0, POSTED
    li t1, UART
    lbu t2, UART_SCRATCH(t1)
    rdtime t6
1:  sb t0, UART_SCRATCH(t1)
    addi t0, t0, -1
    bnez t0, 1b
    lbu t2, UART_SCRATCH(t1)
    rdtime a1
    sub a1, a1, t6
    li a2, POSTED
    ret

# asked() → a1 ticks, a2 count
asked:
    li t0, ASKED
    li t1, UART
    rdtime t6
1:  lbu t2, UART_SCRATCH(t1)
    addi t0, t0, -1
    bnez t0, 1b
    rdtime a1
    sub a1, a1, t6
    li a2, ASKED
    ret

# interrupts(s6: wait in WFI) → a1 99th percentile, a2 median, ticks
interrupts:
    li t0, HISTOGRAM
    li t1, BUCKETS
1:  sd zero, 0(t0)
    addi t0, t0, 8
    addi t1, t1, -1
    bnez t1, 1b
    la t0, handler
    csrw mtvec, t0
    li s2, INTERRUPTS
    li s5, MTIMECMP
    li s9, 12345
    li s10, 1103515245
    rdtime s7
    addi s7, s7, 2000
    sd s7, 0(s5)
    li t0, 0x80
    csrw mie, t0
    csrsi mstatus, 8
2:  beqz s6, 3f
    wfi
3:  mul t0, t0, s10
    addi t0, t0, 1
    sd t0, -8(sp)
    bnez s2, 2b
    csrci mstatus, 8
    li a1, 0
    li a2, 0
    li t0, HISTOGRAM
    li t1, 0                # bucket
    li t2, 0                # so many were not later
4:  ld t3, 0(t0)
    add t2, t2, t3
    li t3, INTERRUPTS / 2
    bge t2, t3, 5f
    addi a2, a2, 1
5:  li t3, INTERRUPTS * 99 / 100
    bge t2, t3, 6f
    addi a1, a1, 1
    addi t0, t0, 8
    j 4b
6:  ret

    .balign 4
handler:
    rdtime t5
    sub t5, t5, s7
    li t6, BUCKETS - 1
    bltu t5, t6, 1f
    mv t5, t6
1:  slli t5, t5, 3
    li t6, HISTOGRAM
    add t5, t5, t6
    ld t6, 0(t5)
    addi t6, t6, 1
    sd t6, 0(t5)
    li s7, -1
    addi s2, s2, -1
    beqz s2, 2f
    mul s9, s9, s10         # the next one in 0.2 to 0.6 ms
    addi s9, s9, 1013
    slli t5, s9, 32
    srli t5, t5, 52
    rdtime s7
    add s7, s7, t5
    addi s7, s7, 2000
2:  sd s7, 0(s5)
    mret

# report(a0 name, a1 ticks, a2 count)
report:
    mv t6, ra
    call puts
    mv a0, a1
    call puthex
    mv a0, a2
    call puthex
    li a0, '\n'
    call putc
    mv ra, t6
    ret

puts:
    mv t5, ra
    mv t4, a0
1:  lbu a0, 0(t4)
    beqz a0, 2f
    call putc
    addi t4, t4, 1
    j 1b
2:  mv ra, t5
    ret

puthex:
    mv t5, ra
    mv t4, a0
    li a0, ' '
    call putc
    li t3, 60
1:  srl a0, t4, t3
    andi a0, a0, 15
    li t2, 10
    bltu a0, t2, 2f
    addi a0, a0, 39
2:  addi a0, a0, 48
    call putc
    addi t3, t3, -4
    bgez t3, 1b
    mv ra, t5
    ret

putc:
    li t0, UART
1:  lbu t1, 5(t0)
    andi t1, t1, 0x20
    beqz t1, 1b
    sb a0, 0(t0)
    ret

name_busy: .asciz "interrupt-busy"
name_waiting: .asciz "interrupt-waiting"
name_asked: .asciz "asked"
name_posted: .asciz "posted"
name_miss: .asciz "tlb-miss"
name_hit: .asciz "tlb-hit"
name_fence: .asciz "fence"
