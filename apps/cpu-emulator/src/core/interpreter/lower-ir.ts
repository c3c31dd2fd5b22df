import { privileged, type AmoOp, type BinaryOp, type Bytes, type Expr, type Instruction, type RegisterField, type Stmt, type UnaryOp } from "@polyvisor/isa";
import { Atomic, type AtomicOp, I32, I64, Mem, type MemOp, Op, VOID } from "@polyvisor/wasm-encoder";
import { CSRS, PRIVILEGE, RESERVATION, RESERVED_VALUE, VIRTUAL } from "../hart-state.ts";
import { LOAD_ENTRIES, LOAD_TABLE, STORE_ENTRIES, STORE_TABLE, entryMask } from "../tlb.ts";
import { ACCESS_FAULT, KIND_READ, KIND_SIGNED } from "./cells.ts";
import type { Emission } from "./frame.ts";
import { type Traits, traitsOf } from "./handlers.ts";
import { lowerCsr } from "./lower-csr.ts";
import { lowerFp } from "./lower-fp.ts";

const UNARY: Partial<Record<UnaryOp, Op>> = {
  wrap: Op.i32WrapI64, extendS: Op.i64ExtendI32S, extendU: Op.i64ExtendI32U,
  sext8: Op.i64Extend8S, sext16: Op.i64Extend16S, sext32: Op.i64Extend32S,
};
const UNARY_TYPED: Partial<Record<UnaryOp, readonly [i32: Op, i64: Op]>> = {
  eqz: [Op.i32Eqz, Op.i64Eqz], clz: [Op.i32Clz, Op.i64Clz], ctz: [Op.i32Ctz, Op.i64Ctz], popcnt: [Op.i32Popcnt, Op.i64Popcnt],
};
const BINARY: Partial<Record<BinaryOp, readonly [i32: Op, i64: Op]>> = {
  add: [Op.i32Add, Op.i64Add], sub: [Op.i32Sub, Op.i64Sub], mul: [Op.i32Mul, Op.i64Mul],
  and: [Op.i32And, Op.i64And], or: [Op.i32Or, Op.i64Or], xor: [Op.i32Xor, Op.i64Xor],
  shl: [Op.i32Shl, Op.i64Shl], shrS: [Op.i32ShrS, Op.i64ShrS], shrU: [Op.i32ShrU, Op.i64ShrU],
  eq: [Op.i32Eq, Op.i64Eq], ne: [Op.i32Ne, Op.i64Ne], ltS: [Op.i32LtS, Op.i64LtS], ltU: [Op.i32LtU, Op.i64LtU],
  geS: [Op.i32GeS, Op.i64GeS], geU: [Op.i32GeU, Op.i64GeU],
};
const LOADS: Record<Bytes, readonly [signed: MemOp, unsigned: MemOp]> = {
  1: [Mem.i64Load8S, Mem.i64Load8U], 2: [Mem.i64Load16S, Mem.i64Load16U], 4: [Mem.i64Load32S, Mem.i64Load32U], 8: [Mem.i64Load, Mem.i64Load],
};
const STORES: Record<Bytes, MemOp> = { 1: Mem.i64Store8, 2: Mem.i64Store16, 4: Mem.i64Store32, 8: Mem.i64Store };
const RMW: Partial<Record<AmoOp, readonly [w: AtomicOp, d: AtomicOp]>> = {
  swap: [Atomic.i64Xchg32U, Atomic.i64Xchg], add: [Atomic.i64Add32U, Atomic.i64Add],
  and: [Atomic.i64And32U, Atomic.i64And], or: [Atomic.i64Or32U, Atomic.i64Or], xor: [Atomic.i64Xor32U, Atomic.i64Xor],
};

/**
 * Compiles the IR of an instruction to Wasm, for the interpreter's handlers and for translated code. The two differ in where
 * operands are (an entry's bytes and the register cells, or constants and locals) and in how control flows: subclasses.
 */
export abstract class Lowering {
  readonly emission: Emission;
  readonly instruction: Instruction;
  readonly traits: Traits;
  readonly names = new Map<string, number>();

  constructor(emission: Emission, instruction: Instruction) {
    this.emission = emission;
    this.instruction = instruction;
    this.traits = traitsOf(instruction);
  }

  /** Rounding mode, or which of the CSRs that are only cells: what handlers.ts decides per instruction word. */
  abstract readonly variant: string;
  abstract pushImm(): void;
  /** The rs1 field as a number. */
  abstract pushUimm(): void;
  abstract pushPc(): void;
  abstract pushNext(): void;
  abstract pushX(field: RegisterField): void;
  abstract pushF(field: RegisterField): void;
  /** i32: offset of the CSR's cell in the hart area. */
  abstract pushCsrCell(): void;
  /** i32: lowest privilege that may access the CSR. */
  abstract pushCsrPrivilege(): void;

