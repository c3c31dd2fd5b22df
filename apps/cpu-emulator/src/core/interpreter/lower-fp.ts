import type { Expr, FpOp } from "@polyvisor/isa";
import { Mem, Op, Sat, Simd, VOID } from "@polyvisor/wasm-encoder";
import { FFLAGS, FRM } from "../hart-state.ts";
import type { Lowering } from "./lower-ir.ts";

/**
 * FP operations on native f32 and f64 for the common case, and the slow path (the exact softfloat of libs/isa) for the
 * rest. Native arithmetic rounds to nearest-even and keeps no flags, so a result is taken only when it is a normal
 * number above the smallest binade (no overflow, no underflow, no NaN): then NX is the only flag it can raise. When NX is
 * not set already, the rounding error decides, by error-free transformations (Ogita, Rump, Oishi: "Accurate sum and dot
 * product", TwoSum) or by an exact product in the wider format.
 */
type Fp = Extract<Expr, { kind: "fp" }>;

const BOX = 0xffff_ffff_0000_0000n;
const NX = 1;

export function lowerFp(lowering: Lowering, expr: Fp): void {
  new FpLowering(lowering, expr).emit();
}

class FpLowering {
  readonly #l: Lowering;
  readonly #expr: Fp;
  readonly #double: boolean;

  constructor(lowering: Lowering, expr: Fp) {
    this.#l = lowering;
    this.#expr = expr;
    this.#double = expr.format === "d";
  }

