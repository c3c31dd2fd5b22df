/** Thrown by {@link RamView} when an access is not wholly inside RAM. Check `contains` first where a guest chose the address. */
export class OutOfRamError extends RangeError {
  constructor(address: bigint, byteLength: number, view: { base: bigint; bytes: number }) {
    super(
      `access to 0x${address.toString(16)} + ${byteLength} is outside RAM ` +
        `0x${view.base.toString(16)} .. 0x${(view.base + BigInt(view.bytes)).toString(16)}`,
    );
    this.name = "OutOfRamError";
  }
}

/**
 * Guest RAM by guest-physical address, little-endian as RISC-V's (unprivileged spec, 1.4), every access bounds-checked.
 *
 * An aligned access of 2, 4 or 8 bytes is one host access: a hart on another thread never sees half of an index that
 * a device writes (virtio 1.2, 2.7.8: used.idx is read while the device updates it).
 */
export class RamView {
  readonly base: bigint;
  readonly bytes: number;
  /** RAM as bytes; index 0 is `base`. */
  readonly u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #u64: BigUint64Array;

  /** `offset` must be a multiple of 8, `bytes` too. Hosts are little-endian, as every host of Node 26 is. */
  constructor(buffer: ArrayBufferLike, offset: number, bytes: number, base: bigint) {
    this.base = base;
    this.bytes = bytes;
    this.u8 = new Uint8Array(buffer, offset, bytes);
    this.#u16 = new Uint16Array(buffer, offset, bytes / 2);
    this.#u32 = new Uint32Array(buffer, offset, bytes / 4);
    this.#u64 = new BigUint64Array(buffer, offset, bytes / 8);
  }

  contains(address: bigint, byteLength: number): boolean {
    return address >= this.base && byteLength >= 0 && address + BigInt(byteLength) <= this.base + BigInt(this.bytes);
  }
  /** Offset of an address in RAM. Throws OutOfRamError. */
  offsetOf(address: bigint, byteLength: number): number {
    if (!this.contains(address, byteLength)) throw new OutOfRamError(address, byteLength, this);
    return Number(address - this.base);
  }

  /** Copies bytes out of RAM to `target`. `offset` counts from the start of RAM and must be inside. */
  copyOut(offset: number, target: Uint8Array): void {
    const length = target.length;
    if (length <= 8 && offset % length === 0 && (length === 2 || length === 4 || length === 8)) {
      const value = length === 8 ? this.#u64[offset / 8]! : length === 4 ? this.#u32[offset / 4]! : this.#u16[offset / 2]!;
      for (let i = 0; i < length; i++) {
        target[i] = typeof value === "bigint" ? Number((value >> BigInt(8 * i)) & 0xffn) : value >>> (8 * i);
      }
      return;
    }
    target.set(this.u8.subarray(offset, offset + length));
  }
  /** Copies bytes into RAM. */
  copyIn(offset: number, source: Uint8Array): void {
    const length = source.length;
    if (length === 2 && offset % 2 === 0) this.#u16[offset / 2] = source[0]! | (source[1]! << 8);
    else if (length === 4 && offset % 4 === 0) this.#u32[offset / 4] = word(source, 0);
    else if (length === 8 && offset % 8 === 0) {
      this.#u64[offset / 8] = BigInt(word(source, 0)) | (BigInt(word(source, 4)) << 32n);
    } else this.u8.set(source, offset);
  }
  /** A copy of the bytes at an address; never a view. Throws OutOfRamError. */
  read(address: bigint, byteLength: number): Uint8Array {
    const target = new Uint8Array(byteLength);
    this.copyOut(this.offsetOf(address, byteLength), target);
    return target;
  }
  write(address: bigint, bytes: Uint8Array): void {
    this.copyIn(this.offsetOf(address, bytes.length), bytes);
  }
  readU64(address: bigint): bigint {
    const bytes = this.read(address, 8);
    return BigInt(word(bytes, 0)) | (BigInt(word(bytes, 4)) << 32n);
  }
  writeU64(address: bigint, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    this.write(address, bytes);
  }
  /** True when the bytes from `offset` (a multiple of 8) on are all zero. */
  isZero(offset: number, byteLength: number): boolean {
    for (let i = offset / 8, end = (offset + byteLength) / 8; i < end; i++) if (this.#u64[i] !== 0n) return false;
    return true;
  }
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}
