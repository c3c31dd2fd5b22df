import { evaluate, HartTrap, type AmoOp, type Bytes, type Decoded, type Environment } from "@polyvisor/isa";
import type { HartCells } from "../cells.ts";
import { F, FRM, PC, X } from "../hart-state.ts";

export interface RecordedAccess {
  readonly address: bigint;
  readonly bytes: number;
  readonly reads: boolean;
  readonly writes: boolean;
}

/**
 * Finds out which memory an instruction will touch by evaluating its definition with everything but the registers taken
 * away: nothing is loaded, stored or changed.
 */
export function accessesOf(decoded: Decoded, cells: HartCells): RecordedAccess[] {
  const recorder = new Recorder(cells);
  try {
    evaluate(decoded, recorder);
  } catch (error) {
    if (!(error instanceof HartTrap)) throw error; // it will trap for real as well
  }
  return recorder.accesses;
}

class Recorder implements Environment {
  readonly accesses: RecordedAccess[] = [];
  readonly #cells: HartCells;
  constructor(cells: HartCells) {
    this.#cells = cells;
  }
  get pc(): bigint {
    return this.#cells.u64[PC >> 3]!;
  }
  readX(register: number): bigint {
    return this.#cells.u64[(X >> 3) + register]!;
  }
  readF(register: number): bigint {
    return this.#cells.u64[(F >> 3) + register]!;
  }
  frm(): number {
    return this.#cells.i32[FRM >> 2]!;
  }
  fpEnabled(): boolean {
    return true;
  }
  writeX(): void {}
  writeF(): void {}
  accrue(): void {}
  fence(): void {}
  require(): void {}
  cacheBlock(): void {}
  guestLoad(address: bigint, bytes: Bytes): bigint {
    return this.load(address, bytes);
  }
  guestStore(address: bigint, bytes: Bytes): void {
    this.store(address, bytes);
  }
  csr(): bigint {
    return 0n;
  }
  system(): undefined {}
  load(address: bigint, bytes: Bytes): bigint {
    return this.#record(address, bytes, true, false);
  }
  store(address: bigint, bytes: Bytes): void {
    this.#record(address, bytes, false, true);
  }
  amo(_op: AmoOp, address: bigint, bytes: 4 | 8): bigint {
    return this.#record(address, bytes, true, true);
  }
  lr(address: bigint, bytes: 4 | 8): bigint {
    return this.#record(address, bytes, true, false);
  }
  sc(address: bigint, bytes: 4 | 8): boolean {
    return this.#record(address, bytes, false, true) === 0n;
  }
  #record(address: bigint, bytes: number, reads: boolean, writes: boolean): bigint {
    this.accesses.push({ address: BigInt.asUintN(64, address), bytes, reads, writes });
    return 0n;
  }
}
