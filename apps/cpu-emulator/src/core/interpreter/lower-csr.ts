import { privileged, type Expr } from "@polyvisor/isa";
import { Mem, Op, VOID } from "@polyvisor/wasm-encoder";
import { CSRS, EXTERNAL_PENDING, PRIVILEGE } from "../hart-state.ts";
import { SIE } from "./handlers.ts";
import type { Lowering } from "./lower-ir.ts";

const MIE = CSRS + 0x304 * 8;
const MIP = CSRS + 0x344 * 8;

/**
 * CSR instructions whose register is nothing but a cell, reads of sstatus, and switching sstatus.SIE: what a kernel does
 * on every trap. Pushes the old value.
 */
export function lowerCsr(lowering: Lowering, { op, operand }: Extract<Expr, { kind: "csr" }>): void {
  const { code, locals, exits, hart } = lowering.emission;
  const variant = lowering.variant.replace("-discard", "");
  // Too little privilege: the core raises the exception.
  code.i32(0).mem(Mem.i32Load, hart + PRIVILEGE);
  lowering.pushCsrPrivilege();
  code.op(Op.i32LtU).brIf(exits.slow, false);
  if (variant === "interrupts" && op === "set") {
    // Something is waiting for this: let the core decide. Timers are looked at between slices.
    code.i32(0).mem(Mem.i32Load, hart + EXTERNAL_PENDING).i32(0).mem(Mem.i32Load, hart + MIP).op(Op.i32Or);
    code.i32(0).mem(Mem.i32Load, hart + MIE).op(Op.i32And).if(VOID, false);
    code.br(exits.slow).end();
  }
  const [old, changed] = [locals.bits[0], locals.bits[1]];
  lowering.pushCsrCell();
  code.mem(Mem.i64Load, hart).set(old);
  if (variant === "status") {
    code.get(old).i64(privileged.SSTATUS_READABLE).op(Op.i64And);
    return;
  }
  lowering.expr(operand);
  if (op === "clear") code.i64(-1).op(Op.i64Xor).get(old).op(Op.i64And);
  else if (op === "set") code.get(old).op(Op.i64Or);
  if (variant === "even") code.i64(-2).op(Op.i64And);
  code.set(changed);
  lowering.pushCsrCell();
  code.get(changed).mem(Mem.i64Store, hart);
  code.get(old);
  if (variant === "interrupts") code.i64(privileged.SSTATUS_READABLE).op(Op.i64And);
}

if (privileged.MSTATUS.SIE !== BigInt(SIE)) throw new Error("lower-csr: SIE is not where handlers.ts says");
