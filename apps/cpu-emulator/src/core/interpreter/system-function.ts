import { type Callable, I32, I64, Mem, type ModuleWriter, Op, VOID } from "@polyvisor/wasm-encoder";
import { Csr, HStatus, MStatus, SSTATUS_VISIBLE, SSTATUS_WRITABLE } from "../csr.ts";
import { Cause } from "../engine.ts";
import {
  CSRS, EXTERNAL_PENDING, FP_DIRTY, FP_STATE, INSTRET, PC, PRIVILEGE, RESERVATION, TLB_SET, TLB_STALE, TRAP_GUEST, TRAP_VALUE, VIRTUAL, X,
} from "../hart-state.ts";
import { TRAP_COUNTS } from "../mailbox.ts";
import { Context, SET_BYTES, TLB_SETS } from "../tlb.ts";

const ECALL = 0x73;
const SRET = 0x1020_0073;
/** Csr, opcode and nothing between them. */
const CSR_MASK = 0xfff0_007f | 0;
const SSTATUS_ACCESS = 0x1000_0073;
/** rdtime without its rd. */
const RDTIME = 0xc010_2073 | 0;
const RD_MASK = ~0xf80;
/** mcounteren.TM and scounteren.TM. */
const TM = 2;

/**
 * `system(word)`: what a system call of Linux does at its two ends, without TypeScript: ecall from U to S, sret, and writes
 * of sstatus in S-mode; and rdtime, for which it only asks what time it is. The same as trap.ts and csr.ts in the common case: V = 0, no MPRV, nothing pending, and the set of the
 * context that comes next is not stale. Answers -1 when it is done (PC, INSTRET as `slow` leaves them), 0 when TypeScript must
 * do it; then nothing has changed. Called with PC and INSTRET exact.
 */
