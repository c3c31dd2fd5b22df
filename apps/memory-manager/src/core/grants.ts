import { ContractError } from "@polyvisor/contracts";
import type { Grant } from "@polyvisor/contracts/memory";
import { IntervalSet, pageAligned } from "@polyvisor/guest-memory";

export const MAX_GRANTS_PER_DEVICE = 256;
export const MAX_DEVICES = 256;

/** The IOMMU table of one space: what each device may read and write. A device without an entry reaches nothing. */
export class DeviceGrants {
  readonly #devices = new Map<string, { readable: IntervalSet; writable: IntervalSet }>();

  /** Replaces what the device had. An empty list takes everything away. */
  set(device: string, grants: readonly Grant[], contains: (base: bigint, bytes: bigint) => boolean): void {
    if (device.length === 0 || device.length > 128) {
      throw new ContractError("invalid", `setGrants: device name of ${device.length} characters; give 1 to 128`);
    }
    if (grants.length > MAX_GRANTS_PER_DEVICE) {
      throw new ContractError("invalid", `setGrants: ${grants.length} grants for ${device}; at most ${MAX_GRANTS_PER_DEVICE}`);
    }
    for (const { range } of grants) {
      if (!range || !pageAligned(range.base) || !pageAligned(range.bytes)) {
        throw new ContractError("invalid", `setGrants: ${device}: base and bytes of a range must be multiples of 4096`);
      }
      if (!contains(range.base, range.bytes)) {
        throw new ContractError(
          "out-of-range",
          `setGrants: ${device}: 0x${range.base.toString(16)} + 0x${range.bytes.toString(16)} is not inside RAM`,
        );
      }
    }
    if (grants.length === 0) {
      this.#devices.delete(device);
      return;
    }
    if (!this.#devices.has(device) && this.#devices.size >= MAX_DEVICES) {
      throw new ContractError("exhausted", `setGrants: ${MAX_DEVICES} devices have grants already; take some away first`);
    }
    const ranges = (list: readonly Grant[]) => new IntervalSet(list.map((g) => g.range!));
    this.#devices.set(device, { readable: ranges(grants), writable: ranges(grants.filter((g) => g.write)) });
  }

  allows(device: string, address: bigint, byteLength: number, write: boolean): boolean {
    const entry = this.#devices.get(device);
    if (!entry) return false;
    return (write ? entry.writable : entry.readable).covers(address, BigInt(byteLength));
  }
}
