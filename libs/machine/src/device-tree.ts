import { ADDRESS_MAP, TIMEBASE_HZ } from "./address-map.ts";
import { cells, flag, node, text, type FdtNode, type FdtTree } from "./fdt.ts";

/** What of a board differs from machine to machine; the rest is {@link ADDRESS_MAP}. */
export interface BoardDescription {
  harts: number;
  ramBase: bigint;
  ramBytes: bigint;
  /** e.g. "rv64imafdc_zicntr_zicsr_zifencei_sstc". */
  isa: string;
  /** e.g. "riscv,sv48". */
  mmu: string;
  bootArguments: string;
  /** End exclusive; absent = no initrd. */
  initrd?: { start: bigint; end: bigint };
  /** Populated virtio-mmio slots, ascending. An empty slot has no node, so that no driver probes it. */
  virtioSlots: readonly number[];
  /** Entropy that the kernel credits at boot (chosen/rng-seed). */
  rngSeed?: Uint8Array;
}

/** Interrupt numbers in `interrupts-extended` of a hart's local controller (privileged spec, mcause). */
const SUPERVISOR_EXTERNAL = 9;
const MACHINE_EXTERNAL = 11;
const MACHINE_SOFTWARE = 3;
const MACHINE_TIMER = 7;

/** Phandles: the PLIC and the finisher first, then one per hart's interrupt controller. */
const PLIC_PHANDLE = 1;
const FINISHER_PHANDLE = 2;
const cpuPhandle = (hart: number) => 16 + 2 * hart;
const intcPhandle = (hart: number) => 17 + 2 * hart;

/** The board as QEMU's `virt` describes itself, with exactly the devices that this one has. */
export function deviceTree(board: BoardDescription): FdtTree {
  return {
    bootCpu: 0,
    reservations: [],
    root: node(
      "",
      {
        "#address-cells": cells(2),
        "#size-cells": cells(2),
        compatible: text("riscv-virtio"),
        model: text("polyvisor,virt"),
      },
      [chosen(board), memory(board), cpus(board), poweroff(0x5555, "poweroff"), poweroff(0x7777, "reboot"), soc(board)],
    ),
  };
}

function chosen(board: BoardDescription): FdtNode {
  const serial = `/soc/serial@${hex(ADDRESS_MAP.uart.base)}`;
  const properties: Record<string, Uint8Array> = {
    bootargs: text(board.bootArguments),
    "stdout-path": text(serial),
  };
  if (board.initrd) {
    properties["linux,initrd-start"] = cells(board.initrd.start);
    properties["linux,initrd-end"] = cells(board.initrd.end);
  }
  if (board.rngSeed) properties["rng-seed"] = board.rngSeed;
  return node("chosen", properties);
}

function memory(board: BoardDescription): FdtNode {
  return node(`memory@${hex(board.ramBase)}`, {
    device_type: text("memory"),
    reg: cells(board.ramBase, board.ramBytes),
  });
}

function cpus(board: BoardDescription): FdtNode {
  const all = Array.from({ length: board.harts }, (_, hart) => cpu(board, hart));
  const cores = all.map((_, hart) => node(`core${hart}`, { cpu: cells(cpuPhandle(hart)) }));
  return node(
    "cpus",
    { "#address-cells": cells(1), "#size-cells": cells(0), "timebase-frequency": cells(TIMEBASE_HZ) },
    [...all, node("cpu-map", {}, [node("cluster0", {}, cores)])],
  );
}

function cpu(board: BoardDescription, hart: number): FdtNode {
  return node(
    `cpu@${hart}`,
    {
      device_type: text("cpu"),
      reg: cells(hart),
      phandle: cells(cpuPhandle(hart)),
      status: text("okay"),
      compatible: text("riscv"),
      "riscv,isa": text(board.isa),
      // Linux prefers these two since 6.6; `riscv,isa` stays for older kernels and firmware.
      "riscv,isa-base": text(isaBase(board.isa)),
      "riscv,isa-extensions": text(...isaExtensions(board.isa)),
      "mmu-type": text(board.mmu),
      ...cacheBlocks(board.isa),
    },
    [
      node("interrupt-controller", {
        "#interrupt-cells": cells(1),
        "interrupt-controller": flag(),
        compatible: text("riscv,cpu-intc"),
        phandle: cells(intcPhandle(hart)),
      }),
    ],
  );
}

