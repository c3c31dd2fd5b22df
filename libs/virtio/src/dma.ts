/** One part of a transfer: a read when `readLength` > 0, a write when `writeData` is not empty; never both. */
export interface DmaSegment {
  readonly address: bigint;
  readonly readLength: number;
  readonly writeData: Uint8Array;
}

export interface DmaResult {
  /** "fault": the guest gave an address it may not give. "failed": memory is gone; not the guest's doing. */
  readonly status: "ok" | "fault" | "failed";
  /** One per read segment, in order; empty unless ok. */
  readonly data: readonly Uint8Array[];
}

/** A value that is there already, or will be. Who goes on with {@link soon} loses no turn when it is. */
export type Soon<T> = T | Promise<T>;

export function soon<T, R>(value: Soon<T>, next: (value: T) => R): Soon<Awaited<R>> {
  return (value instanceof Promise ? value.then(next) : next(value)) as Soon<Awaited<R>>;
}

/**
 * How a device reaches guest memory: one round trip per call, so callers batch. Segments take effect in order, calls
 * in the order they are made. Never rejects. Buffers given for writing must not change until the answer, which is there
 * at once when the memory is in this process.
 */
export interface Dma {
  transfer(segments: readonly DmaSegment[]): Soon<DmaResult>;
}

const NOTHING = new Uint8Array(0);

export function dmaRead(address: bigint, byteLength: number): DmaSegment {
  return { address, readLength: byteLength, writeData: NOTHING };
}

export function dmaWrite(address: bigint, bytes: Uint8Array): DmaSegment {
  return { address, readLength: 0, writeData: bytes };
}
