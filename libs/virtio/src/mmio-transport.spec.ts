import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DEVICE_NEEDS_RESET, DRIVER_OK, FEATURES_OK, VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "./constants.ts";
import type { Dma } from "./dma.ts";
import { MMIO_REGISTERS, type MmioRegisterName } from "./mmio-registers.ts";
import { MmioTransport, type VirtioDevice } from "./mmio-transport.ts";

const OWN_FEATURE = 1n << 5n;
const dma: Dma = { transfer: async () => ({ status: "fault", data: [] }) };
const offsetOf = (name: MmioRegisterName) => MMIO_REGISTERS.find((register) => register.name === name)!.offset;

function setup() {
  const log: string[] = [];
  const levels: boolean[] = [];
  const device: VirtioDevice = {
    deviceId: 42,
    features: OWN_FEATURE,
    queueSizes: [8, 64],
    maxChainBytes: 4096,
    config: new Uint8Array([1, 2, 3, 4, 5]),
    attach: () => {},
    start: (features) => void log.push(`start ${features.toString(16)}`),
    chains: () => {},
    reset: () => void log.push("reset"),
  };
  const transport = new MmioTransport({ device, dma, interrupt: (level) => void levels.push(level) });
  const read = (name: MmioRegisterName) => transport.read(offsetOf(name), 4);
  const write = (name: MmioRegisterName, value: number) => transport.write(offsetOf(name), 4, value);
  const negotiate = (features: bigint) => {
    write("Status", 3);
    for (const half of [0, 1]) {
      write("DriverFeaturesSel", half);
      write("DriverFeatures", Number((features >> BigInt(32 * half)) & 0xffff_ffffn));
    }
    write("Status", 3 | FEATURES_OK);
    return (read("Status") & FEATURES_OK) !== 0;
  };
  return { transport, read, write, negotiate, log, levels };
}

describe("virtio over MMIO, version 2 (virtio 1.2, 4.2)", () => {
  it("declares registers that do not overlap, in ascending order", () => {
    const offsets = MMIO_REGISTERS.map(({ offset }) => offset);
    expect([...new Set(offsets)].sort((a, b) => a - b)).toEqual(offsets);
  });
  it("identifies itself", () => {
    const { read } = setup();
    expect([read("MagicValue"), read("Version"), read("DeviceID")]).toEqual([0x7472_6976, 2, 42]);
  });
  it("offers the device's features and its own, 32 bits at a time", () => {
    const { read, write } = setup();
    write("DeviceFeaturesSel", 0);
    expect(read("DeviceFeatures") & 0x20).toBe(0x20);
    write("DeviceFeaturesSel", 1);
    expect(read("DeviceFeatures")).toBe(1);
    write("DeviceFeaturesSel", 7);
    expect(read("DeviceFeatures")).toBe(0);
  });
  it("accepts offered features with VERSION_1 and refuses everything else (2.2.2)", () => {
    expect(setup().negotiate(VIRTIO_F_VERSION_1 | OWN_FEATURE | VIRTIO_F_EVENT_IDX)).toBe(true);
    expect(setup().negotiate(OWN_FEATURE)).toBe(false);
    expect(setup().negotiate(VIRTIO_F_VERSION_1 | (1n << 6n))).toBe(false);
  });
  it("starts with DRIVER_OK after FEATURES_OK, not before", () => {
    const early = setup();
    early.write("Status", 3 | DRIVER_OK);
    expect(early.log).toEqual([]);
    const { negotiate, write, read, log } = setup();
    negotiate(VIRTIO_F_VERSION_1);
    write("Status", 3 | FEATURES_OK | DRIVER_OK);
    expect(log).toEqual(["start 100000000"]);
    expect(read("Status")).toBe(15);
  });
  it("is reset by writing 0 to Status", () => {
    const { negotiate, write, read, log } = setup();
    negotiate(VIRTIO_F_VERSION_1);
    write("Status", 0);
    expect(read("Status")).toBe(0);
    expect(log).toEqual(["reset"]);
  });
  it("says which queues exist", () => {
    const { read, write } = setup();
    write("QueueSel", 1);
    expect(read("QueueNumMax")).toBe(64);
    write("QueueSel", 2);
    expect(read("QueueNumMax")).toBe(0);
  });
  it("needs a reset when a queue is set up wrong or cannot be reached, and interrupts to say so (2.1.2)", async () => {
    const { negotiate, write, read, levels } = setup();
    negotiate(VIRTIO_F_VERSION_1);
    write("QueueSel", 0);
    write("QueueNum", 8);
    write("QueueReady", 1);
    write("Status", 3 | FEATURES_OK | DRIVER_OK);
    await new Promise((resolve) => void setImmediate(resolve)); // its rings are at address 0
    expect(read("Status") & DEVICE_NEEDS_RESET).toBe(DEVICE_NEEDS_RESET);
    expect([read("InterruptStatus"), levels]).toEqual([2, [true]]);
    write("InterruptACK", 2);
    expect(levels).toEqual([true, false]);
    const bad = setup();
    bad.negotiate(VIRTIO_F_VERSION_1);
    bad.write("QueueNum", 3);
    bad.write("QueueReady", 1);
    expect(bad.read("Status") & DEVICE_NEEDS_RESET).toBe(DEVICE_NEEDS_RESET);
  });
  it("reads configuration space at any width and zero beyond it", () => {
    const { transport } = setup();
    expect([transport.read(0x100, 1), transport.read(0x102, 2), transport.read(0x100, 4), transport.read(0x104, 4)]).toEqual([1, 0x0403, 0x0403_0201, 5]);
  });
  it("keeps an interrupt that was raised after InterruptStatus was read, although its acknowledgement comes later", () => {
    const { transport, negotiate, write, read, levels } = setup();
    negotiate(VIRTIO_F_VERSION_1);
    write("Status", 3 | FEATURES_OK | DRIVER_OK);
    transport.configChanged();
    expect(read("InterruptStatus")).toBe(2);
    transport.configChanged(); // the driver has posted its acknowledgement by now; it is on its way
    write("InterruptACK", 2);
    expect([read("InterruptStatus"), levels]).toEqual([2, [true]]);
    write("InterruptACK", 2);
    expect([read("InterruptStatus"), levels]).toEqual([0, [true, false]]);
  });
  it("lets a driver that never reads InterruptStatus acknowledge with the second write at the latest", () => {
    const { transport, negotiate, write, levels } = setup();
    negotiate(VIRTIO_F_VERSION_1);
    write("Status", 3 | FEATURES_OK | DRIVER_OK);
    transport.configChanged();
    write("InterruptACK", 3);
    write("InterruptACK", 3);
    expect(levels).toEqual([true, false]);
  });
  it("counts changes of the configuration", () => {
    const { transport, read, levels } = setup();
    transport.configChanged();
    expect([read("ConfigGeneration"), levels]).toEqual([1, []]);
  });
  it("takes any write of any width anywhere without throwing", () => {
    const { transport } = setup();
    fc.assert(
      fc.property(fc.nat(0x1ff), fc.constantFrom(1, 2, 4), fc.oneof(fc.nat(15), fc.nat(0xffff_ffff)), (offset, bytes, value) => {
        transport.write(offset, bytes as 1 | 2 | 4, value);
        const answer = transport.read(offset, bytes as 1 | 2 | 4);
        expect(answer >= 0 && answer <= 0xffff_ffff).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
