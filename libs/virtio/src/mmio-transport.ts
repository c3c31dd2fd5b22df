import {
  DEVICE_NEEDS_RESET,
  DRIVER_OK,
  FAILED,
  FEATURES_OK,
  INTERRUPT_CONFIGURATION,
  INTERRUPT_USED_BUFFER,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_VERSION_1,
} from "./constants.ts";
import type { Chain } from "./descriptor-chain.ts";
import type { Dma } from "./dma.ts";
import { CONFIG_OFFSET, MAGIC_VALUE, MMIO_REGISTERS, MMIO_VERSION, VENDOR_ID, type MmioRegisterName } from "./mmio-registers.ts";
import { SplitQueue, type QueueProgress } from "./split-queue.ts";

/** What a device model offers the transport. None of its methods may throw. */
export interface VirtioDevice {
  readonly deviceId: number;
  /** Feature bits of the device type; the transport adds its own (VERSION_1, INDIRECT_DESC, EVENT_IDX). */
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly maxChainBytes: number;
  /** Device configuration space, little-endian. Change it through {@link MmioTransport.configChanged}. */
  readonly config: Uint8Array;
  /** Called once, before anything else. */
  attach(transport: MmioTransport): void;
  /** DRIVER_OK with these negotiated features. */
  start(features: bigint): void;
  /** New requests on a queue; only between start and reset. */
  chains(queue: number, chains: Chain[]): void;
  /** Reset by the driver, or after breaking: forget every chain. */
  reset(): void;
  /** Chains of a queue that wait for something from outside, oldest first; all others end by themselves. */
  kept?(queue: number): readonly Chain[];
  /** The transport was held, and is no more: what came meanwhile can go on. */
  released?(): void;
}

/** All that a driver can have changed. */
export interface TransportState {
  readonly deviceFeaturesSel: number;
  readonly driverFeaturesSel: number;
  readonly driverFeatures: bigint;
  readonly queueSel: number;
  readonly status: number;
  readonly interruptStatus: number;
  readonly raisedSinceRead: number;
  readonly configGeneration: number;
  readonly queues: readonly (QueueProgress & {
    readonly ready: boolean;
    readonly size: number;
    readonly descriptorArea: bigint;
    readonly driverArea: bigint;
    readonly deviceArea: bigint;
  })[];
}

interface QueueRegisters {
  readonly queue: SplitQueue;
  size: number;
  descriptorArea: bigint;
  driverArea: bigint;
  deviceArea: bigint;
}

interface RegisterBehaviour {
  read?: () => number;
  write?: (value: number) => void;
}

const TRANSPORT_FEATURES = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;

export interface MmioTransportOptions {
  device: VirtioDevice;
  dma: Dma;
  /** Drives the interrupt wire; called on changes only. */
  interrupt(level: boolean): void;
  /** The driver broke a rule: the device needs a reset. For logs. */
  broken?(reason: string): void;
}

/** One virtio device behind 4 KiB of registers (virtio 1.2, 4.2). */
export class MmioTransport {
  readonly #options: MmioTransportOptions;
  readonly #device: VirtioDevice;
  readonly #offered: bigint;
  readonly #behaviour: (RegisterBehaviour | undefined)[] = [];
  readonly #queues: QueueRegisters[];
  #deviceFeaturesSel = 0;
  #driverFeaturesSel = 0;
  #driverFeatures = 0n;
  #queueSel = 0;
  #status = 0;
  #interruptStatus = 0;
  /** Bits raised since the driver last read InterruptStatus: an acknowledgement cannot mean these. */
  #raisedSinceRead = 0;
  #configGeneration = 0;
  #level = false;
  /** The device takes what it has to its end, and begins nothing that comes from outside. */
  #held = false;
  notifies = 0;
  resets = 0;
  breaks = 0;
  lastBreak = "";

