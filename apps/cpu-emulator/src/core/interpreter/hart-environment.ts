import { HartTrap, type AmoOp, type Bytes, type CsrAccess, type Decoded, type Environment, type ir } from "@polyvisor/isa";
import type { HartCells } from "../cells.ts";
import { Csr, HStatus } from "../csr-row.ts";
import type { PrivilegedCore } from "../engine.ts";
import { F, FFLAGS, FRM, PC, RESERVATION, RESERVED_VALUE, SCRATCH, TRAP_CAUSE, TRAP_VALUE, X } from "../hart-state.ts";
import { Access, FAULT, type Mmu } from "../mmu.ts";
import type { SlowAccesses } from "./accesses.ts";
import { ACCESS_ADDRESS, ACCESS_VALUE, DIRECT, KIND_READ, KIND_SIGNED, TRAPPED } from "./cells.ts";

/** The hart around an instruction that the reference definition executes (libs/isa `evaluate`). */
export class HartEnvironment implements Environment {
  /** What `core.system` answered: it has set PC and INSTRET itself. */
  answer: number | undefined;
  fenceI = false;
  readonly #cells: HartCells;
  readonly #core: PrivilegedCore;
  readonly #mmu: Mmu;
  readonly #accesses: SlowAccesses;
  readonly #i32: Int32Array;
  readonly #i64: BigInt64Array;

  constructor(cells: HartCells, core: PrivilegedCore, memory: WebAssembly.Memory, mmu: Mmu, accesses: SlowAccesses) {
    this.#cells = cells;
    this.#core = core;
    this.#mmu = mmu;
    this.#accesses = accesses;
    this.#i32 = new Int32Array(memory.buffer);
    this.#i64 = new BigInt64Array(memory.buffer);
  }

