import {
  decode, evaluate, HartTrap, illegalInstruction, type AmoOp, type Bytes, type CsrAccess, type Decoded, type Environment, type SystemOp,
} from "@polyvisor/isa";
import type { HartCells } from "./cells.ts";
import { Cause, ExitReason, type Engine, type PhysicalAccess, type PrivilegedCore } from "./engine.ts";
import { F, FFLAGS, FRM, GIVEN_UP, INSTRET, PC, RESERVATION, RESERVED_VALUE, TRAP_CAUSE, TRAP_VALUE, X } from "./hart-state.ts";
import { Access, DEVICE, FAULT, type Mmu } from "./mmu.ts";

export interface ReferenceEngineParts {
  readonly memory: WebAssembly.Memory;
  readonly cells: HartCells;
  readonly core: PrivilegedCore;
  readonly physical: PhysicalAccess;
  readonly mmu: Mmu;
}

/**
 * The engine `reference`: libs/isa's evaluation of the IR, one instruction at a time, on the same cells and the same MMU
 * as the generated interpreter. A few MIPS; it is there to be read and compared with, and to step exactly.
 */
export class ReferenceEngine implements Engine {
  readonly name = "reference";
  readonly #cells: HartCells;
  readonly #hart: ReferenceHart;
  readonly #decoded = new Map<number, Decoded | undefined>();

  constructor(parts: ReferenceEngineParts) {
    this.#cells = parts.cells;
    this.#hart = new ReferenceHart(parts);
  }

  run(budget: number): ExitReason {
    const hart = this.#hart;
    const { u64, i32 } = this.#cells;
    for (let left = budget; left > 0; left--) {
      hart.leave = -1;
      try {
        const word = hart.fetch();
        let decoded = this.#decoded.get(word);
        if (!decoded) {
          decoded = decode(word);
          if (!decoded) throw illegalInstruction((word & 3) === 3 ? word : word & 0xffff);
          this.#decoded.set(word, decoded);
        }
        u64[PC >> 3] = evaluate(decoded, hart);
        if (!hart.countedByCore) u64[INSTRET >> 3]!++;
        hart.countedByCore = false;
      } catch (error) {
        if (!(error instanceof HartTrap)) throw error;
        i32[TRAP_CAUSE >> 2] = error.cause;
        i32[(TRAP_CAUSE >> 2) + 1] = 0;
        u64[TRAP_VALUE >> 3] = error.value;
        return ExitReason.TRAP;
      }
      if (hart.leave !== -1) return hart.leave;
    }
    return ExitReason.BUDGET;
  }

  /** Instructions are fetched from memory every time: nothing is stale. */
  fenceI(): void {}
  flushTlb(): void {
    this.#hart.flush();
  }
  events(): Record<string, number> {
    return {};
  }
}

/** One hart as the evaluator sees it. */
class ReferenceHart implements Environment {
  /** Why to leave after this instruction, -1 = go on. */
  leave: ExitReason | -1 = -1;
  /** The privileged core executed the instruction, and counted it. */
  countedByCore = false;
  readonly #parts: ReferenceEngineParts;
  readonly #cells: HartCells;
  readonly #view: DataView;
  readonly #i32: Int32Array;
  readonly #i64: BigInt64Array;

  constructor(parts: ReferenceEngineParts) {
    this.#parts = parts;
    this.#cells = parts.cells;
    const { buffer } = parts.memory;
    this.#view = new DataView(buffer);
    this.#i32 = new Int32Array(buffer);
    this.#i64 = new BigInt64Array(buffer);
  }
  flush(): void {
    this.#parts.mmu.flushTlb();
  }

  /** The instruction at PC: 32 bits, or 16 in the low half (then nothing beyond it is touched). */
  fetch(): number {
    const pc = this.pc;
    const low = this.#view.getUint16(this.#ram(pc, Access.EXECUTE), true);
    if ((low & 3) !== 3) return low;
    const high = this.#view.getUint16(this.#ram(BigInt.asUintN(64, pc + 2n), Access.EXECUTE), true);
    return ((high << 16) | low) >>> 0;
  }