  /** Pushes the value of an expression: i64, or i32 for conditions. */
  expr(expr: Expr): void {
    const { code, helpers } = this.emission;
    switch (expr.kind) {
      case "const":
        if (expr.type === "i32") code.i32(Number(BigInt.asIntN(32, expr.value)));
        else code.i64(expr.value);
        return;
      case "imm": this.pushImm(); return;
      case "pc": this.pushPc(); return;
      case "next": this.pushNext(); return;
      case "x": this.pushX(expr.reg); return;
      case "f": this.pushF(expr.reg); return;
      case "local": {
        const local = this.names.get(expr.name);
        if (local === undefined) throw new Error(`${this.instruction.name}: local ${expr.name} is not set`);
        code.get(local);
        return;
      }
      case "unary": {
        this.expr(expr.a);
        const typed = UNARY_TYPED[expr.op];
        code.op(typed ? typed[isI32(expr.a) ? 0 : 1] : UNARY[expr.op]!);
        return;
      }
      case "binary": {
        this.expr(expr.a);
        this.expr(expr.b);
        const op = BINARY[expr.op];
        if (op) code.op(op[expr.type === "i32" ? 0 : 1]);
        else code.call(helpers.arithmetic.get(`${expr.type}.${expr.op}`)!);
        return;
      }
      case "select":
        this.expr(expr.then);
        this.expr(expr.else);
        this.expr(expr.cond);
        code.op(Op.select);
        return;
      case "load": this.#load(expr); return;
      case "fp": lowerFp(this, expr); return;
      case "amo": this.#amo(expr); return;
      case "lr": this.#lr(expr); return;
      case "sc": this.#sc(expr); return;
      case "uimm": this.pushUimm(); return;
      case "csr": lowerCsr(this, expr); return;
      case "guestLoad": throw new Error(`${this.instruction.name}: hypervisor loads have no handler`);
    }
  }

  /** The local of a `let`: `target` for what a jump goes to; others stay clear of `address`, which memory accesses use. */
  protected nameLocal(name: string, target: number): number {
    const { bits } = this.emission.locals;
    const local = this.traits.jump ? target : bits[this.names.size % bits.length]!;
    this.names.set(name, local);
    return local;
  }

  /** cbo.zero: M-mode always may; S-mode if menvcfg.CBZE, U-mode if senvcfg.CBZE too, a guest if henvcfg.CBZE too. Comes first. */
  requireGrant(): void {
    const { code, hart, exits } = this.emission;
    const envcfg = (number: number): void => void code.i32(0).mem(Mem.i32Load, hart + CSRS + number * 8);
    /** All ones when the cell is not zero. */
    const unless = (cell: number): void => void code.i32(0).mem(Mem.i32Load, hart + cell).op(Op.i32Eqz).i32(1).op(Op.i32Sub);
    const CBZE = Number(privileged.ENVCFG.CBZE);
    envcfg(0x30a);
    envcfg(0x10a);
    unless(PRIVILEGE);
    code.op(Op.i32Or, Op.i32And);
    envcfg(0x60a);
    unless(VIRTUAL);
    code.i32(-1).op(Op.i32Xor, Op.i32Or, Op.i32And);
    code.i32(0).mem(Mem.i32Load, hart + PRIVILEGE).i32(3).op(Op.i32Eq).i32(CBZE).op(Op.i32Mul, Op.i32Or);
    code.i32(CBZE).op(Op.i32And, Op.i32Eqz).brIf(exits.slow, false);
  }

