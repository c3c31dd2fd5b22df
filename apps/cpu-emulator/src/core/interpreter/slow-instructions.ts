import { decode, evaluate, HartTrap, type Decoded, type ir } from "@polyvisor/isa";
import type { HartCells } from "../cells.ts";
import { Cause, ExitReason, type PrivilegedCore } from "../engine.ts";
import { INSTRET, PC, TRAP_CAUSE, TRAP_VALUE, X } from "../hart-state.ts";
import type { HartEnvironment } from "./hart-environment.ts";

/** Go on at PC. */
export const GO_ON = -1;

type CsrExpr = Extract<ir.Expr, { kind: "csr" }>;

/** What is known of an instruction word once it has been executed here. */
interface Plan {
  readonly decoded: Decoded;
  readonly csr: CsrExpr | undefined;
  readonly system: ir.SystemOp | undefined;
}

/** Guests choose the words: the table of plans is emptied when it has grown to this. */
const MOST_PLANS = 4096;

/**
 * Instructions that generated code leaves to TypeScript: CSR and system instructions through the privileged core, FP
 * operations with unusual operands through the reference evaluator. PC is the instruction's and INSTRET is exact.
 */
export class SlowInstructions {
  executed = 0;
  readonly #cells: HartCells;
  readonly #core: PrivilegedCore;
  readonly #environment: HartEnvironment;
  readonly #fenceI: () => void;
  readonly #plans = new Map<number, Plan>();

  constructor(cells: HartCells, core: PrivilegedCore, environment: HartEnvironment, fenceI: () => void) {
    this.#cells = cells;
    this.#core = core;
    this.#environment = environment;
    this.#fenceI = fenceI;
  }

  /** Executes and retires the instruction. GO_ON or an exit reason. */
  execute(word: number): number {
    this.executed++;
    const plan = this.#plans.get(word) ?? this.#plan(word);
    if (!plan) return this.illegal(word);
    const { decoded, csr, system } = plan;
    if (csr) return this.#csr(csr, decoded);
    if (system === "fence.i") {
      this.#fenceI();
      return this.#retire(decoded.length);
    }
    if (system) {
      const { rs1, rs2 } = decoded;
      const x = this.#cells.u64;
      return this.#core.system(system, decoded.word, x[(X >> 3) + rs1]!, x[(X >> 3) + rs2]!, decoded.length);
    }
    return this.#evaluate(decoded);
  }

  illegal(word: number): ExitReason {
    return this.#trap(Cause.ILLEGAL_INSTRUCTION, BigInt((word & 3) === 3 ? word >>> 0 : word & 0xffff));
  }

  #plan(word: number): Plan | undefined {
    const decoded = decode(word);
    if (!decoded) return undefined;
    const [statement] = decoded.instruction.semantics;
    const plan = {
      decoded,
      csr: statement?.kind === "setX" && statement.value.kind === "csr" ? statement.value : undefined,
      system: statement?.kind === "system" ? statement.op : undefined,
    };
    if (this.#plans.size >= MOST_PLANS) this.#plans.clear();
    this.#plans.set(word, plan);
    return plan;
  }

  /** Zicsr, table "Conditions determining whether a CSR instruction reads or writes the specified CSR". */
  #csr({ op, operand }: CsrExpr, { rd, rs1, imm, word, length }: Decoded): number {
    const x = this.#cells.u64;
    const value = operand.kind === "uimm" ? BigInt(rs1) : x[(X >> 3) + rs1]!;
    const old = this.#core.csr(imm, op, value, op !== "write" || rd !== 0, op === "write" || rs1 !== 0);
    if (old === undefined) return this.#trap(this.#cells.i32[TRAP_CAUSE >> 2]!, BigInt(word));
    if (rd !== 0) x[(X >> 3) + rd] = old;
    this.#retire(length);
    return this.#core.leave ? ExitReason.CORE : GO_ON;
  }

  #evaluate(decoded: Decoded): number {
    try {
      this.#environment.begin();
      this.#cells.u64[PC >> 3] = evaluate(decoded, this.#environment);
      this.#add(INSTRET, 1);
      return GO_ON;
    } catch (error) {
      if (!(error instanceof HartTrap)) throw error;
      return this.#trap(error.cause, error.value);
    }
  }

  /** On 32-bit halves: this runs for every CSR instruction. */
  #retire(length: number): typeof GO_ON {
    this.#add(PC, length);
    this.#add(INSTRET, 1);
    return GO_ON;
  }
  #add(cell: number, amount: number): void {
    const { u32 } = this.#cells;
    const low = u32[cell >> 2]! + amount;
    u32[cell >> 2] = low;
    if (low > 0xffff_ffff) u32[(cell >> 2) + 1]!++;
  }

  #trap(cause: number, value: bigint): ExitReason {
    this.#cells.u64[TRAP_CAUSE >> 3] = BigInt(cause);
    this.#cells.u64[TRAP_VALUE >> 3] = value;
    return ExitReason.TRAP;
  }
}
