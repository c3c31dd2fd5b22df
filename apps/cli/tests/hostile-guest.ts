import { assemble } from "@polyvisor/isa";
import { ADDRESS_MAP } from "@polyvisor/machine";

const RAM = ADDRESS_MAP.ram.base;

/**
 * A guest that means harm: an M-mode program that goes on for ever writing anything to every device register (rounds of
 * noise) and driving the virtio devices with rings of random descriptors (rounds of rings: set up properly, so that the
 * device looks at them; loops, huge lengths, addresses outside RAM). What faults is skipped. A "flood" hammers posted
 * writes instead, as fast as it can; an "idle" guest only waits.
 *
 * It carries the header of a Linux Image (Documentation/arch/riscv/boot-image-header.rst) and so gets all devices.
 */
export function bareGuest(kind: "noise" | "flood" | "idle", seed = 1n): Uint8Array {
  const { uart, rtc, plic, virtio, clint } = ADDRESS_MAP;
  return assemble(SOURCE, {
    base: RAM,
    symbols: {
      SEED: seed,
      FLOOD: kind === "flood" ? 1n : 0n,
      IDLE: kind === "idle" ? 1n : 0n,
      IMAGE_BYTES: 8n << 20n,
      RAM,
      // Rings, and the noise that random descriptors point into.
      RINGS: RAM + (1n << 20n),
      UART: uart.base,
      RTC: rtc.base,
      PLIC: plic.base,
      CLINT: clint.base,
      VIRTIO: virtio.base,
    },
  }).bytes;
}