  begin(): void {
    this.answer = undefined;
    this.fenceI = false;
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
    this.#core.fpDirty();
    this.#cells.u64[(F >> 3) + register] = value;
  }
  fpEnabled(): boolean {
    return this.#core.fpEnabled();
  }
  frm(): number {
    return this.#cells.i32[FRM >> 2]!;
  }
  accrue(flags: number): void {
    this.#core.fpDirty();
    this.#cells.i32[FFLAGS >> 2]! |= flags;
  }
  csr(access: CsrAccess, decoded: Decoded): bigint {
    const old = this.#core.csr(access.number, access.op, access.operand, access.reads, access.writes);
    if (old === undefined) throw new HartTrap(this.#cells.i32[TRAP_CAUSE >> 2]!, BigInt(decoded.word));
    return old;
  }
  system(op: ir.SystemOp, decoded: Decoded): undefined {
    if (op === "fence.i") {
      this.fenceI = true;
      return;
    }
    const { rs1, rs2, word, length } = decoded;
    this.answer = this.#core.system(op, word, this.readX(rs1), this.readX(rs2), length);
  }
  /** JavaScript has no fence; an atomic read-modify-write of anything is one on the processors that we know. */
  fence(): void {
    Atomics.add(this.#cells.i32, SCRATCH >> 2, 0);
  }
  require(_grant: "CBZE", decoded: Decoded): void {
    this.#allowCacheBlock("zero", decoded);
  }
  /** "Permitted if a load or a store is" (CMO, Translation Exceptions); otherwise it faults as a store. */
  cacheBlock(op: ir.CacheBlockOp, address: bigint, decoded: Decoded): void {
    this.#allowCacheBlock(op, decoded);
    const [low, high] = [Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(64, address) >> 32n)];
    if (this.#mmu.translate(low, high, Access.READ) === FAULT && this.#mmu.translate(low, high, Access.WRITE) === FAULT) this.#rethrow();
  }
  guestLoad(address: bigint, bytes: Bytes, signed: boolean, execute: boolean, decoded: Decoded): bigint {
    return this.#asGuest(execute, decoded, () => this.load(address, bytes, signed));
  }
  guestStore(address: bigint, bytes: Bytes, value: bigint, decoded: Decoded): void {
    this.#asGuest(false, decoded, () => this.store(address, bytes, value));
  }
  #asGuest<T>(execute: boolean, decoded: Decoded, access: () => T): T {
    const cause = this.#core.refuseGuestAccess();
    if (cause !== 0) throw new HartTrap(cause, BigInt(decoded.word));
    const privilege = this.#cells.csr32(Csr.HSTATUS) & HStatus.SPVP ? 1 : 0;
    return this.#mmu.asGuest(privilege, execute, access);
  }
  #allowCacheBlock(op: ir.CacheBlockOp | "zero", decoded: Decoded): void {
    const cause = this.#core.refuseCacheBlock(op);
    if (cause !== 0) throw new HartTrap(cause, BigInt(decoded.word));
  }
  load(address: bigint, bytes: Bytes, signed: boolean): bigint {
    this.#cells.u64[ACCESS_ADDRESS >> 3] = address;
    const kind = Math.log2(bytes) | (signed ? KIND_SIGNED : 0);
    const answer = this.#accesses.load(kind);
    if (answer === TRAPPED) this.#rethrow();
    if (answer === DIRECT) this.#accesses.loadDirect(kind);
    return this.#cells.u64[ACCESS_VALUE >> 3]!;
  }
  store(address: bigint, bytes: Bytes, value: bigint): void {
    this.#cells.u64[ACCESS_ADDRESS >> 3] = address;
    this.#cells.u64[ACCESS_VALUE >> 3] = value;
    const kind = Math.log2(bytes);
    const answer = this.#accesses.store(kind);
    if (answer === TRAPPED) this.#rethrow();
    if (answer === DIRECT) this.#accesses.storeDirect(kind);
  }
  amo(op: AmoOp, address: bigint, bytes: 4 | 8, value: bigint): bigint {
    const place = this.#place(address, bytes, Access.WRITE);
    for (;;) {
      const old = this.#read(place, bytes);
      if (this.#swap(place, bytes, old, combine(op, bytes, old, value))) return old;
    }
  }
  lr(address: bigint, bytes: 4 | 8): bigint {
    const place = this.#place(address, bytes, Access.READ);
    const value = this.#read(place, bytes);
    this.#cells.i64[RESERVATION >> 3] = BigInt(place);
    this.#cells.i64[RESERVED_VALUE >> 3] = value;
    return value;
  }
  sc(address: bigint, bytes: 4 | 8, value: bigint): boolean {
    if (this.#cells.i64[RESERVATION >> 3]! < 0n) return false;
    const place = this.#place(address, bytes, Access.WRITE);
    const reserved = this.#cells.i64[RESERVATION >> 3] === BigInt(place);
    this.#cells.i64[RESERVATION >> 3] = -1n;
    return reserved && this.#swap(place, bytes, BigInt.asIntN(bytes * 8, this.#cells.i64[RESERVED_VALUE >> 3]!), value);
  }

  /** Linear-memory address for an atomic access. */
  #place(address: bigint, bytes: 4 | 8, access: Access): number {
    this.#cells.u64[ACCESS_ADDRESS >> 3] = address;
    if (this.#accesses.translate(Math.log2(bytes) | (access === Access.READ ? KIND_READ : 0))) this.#rethrow();
    return this.#mmu.translate(Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(64, address) >> 32n), access);
  }
  #read(place: number, bytes: 4 | 8): bigint {
    return bytes === 4 ? BigInt(Atomics.load(this.#i32, place >>> 2)) : Atomics.load(this.#i64, place >>> 3);
  }
  #swap(place: number, bytes: 4 | 8, old: bigint, value: bigint): boolean {
    if (bytes === 8) return Atomics.compareExchange(this.#i64, place >>> 3, old, BigInt.asIntN(64, value)) === old;
    return Atomics.compareExchange(this.#i32, place >>> 2, Number(old), Number(BigInt.asIntN(32, value))) === Number(old);
  }
  #rethrow(): never {
    throw new HartTrap(this.#cells.i32[TRAP_CAUSE >> 2]!, this.#cells.u64[TRAP_VALUE >> 3]!);
  }
}

function combine(op: AmoOp, bytes: 4 | 8, old: bigint, operand: bigint): bigint {
  const [a, b] = [BigInt.asIntN(bytes * 8, old), BigInt.asIntN(bytes * 8, operand)];
  const [ua, ub] = [BigInt.asUintN(bytes * 8, old), BigInt.asUintN(bytes * 8, operand)];
  switch (op) {
    case "swap": return b;
    case "add": return a + b;
    case "and": return a & b;
    case "or": return a | b;
    case "xor": return a ^ b;
    case "minS": return a < b ? a : b;
    case "maxS": return a > b ? a : b;
    case "minU": return ua < ub ? ua : ub;
    case "maxU": return ua > ub ? ua : ub;
  }
}
