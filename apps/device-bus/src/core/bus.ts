/** Access widths that reach a device; the bus splits 64-bit accesses in two, low half first. */
export type AccessBytes = 1 | 2 | 4;

/** What the bus routes to. Devices see offsets into their window, never addresses. */
export interface MmioDevice {
  /** The register's value, zero-extended, or undefined for an access fault. Must not throw. */
  read(offset: number, bytes: AccessBytes): number | undefined;
  /** Posted: nobody waits for an answer, so a write that makes no sense is ignored (false: and counted). Must not throw. */
  write(offset: number, bytes: AccessBytes, value: number): boolean;
}

/** Where a device sits, as DescribeBoard tells it. */
export interface Window {
  base: bigint;
  byteLength: bigint;
  /** "serial0", "plic", "disk0" ... */
  device: string;
  compatible: string;
  /** PLIC source; 0 = none. */
  interrupt: number;
}

interface Slot {
  readonly window: Window;
  readonly base: number;
  readonly end: number;
  readonly target: MmioDevice;
  reads: number;
  writes: number;
  ignoredWrites: number;
}

/** The address decoder of one board. Knows windows; devices know what is in them. */
export class Bus {
  readonly #slots: Slot[] = [];
  readonly #onUnmapped: (address: bigint, write: boolean) => void;
  unmapped = 0;
  faults = 0;

  /** Throws when two windows overlap: a board that is wired wrong must not start. */
  constructor(
    devices: readonly { window: Window; target: MmioDevice }[],
    onUnmapped: (address: bigint, write: boolean) => void = () => {},
  ) {
    this.#onUnmapped = onUnmapped;
    for (const { window, target } of devices) {
      const end = window.base + window.byteLength;
      if (window.byteLength <= 0n || end > 1n << 52n)
        throw new RangeError(`bus: window of ${window.device} at 0x${window.base.toString(16)} has ${window.byteLength} bytes`);
      const other = this.#slots.find((slot) => window.base < BigInt(slot.end) && BigInt(slot.base) < end);
      if (other)
        throw new RangeError(
          `bus: ${window.device} at 0x${window.base.toString(16)} overlaps ${other.window.device} at 0x${other.base.toString(16)}; move one`,
        );
      this.#slots.push({ window, target, base: Number(window.base), end: Number(end), reads: 0, writes: 0, ignoredWrites: 0 });
    }
    this.#slots.sort((left, right) => left.base - right.base);
  }

  get windows(): readonly Window[] {
    return this.#slots.map((slot) => slot.window);
  }

  /** `bytes` 1, 2, 4 or 8, naturally aligned. Undefined: access fault. */
  read(address: bigint, bytes: number): bigint | undefined {
    const slot = this.#decode(address, bytes, false);
    if (!slot) return undefined;
    slot.reads++;
    const offset = Number(address) - slot.base;
    if (bytes === 8) {
      const low = slot.target.read(offset, 4);
      const high = slot.target.read(offset + 4, 4);
      if (low !== undefined && high !== undefined) return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    } else {
      const value = slot.target.read(offset, bytes as AccessBytes);
      if (value !== undefined) return BigInt(value >>> 0);
    }
    this.faults++;
    return undefined;
  }

  /** False: nothing decodes the address. */
  write(address: bigint, bytes: number, value: bigint): boolean {
    const slot = this.#decode(address, bytes, true);
    if (!slot) return false;
    slot.writes++;
    const offset = Number(address) - slot.base;
    const low = Number(value & 0xffff_ffffn);
    let taken: boolean;
    if (bytes === 8) {
      taken = slot.target.write(offset, 4, low);
      taken = slot.target.write(offset + 4, 4, Number((value >> 32n) & 0xffff_ffffn)) && taken;
    } else taken = slot.target.write(offset, bytes as AccessBytes, bytes === 4 ? low : low & (bytes === 1 ? 0xff : 0xffff));
    if (!taken) slot.ignoredWrites++;
    return true;
  }

  counters(): Record<string, number> {
    const counters: Record<string, number> = { "bus.unmapped": this.unmapped, "bus.faults": this.faults };
    for (const { window, reads, writes, ignoredWrites } of this.#slots) {
      counters[`${window.device}.read`] = reads;
      counters[`${window.device}.write`] = writes;
      counters[`${window.device}.ignored-write`] = ignoredWrites;
    }
    return counters;
  }

  #decode(address: bigint, bytes: number, write: boolean): Slot | undefined {
    // Exact below 2^53; what is above lies beyond every window either way.
    const at = Number(address);
    if ((bytes === 4 || bytes === 1 || bytes === 8 || bytes === 2) && at % bytes === 0) {
      for (const slot of this.#slots) if (at >= slot.base && at + bytes <= slot.end) return slot;
    }
    this.unmapped++;
    this.#onUnmapped(address, write);
    return undefined;
  }
}
