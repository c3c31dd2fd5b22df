import type { Expr, RegisterField, Stmt } from "@polyvisor/isa";
import { Mem, Op, VOID } from "@polyvisor/wasm-encoder";
import { COUNTERS, COUNTER_MASK, PROFILE, PROFILE_MASK } from "../decode-cache.ts";
import { F, FP_DIRTY, FP_STATE, PC, X } from "../hart-state.ts";
import type { InterpreterEmission } from "./frame.ts";
import type { Handler } from "./handlers.ts";
import { Lowering } from "./lower-ir.ts";

/** Compiles one handler: the instruction's IR for one variant, up to and including the way to the next instruction. */
export class HandlerLowering extends Lowering {
  declare readonly emission: InterpreterEmission;
  readonly handler: Handler;

  constructor(emission: InterpreterEmission, handler: Handler) {
    super(emission, handler.instruction);
    this.handler = handler;
  }

  emit(): void {
    const { traits } = this;
    if (traits.floating) fpStateCheck(this.emission, traits.writesF || traits.fp !== undefined);
    for (const statement of this.instruction.semantics) this.#statement(statement);
    if (!traits.branch && !this.instruction.semantics.some((s) => s.kind === "jump")) next(this.emission, this.handler.length);
  }

  get #inPage(): boolean {
    return /^(forward|backward)/.test(this.handler.variant);
  }

  get variant(): string {
    return this.handler.variant;
  }
  pushImm(): void {
    this.emission.code.get(this.emission.locals.entry).mem(Mem.i64Load32S, 4);
  }
  pushUimm(): void {
    this.emission.code.get(this.emission.locals.entry).mem(Mem.i64Load8U, 3).i64(3).op(Op.i64ShrU);
  }
  pushPc(): void {
    pushPc(this.emission);
  }
  pushNext(): void {
    pushPc(this.emission);
    this.emission.code.i64(this.handler.length).op(Op.i64Add);
  }
  pushX(field: RegisterField): void {
    this.#register(field);
    this.emission.code.mem(Mem.i64Load, this.emission.hart + X);
  }
  pushF(field: RegisterField): void {
    this.#register(field);
    this.emission.code.mem(Mem.i64Load, this.emission.hart + F);
  }
  /** The entry's `imm` has the cell's offset in bits 15:0 and the lowest privilege in bits 17:16. */
  pushCsrCell(): void {
    this.emission.code.get(this.emission.locals.entry).mem(Mem.i32Load16U, 4);
  }
  pushCsrPrivilege(): void {
    this.emission.code.get(this.emission.locals.entry).mem(Mem.i32Load8U, 6);
  }

  #statement(statement: Stmt): void {
    const { code, hart, locals } = this.emission;
    switch (statement.kind) {
      case "let": {
        if (this.traits.directJump && this.#inPage) return; // the target is the entry itself
        this.expr(statement.value);
        code.set(this.nameLocal(statement.name, locals.address));
        return;
      }
      case "setX":
        if (this.handler.variant.endsWith("discard")) {
          if (this.traits.directJump || statement.value.kind === "next") return;
          this.expr(statement.value);
          code.op(Op.drop);
          return;
        }
        code.get(locals.entry).mem(Mem.i32Load8U, 2);
        this.expr(statement.value);
        code.mem(Mem.i64Store, hart + X);
        return;
      case "setF":
        code.get(locals.entry).mem(Mem.i32Load8U, 2);
        this.expr(statement.value);
        code.mem(Mem.i64Store, hart + F);
        return;
      case "store": this.store(statement); return;
      case "branch": this.#branch(statement.cond); return;
      case "jump":
        if (this.#inPage) this.#jumpInPage();
        else {
          this.expr(statement.target);
          code.set(locals.address);
          if (!this.traits.directJump) profileTarget(this.emission);
          leavePage(this.emission);
        }
        return;
      case "fence": code.fence(); return;
      case "require": this.requireGrant(); return;
      case "cacheBlock":
      case "guestStore":
      case "system": throw new Error(`${this.instruction.name}: system instructions have no handler`);
    }
  }

  /** Adding a `select` of the two distances instead of branching was slower: 0.65 of the speed on a sieve, 0.9 on calls. */
  #branch(cond: Expr): void {
    const { code, locals } = this.emission;
    this.expr(cond);
    code.if();
    if (this.#inPage) this.#jumpInPage();
    else {
      this.expr({ kind: "binary", op: "add", type: "i64", a: { kind: "pc" }, b: { kind: "imm" } });
      code.set(locals.address);
      leavePage(this.emission);
    }
    code.end();
    next(this.emission, this.handler.length);
  }

  #jumpInPage(): void {
    const { code, locals } = this.emission;
    code.get(locals.entry).get(locals.entry).mem(Mem.i32Load, 4).op(Op.i32Add).set(locals.entry);
    count(this.emission);
    const backward = this.handler.variant.startsWith("backward");
    dispatch(this.emission, backward, backward || (this.traits.directJump && !this.handler.variant.endsWith("discard")));
  }

  /** Pushes the byte offset of an operand's register. */
  #register(field: RegisterField): void {
    const { code, locals } = this.emission;
    const { imm, writesX, writesF } = this.traits;
    if (field === "rs2" && imm && (writesX || writesF)) throw new Error(`${this.instruction.name}: no room for rs2 beside imm and rd`);
    const offset = field === "rs1" ? 3 : field === "rd" ? 2 : field === "rs3" ? 5 : imm ? 2 : 4;
    code.get(locals.entry).mem(Mem.i32Load8U, offset);
  }
}

