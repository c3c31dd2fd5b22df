import type { ScatterSegment } from "@polyvisor/guest-memory";
import {
  DESCRIPTOR_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "./constants.ts";

/** One request of the driver: what the device may read, then what it may write. Checked, but not yet reachable for sure. */
export interface Chain {
  /** Index of the first descriptor: names the request in the used ring. */
  readonly head: number;
  readonly readable: readonly ScatterSegment[];
  readonly writable: readonly ScatterSegment[];
  readonly readableBytes: number;
  readonly writableBytes: number;
}

/** Entries in an indirect table; Linux uses at most one per segment. */
export const MAX_INDIRECT_DESCRIPTORS = 1024;

const ADDRESS_LIMIT = 1n << 64n;

/** Collects one chain from tables that the guest wrote; every field of them is suspect. */
export class ChainBuilder implements Chain {
  readonly head: number;
  readonly readable: ScatterSegment[] = [];
  readonly writable: ScatterSegment[] = [];
  readableBytes = 0;
  writableBytes = 0;
  /** Set when the chain continues in an indirect table (2.7.5.3), which has to be read first. */
  indirect: ScatterSegment | undefined;
  readonly #maxBytes: number;

  constructor(head: number, maxBytes: number) {
    this.head = head;
    this.#maxBytes = maxBytes;
  }

  /** Follows descriptors from `first` in a table of `count`. Answers what is wrong with the chain, or undefined. */
  walk(table: DataView, count: number, first: number, inIndirectTable: boolean): string | undefined {
    let index = first;
    // A chain visits a descriptor once at most: more steps than descriptors is a loop.
    for (let steps = 0; steps < count; steps++) {
      if (index >= count) return `descriptor ${index} of a table of ${count}`;
      const at = index * DESCRIPTOR_BYTES;
      const address = table.getBigUint64(at, true);
      const byteLength = table.getUint32(at + 8, true);
      const flags = table.getUint16(at + 12, true);
      if (address + BigInt(byteLength) > ADDRESS_LIMIT) return `descriptor ${index} wraps around the address space`;
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if (inIndirectTable) return "an indirect table inside an indirect table";
        if ((flags & VIRTQ_DESC_F_NEXT) !== 0) return "an indirect descriptor with a next one";
        if (byteLength === 0 || byteLength % DESCRIPTOR_BYTES !== 0 || byteLength > MAX_INDIRECT_DESCRIPTORS * DESCRIPTOR_BYTES)
          return `an indirect table of ${byteLength} bytes`;
        this.indirect = { address, byteLength };
        return undefined;
      }
      const problem = this.#add({ address, byteLength }, (flags & VIRTQ_DESC_F_WRITE) !== 0);
      if (problem !== undefined) return problem;
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) return undefined;
      index = table.getUint16(at + 14, true);
    }
    return "a loop of descriptors";
  }

  #add(segment: ScatterSegment, writable: boolean): string | undefined {
    if (this.readableBytes + this.writableBytes + segment.byteLength > this.#maxBytes)
      return `more than ${this.#maxBytes} bytes in one chain`;
    if (writable) {
      this.writable.push(segment);
      this.writableBytes += segment.byteLength;
    } else {
      // 2.7.4.2: all that the device reads comes before all that it writes.
      if (this.writable.length > 0) return "a readable descriptor after a writable one";
      this.readable.push(segment);
      this.readableBytes += segment.byteLength;
    }
    return undefined;
  }
}