export function defineSystem(module: ModuleWriter, hart: number, ticks: Callable): Callable {
  const f = module.function("system", { parameters: [I32], results: [I32] });
  const { code } = f;
  const word = 0;
  const [status, next, set, operand] = [code.local(I32), code.local(I32), code.local(I32), code.local(I32)];
  const old = code.local(I64);
  const csr = (number: number): number => CSRS + number * 8;
  const load32 = (cell: number) => code.i32(0).mem(Mem.i32Load, hart + cell);
  const load64 = (cell: number) => code.i32(0).mem(Mem.i64Load, hart + cell);
  const store32 = (cell: number, push: () => void): void => {
    code.i32(0);
    push();
    code.mem(Mem.i32Store, hart + cell);
  };
  const store64 = (cell: number, push: () => void): void => {
    code.i32(0);
    push();
    code.mem(Mem.i64Store, hart + cell);
  };
  const refuse = (): void => {
    code.if(VOID, false);
    code.i32(0).op(Op.return).end();
  };
  const done = (): void => void code.i32(-1).op(Op.return);
  const retire = (): void => store64(INSTRET, () => load64(INSTRET).i64(1).op(Op.i64Add));
  const interruptsWait = (): void =>
    void load32(csr(Csr.MIP)).i32(0).mem(Mem.i32Load, hart + EXTERNAL_PENDING).op(Op.i32Or).i32(0).mem(Mem.i32Load, hart + csr(Csr.MIE)).op(Op.i32And);
  /** The context of S-mode with `next` as its status; refuses when its set is stale. */
  const supervisorContext = (): void =>
    void code.i32(Context.S_SUM).i32(Context.S).get(next).i32(MStatus.SUM).op(Op.i32And, Op.select).set(set);
  const refuseStale = (): void => {
    load32(TLB_STALE).get(set).op(Op.i32ShrU).i32(1).op(Op.i32And);
    refuse();
  };
  const choose = (): void => store32(TLB_SET, () => code.get(set).i32(SET_BYTES).op(Op.i32Mul).i32(hart + TLB_SETS).op(Op.i32Add));

  load32(VIRTUAL).i32(0).mem(Mem.i32Load, hart + csr(Csr.MSTATUS)).tee(status).i32(MStatus.MPRV).op(Op.i32And, Op.i32Or);
  refuse();

  code.get(word).i32(ECALL).op(Op.i32Eq).if(VOID);
  load32(PRIVILEGE).i32(0).mem(Mem.i32Load, hart + TRAP_GUEST).op(Op.i32Or);
  load32(csr(Csr.MEDELEG)).i32(1 << Cause.ECALL_U).op(Op.i32And, Op.i32Eqz, Op.i32Or);
  refuse();
  code.get(status).i32(~(MStatus.SIE | MStatus.SPIE | MStatus.SPP)).op(Op.i32And);
  code.get(status).i32(MStatus.SIE).op(Op.i32And).i32(4).op(Op.i32Shl, Op.i32Or).set(next); // SPIE = SIE
  supervisorContext();
  refuseStale();
  store64(TRAP_COUNTS + Cause.ECALL_U * 8, () => code.i32(0).mem(Mem.f64Load, hart + TRAP_COUNTS + Cause.ECALL_U * 8).f64(1).op(Op.f64Add, Op.i64ReinterpretF64));
  store32(csr(Csr.HSTATUS), () => load32(csr(Csr.HSTATUS)).i32(~(HStatus.GVA | HStatus.SPV)).op(Op.i32And));
  for (const cell of [csr(Csr.HTVAL), csr(Csr.HTINST), TRAP_VALUE, csr(Csr.STVAL)]) store64(cell, () => code.i64(0));
  store64(csr(Csr.SEPC), () => load64(PC));
  store64(csr(Csr.SCAUSE), () => code.i64(Cause.ECALL_U));
  store32(csr(Csr.MSTATUS), () => code.get(next));
  store64(PC, () => load64(csr(Csr.STVEC)).i64(-4).op(Op.i64And));
  store32(PRIVILEGE, () => code.i32(1));
  choose();
  done();
  code.end();

  // rdtime: below M-mode counter enables say who may.
  code.get(word).i32(RD_MASK).op(Op.i32And).i32(RDTIME).op(Op.i32Eq).if(VOID);
  load32(csr(Csr.MCOUNTEREN)).i32(-1);
  load32(PRIVILEGE).i32(3).op(Op.i32Ne, Op.select);
  load32(csr(Csr.SCOUNTEREN)).i32(-1);
  load32(PRIVILEGE).op(Op.i32Eqz, Op.select, Op.i32And).i32(TM).op(Op.i32And, Op.i32Eqz);
  refuse();
  code.get(word).i32(7).op(Op.i32ShrU).i32(31).op(Op.i32And).tee(operand).if(VOID);
  code.get(operand).i32(3).op(Op.i32Shl).call(ticks).op(Op.i64TruncF64S).mem(Mem.i64Store, hart + X).end();
  store64(PC, () => load64(PC).i64(4).op(Op.i64Add));
  retire();
  done();
  code.end();

  // The others are for S-mode.
  load32(PRIVILEGE).i32(1).op(Op.i32Ne);
  interruptsWait();
  code.op(Op.i32Or);
  refuse();

  code.get(word).i32(SRET).op(Op.i32Eq).if(VOID);
  code.get(status).i32(MStatus.TSR).op(Op.i32And).i32(0).mem(Mem.i32Load, hart + csr(Csr.HSTATUS)).i32(HStatus.SPV).op(Op.i32And, Op.i32Or);
  refuse();
  code.get(status).i32(~(MStatus.SIE | MStatus.SPP)).op(Op.i32And).i32(MStatus.SPIE).op(Op.i32Or);
  code.get(status).i32(MStatus.SPIE).op(Op.i32And).i32(4).op(Op.i32ShrU, Op.i32Or).set(next); // SIE = SPIE
  supervisorContext();
  code.get(set).i32(Context.U).get(status).i32(MStatus.SPP).op(Op.i32And, Op.select).set(set);
  refuseStale();
  retire();
  store64(PC, () => load64(csr(Csr.SEPC)));
  store32(csr(Csr.MSTATUS), () => code.get(next));
  store64(RESERVATION, () => code.i64(-1));
  store32(PRIVILEGE, () => code.get(status).i32(MStatus.SPP).op(Op.i32And).i32(0).op(Op.i32Ne));
  choose();
  done();
  code.end();

  // csrrw, csrrs, csrrc of sstatus and their immediate forms; set and clear with x0 or 0 do not write.
  code.get(word).i32(CSR_MASK).op(Op.i32And).i32(SSTATUS_ACCESS).op(Op.i32Ne);
  code.get(word).i32(3 << 12).op(Op.i32And, Op.i32Eqz, Op.i32Or);
  code.get(word).i32(2 << 12).op(Op.i32And).i32(0).op(Op.i32Ne).get(word).i32(31 << 15).op(Op.i32And, Op.i32Eqz, Op.i32And, Op.i32Or);
  refuse();
  code.get(word).i32(15).op(Op.i32ShrU).i32(31).op(Op.i32And).tee(operand);
  code.get(operand).i32(3).op(Op.i32Shl).mem(Mem.i32Load, hart + X);
  code.get(word).i32(4 << 12).op(Op.i32And, Op.select).set(operand);
  code.get(status).get(operand).op(Op.i32Or).get(status).get(operand).i32(-1).op(Op.i32Xor, Op.i32And);
  code.get(word).i32(1 << 12).op(Op.i32And, Op.i32Eqz, Op.select); // set: 2, clear: 3
  code.get(operand).get(word).i32(2 << 12).op(Op.i32And, Op.select); // write: 1
  code.i32(SSTATUS_WRITABLE).op(Op.i32And).get(status).i32(~SSTATUS_WRITABLE).op(Op.i32And, Op.i32Or).tee(next);
  code.get(status).op(Op.i32Xor).i32(MStatus.MXR).op(Op.i32And);
  refuse();
  supervisorContext();
  refuseStale();
  load64(csr(Csr.MSTATUS)).i64(BigInt.asIntN(64, SSTATUS_VISIBLE)).op(Op.i64And).set(old);
  code.get(word).i32(7).op(Op.i32ShrU).i32(31).op(Op.i32And).tee(operand).if(VOID);
  code.get(operand).i32(3).op(Op.i32Shl).get(old).mem(Mem.i64Store, hart + X).end();
  code.get(next).i32(MStatus.FS).op(Op.i32And).set(operand);
  store32(csr(Csr.MSTATUS), () => code.get(next));
  store32(csr(Csr.MSTATUS) + 4, () => { // SD
    load32(csr(Csr.MSTATUS) + 4).i32(0x7fff_ffff).op(Op.i32And);
    code.get(operand).i32(MStatus.FS).op(Op.i32Eq).i32(31).op(Op.i32Shl, Op.i32Or);
  });
  store32(FP_STATE, () => {
    code.i32(FP_DIRTY).get(operand).i32(0).op(Op.i32Ne).get(operand).i32(MStatus.FS).op(Op.i32Eq, Op.select);
  });
  choose();
  store64(PC, () => load64(PC).i64(4).op(Op.i64Add));
  retire();
  code.i32(-1);
  return f;
}
