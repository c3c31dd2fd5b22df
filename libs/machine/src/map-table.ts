import { ADDRESS_MAP } from "./address-map.ts";

/** The address map as the Markdown table of the documentation (libs/machine/README.md holds it; a test compares). */
export function mapTable(): string {
  const { testFinisher, rtc, clint, plic, uart, virtio, ram } = ADDRESS_MAP;
  const rows: [base: bigint, bytes: bigint | undefined, what: string, compatible: string, interrupt: string][] = [
    [testFinisher.base, testFinisher.bytes, "test finisher", "sifive,test0", "–"],
    [rtc.base, rtc.bytes, "real-time clock", "google,goldfish-rtc", String(rtc.irq)],
    [clint.base, clint.bytes, "CLINT (in the cpu-emulator)", "sifive,clint0", "–"],
    [plic.base, plic.bytes, `PLIC, sources 1–${plic.sources}`, "sifive,plic-1.0.0", "–"],
    [uart.base, uart.bytes, "UART serial0", "ns16550a", String(uart.irq)],
    ...Array.from({ length: virtio.slots }, (_, slot): (typeof rows)[number] => [
      virtio.base + BigInt(slot) * virtio.bytes,
      virtio.bytes,
      `virtio slot ${slot}`,
      "virtio,mmio",
      String(virtio.firstIrq + slot),
    ]),
    [ram.base, undefined, "RAM", "memory", "–"],
  ];
  const line = ([base, bytes, what, compatible, interrupt]: (typeof rows)[number]) =>
    `| 0x${base.toString(16).padStart(8, "0")} | ${bytes === undefined ? "by machine" : `0x${bytes.toString(16)}`} | ${what} | ${compatible} | ${interrupt} |`;
  return ["| base | bytes | what | compatible | PLIC source |", "|---|---|---|---|---|", ...rows.map(line)].join("\n");
}
