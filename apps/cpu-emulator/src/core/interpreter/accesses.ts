import type { HartCells } from "../cells.ts";
import { CSRS, GIVEN_UP } from "../hart-state.ts";
import { type PhysicalAccess, Cause } from "../engine.ts";
import { Access, DEVICE, FAULT, type Mmu } from "../mmu.ts";
import { TRAP_CAUSE, TRAP_VALUE } from "../hart-state.ts";
import { ACCESS_ADDRESS, ACCESS_VALUE, KIND_READ, KIND_SIGNED, KIND_SIZE } from "./cells.ts";

if (ACCESS_VALUE >= CSRS) throw new Error("access cells overlap the CSR cells");

/**
 * Memory accesses that generated code does not do inline: TLB misses, misaligned addresses, page crossings, devices.
 * Address and value are in the ACCESS_ADDRESS and ACCESS_VALUE cells; 1 = trap.
 */
export class SlowAccesses {
  misaligned = 0;
  device = 0;

  readonly #cells: HartCells;
  readonly #i32: Int32Array;
  readonly #memory: Uint8Array;
  readonly #memory16: Uint16Array;
  readonly #memory32: Int32Array;
  readonly #memory64: BigInt64Array;
  readonly #mmu: Mmu;
  readonly #physical: PhysicalAccess;
  readonly #address = ACCESS_ADDRESS >> 2;
  readonly #value = ACCESS_VALUE >> 2;
  /** The bytes of one access, on their way. */
  readonly #bytes: Uint8Array;
  /** Places of the two parts of an access that crosses a page. */
  #first = 0;
  #second = 0;

  constructor(cells: HartCells, memory: WebAssembly.Memory, mmu: Mmu, physical: PhysicalAccess) {
    this.#cells = cells;
    this.#i32 = cells.i32;
    this.#memory = new Uint8Array(memory.buffer);
    this.#memory16 = new Uint16Array(memory.buffer);
    this.#memory32 = new Int32Array(memory.buffer);
    this.#memory64 = new BigInt64Array(memory.buffer);
    this.#mmu = mmu;
    this.#physical = physical;
    this.#bytes = cells.u8.subarray(ACCESS_VALUE, ACCESS_VALUE + 8);
  }