  /** Looks `locals.address` up; leaves 1 for a hit, and the entry in `locals.place`. */
  #lookUp(table: number, entries: number, bytes: number): void {
    const { code, locals } = this.emission;
    code.get(locals.address).op(Op.i32WrapI64).i32(8).op(Op.i32ShrU).i32(entryMask(entries)).op(Op.i32And)
      .get(locals.tlb).op(Op.i32Add).tee(locals.place)
      .mem(Mem.i64Load, table).get(locals.address).op(Op.i64Xor).i64(-4096 + (bytes - 1)).op(Op.i64And, Op.i64Eqz);
  }

  #pushPlace(table: number): void {
    const { code, locals } = this.emission;
    code.get(locals.address).op(Op.i32WrapI64).get(locals.place).mem(Mem.i32Load, table + 8).op(Op.i32Add);
  }

  #load({ bytes, signed, address }: Extract<Expr, { kind: "load" }>): void {
    const { code, locals, helpers, hart, exits } = this.emission;
    this.expr(address);
    code.set(locals.address);
    this.#lookUp(LOAD_TABLE, LOAD_ENTRIES, bytes);
    code.if(I64, true);
    this.#pushPlace(LOAD_TABLE);
    code.mem(LOADS[bytes][signed ? 0 : 1], 0, 0).else();
    code.get(locals.address).i32(Math.log2(bytes) | (signed ? KIND_SIGNED : 0)).call(helpers.loadSlow);
    code.i32(0).mem(Mem.i32Load, hart + ACCESS_FAULT).brIf(exits.trap).end();
  }

  store({ bytes, address, value }: Extract<Stmt, { kind: "store" }>): void {
    const { code, locals, helpers, exits } = this.emission;
    this.expr(address);
    code.set(locals.address);
    this.#lookUp(STORE_TABLE, STORE_ENTRIES, bytes);
    code.if(VOID, true);
    this.#pushPlace(STORE_TABLE);
    this.expr(value);
    code.mem(STORES[bytes], 0, 0).else();
    code.get(locals.address);
    this.expr(value);
    code.i32(Math.log2(bytes)).call(helpers.storeSlow).brIf(exits.trap).end();
  }

  /** Translates an aligned address for an atomic access; leaves its place in `locals.place`. */
  #translate(address: Expr, bytes: 4 | 8, read: boolean): void {
    const { code, locals, helpers, exits } = this.emission;
    const table = read ? LOAD_TABLE : STORE_TABLE;
    this.expr(address);
    code.set(locals.address);
    const retry = code.loop();
    this.#lookUp(table, read ? LOAD_ENTRIES : STORE_ENTRIES, bytes);
    code.op(Op.i32Eqz).if(VOID, false);
    code.get(locals.address).i32(Math.log2(bytes) | (read ? KIND_READ : 0)).call(helpers.translateSlow).brIf(exits.trap);
    code.br(retry).end().end();
    this.#pushPlace(table);
    code.set(locals.place);
  }

  #amo({ op, bytes, address, value }: Extract<Expr, { kind: "amo" }>): void {
    const { code, locals, helpers } = this.emission;
    this.#translate(address, bytes, false);
    code.get(locals.place);
    this.expr(value);
    const rmw = RMW[op];
    if (!rmw) code.call(helpers.minMax.get(`${op}${bytes}`)!);
    else code.atomic(rmw[bytes === 4 ? 0 : 1]);
    if (bytes === 4) code.op(Op.i64Extend32S);
  }

  #lr({ bytes, address }: Extract<Expr, { kind: "lr" }>): void {
    const { code, locals, hart } = this.emission;
    this.#translate(address, bytes, true);
    code.i32(0).get(locals.place).op(Op.i64ExtendI32U).mem(Mem.i64Store, hart + RESERVATION);
    code.get(locals.place).atomic(bytes === 4 ? Atomic.i64Load32U : Atomic.i64Load);
    if (bytes === 4) code.op(Op.i64Extend32S);
    code.set(locals.value).i32(0).get(locals.value).mem(Mem.i64Store, hart + RESERVED_VALUE).get(locals.value);
  }

  /** A compare-and-swap with the value that lr saw, if the reservation is for this place. Without any it just fails. */
  #sc({ bytes, address, value }: Extract<Expr, { kind: "sc" }>): void {
    const { code, locals, hart } = this.emission;
    const reservation = (): void => void code.i32(0).mem(Mem.i64Load, hart + RESERVATION);
    const reserved = (): void => {
      code.i32(0).mem(Mem.i64Load, hart + RESERVED_VALUE);
      if (bytes === 4) code.i64(0xffff_ffffn).op(Op.i64And);
    };
    reservation();
    code.i64(0).op(Op.i64GeS).if(I32, true);
    this.#translate(address, bytes, false);
    code.get(locals.place).op(Op.i64ExtendI32U);
    reservation();
    code.op(Op.i64Eq).if(I32, true);
    code.get(locals.place);
    reserved();
    this.expr(value);
    code.atomic(bytes === 4 ? Atomic.i64Cmpxchg32U : Atomic.i64Cmpxchg);
    reserved();
    code.op(Op.i64Ne).else().i32(1).end().else().i32(1).end().op(Op.i64ExtendI32U);
    code.i32(0).i64(-1).mem(Mem.i64Store, hart + RESERVATION);
  }
}

function isI32(expr: Expr): boolean {
  switch (expr.kind) {
    case "const": case "local": return expr.type === "i32";
    case "select": return isI32(expr.then);
    case "unary": return expr.op === "eqz" || expr.op === "wrap" || (["clz", "ctz", "popcnt"].includes(expr.op) && isI32(expr.a));
    case "binary": return expr.type === "i32" || ["eq", "ne", "ltS", "ltU", "geS", "geU"].includes(expr.op);
    default: return false;
  }
}