const SOURCE = `
    j     start
    .word 0
    .dword 0            # text_offset
    .dword IMAGE_BYTES  # image_size
    .dword 0            # flags
    .word 2             # version
    .word 0
    .dword 0
    .dword 0x5643534952 # "RISCV"
    .word 0x05435352    # "RSC\\x05"
    .word 0

    .balign 4
skip:                   # whatever trapped: go on behind it (nothing here is compressed)
    csrr  t6, mepc
    addi  t6, t6, 4
    csrw  mepc, t6
    mret

random:                 # a0 = next number of xorshift64 (Marsaglia 2003) in s0
    slli  a0, s0, 13
    xor   s0, s0, a0
    srli  a0, s0, 7
    xor   s0, s0, a0
    slli  a0, s0, 17
    xor   s0, s0, a0
    mv    a0, s0
    ret

start:
    la    t0, skip
    csrw  mtvec, t0
    li    s0, SEED
    li    s1, RINGS
    li    t0, FLOOD
    bnez  t0, flood
    li    t0, IDLE
    bnez  t0, idle
    li    a0, UART      # a sign that it runs
    li    t0, 69
    sb    t0, 0(a0)
forever:
    call  noise
    call  rings
    j     forever

idle:
    wfi
    j     idle

flood:
    li    t0, VIRTIO
    li    t1, UART
    li    t2, 10
1:  sw    zero, 0x50(t0)   # QueueNotify
    sb    t2, 0(t1)
    sw    t2, 0x30(t0)
    j     1b

device:                 # a0 = base of a device by chance: mostly virtio
    mv    s6, ra
    call  random
    andi  t0, a0, 15
    li    t1, 4
    bltu  t0, t1, 1f
    andi  t0, a0, 3     # virtio slots 0 to 3
    slli  t0, t0, 12
    li    a0, VIRTIO
    add   a0, a0, t0
    mv    ra, s6
    ret
1:  mv    ra, s6
    beqz  t0, 2f
    li    t1, 1
    beq   t0, t1, 3f
    li    t1, 2
    beq   t0, t1, 4f
    li    a0, CLINT
    ret
2:  li    a0, UART
    ret
3:  li    a0, RTC
    ret
4:  srli  a0, a0, 10    # anywhere in the PLIC
    li    t0, 0x3ff000
    and   a0, a0, t0
    li    t0, PLIC
    add   a0, a0, t0
    ret

noise:                  # 64 accesses of any width to any offset
    mv    s7, ra
    li    s2, 64
1:  call  device
    mv    s3, a0
    call  random
    srli  t0, a0, 20
    andi  t0, t0, 0xff  # the registers, and a part of the configuration space
    srli  t1, a0, 40
    andi  t1, t1, 7
    li    t2, 1
    bne   t1, t2, 2f
    slli  t0, t0, 4     # sometimes anywhere in the page
2:  andi  t2, t0, -4
    add   s3, s3, t2
    call  random
    srli  t1, a0, 11
    andi  t1, t1, 15
    li    t2, 2
    bltu  t1, t2, 3f
    li    t2, 3
    bltu  t1, t2, 4f
    li    t2, 4
    bltu  t1, t2, 5f
    li    t2, 8
    bltu  t1, t2, 6f
    srli  a0, a0, 32    # small values mean more to a register than large ones
    andi  a0, a0, 31
6:  sw    a0, 0(s3)
    j     7f
3:  lw    a0, 0(s3)
    j     7f
4:  sb    a0, 1(s3)
    lhu   a0, 2(s3)
    j     7f
5:  andi  s3, s3, -8
    sd    a0, 0(s3)
    ld    a0, 0(s3)
7:  addi  s2, s2, -1
    bnez  s2, 1b
    mv    ra, s7
    ret

rings:
    mv    s7, ra
    call  random
    srli  a0, a0, 7
    andi  t0, a0, 3
    slli  t0, t0, 12
    li    s3, VIRTIO
    add   s3, s3, t0
    sw    zero, 0x70(s3)   # Status: reset, ACKNOWLEDGE, DRIVER
    li    t0, 3
    sw    t0, 0x70(s3)
    li    t0, 1
    sw    t0, 0x24(s3)     # DriverFeaturesSel 1: VERSION_1
    sw    t0, 0x20(s3)
    sw    zero, 0x24(s3)
    lui   t1, 0x30000      # EVENT_IDX and INDIRECT_DESC by chance
    and   t1, t1, a0
    sw    t1, 0x20(s3)
    li    t0, 11
    sw    t0, 0x70(s3)     # FEATURES_OK
    li    s4, 0
8:  sw    s4, 0x30(s3)     # QueueSel 0 and 1
    li    t0, 16
    sw    t0, 0x38(s3)     # QueueNum
    slli  t1, s4, 15
    add   t1, t1, s1
    sw    t1, 0x80(s3)     # descriptors, driver and device area
    sw    zero, 0x84(s3)
    li    t2, 0x1000
    add   t1, t1, t2
    sw    t1, 0x90(s3)
    sw    zero, 0x94(s3)
    add   t1, t1, t2
    sw    t1, 0xa0(s3)
    sw    zero, 0xa4(s3)
    slli  t1, s4, 15
    add   s5, t1, s1       # 16 descriptors
    li    s2, 16
9:  call  random
    srli  t0, a0, 8
    andi  t0, t0, 7
    li    t1, RAM          # address: mostly noise in RAM, else near its end, at 0, anywhere
    li    t2, 0x1fffff
    and   t2, t2, a0
    add   t1, t1, t2
    li    t2, 3
    bne   t0, t2, 1f
    li    t1, 0x8ffffff0
1:  li    t2, 4
    bne   t0, t2, 1f
    mv    t1, zero
1:  li    t2, 5
    bne   t0, t2, 1f
    mv    t1, a0
1:  sd    t1, 0(s5)
    call  random
    srli  t0, a0, 16
    andi  t1, t0, 0x1ff    # length
    andi  t2, t0, 0x600
    bnez  t2, 1f
    mv    t1, a0
1:  sw    t1, 8(s5)
    srli  t0, a0, 48
    andi  t1, t0, 3        # flags: NEXT, WRITE, seldom INDIRECT
    andi  t2, t0, 0x70
    bnez  t2, 1f
    ori   t1, t1, 4
1:  sh    t1, 12(s5)
    srli  t0, a0, 56
    andi  t0, t0, 31       # next: half of them outside of the table
    andi  t2, t0, 16
    beqz  t2, 1f
    andi  t0, s2, 15
1:  sh    t0, 14(s5)
    srli  t0, a0, 30
    andi  t0, t0, 15
    li    t2, 0x1004       # avail.ring
    slli  t1, s4, 15
    add   t1, t1, s1
    add   t1, t1, t2
    slli  t2, s2, 1
    add   t1, t1, t2
    sh    t0, -2(t1)
    addi  s5, s5, 16
    addi  s2, s2, -1
    bnez  s2, 9b
    call  random           # avail.idx: mostly possible
    andi  t0, a0, 15
    srli  t1, a0, 20
    andi  t1, t1, 7
    bnez  t1, 1f
    mv    t0, a0
1:  li    t2, 0x1000
    slli  t1, s4, 15
    add   t1, t1, s1
    add   t1, t1, t2
    sh    t0, 2(t1)
    li    t0, 1
    sw    t0, 0x44(s3)     # QueueReady
    addi  s4, s4, 1
    li    t0, 2
    bltu  s4, t0, 8b
    li    s2, 64           # block requests, as headers at random places of the noise
1:  call  random
    li    t1, 0x1ffff8
    and   t1, t1, a0
    li    t2, 0x40000
    or    t1, t1, t2
    li    t2, RAM
    add   t1, t1, t2
    srli  t0, a0, 40
    andi  t0, t0, 15
    sd    t0, 0(t1)
    srli  t0, a0, 50
    sd    t0, 8(t1)
    addi  s2, s2, -1
    bnez  s2, 1b
    li    t0, 15
    sw    t0, 0x70(s3)     # DRIVER_OK
    sw    zero, 0x50(s3)   # QueueNotify
    li    t0, 1
    sw    t0, 0x50(s3)
    lw    t0, 0x70(s3)     # wait until the device has seen it all
    li    s2, 200          # and give what goes on behind it some time
1:  addi  s2, s2, -1
    bnez  s2, 1b
    mv    ra, s7
    ret
`;