  constructor(options: MmioTransportOptions) {
    this.#options = options;
    this.#device = options.device;
    this.#offered = options.device.features | TRANSPORT_FEATURES;
    this.#queues = options.device.queueSizes.map((maxSize, index) => ({
      queue: new SplitQueue({
        dma: options.dma,
        maxSize,
        maxChainBytes: options.device.maxChainBytes,
        chains: (chains) => this.#device.chains(index, chains),
        interrupt: () => this.#raise(INTERRUPT_USED_BUFFER),
        broken: (reason) => this.#break(`queue ${index}: ${reason}`),
      }),
      size: maxSize,
      descriptorArea: 0n,
      driverArea: 0n,
      deviceArea: 0n,
    }));
    const behaviours = this.#declareBehaviours();
    for (const { name, offset } of MMIO_REGISTERS) this.#behaviour[offset >> 2] = behaviours[name];
    options.device.attach(this);
  }

  queue(index: number): SplitQueue {
    return this.#queues[index]!.queue;
  }

  get running(): boolean {
    return (this.#status & DRIVER_OK) !== 0 && (this.#status & DEVICE_NEEDS_RESET) === 0;
  }

  get held(): boolean {
    return this.#held;
  }
  hold(): void {
    this.#held = true;
  }
  release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#device.released?.();
  }
  /** Nothing is on its way: what is left waits for something from outside. */
  get quiet(): boolean {
    return this.#queues.every(({ queue }, index) => !queue.busy && queue.inFlight === (this.#device.kept?.(index).length ?? 0));
  }

  /** Of a transport that is quiet. */
  save(): TransportState {
    return {
      deviceFeaturesSel: this.#deviceFeaturesSel,
      driverFeaturesSel: this.#driverFeaturesSel,
      driverFeatures: this.#driverFeatures,
      queueSel: this.#queueSel,
      status: this.#status,
      interruptStatus: this.#interruptStatus,
      raisedSinceRead: this.#raisedSinceRead,
      configGeneration: this.#configGeneration,
      queues: this.#queues.map(({ queue, size, descriptorArea, driverArea, deviceArea }, index) => ({
        ready: queue.ready, size, descriptorArea, driverArea, deviceArea, ...queue.progress(this.#device.kept?.(index) ?? []),
      })),
    };
  }
  /** Puts a device at power-on where another one was. Answers why that cannot be; then the device is at power-on again. */
  restore(state: TransportState): string | undefined {
    const problem = this.#take(state);
    if (problem !== undefined) this.reset();
    return problem;
  }
  #take(state: TransportState): string | undefined {
    const { status, driverFeatures, queues } = state;
    if (queues.length !== this.#queues.length) return `${queues.length} queues, the device has ${this.#queues.length}`;
    if ((status & FEATURES_OK) !== 0 && ((driverFeatures & ~this.#offered) !== 0n || (driverFeatures & VIRTIO_F_VERSION_1) === 0n)) return "features that the device does not offer";
    if ((status & DRIVER_OK) !== 0 && (status & FEATURES_OK) === 0) return "DRIVER_OK without FEATURES_OK";
    this.#status = status & 0xff;
    this.#driverFeatures = BigInt.asUintN(64, driverFeatures);
    this.#deviceFeaturesSel = state.deviceFeaturesSel;
    this.#driverFeaturesSel = state.driverFeaturesSel;
    this.#queueSel = state.queueSel;
    this.#configGeneration = state.configGeneration;
    this.#interruptStatus = state.interruptStatus & (INTERRUPT_USED_BUFFER | INTERRUPT_CONFIGURATION);
    this.#raisedSinceRead = state.raisedSinceRead & this.#interruptStatus;
    if ((status & DRIVER_OK) !== 0) this.#device.start(this.#driverFeatures);
    for (const [index, { ready, size, descriptorArea, driverArea, deviceArea, ...progress }] of queues.entries()) {
      const registers = this.#queues[index]!;
      Object.assign(registers, { size, descriptorArea, driverArea, deviceArea });
      if (!ready) continue;
      if (progress.heads.length > 0 && !this.running) return `queue ${index}: chains in flight before DRIVER_OK`;
      const eventIndex = (this.#driverFeatures & VIRTIO_F_EVENT_IDX) !== 0n;
      const problem = registers.queue.resume({ size, descriptorArea, driverArea, deviceArea, eventIndex }, progress);
      if (problem !== undefined) return `queue ${index}: ${problem}`;
    }
    this.#drive();
    return undefined;
  }

  /** The device has changed its configuration space (4.2.2.1, ConfigGeneration). */
  configChanged(): void {
    this.#configGeneration = (this.#configGeneration + 1) >>> 0;
    if ((this.#status & DRIVER_OK) !== 0) this.#raise(INTERRUPT_CONFIGURATION);
  }

  /** Registers take aligned 32-bit accesses (4.2.2.2); configuration fields their own width. Others read as zero. */
  read(offset: number, bytes: 1 | 2 | 4): number {
    if (offset >= CONFIG_OFFSET) return this.#readConfig(offset - CONFIG_OFFSET, bytes);
    if (bytes !== 4) return 0;
    return (this.#behaviour[offset >> 2]?.read?.() ?? 0) >>> 0;
  }

  /** False: there is no such register, it cannot be written, or the width is wrong. */
  write(offset: number, bytes: 1 | 2 | 4, value: number): boolean {
    if (offset >= CONFIG_OFFSET || bytes !== 4) return false;
    const write = this.#behaviour[offset >> 2]?.write;
    write?.(value >>> 0);
    return write !== undefined;
  }

  /** Power-on state, as a board reset makes it. */
  reset(): void {
    this.resets++;
    this.#held = false;
    this.#status = 0;
    this.#interruptStatus = this.#raisedSinceRead = 0;
    this.#driverFeatures = 0n;
    this.#deviceFeaturesSel = this.#driverFeaturesSel = this.#queueSel = 0;
    for (const registers of this.#queues) {
      registers.queue.stop();
      registers.size = registers.queue.maxSize;
      registers.descriptorArea = registers.driverArea = registers.deviceArea = 0n;
    }
    this.#device.reset();
    this.#drive();
  }

  counters(name: string): Record<string, number> {
    const sum = (of: (queue: SplitQueue) => number) => this.#queues.reduce((total, { queue }) => total + of(queue), 0);
    return {
      [`${name}.notify`]: this.notifies,
      [`${name}.requests`]: sum((queue) => queue.requests),
      [`${name}.interrupts`]: sum((queue) => queue.interrupts),
      [`${name}.resets`]: this.resets,
      [`${name}.needs-reset`]: this.breaks,
    };
  }

  #declareBehaviours(): Record<MmioRegisterName, RegisterBehaviour> {
    const half = (value: bigint, select: number) => (select > 1 ? 0 : Number((value >> BigInt(32 * select)) & 0xffff_ffffn));
    const area = (name: "descriptorArea" | "driverArea" | "deviceArea", high: boolean): RegisterBehaviour => ({
      write: (value) => {
        const selected = this.#selected();
        // 4.2.2.2: only while the queue is not ready.
        if (!selected || selected.queue.ready) return;
        selected[name] = high
          ? (selected[name] & 0xffff_ffffn) | (BigInt(value) << 32n)
          : (selected[name] & ~0xffff_ffffn) | BigInt(value);
      },
    });
    return {
      MagicValue: { read: () => MAGIC_VALUE },
      Version: { read: () => MMIO_VERSION },
      DeviceID: { read: () => this.#device.deviceId },
      VendorID: { read: () => VENDOR_ID },
      DeviceFeatures: { read: () => half(this.#offered, this.#deviceFeaturesSel) },
      DeviceFeaturesSel: { write: (value) => void (this.#deviceFeaturesSel = value) },
      DriverFeatures: { write: (value) => this.#setDriverFeatures(value) },
      DriverFeaturesSel: { write: (value) => void (this.#driverFeaturesSel = value) },
      QueueSel: { write: (value) => void (this.#queueSel = value) },
      QueueNumMax: { read: () => this.#selected()?.queue.maxSize ?? 0 },
      QueueNum: {
        write: (value) => {
          const selected = this.#selected();
          if (selected && !selected.queue.ready) selected.size = value;
        },
      },
      QueueReady: { read: () => (this.#selected()?.queue.ready ? 1 : 0), write: (value) => this.#setQueueReady(value) },
      QueueNotify: { write: (value) => this.#notify(value) },
      InterruptStatus: {
        read: () => {
          this.#raisedSinceRead = 0;
          return this.#interruptStatus;
        },
      },
      InterruptACK: { write: (value) => this.#acknowledge(value) },
      Status: { read: () => this.#status, write: (value) => this.#setStatus(value) },
      QueueDescLow: area("descriptorArea", false),
      QueueDescHigh: area("descriptorArea", true),
      QueueDriverLow: area("driverArea", false),
      QueueDriverHigh: area("driverArea", true),
      QueueDeviceLow: area("deviceArea", false),
      QueueDeviceHigh: area("deviceArea", true),
      // No shared memory regions: a region that does not exist has length -1 (4.2.2.1).
      SHMSel: { write: () => {} },
      SHMLenLow: { read: () => 0xffff_ffff },
      SHMLenHigh: { read: () => 0xffff_ffff },
      SHMBaseLow: { read: () => 0xffff_ffff },
      SHMBaseHigh: { read: () => 0xffff_ffff },
      // VIRTIO_F_RING_RESET is not offered.
      QueueReset: { read: () => 0 },
      ConfigGeneration: { read: () => this.#configGeneration },
    };
  }

  #selected(): QueueRegisters | undefined {
    return this.#queues[this.#queueSel];
  }

  #setDriverFeatures(value: number): void {
    // Fixed once FEATURES_OK is set (2.2.1).
    if (this.#driverFeaturesSel > 1 || (this.#status & FEATURES_OK) !== 0) return;
    const shift = BigInt(32 * this.#driverFeaturesSel);
    this.#driverFeatures = (this.#driverFeatures & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift);
  }

  #setQueueReady(value: number): void {
    const selected = this.#selected();
    if (!selected) return;
    if ((value & 1) === 0) return selected.queue.stop();
    if (selected.queue.ready || (this.#status & DEVICE_NEEDS_RESET) !== 0) return;
    const problem = selected.queue.start({
      size: selected.size,
      descriptorArea: selected.descriptorArea,
      driverArea: selected.driverArea,
      deviceArea: selected.deviceArea,
      eventIndex: (this.#driverFeatures & VIRTIO_F_EVENT_IDX) !== 0n,
    });
    if (problem !== undefined) this.#break(`queue ${this.#queueSel}: ${problem}`);
    else if (this.running) selected.queue.kick();
  }

  #notify(index: number): void {
    this.notifies++;
    if (this.running) this.#queues[index]?.queue.kick();
  }

  /** 3.1.1: ACKNOWLEDGE, DRIVER, features, FEATURES_OK, queues, DRIVER_OK. Zero resets. Bits are only ever added. */
  #setStatus(value: number): void {
    if (value === 0) return this.reset();
    let added = value & 0xff & ~this.#status & ~DEVICE_NEEDS_RESET;
    if ((added & FEATURES_OK) !== 0) {
      const acceptable = (this.#driverFeatures & ~this.#offered) === 0n && (this.#driverFeatures & VIRTIO_F_VERSION_1) !== 0n;
      // The driver reads the bit back to learn that we refuse (2.2.2).
      if (!acceptable) added &= ~FEATURES_OK;
    }
    if ((added & DRIVER_OK) !== 0 && ((this.#status | added) & FEATURES_OK) === 0) added &= ~DRIVER_OK;
    this.#status |= added;
    if ((added & FAILED) !== 0) this.#options.broken?.("the driver gave the device up (FAILED)");
    if ((added & DRIVER_OK) === 0) return;
    this.#device.start(this.#driverFeatures);
    // Buffers may have been made available before DRIVER_OK, when notifying was not allowed (3.1.1).
    if (this.running) for (const { queue } of this.#queues) queue.kick();
  }

  #readConfig(offset: number, bytes: number): number {
    let value = 0;
    for (let index = bytes - 1; index >= 0; index--) value = value * 256 + (this.#device.config[offset + index] ?? 0);
    return value;
  }

  /** 2.1.2: say so in the status, and with a configuration change notification when the driver listens. */
  #break(reason: string): void {
    this.breaks++;
    this.lastBreak = reason;
    this.#status |= DEVICE_NEEDS_RESET;
    for (const { queue } of this.#queues) queue.stop();
    this.#device.reset();
    this.#options.broken?.(reason);
    if ((this.#status & DRIVER_OK) !== 0) this.#raise(INTERRUPT_CONFIGURATION);
  }

  #raise(bit: number): void {
    this.#interruptStatus |= bit;
    this.#raisedSinceRead |= bit;
    this.#drive();
  }

  /**
   * Writes are posted: between the driver's read of InterruptStatus and the arrival of its acknowledgement the driver may
   * have looked at the rings, and the device may have raised the bit again for what came after. Clearing it then
   * would lose that interrupt, so such a bit stays for one more round. A driver that acknowledges without reading
   * gets one interrupt too many, no more.
   */
  #acknowledge(value: number): void {
    this.#interruptStatus &= ~(value & ~this.#raisedSinceRead);
    this.#raisedSinceRead &= ~value;
    this.#drive();
  }

  #drive(): void {
    const level = this.#interruptStatus !== 0;
    if (level === this.#level) return;
    this.#level = level;
    this.#options.interrupt(level);
  }
}