export function pushPc({ code, locals }: InterpreterEmission): void {
  code.get(locals.bias).get(locals.entry).i32(2).op(Op.i32ShrU, Op.i64ExtendI32U, Op.i64Add);
}

/** One instruction retired. */
export function count({ code, locals }: InterpreterEmission): void {
  code.get(locals.budget).i32(1).op(Op.i32Sub).set(locals.budget);
}

/** To the entry in `locals.entry`; with `check`, to the fetch path when the budget is used up (it returns there). */
export function dispatch(emission: InterpreterEmission, check: boolean, counted = false): void {
  const { code, locals, exits, exact } = emission;
  if (check || exact) {
    code.get(locals.budget).i32(0).op(Op.i32LeS).if(VOID, false);
    pushPc(emission);
    code.set(locals.address).br(exits.fetch).end();
  }
  if (counted) countEntry(emission);
  code.br(exits.dispatch);
}

/** To the following instruction. */
export function next(emission: InterpreterEmission, length: 2 | 4): void {
  const { code, locals } = emission;
  code.get(locals.entry).i32(length * 4).op(Op.i32Add).set(locals.entry);
  count(emission);
  dispatch(emission, false);
}

function leavePage(emission: InterpreterEmission): void {
  count(emission);
  emission.code.br(emission.exits.fetch);
}

/** Counts how often the entry in `locals.entry` was jumped to; when it is often enough, asks for its translation. */
export function countEntry(emission: InterpreterEmission): void {
  const { code, hart, locals, counting } = emission;
  if (!counting) return;
  const counter = hart + COUNTERS;
  code.get(locals.entry).i32(2).op(Op.i32ShrU).i32(COUNTER_MASK).op(Op.i32And).tee(locals.place);
  code.get(locals.place).mem(Mem.i32Load16U, counter).i32(1).op(Op.i32Add).tee(locals.count).mem(Mem.i32Store16, counter);
  code.get(locals.count).i32(counting.hotAfter).op(Op.i32GeU).if(VOID, false);
  code.i32(0);
  pushPc(emission);
  code.mem(Mem.i64Store, hart + PC).get(locals.entry).call(counting.hot).end();
}

/** Remembers where the indirect jump at `locals.entry` goes: translations expect it there. */
function profileTarget({ code, hart, locals, counting }: InterpreterEmission): void {
  if (!counting) return;
  code.get(locals.entry).i32(1).op(Op.i32Shl).i32(PROFILE_MASK).op(Op.i32And).tee(locals.place);
  code.get(locals.entry).mem(Mem.i32Store, hart + PROFILE).get(locals.place).get(locals.address).mem(Mem.i64Store, hart + PROFILE + 8);
}

/** FP instructions are illegal while mstatus.FS is Off, and make it Dirty when they write FP state. */
function fpStateCheck(emission: InterpreterEmission, writes: boolean): void {
  const { code, hart, locals, fpGate, exits } = emission;
  code.i32(0).mem(Mem.i32Load, hart + FP_STATE);
  if (writes) code.i32(FP_DIRTY).op(Op.i32Ne);
  else code.op(Op.i32Eqz);
  code.if(VOID, false);
  code.get(locals.entry).call(fpGate).brIf(exits.trap).end();
}
