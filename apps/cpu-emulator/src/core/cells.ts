import { CSRS, FP_DIRTY, HART_AREA_BASE, HART_AREA_BYTES, MACHINE_WORDS, VIRTUAL } from "./hart-state.ts";

/**
 * Typed views of one hart's cells (hart-state.ts), by byte offset inside its area. Several views of the same bytes: a
 * 64-bit cell is read as two 32-bit words wherever that saves a BigInt.
 */
export class HartCells {
  readonly buffer: ArrayBufferLike;
  /** Byte address of the hart's area in the machine's memory. */
  readonly base: number;
  readonly hart: number;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly i64: BigInt64Array;
  readonly u64: BigUint64Array;
  readonly f64: Float64Array;
  readonly u8: Uint8Array;

  constructor(buffer: ArrayBufferLike, hart: number) {
    this.buffer = buffer;
    this.hart = hart;
    this.base = HART_AREA_BASE + hart * HART_AREA_BYTES;
    const bytes = 0x1_0000; // everything below ENGINE
    this.i32 = new Int32Array(buffer, this.base, bytes / 4);
    this.u32 = new Uint32Array(buffer, this.base, bytes / 4);
    this.i64 = new BigInt64Array(buffer, this.base, bytes / 8);
    this.u64 = new BigUint64Array(buffer, this.base, bytes / 8);
    this.f64 = new Float64Array(buffer, this.base, bytes / 8);
    this.u8 = new Uint8Array(buffer, this.base, bytes);
  }

  /** Low 32 bits of a CSR cell, signed. */
  csr32(number: number): number {
    return this.i32[(CSRS >> 2) + number * 2]!;
  }
  csr(number: number): bigint {
    return this.u64[(CSRS >> 3) + number]!;
  }
  setCsr(number: number, value: bigint): void {
    this.u64[(CSRS >> 3) + number] = value;
  }
  /** A 64-bit cell as a double: exact below 2^53, otherwise near enough to compare with times. */
  asNumber(offset: number): number {
    return this.u32[(offset >> 2) + 1]! * 0x1_0000_0000 + this.u32[offset >> 2]!;
  }
  copy64(to: number, from: number): void {
    const words = this.i32;
    words[to >> 2] = words[from >> 2]!;
    words[(to >> 2) + 1] = words[(from >> 2) + 1]!;
  }
  /** Wakes whatever waits on the 32-bit word at this offset. */
  notify(offset: number): void {
    Atomics.notify(this.i32, offset >> 2);
  }
}

/** Views of the words shared by all harts of a machine, by byte offset from MACHINE_WORDS. */
export class MachineCells {
  readonly i32: Int32Array;
  readonly f64: Float64Array;
  constructor(buffer: ArrayBufferLike) {
    this.i32 = new Int32Array(buffer, MACHINE_WORDS, 1024);
    this.f64 = new Float64Array(buffer, MACHINE_WORDS, 512);
  }
}

/** FP_STATE as mstatus.FS has it; a guest's FS and its hypervisor's (in vsstatus' cell then, hypervisor.ts) both count. */
export function fpState(cells: HartCells): number {
  const own = FP_STATES[(cells.csr32(0x300) >>> 13) & 3]!;
  return cells.i32[VIRTUAL >> 2] === 0 ? own : Math.min(own, FP_STATES[(cells.csr32(0x200) >>> 13) & 3]!);
}
const FP_STATES = [0, 1, 1, FP_DIRTY] as const;
