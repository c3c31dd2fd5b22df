import type { HartCells } from "../cells.ts";
import { CSRS, GIVEN_UP } from "../hart-state.ts";
import type { PhysicalAccess } from "../engine.ts";
import { Access, DEVICE, FAULT, type Mmu } from "../mmu.ts";
import { ACCESS_ADDRESS, ACCESS_PLACE, ACCESS_VALUE, DIRECT, DONE, KIND_READ, KIND_SIGNED, KIND_SIZE, TRAPPED } from "./cells.ts";

if (ACCESS_VALUE >= CSRS) throw new Error("access cells overlap the CSR cells");

/**
 * Memory accesses that generated code does not do inline: TLB misses, misaligned addresses, page crossings, devices.
 * Address and value are in the ACCESS_ADDRESS and ACCESS_VALUE cells; answers are those of cells.ts.
 */
export class SlowAccesses {
  crossing = 0;
  device = 0;

  readonly #cells: HartCells;
  readonly #i32: Int32Array;
  readonly #memory: Uint8Array;
  readonly #halfwords: Uint16Array;
  readonly #words: Int32Array;
  readonly #doublewords: BigUint64Array;
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
    this.#halfwords = new Uint16Array(memory.buffer);
    this.#words = new Int32Array(memory.buffer);
    this.#doublewords = new BigUint64Array(memory.buffer);
    this.#mmu = mmu;
    this.#physical = physical;
    this.#bytes = cells.u8.subarray(ACCESS_VALUE, ACCESS_VALUE + 8);
  }

  /** Loads into ACCESS_VALUE, extended; or answers DIRECT for RAM within a page. */
  load(kind: number): number {
    const size = 1 << (kind & KIND_SIZE);
    const [low, high] = [this.#i32[this.#address]!, this.#i32[this.#address + 1]!];
    const inPage = 4096 - (low & 4095);
    if (size <= inPage) {
      const place = this.#mmu.translate(low, high, Access.READ);
      if (place === FAULT) return TRAPPED;
      if (place === DEVICE) return this.#deviceLoad(low, high, size, kind);
      this.#i32[ACCESS_PLACE >> 2] = place;
      return DIRECT;
    }
    this.crossing++;
    if (!this.#translateBoth(low, high, Access.READ)) return TRAPPED;
    this.#i32[this.#value] = this.#i32[this.#value + 1] = 0;
    for (let i = 0; i < size; i++) this.#bytes[i] = this.#memory[i < inPage ? this.#first + i : this.#second + i - inPage]!;
    this.#extend(kind);
    return DONE;
  }

  /** Stores the low bytes of ACCESS_VALUE; or answers DIRECT for RAM within a page. */
  store(kind: number): number {
    const size = 1 << (kind & KIND_SIZE);
    const [low, high] = [this.#i32[this.#address]!, this.#i32[this.#address + 1]!];
    const inPage = 4096 - (low & 4095);
    if (size <= inPage) {
      const place = this.#mmu.translate(low, high, Access.WRITE);
      if (place === FAULT) return TRAPPED;
      if (place === DEVICE) return this.#deviceStore(low, high, size);
      this.#i32[ACCESS_PLACE >> 2] = place;
      return DIRECT;
    }
    this.crossing++;
    if (!this.#translateBoth(low, high, Access.WRITE)) return TRAPPED;
    for (let i = 0; i < size; i++) this.#memory[i < inPage ? this.#first + i : this.#second + i - inPage] = this.#bytes[i]!;
    return DONE;
  }

  /** The DIRECT part of a load, for callers that are not generated code. Aligned ones are one access: other harts look on. */
  loadDirect(kind: number): void {
    const place = this.#i32[ACCESS_PLACE >> 2]! >>> 0;
    const size = 1 << (kind & KIND_SIZE);
    const values = this.#cells.u64;
    const at = ACCESS_VALUE >> 3;
    if (size === 8 && (place & 7) === 0) values[at] = this.#doublewords[place / 8]!;
    else if (size === 4 && (place & 3) === 0) values[at] = BigInt(this.#words[place >>> 2]! >>> 0);
    else if (size === 2 && (place & 1) === 0) values[at] = BigInt(this.#halfwords[place >>> 1]!);
    else {
      values[at] = 0n;
      for (let i = 0; i < size; i++) this.#bytes[i] = this.#memory[place + i]!;
    }
    this.#extend(kind);
  }
  storeDirect(kind: number): void {
    const place = this.#i32[ACCESS_PLACE >> 2]! >>> 0;
    const size = 1 << (kind & KIND_SIZE);
    if (size === 8 && (place & 7) === 0) this.#doublewords[place / 8] = this.#cells.u64[ACCESS_VALUE >> 3]!;
    else if (size === 4 && (place & 3) === 0) this.#words[place >>> 2] = this.#i32[this.#value]!;
    else if (size === 2 && (place & 1) === 0) this.#halfwords[place >>> 1] = this.#i32[this.#value]!;
    else for (let i = 0; i < size; i++) this.#memory[place + i] = this.#bytes[i]!;
  }

  /** For atomics: the page must be RAM (our PMAs give devices no atomicity) and the address aligned. */
  translate(kind: number): number {
    const size = 1 << (kind & KIND_SIZE);
    const access = kind & KIND_READ ? Access.READ : Access.WRITE;
    const [low, high] = [this.#i32[this.#address]!, this.#i32[this.#address + 1]!];
    if (low & (size - 1)) {
      this.#mmu.misaligned(low, high, access);
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