  get pc(): bigint {
    return this.#cells.u64[PC >> 3]!;
  }
  readX(register: number): bigint {
    return this.#cells.u64[(X >> 3) + register]!;
  }
  writeX(register: number, value: bigint): void {
    this.#cells.u64[(X >> 3) + register] = value;
  }
  readF(register: number): bigint {
    return this.#cells.u64[(F >> 3) + register]!;
  }
  writeF(register: number, value: bigint): void {
    this.#cells.u64[(F >> 3) + register] = value;
    this.#parts.core.fpDirty();
  }
  fpEnabled(): boolean {
    return this.#parts.core.fpEnabled();
  }
  frm(): number {
    return this.#cells.i32[FRM >> 2]!;
  }
  accrue(flags: number): void {
    this.#cells.i32[FFLAGS >> 2]! |= flags;
    this.#parts.core.fpDirty();
  }

  load(address: bigint, bytes: Bytes, signed: boolean): bigint {
    const value = this.#read(address, bytes, Access.READ);
    return signed ? BigInt.asIntN(bytes * 8, value) : value;
  }
  store(address: bigint, bytes: Bytes, value: bigint): void {
    if (crossesPage(address, bytes)) return this.#storeCrossing(address, bytes, value);
    const place = this.#translate(address, Access.WRITE);
    if (place === DEVICE) {
      this.#aligned(address, bytes, Cause.STORE_ACCESS);
      const done = this.#parts.physical.mmioWrite(BigInt(this.#parts.mmu.devicePhysical), bytes, BigInt.asUintN(bytes * 8, value));
      if (!done) throw new HartTrap(Cause.STORE_ACCESS, address);
      return;
    }
    switch (bytes) {
      case 1: return this.#view.setUint8(place, Number(value & 0xffn));
      case 2: return this.#view.setUint16(place, Number(value & 0xffffn), true);
      case 4: return this.#view.setUint32(place, Number(value & 0xffff_ffffn), true);
      case 8: return this.#view.setBigUint64(place, BigInt.asUintN(64, value), true);
    }
  }
  amo(op: AmoOp, address: bigint, bytes: 4 | 8, value: bigint): bigint {
    const place = this.#atomicPlace(address, bytes, Access.WRITE, Cause.STORE_MISALIGNED, Cause.STORE_ACCESS);
    const width = bytes * 8;
    for (;;) {
      const old = this.#atomicLoad(place, bytes);
      const next = combine(op, old, BigInt.asUintN(width, value), width);
      if (this.#compareAndSwap(place, bytes, old, next)) return BigInt.asIntN(width, old);
    }
  }
  lr(address: bigint, bytes: 4 | 8): bigint {
    const place = this.#atomicPlace(address, bytes, Access.READ, Cause.LOAD_MISALIGNED, Cause.LOAD_ACCESS);
    const value = BigInt.asIntN(bytes * 8, this.#atomicLoad(place, bytes));
    this.#cells.i64[RESERVATION >> 3] = BigInt(place);
    this.#cells.i64[RESERVED_VALUE >> 3] = value;
    return value;
  }
  sc(address: bigint, bytes: 4 | 8, value: bigint): boolean {
    const place = this.#atomicPlace(address, bytes, Access.WRITE, Cause.STORE_MISALIGNED, Cause.STORE_ACCESS);
    const reserved = this.#cells.i64[RESERVATION >> 3] === BigInt(place);
    this.#cells.i64[RESERVATION >> 3] = -1n;
    return reserved && this.#compareAndSwap(place, bytes, this.#cells.u64[RESERVED_VALUE >> 3]!, value);
  }

  csr(access: CsrAccess, decoded: Decoded): bigint {
    const old = this.#parts.core.csr(access.number, access.op, access.operand, access.reads, access.writes);
    if (old === undefined) throw illegalInstruction(decoded.word);
    if (this.#parts.core.leave) this.leave = ExitReason.CORE;
    return old;
  }
  system(op: SystemOp, decoded: Decoded): bigint | undefined {
    if (op === "fence.i") return undefined;
    this.countedByCore = true;
    this.leave = this.#parts.core.system(op, decoded.word, this.readX(decoded.rs1), this.readX(decoded.rs2), decoded.length);
    return this.pc;
  }
  fence(): void {}

  #translate(address: bigint, access: Access): number {
    const place = this.#parts.mmu.translate(Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(32, address >> 32n)), access);
    if (place === FAULT) {
      throw new HartTrap(this.#cells.i32[TRAP_CAUSE >> 2]!, this.#cells.u64[TRAP_VALUE >> 3]!);
    }
    return place;
  }
  /** The place of an address that must be RAM. */
  #ram(address: bigint, access: Access): number {
    const place = this.#translate(address, access);
    if (place >= 0) return place;
    throw new HartTrap(access === Access.EXECUTE ? Cause.INSTRUCTION_ACCESS : access === Access.READ ? Cause.LOAD_ACCESS : Cause.STORE_ACCESS, address);
  }
  #read(address: bigint, bytes: Bytes, access: Access): bigint {
    if (crossesPage(address, bytes)) {
      const places = this.#bothPages(address, access);
      let value = 0n;
      for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#view.getUint8(places(i)));
      return value;
    }
    const place = this.#translate(address, access);
    if (place === DEVICE) {
      this.#aligned(address, bytes, Cause.LOAD_ACCESS);
      const value = this.#parts.physical.mmioRead(BigInt(this.#parts.mmu.devicePhysical), bytes);
      if (value === undefined) throw new HartTrap(Cause.LOAD_ACCESS, address);
      return BigInt.asUintN(bytes * 8, value);
    }
    switch (bytes) {
      case 1: return BigInt(this.#view.getUint8(place));
      case 2: return BigInt(this.#view.getUint16(place, true));
      case 4: return BigInt(this.#view.getUint32(place, true));
      case 8: return this.#view.getBigUint64(place, true);
    }
  }
  #storeCrossing(address: bigint, bytes: Bytes, value: bigint): void {
    const places = this.#bothPages(address, Access.WRITE);
    for (let i = 0; i < bytes; i++) this.#view.setUint8(places(i), Number((value >> BigInt(i * 8)) & 0xffn));
  }
  /** Both pages of an access that crosses, translated before anything is touched; answers where byte i is. */
  #bothPages(address: bigint, access: Access): (index: number) => number {
    const second = BigInt.asUintN(64, (address & ~0xfffn) + 0x1000n);
    const inFirst = Number(second - address);
    for (;;) {
      const givenUp = Atomics.load(this.#cells.i32, GIVEN_UP >> 2);
      const first = this.#ram(address, access);
      const next = this.#ram(second, access);
      // The second may have blocked and the first page been recalled.
      if (Atomics.load(this.#cells.i32, GIVEN_UP >> 2) !== givenUp) continue;
      return (index) => (index < inFirst ? first + index : next + index - inFirst);
    }
  }
  #aligned(address: bigint, bytes: number, cause: number): void {
    if (address & BigInt(bytes - 1)) throw new HartTrap(cause, address); // devices take aligned accesses only
  }

  #atomicPlace(address: bigint, bytes: number, access: Access, misaligned: number, notRam: number): number {
    if (address & BigInt(bytes - 1)) throw new HartTrap(misaligned, address);
    const place = this.#translate(address, access);
    if (place === DEVICE) throw new HartTrap(notRam, address); // PMA: no atomics on devices
    return place;
  }
  #atomicLoad(place: number, bytes: 4 | 8): bigint {
    return bytes === 4
      ? BigInt(Atomics.load(this.#i32, place >>> 2) >>> 0)
      : BigInt.asUintN(64, Atomics.load(this.#i64, place / 8));
  }
  #compareAndSwap(place: number, bytes: 4 | 8, old: bigint, next: bigint): boolean {
    if (bytes === 4) {
      const expected = Number(BigInt.asIntN(32, old));
      return Atomics.compareExchange(this.#i32, place >>> 2, expected, Number(BigInt.asIntN(32, next))) === expected;
    }
    const expected = BigInt.asIntN(64, old);
    return Atomics.compareExchange(this.#i64, place / 8, expected, BigInt.asIntN(64, next)) === expected;
  }
}

function crossesPage(address: bigint, bytes: number): boolean {
  return Number(address & 0xfffn) + bytes > 4096;
}

/** Zaamo operations on unsigned values of `width` bits. */
function combine(op: AmoOp, old: bigint, value: bigint, width: number): bigint {
  const signed = (v: bigint): bigint => BigInt.asIntN(width, v);
  switch (op) {
    case "swap": return value;
    case "add": return BigInt.asUintN(width, old + value);
    case "and": return old & value;
    case "or": return old | value;
    case "xor": return old ^ value;
    case "minS": return signed(old) < signed(value) ? old : value;
    case "maxS": return signed(old) > signed(value) ? old : value;
    case "minU": return old < value ? old : value;
    case "maxU": return old > value ? old : value;
  }
}
