import { decode, evaluate, HartTrap } from "@polyvisor/isa";
import type { HartCells } from "./cells.ts";
import { Cause, type Engine, ExitReason, type PhysicalAccess, type PrivilegedCore } from "./engine.ts";
import { FP_DIRTY, FP_STATE, INSTRET, PC, TRAP_CAUSE, TRAP_VALUE } from "./hart-state.ts";
import { SlowAccesses } from "./interpreter/accesses.ts";
import { HartEnvironment } from "./interpreter/hart-environment.ts";
import { Access, DEVICE, FAULT, type Mmu } from "./mmu.ts";

export interface ReferenceOptions {
  readonly memory: WebAssembly.Memory;
  readonly cells: HartCells;
  readonly core: PrivilegedCore;
  readonly physical: PhysicalAccess;
  readonly mmu: Mmu;
}

/**
 * The plainest engine: fetch, decode and evaluate one instruction at a time from its definition in libs/isa, no caches
 * but the TLB. A thousand times slower than generated code and what that is compared with.
 *
 * It sees stores to code at once, which RISC-V allows.
 */
export class ReferenceEngine implements Engine {
  readonly name = "reference";
  readonly mmu: Mmu;
  readonly #cells: HartCells;
  readonly #u16: Uint16Array;
  readonly #environment: HartEnvironment;
  readonly #core: PrivilegedCore;
  #executed = 0;

  constructor({ memory, cells, core, physical, mmu }: ReferenceOptions) {
    this.#core = core;
    this.#cells = cells;
    this.#u16 = new Uint16Array(memory.buffer);
    this.mmu = mmu;
    const accesses = new SlowAccesses(this.#cells, memory, this.mmu, physical);
    this.#environment = new HartEnvironment(this.#cells, core, memory, this.mmu, accesses);
  }

  run(budget: number): ExitReason {
    this.#cells.i32[FP_STATE >> 2] = FP_DIRTY; // not used here; the next engine sets its own
    for (let left = budget; left > 0; left--) {
      this.#executed++;
      const exit = this.#step();
      if (exit !== undefined) return exit;
    }
    return ExitReason.BUDGET;
  }

  fenceI(): void {}
  flushTlb(): void {
    this.mmu.flushTlb();
  }
  events(): Record<string, number> {
    return { executed: this.#executed };
  }

  #step(): ExitReason | undefined {
    const environment = this.#environment;
    environment.begin();
    try {
      const word = this.#fetch();
      const decoded = decode(word);
      if (!decoded) throw new HartTrap(Cause.ILLEGAL_INSTRUCTION, BigInt((word & 3) === 3 ? word >>> 0 : word & 0xffff));
      const next = evaluate(decoded, environment);
      if (environment.answer !== undefined) return environment.answer < 0 ? undefined : (environment.answer as ExitReason);
      this.#cells.u64[PC >> 3] = next;
      this.#cells.u64[INSTRET >> 3]! += 1n;
      return this.#core.leave ? ExitReason.CORE : undefined;
    } catch (error) {
      if (!(error instanceof HartTrap)) throw error;
      this.#cells.u64[TRAP_CAUSE >> 3] = BigInt(error.cause);
      this.#cells.u64[TRAP_VALUE >> 3] = error.value;
      return ExitReason.TRAP;
    }
  }

  #fetch(): number {
    const pc = this.#cells.u64[PC >> 3]!;
    const low = this.#halfword(pc);
    return (low & 3) === 3 ? low | (this.#halfword(BigInt.asUintN(64, pc + 2n)) << 16) : low;
  }

  #halfword(address: bigint): number {
    const [low, high] = [Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(64, address) >> 32n)];
    const place = this.mmu.translate(low, high, Access.EXECUTE);
    if (place >= 0) return this.#u16[place >>> 1]!;
    if (place === DEVICE) this.mmu.accessFault(low, high, Access.EXECUTE);
    else if (place !== FAULT) throw new Error(`reference engine: unexpected answer ${place} of translate`);
    throw new HartTrap(this.#cells.i32[TRAP_CAUSE >> 2]!, this.#cells.u64[TRAP_VALUE >> 3]!);
  }
}