  get #code() {
    return this.#l.emission.code;
  }
  get #hart() {
    return this.#l.emission.hart;
  }
  /** Numbers 0..2: operands; 3: result; 4: temporary. */
  #number(i: 0 | 1 | 2 | 3 | 4): number {
    const { f32, f64 } = this.#l.emission.locals;
    return (this.#double ? f64 : f32)[i];
  }
  /** The operation for this format. */
  #op(f32: Op, f64: Op): Op {
    return this.#double ? f64 : f32;
  }

  emit(): void {
    const code = this.#code;
    if (this.#l.traits.rounded && this.#l.variant === "dynamic") {
      code.i32(0).mem(Mem.i32Load, this.#hart + FRM).brIf(this.#l.emission.exits.slow, false);
    }
    const { op } = this.#expr;
    switch (op) {
      case "add": case "sub": case "mul": case "div": case "sqrt":
      case "madd": case "msub": case "nmsub": case "nmadd": this.#arithmetic(op); return;
      case "min": case "max": this.#minMax(op); return;
      case "minm": case "maxm": this.#minMax(op === "minm" ? "min" : "max"); return; // with NaN, the slow path knows the difference
      case "eq": case "lt": case "le": this.#compare(op); return;
      case "ltq": case "leq": this.#compare(op === "ltq" ? "lt" : "le"); return; // as above
      case "round": case "roundnx": this.#round(op); return;
      case "sgnj": case "sgnjn": case "sgnjx": this.#sign(op); return;
      case "toI32": case "toU32": case "toI64": case "toU64": this.#toInteger(op); return;
      case "fromI32": case "fromU32": case "fromI64": case "fromU64": this.#fromInteger(op); return;
      case "toS": this.#toSingle(); return;
      case "toD": this.#toDouble(); return;
      case "classify": case "toI32Modular": throw new Error(`${op} has no fast path`);
    }
  }

  /** Operands into `bits`; to the slow path when a binary32 operand is not properly boxed. */
  #operands(): void {
    const code = this.#code;
    const { bits } = this.#l.emission.locals;
    const { args } = this.#expr;
    for (const [i, arg] of args.entries()) {
      this.#l.expr(arg);
      code.set(bits[i]!);
    }
    if (!this.#double) {
      code.get(bits[0]);
      for (let i = 1; i < args.length; i++) code.get(bits[i]!).op(Op.i64And);
      code.i64(32).op(Op.i64ShrS).i64(-1).op(Op.i64Ne).brIf(this.#l.emission.exits.slow, false);
    }
  }

  /** Operands into numbers. */
  #numbers(): void {
    this.#operands();
    const code = this.#code;
    for (let i = 0 as 0 | 1 | 2; i < this.#expr.args.length; i++) {
      code.get(this.#l.emission.locals.bits[i]);
      if (this.#double) code.op(Op.f64ReinterpretI64);
      else code.op(Op.i32WrapI64, Op.f32ReinterpretI32);
      code.set(this.#number(i));
    }
  }

  /** Pushes a number as register bits. */
  #box(number: number): void {
    const code = this.#code.get(number);
    if (this.#double) code.op(Op.i64ReinterpretF64);
    else code.op(Op.i32ReinterpretF32, Op.i64ExtendI32U).i64(BOX).op(Op.i64Or);
  }

  /** Pushes the exponent field of a number, as i32. */
  #exponent(number: number): void {
    const code = this.#code.get(number);
    if (this.#double) code.op(Op.i64ReinterpretF64).i64(52).op(Op.i64ShrU, Op.i32WrapI64).i32(0x7ff).op(Op.i32And);
    else code.op(Op.i32ReinterpretF32).i32(23).op(Op.i32ShrU).i32(0xff).op(Op.i32And);
  }

  /** Pushes 1 when the result is normal and not in the smallest binade: NX is the only flag it can have raised. */
  #plainResult(): void {
    this.#exponent(this.#number(3));
    this.#code.i32(2).op(Op.i32Sub).i32(this.#double ? 0x7fd : 0xfd).op(Op.i32LtU);
  }

  /** If NX is not set: `inexact` pushes an i32 that says whether to set it, or bails out. */
  #accrue(inexact: () => void): void {
    const code = this.#code;
    code.i32(0).mem(Mem.i32Load8U, this.#hart + FFLAGS).i32(NX).op(Op.i32And, Op.i32Eqz).if(VOID, false);
    code.i32(0).i32(0).mem(Mem.i32Load8U, this.#hart + FFLAGS);
    inexact();
    code.op(Op.i32Or).mem(Mem.i32Store8, this.#hart + FFLAGS);
    code.end();
  }

  #bail(): void {
    this.#code.br(this.#l.emission.exits.slow);
  }

  #arithmetic(op: "add" | "sub" | "mul" | "div" | "sqrt" | "madd" | "msub" | "nmsub" | "nmadd"): void {
    const code = this.#code;
    const fma = op.length > 4 || op === "madd" || op === "msub";
    const { fused } = this.#l.emission;
    if (fma && !(this.#double ? fused.f64 : fused.f32)) {
      // No single rounding to be had natively. The value is never used.
      code.i64(0).i32(1).brIf(this.#l.emission.exits.slow);
      return;
    }
    this.#numbers();
    const [a, b, c, r] = [this.#number(0), this.#number(1), this.#number(2), this.#number(3)];
    const negate = (n: number): void => {
      code.get(n).op(this.#op(Op.f32Neg, Op.f64Neg)).set(n);
    };
    switch (op) {
      case "sub": negate(b); // a - b = a + (-b), also for the error term
      // falls through
      case "add": code.get(a).get(b).op(this.#op(Op.f32Add, Op.f64Add)); break;
      case "mul": code.get(a).get(b).op(this.#op(Op.f32Mul, Op.f64Mul)); break;
      case "div": code.get(a).get(b).op(this.#op(Op.f32Div, Op.f64Div)); break;
      case "sqrt": code.get(a).op(this.#op(Op.f32Sqrt, Op.f64Sqrt)); break;
      default: // F, table of fused operations: nmsub = -(a*b)+c, nmadd = -(a*b)-c
        if (op === "nmsub" || op === "nmadd") negate(a);
        if (op === "msub" || op === "nmadd") negate(c);
        this.#fma(() => code.get(a), () => code.get(b), () => code.get(c));
    }
    code.set(r);
    if (op === "add" || op === "sub") {
      // Sums that are tiny are exact: only infinities and NaN are left out.
      this.#exponent(r);
      code.i32(this.#double ? 0x7ff : 0xff).op(Op.i32Eq).brIf(this.#l.emission.exits.slow, false);
    } else {
      this.#plainResult();
      code.op(Op.i32Eqz).if(VOID, false);
      this.#exactZero(op);
      code.op(Op.i32Eqz).brIf(this.#l.emission.exits.slow).end();
    }
    this.#accrue(() => this.#inexact(op));
    this.#box(r);
  }

  /** Pushes 1 when the result is a zero that follows exactly from zero operands. */
  #exactZero(op: FpOp): void {
    const code = this.#code;
    const zero = (n: number): void => {
      code.get(n);
      if (this.#double) code.f64(0).op(Op.f64Eq);
      else code.f32(0).op(Op.f32Eq);
    };
    zero(this.#number(3));
    if (op === "div" || op === "sqrt") {
      zero(this.#number(0));
      if (op === "div") {
        // 0 / infinity is exact too, but its error term, 0 * infinity, is none: left to the slow path.
        const b = this.#number(1);
        code.get(b).get(b).op(this.#op(Op.f32Sub, Op.f64Sub));
        if (this.#double) code.f64(0).op(Op.f64Eq, Op.i32And);
        else code.f32(0).op(Op.f32Eq, Op.i32And);
      }
    }
    else {
      zero(this.#number(0));
      zero(this.#number(1));
      code.op(Op.i32Or);
      if (op !== "mul") {
        zero(this.#number(2));
        code.op(Op.i32And);
      }
    }
    code.op(Op.i32And);
  }

  #fma(a: () => void, b: () => void, c: () => void): void {
    const code = this.#code;
    for (const push of [a, b, c]) {
      push();
      code.simd(this.#double ? Simd.f64x2Splat : Simd.f32x4Splat);
    }
    if (this.#double) code.simd(Simd.f64x2RelaxedMadd).f64x2ExtractLane(0);
    else code.simd(Simd.f32x4RelaxedMadd).f32x4ExtractLane(0);
  }

  /** Pushes 1 when the result in number 3 is not exact (cold: only while NX is clear). */
  #inexact(op: string): void {
    const code = this.#code;
    const [a, b, r, t] = [this.#number(0), this.#number(1), this.#number(3), this.#number(4)];
    if (op === "add" || op === "sub") {
      const [plus, minus] = [this.#op(Op.f32Add, Op.f64Add), this.#op(Op.f32Sub, Op.f64Sub)];
      code.get(r).get(a).op(minus).set(t); // TwoSum: t = r - a, error = (a - (r - t)) + (b - t)
      code.get(a).get(r).get(t).op(minus, minus).get(b).get(t).op(minus, plus);
      if (this.#double) code.f64(0).op(Op.f64Ne);
      else code.f32(0).op(Op.f32Ne);
      return;
    }
    if (!this.#double && (op === "mul" || op === "div" || op === "sqrt")) {
      const wide = (n: number): void => void code.get(n).op(Op.f64PromoteF32);
      // Products of two binary32 are exact in binary64.
      const product = (x: number, y: number): void => {
        wide(x);
        wide(y);
        code.op(Op.f64Mul);
      };
      if (op === "mul") { product(a, b); wide(r); }
      else { product(r, op === "div" ? b : r); wide(a); }
      code.op(Op.f64Ne);
      return;
    }
    if (this.#double && this.#l.emission.fused.f64 && (op === "mul" || op === "div" || op === "sqrt")) {
      // The fused error term is exact unless it underflows: stay away from small numbers.
      for (const n of op === "mul" ? [r] : [r, a]) {
        this.#exponent(n);
        code.i32(120).op(Op.i32LtS).brIf(this.#l.emission.exits.slow);
      }
      const negative = (n: number): void => void code.get(n).op(Op.f64Neg);
      if (op === "mul") this.#fma(() => code.get(a), () => code.get(b), () => negative(r));
      else this.#fma(() => negative(r), () => code.get(op === "div" ? b : r), () => code.get(a));
      code.f64(0).op(Op.f64Ne);
      return;
    }
    code.i32(0);
    this.#bail();
  }

  #minMax(op: "min" | "max"): void {
    this.#numbers();
    const code = this.#code;
    const [a, b, r] = [this.#number(0), this.#number(1), this.#number(3)];
    // NaN operands are for the slow path; Wasm orders -0 below +0, as RISC-V does.
    code.get(a).get(b).op(op === "min" ? this.#op(Op.f32Min, Op.f64Min) : this.#op(Op.f32Max, Op.f64Max)).tee(r);
    code.get(r).op(this.#op(Op.f32Ne, Op.f64Ne)).brIf(this.#l.emission.exits.slow, false);
    this.#box(r);
  }

  #compare(op: "eq" | "lt" | "le"): void {
    this.#numbers();
    const code = this.#code;
    const [a, b] = [this.#number(0), this.#number(1)];
    const [ne, or] = [this.#op(Op.f32Ne, Op.f64Ne), Op.i32Or];
    code.get(a).get(a).op(ne).get(b).get(b).op(ne, or).brIf(this.#l.emission.exits.slow, false);
    const compare = { eq: this.#op(Op.f32Eq, Op.f64Eq), lt: this.#op(Op.f32Lt, Op.f64Lt), le: this.#op(Op.f32Le, Op.f64Le) }[op];
    code.get(a).get(b).op(compare, Op.i64ExtendI32U);
  }

  /** Infinities and what is integral already come out as they are; NaN is for the slow path. */
  #round(op: "round" | "roundnx"): void {
    this.#numbers();
    const code = this.#code;
    const [a, r] = [this.#number(0), this.#number(3)];
    code.get(a).op(this.#l.variant === "truncate" ? this.#op(Op.f32Trunc, Op.f64Trunc) : this.#op(Op.f32Nearest, Op.f64Nearest)).tee(r);
    code.get(r).op(this.#op(Op.f32Ne, Op.f64Ne)).brIf(this.#l.emission.exits.slow, false);
    if (op === "roundnx") this.#accrue(() => code.get(r).get(a).op(this.#op(Op.f32Ne, Op.f64Ne)));
    this.#box(r);
  }

  #sign(op: "sgnj" | "sgnjn" | "sgnjx"): void {
    this.#operands();
    const code = this.#code;
    const [a, b] = this.#l.emission.locals.bits;
    const sign = this.#double ? 1n << 63n : 1n << 31n;
    if (op === "sgnjx") {
      code.get(a).get(b).i64(sign).op(Op.i64And, Op.i64Xor);
      return;
    }
    code.get(a).i64(~sign).op(Op.i64And).get(b);
    if (op === "sgnjn") code.i64(-1).op(Op.i64Xor);
    code.i64(sign).op(Op.i64And, Op.i64Or);
  }

  #toInteger(op: "toI32" | "toU32" | "toI64" | "toU64"): void {
    const code = this.#code;
    const { f64 } = this.#l.emission.locals;
    this.#numbers();
    const [value, integer] = [f64[0], f64[3]];
    if (!this.#double) code.get(this.#number(0)).op(Op.f64PromoteF32).set(value);
    code.get(value).op(this.#l.variant === "truncate" ? Op.f64Trunc : Op.f64Nearest).tee(integer);
    const [low, high] = { toI32: [-(2 ** 31), 2 ** 31], toU32: [0, 2 ** 32], toI64: [-(2 ** 63), 2 ** 63], toU64: [0, 2 ** 64] }[op] as [number, number];
    code.f64(low).op(Op.f64Ge).get(integer).f64(high).op(Op.f64Lt, Op.i32And, Op.i32Eqz).brIf(this.#l.emission.exits.slow, false);
    this.#accrue(() => code.get(integer).get(value).op(Op.f64Ne));
    code.get(integer);
    switch (op) {
      case "toI32": code.truncSat(Sat.i32F64S).op(Op.i64ExtendI32S); return;
      case "toU32": code.truncSat(Sat.i32F64U).op(Op.i64ExtendI32S); return; // results are sign-extended from 32 bits
      case "toI64": code.truncSat(Sat.i64F64S); return;
      case "toU64": code.truncSat(Sat.i64F64U); return;
    }
  }

  #fromInteger(op: "fromI32" | "fromU32" | "fromI64" | "fromU64"): void {
    const code = this.#code;
    const { bits, f64 } = this.#l.emission.locals;
    const signed = op.startsWith("fromI");
    const narrow = op.endsWith("32");
    this.#l.expr(this.#expr.args[0]!);
    if (narrow) code.op(Op.i32WrapI64, signed ? Op.i64ExtendI32S : Op.i64ExtendI32U);
    code.tee(bits[0]);
    const convert = signed ? this.#op(Op.f32ConvertI64S, Op.f64ConvertI64S) : this.#op(Op.f32ConvertI64U, Op.f64ConvertI64U);
    code.op(convert).set(this.#number(3));
    if (this.#double && !narrow) {
      this.#accrue(() => {
        this.#bailUnlessBelow(2n ** 53n, signed);
        code.i32(0);
      });
    } else if (!this.#double) {
      this.#accrue(() => {
        if (!narrow) this.#bailUnlessBelow(2n ** 53n, signed);
        code.get(bits[0]).op(signed ? Op.f64ConvertI64S : Op.f64ConvertI64U).set(f64[0]);
        code.get(f64[0]).get(this.#number(3)).op(Op.f64PromoteF32, Op.f64Ne);
      });
    }
    this.#box(this.#number(3));
  }

  /** To the slow path unless the magnitude of the integer operand is below `limit`. */
  #bailUnlessBelow(limit: bigint, signed: boolean): void {
    const code = this.#code.get(this.#l.emission.locals.bits[0]);
    if (signed) code.i64(limit).op(Op.i64Add).i64(2n * limit).op(Op.i64GeU);
    else code.i64(limit).op(Op.i64GeU);
    code.brIf(this.#l.emission.exits.slow);
  }

  /** binary64 to binary32. */
  #toSingle(): void {
    const code = this.#code;
    const { f64, f32 } = this.#l.emission.locals;
    this.#numbers();
    code.get(f64[0]).op(Op.f32DemoteF64).tee(f32[3]).op(Op.i32ReinterpretF32).i32(23).op(Op.i32ShrU).i32(0xff).op(Op.i32And);
    code.i32(2).op(Op.i32Sub).i32(0xfd).op(Op.i32LtU).get(f64[0]).f64(0).op(Op.f64Eq, Op.i32Or, Op.i32Eqz).brIf(this.#l.emission.exits.slow, false);
    this.#accrue(() => code.get(f32[3]).op(Op.f64PromoteF32).get(f64[0]).op(Op.f64Ne));
    code.get(f32[3]).op(Op.i32ReinterpretF32, Op.i64ExtendI32U).i64(BOX).op(Op.i64Or);
  }

  /** binary32 to binary64: exact; NaN becomes the canonical one on the slow path. */
  #toDouble(): void {
    const code = this.#code;
    const { f64, f32 } = this.#l.emission.locals;
    this.#numbers();
    code.get(f32[0]).op(Op.f64PromoteF32).tee(f64[3]).get(f64[3]).op(Op.f64Ne).brIf(this.#l.emission.exits.slow, false);
    code.get(f64[3]).op(Op.i64ReinterpretF64);
  }
}

