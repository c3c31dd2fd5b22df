# Measures one machine from inside, in M-mode on the bare board (RAM at 0x80000000, at least 128 MiB). Prints a line
# `name ticks count` (hexadecimal; ticks of the 10 MHz timebase) per part and ends through the test finisher.
# Runs the same on Polyvisor and on `qemu-system-riscv64 -M virt -bios`.
.equ UART, 0x10000000
.equ FINISHER, 0x100000
.equ SIEVE_BYTES, 262144
.equ SIEVE_ROUNDS, 200
.equ EXITS, 20000
.equ DATA, 0x81000000       # the image carries 16 MiB of data pages here
.equ DATA_PAGES, 4096
.equ ZERO, 0x84000000       # untouched memory
.equ ZERO_PAGES, 8192

start:
    csrr t0, mhartid
    bnez t0, park
    li sp, 0x80800000

# A compute loop with loads, stores, branches and multiplications: sieve of Eratosthenes and a hash over it.
compute:
    rdtime s0
    rdinstret s1
    li s2, SIEVE_ROUNDS
    li s11, 0
1:  la a0, array
    li a1, SIEVE_BYTES
    add a2, a0, a1
    li a3, 0x0101010101010101
    mv a4, a0
2:  sd a3, 0(a4)
    addi a4, a4, 8
    bltu a4, a2, 2b
    li a5, 2
3:  add a6, a0, a5
    lbu a7, 0(a6)
    beqz a7, 5f
    slli t1, a5, 1
    bgeu t1, a1, 5f
4:  add t2, a0, t1
    sb zero, 0(t2)
    add t1, t1, a5
    bltu t1, a1, 4b
5:  addi a5, a5, 1
    li t3, 512
    bltu a5, t3, 3b
    mv a4, a0
6:  lbu t4, 0(a4)
    li t5, 31
    mul s11, s11, t5
    add s11, s11, t4
    addi a4, a4, 1
    bltu a4, a2, 6b
    addi s2, s2, -1
    bnez s2, 1b
    rdinstret s3
    rdtime s4
    sub a1, s4, s0
    sub a2, s3, s1
    la a0, name_compute
    call report

# Round trips to a device: the UART's line status register. The first ones warm the services up and are not measured.
exits:
    li s2, EXITS
    li s5, UART
0:  lbu t0, 5(s5)
    addi s2, s2, -1
    bnez s2, 0b
    li s2, EXITS
    rdtime s0
1:  lbu t0, 5(s5)
    addi s2, s2, -1
    bnez s2, 1b
    rdtime s4
    sub a1, s4, s0
    li a2, EXITS
    la a0, name_exits
    call report

# First touch of pages that carry data, in an order that read-ahead cannot guess: page = (i * 2049 + 7) mod 4096.
data_pages:
    li s2, 0
    li s5, DATA
    li s6, DATA_PAGES
    li s7, 2049
    rdtime s0
1:  mul t0, s2, s7
    addi t0, t0, 7
    addi t1, s6, -1
    and t0, t0, t1
    slli t0, t0, 12
    add t0, t0, s5
    ld t2, 0(t0)
    addi s2, s2, 1
    bltu s2, s6, 1b
    rdtime s4
    sub a1, s4, s0
    mv a2, s6
    la a0, name_data
    call report

# The same again: the pages are held now, what is left is TLB misses.
    li s2, 0
    rdtime s0
1:  mul t0, s2, s7
    addi t0, t0, 7
    addi t1, s6, -1
    and t0, t0, t1
    slli t0, t0, 12
    add t0, t0, s5
    ld t2, 0(t0)
    addi s2, s2, 1
    bltu s2, s6, 1b
    rdtime s4
    sub a1, s4, s0
    mv a2, s6
    la a0, name_tlb
    call report

# First write to fresh pages, in order: zero ranges and read-ahead.
    li s2, ZERO_PAGES
    li s5, ZERO
    li s6, 4096
    rdtime s0
1:  sd s2, 0(s5)
    add s5, s5, s6
    addi s2, s2, -1
    bnez s2, 1b
    rdtime s4
    sub a1, s4, s0
    li a2, ZERO_PAGES
    la a0, name_zero
    call report

    li t0, FINISHER
    li t1, 0x5555
    sw t1, 0(t0)
park:
    wfi
    j park

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

name_compute: .asciz "compute"
name_exits: .asciz "exits"
name_data: .asciz "pages-data"
name_tlb: .asciz "pages-held"
name_zero: .asciz "pages-zero"
.align 12
array: .space 262144
