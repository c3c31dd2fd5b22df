/**
 * The board's address map, the same as QEMU's `virt` machine so that any kernel built for it boots. This literal is
 * the map: the bus, the device tree and the documentation table are made from it.
 */
export const ADDRESS_MAP = {
  testFinisher: { base: 0x0010_0000n, bytes: 0x1000n }, // sifive,test0
  rtc: { base: 0x0010_1000n, bytes: 0x1000n, irq: 11 }, // google,goldfish-rtc
  clint: { base: 0x0200_0000n, bytes: 0x1_0000n }, // lives in the cpu-emulator: timer and IPI never leave it
  plic: { base: 0x0c00_0000n, bytes: 0x60_0000n, sources: 95 }, // sifive,plic-1.0.0
  uart: { base: 0x1000_0000n, bytes: 0x100n, irq: 10, clockHz: 3_686_400 }, // ns16550a
  virtio: { base: 0x1000_1000n, bytes: 0x1000n, slots: 8, firstIrq: 1 }, // virtio,mmio; slot n: base + n * bytes, irq firstIrq + n
  ram: { base: 0x8000_0000n },
} as const;

/** Frequency of `time` and of the CLINT's mtime, as QEMU's virt. */
export const TIMEBASE_HZ = 10_000_000;

/** S-mode kernels are loaded here (2 MiB above RAM base); firmware, when there is one, at RAM base. */
export const KERNEL_OFFSET = 0x20_0000n;

export const PAGE_BYTES = 4096;

/** Room before RAM in a shared mapping for what the cpu-emulator keeps per hart (state, TLBs, decode cache). */
export function holderReserveBytes(harts: number): number {
  return (16 + 96 * harts) * 1024 * 1024;
}
