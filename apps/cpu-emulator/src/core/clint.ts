import { ADDRESS_MAP } from "@polyvisor/machine";
import type { HartCells } from "./cells.ts";
import { MSIP } from "./csr.ts";
import type { GuestTime } from "./guest-time.ts";
import { EXTERNAL_PENDING } from "./hart-state.ts";
import { MTIMECMP, wake } from "./mailbox.ts";
import type { Privileged } from "./privileged.ts";

/**
 * Core-local interruptor (SiFive CLINT as in the FU540 manual, chapter 9; the layout QEMU's virt has), answered inside
 * the hart's thread. Its registers are words of all harts' cells, so that a hart reaches another's without an exit.
 *
 *   0x0000 + 4h   msip       bit 0 = mip.MSIP of hart h
 *   0x4000 + 8h   mtimecmp   mip.MTIP of hart h while mtime >= mtimecmp
 *   0xbff8        mtime      one for all harts
 */
const MTIMECMP_OFFSET = 0x4000;
const MTIME_OFFSET = 0xbff8;
const BASE = Number(ADDRESS_MAP.clint.base);
const BYTES = Number(ADDRESS_MAP.clint.bytes);

export class Clint {
  readonly #harts: readonly HartCells[];
  readonly #self: Privileged;
  readonly #time: GuestTime;

  constructor(harts: readonly HartCells[], self: Privileged, time: GuestTime) {
    this.#harts = harts;
    this.#self = self;
    this.#time = time;
  }
  static decodes(physical: bigint): boolean {
    return physical >= ADDRESS_MAP.clint.base && physical < ADDRESS_MAP.clint.base + BigInt(BYTES);
  }

  /** Undefined: no such register, or a width other than 4 or 8 bytes. */
  read(physical: bigint, bytes: number): bigint | undefined {
    const offset = Number(physical) - BASE;
    if (bytes < 4) return undefined;
    const hart = this.#msip(offset);
    if (hart) return Atomics.load(hart.i32, EXTERNAL_PENDING >> 2) & MSIP ? 1n : 0n;
    const compare = this.#mtimecmp(offset);
    if (compare) return part(compare.u64[MTIMECMP >> 3]!, offset, bytes);
    if ((offset & ~7) === MTIME_OFFSET) return part(BigInt(this.#time.ticks()), offset, bytes);
    return undefined;
  }

  /** False: no such register. */
  write(physical: bigint, bytes: number, value: bigint): boolean {
    const offset = Number(physical) - BASE;
    if (bytes < 4) return false;
    const hart = this.#msip(offset);
    if (hart) {
      if (value & 1n) Atomics.or(hart.i32, EXTERNAL_PENDING >> 2, MSIP);
      else Atomics.and(hart.i32, EXTERNAL_PENDING >> 2, ~MSIP);
      wake(hart);
      return true;
    }
    const compare = this.#mtimecmp(offset);
    if (compare) {
      compare.u64[MTIMECMP >> 3] = replace(compare.u64[MTIMECMP >> 3]!, offset, bytes, value);
      if (compare === this.#self.cells) this.#self.refreshTimers();
      else wake(compare); // it may sleep until the old time
      return true;
    }
    if ((offset & ~7) === MTIME_OFFSET) {
      this.#time.set(Number(replace(BigInt(this.#time.ticks()), offset, bytes, value)));
      for (const other of this.#harts) wake(other);
      return true;
    }
    return false;
  }

  #msip(offset: number): HartCells | undefined {
    return offset < MTIMECMP_OFFSET && (offset & 3) === 0 ? this.#harts[offset >> 2] : undefined;
  }
  #mtimecmp(offset: number): HartCells | undefined {
    return offset >= MTIMECMP_OFFSET && offset < MTIME_OFFSET ? this.#harts[(offset - MTIMECMP_OFFSET) >> 3] : undefined;
  }
}

function part(value: bigint, offset: number, bytes: number): bigint {
  return bytes === 8 ? value : (value >> (offset & 4 ? 32n : 0n)) & 0xffff_ffffn;
}
function replace(old: bigint, offset: number, bytes: number, value: bigint): bigint {
  if (bytes === 8) return value;
  const shift = offset & 4 ? 32n : 0n;
  return (old & ~(0xffff_ffffn << shift)) | ((value & 0xffff_ffffn) << shift);
}
