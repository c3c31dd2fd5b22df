# A Linux program for the guest: COUNT times 4 KiB at a random place among BLOCKS of /dev/vda (O_DIRECT), read or written,
# and, with SYNC, made durable each time. Exit status 0, or 1 after the first failure.
# COUNT, BLOCKS, OPERATION (67 pread64, 68 pwrite64) and SYNC are put in by block-figures.ts.
  li a0, -100              # AT_FDCWD
  la a1, path
  li a2, 0x4002            # O_RDWR | O_DIRECT
  li a3, 0
  li a7, 56                # openat
  ecall
  bltz a0, fail
  mv s0, a0
  li s1, COUNT
  li s2, 88172645463325252
  li s3, 0x20000           # a page of .bss: O_DIRECT wants it aligned
loop:
  slli t0, s2, 13          # Marsaglia's xorshift64
  xor s2, s2, t0
  srli t0, s2, 7
  xor s2, s2, t0
  slli t0, s2, 17
  xor s2, s2, t0
  li t1, BLOCKS
  remu t2, s2, t1
  slli a3, t2, 12
  mv a0, s0
  mv a1, s3
  li a2, 4096
  li a7, OPERATION
  ecall
  li t0, 4096
  bne a0, t0, fail
  li t0, SYNC
  beqz t0, next
  mv a0, s0
  li a7, 83                # fdatasync
  ecall
  bnez a0, fail
next:
  addi s1, s1, -1
  bnez s1, loop
  li a0, 0
  j end
fail:
  li a0, 1
end:
  li a7, 93                # exit
  ecall
path:
  .asciz "/dev/vda"