  load(kind: number): number {
    const size = 1 << (kind & KIND_SIZE);
    const [low, high] = [this.#i32[this.#address]!, this.#i32[this.#address + 1]!];
    const inPage = 4096 - (low & 4095);
    if (size > inPage) {
      if (!this.#translateBoth(low, high, Access.READ)) return 1;
      this.#i32[this.#value] = this.#i32[this.#value + 1] = 0;
      for (let i = 0; i < size; i++) this.#bytes[i] = this.#memory[i < inPage ? this.#first + i : this.#second + i - inPage]!;
    } else {
      const place = this.#mmu.translate(low, high, Access.READ);
      if (place === FAULT) return 1;
      if (place === DEVICE) return this.#deviceLoad(low, high, size, kind);
      if ((low & 3) === 0 && size >= 4) {
        this.#i32[this.#value] = this.#memory32[place >>> 2]!;
        this.#i32[this.#value + 1] = size === 8 ? this.#memory32[(place >>> 2) + 1]! : 0;
      } else {
        this.#i32[this.#value] = this.#i32[this.#value + 1] = 0;
        for (let i = 0; i < size; i++) this.#bytes[i] = this.#memory[place + i]!;
      }
    }
    if (low & (size - 1)) this.misaligned++;
    this.#extend(kind);
    return 0;
  }

  store(kind: number): number {
    const size = 1 << (kind & KIND_SIZE);
    const [low, high] = [this.#i32[this.#address]!, this.#i32[this.#address + 1]!];
    const inPage = 4096 - (low & 4095);
    if (size > inPage) {
      if (!this.#translateBoth(low, high, Access.WRITE)) return 1;
      for (let i = 0; i < size; i++) this.#memory[i < inPage ? this.#first + i : this.#second + i - inPage] = this.#bytes[i]!;
    } else {
      const place = this.#mmu.translate(low, high, Access.WRITE);
      if (place === FAULT) return 1;
      if (place === DEVICE) return this.#deviceStore(low, high, size);
      if (low & (size - 1)) for (let i = 0; i < size; i++) this.#memory[place + i] = this.#bytes[i]!;
      else this.#storeAligned(place, size);
    }
    if (low & (size - 1)) this.misaligned++;
    return 0;
  }

  /** For atomics: the page must be RAM (our PMAs give devices no atomicity) and the address aligned. */
  translate(kind: number): number {
    const size = 1 << (kind & KIND_SIZE);
    const access = kind & KIND_READ ? Access.READ : Access.WRITE;
    const [low, high] = [this.#i32[this.#address]!, this.#i32[this.#address + 1]!];
    if (low & (size - 1)) {
      this.#i32[TRAP_CAUSE >> 2] = access === Access.READ ? Cause.LOAD_MISALIGNED : Cause.STORE_MISALIGNED;
      this.#i32[(TRAP_CAUSE >> 2) + 1] = 0;
      this.#i32[TRAP_VALUE >> 2] = low;
      this.#i32[(TRAP_VALUE >> 2) + 1] = high;
      return 1;
    }
    const place = this.#mmu.translate(low, high, access);
    if (place === FAULT) return 1;
    if (place !== DEVICE) return 0;
    this.#mmu.accessFault(low, high, access);
    return 1;
  }

  /**
   * An access that crosses a page: both halves are checked before anything is written, and the first page is not marked
   * dirty when the second one faults ("the PTE update must be exact", privileged spec, section 11.3.1).
   */
  #translateBoth(low: number, high: number, access: Access): boolean {
    const nextLow = ((low | 4095) + 1) | 0;
    const nextHigh = nextLow === 0 ? (high + 1) | 0 : high;
    for (;;) {
      if (this.#mmu.translate(low, high, access, true) === FAULT) return false;
      const second = this.#mmu.translate(nextLow, nextHigh, access);
      if (second === FAULT) return false;
      const givenUp = Atomics.load(this.#i32, GIVEN_UP >> 2);
      const first = this.#mmu.translate(low, high, access);
      if (first === FAULT) return false;
      if (Atomics.load(this.#i32, GIVEN_UP >> 2) !== givenUp) continue; // the second page may have been recalled
      if (first === DEVICE || second === DEVICE) {
        if (first === DEVICE) this.#mmu.accessFault(low, high, access);
        else this.#mmu.accessFault(nextLow, nextHigh, access);
        return false;
      }
      this.#first = first;
      this.#second = second;
      return true;
    }
  }

  #storeAligned(place: number, size: number): void {
    // One store of the whole width: other harts must not see half of it.
    switch (size) {
      case 1: this.#memory[place] = this.#bytes[0]!; return;
      case 2: this.#memory16[place >>> 1] = this.#i32[this.#value]!; return;
      case 4: this.#memory32[place >>> 2] = this.#i32[this.#value]!; return;
      default: this.#memory64[place >>> 3] = this.#cells.i64[ACCESS_VALUE >> 3]!;
    }
  }

  #extend(kind: number): void {
    if (!(kind & KIND_SIGNED)) return;
    const low = this.#value;
    switch (kind & KIND_SIZE) {
      case 0: this.#i32[low] = (this.#i32[low]! << 24) >> 24; break;
      case 1: this.#i32[low] = (this.#i32[low]! << 16) >> 16; break;
      case 3: return;
    }
    this.#i32[low + 1] = this.#i32[low]! >> 31;
  }

  #deviceLoad(low: number, high: number, size: number, kind: number): number {
    this.device++;
    const value = low & (size - 1) ? undefined : this.#physical.mmioRead(BigInt(this.#mmu.devicePhysical), size as 1 | 2 | 4 | 8);
    if (value === undefined) {
      this.#mmu.accessFault(low, high, Access.READ);
      return 1;
    }
    this.#cells.u64[ACCESS_VALUE >> 3] = BigInt.asUintN(size * 8, value);
    this.#extend(kind);
    return 0;
  }

  #deviceStore(low: number, high: number, size: number): number {
    this.device++;
    const value = BigInt.asUintN(size * 8, this.#cells.u64[ACCESS_VALUE >> 3]!);
    if (!(low & (size - 1)) && this.#physical.mmioWrite(BigInt(this.#mmu.devicePhysical), size as 1 | 2 | 4 | 8, value)) return 0;
    this.#mmu.accessFault(low, high, Access.WRITE);
    return 1;
  }
}