/** Cache block sizes of the cache-block operations that the ISA has (dt-bindings riscv/cpus.yaml); all harts of ours use 64 bytes. */
function cacheBlocks(isa: string): Record<string, Uint8Array> {
  const extensions = new Set(isaExtensions(isa));
  return Object.fromEntries(
    ["zicbom", "zicbop", "zicboz"].filter((name) => extensions.has(name)).map((name) => [`riscv,${name.slice(2)}-block-size`, cells(64)]),
  );
}

/** A write of `value` to the test finisher, as Linux' syscon-poweroff and syscon-reboot drivers do it. */
function poweroff(value: number, name: "poweroff" | "reboot"): FdtNode {
  return node(name, {
    compatible: text(`syscon-${name}`),
    regmap: cells(FINISHER_PHANDLE),
    offset: cells(0),
    value: cells(value),
  });
}

function soc(board: BoardDescription): FdtNode {
  const { testFinisher, rtc, clint, plic, uart, virtio } = ADDRESS_MAP;
  const interrupt = (source: number) => ({ interrupts: cells(source), "interrupt-parent": cells(PLIC_PHANDLE) });
  const perHart = (...numbers: number[]) =>
    cells(
      ...Array.from({ length: board.harts }, (_, hart) => numbers.flatMap((number) => [intcPhandle(hart), number])).flat(),
    );
  return node(
    "soc",
    { "#address-cells": cells(2), "#size-cells": cells(2), compatible: text("simple-bus"), ranges: flag() },
    [
      node(`test@${hex(testFinisher.base)}`, {
        compatible: text("sifive,test1", "sifive,test0", "syscon"),
        reg: cells(testFinisher.base, testFinisher.bytes),
        phandle: cells(FINISHER_PHANDLE),
      }),
      node(`rtc@${hex(rtc.base)}`, {
        compatible: text("google,goldfish-rtc"),
        reg: cells(rtc.base, rtc.bytes),
        ...interrupt(rtc.irq),
      }),
      node(`clint@${hex(clint.base)}`, {
        compatible: text("sifive,clint0", "riscv,clint0"),
        reg: cells(clint.base, clint.bytes),
        "interrupts-extended": perHart(MACHINE_SOFTWARE, MACHINE_TIMER),
      }),
      node(`plic@${hex(plic.base)}`, {
        compatible: text("sifive,plic-1.0.0", "riscv,plic0"),
        reg: cells(plic.base, plic.bytes),
        phandle: cells(PLIC_PHANDLE),
        "#address-cells": cells(0),
        "#interrupt-cells": cells(1),
        "interrupt-controller": flag(),
        "interrupts-extended": perHart(MACHINE_EXTERNAL, SUPERVISOR_EXTERNAL),
        "riscv,ndev": cells(plic.sources),
      }),
      node(`serial@${hex(uart.base)}`, {
        compatible: text("ns16550a"),
        reg: cells(uart.base, uart.bytes),
        "clock-frequency": cells(uart.clockHz),
        ...interrupt(uart.irq),
      }),
      ...board.virtioSlots.map((slot) =>
        node(`virtio_mmio@${hex(virtio.base + BigInt(slot) * virtio.bytes)}`, {
          compatible: text("virtio,mmio"),
          reg: cells(virtio.base + BigInt(slot) * virtio.bytes, virtio.bytes),
          ...interrupt(virtio.firstIrq + slot),
        }),
      ),
    ],
  );
}

function isaBase(isa: string): string {
  return isa.slice(0, 4) + "i";
}

/** "rv64imafdc_zicsr" → i m a f d c zicsr (dt-bindings riscv/extensions.yaml). */
export function isaExtensions(isa: string): string[] {
  const [letters = "", ...named] = isa.slice(4).split("_");
  return [...letters, ...named].filter((name) => name !== "");
}

function hex(address: bigint): string {
  return address.toString(16);
}
