import type { BinaryOp } from "@polyvisor/isa";
import { Atomic, type Callable, I32, I64, ModuleWriter, Op, type ValueType } from "@polyvisor/wasm-encoder";

type ArithmeticKey = `${"i32" | "i64"}.${BinaryOp}`;

/** Functions for what Wasm has no instruction for: RISC-V division, high halves of products, carry-less products. */
export function defineArithmetic(module: ModuleWriter): ReadonlyMap<ArithmeticKey, Callable> {
  const functions = new Map<ArithmeticKey, Callable>();
  for (const type of ["i32", "i64"] as const) {
    for (const op of ["divS", "divU", "remS", "remU"] as const) functions.set(`${type}.${op}`, division(module, type, op));
  }
  const mulhU = multiplyHigh(module);
  functions.set("i64.mulhU", mulhU);
  functions.set("i64.mulhS", signedHigh(module, "mulhS", mulhU));
  functions.set("i64.mulhSU", signedHigh(module, "mulhSU", mulhU));
  for (const op of ["clmul", "clmulh"] as const) functions.set(`i64.${op}`, carryLess(module, op));
  return functions;
}

const binary = (type: ValueType) => ({ parameters: [type, type], results: [type] });

/** M, table "Semantics for division by zero and division overflow". */
function division(module: ModuleWriter, typeName: "i32" | "i64", op: "divS" | "divU" | "remS" | "remU"): Callable {
  const wide = typeName === "i64";
  const type = wide ? I64 : I32;
  const f = module.function(`${typeName}.${op}`, binary(type));
  const { code } = f;
  const constant = (value: number): void => void (wide ? code.i64(value) : code.i32(value));
  const [eqz, eq, sub] = wide ? [Op.i64Eqz, Op.i64Eq, Op.i64Sub] : [Op.i32Eqz, Op.i32Eq, Op.i32Sub];
  const instruction = {
    divS: [Op.i32DivS, Op.i64DivS], divU: [Op.i32DivU, Op.i64DivU], remS: [Op.i32RemS, Op.i64RemS], remU: [Op.i32RemU, Op.i64RemU],
  }[op][wide ? 1 : 0]!;
  code.get(1).op(eqz).if(type, false);
  if (op.startsWith("div")) constant(-1);
  else code.get(0);
  code.else();
  if (op === "divS") {
    // Division by -1 is negation, which wraps for the smallest number; Wasm would trap there.
    code.get(1);
    constant(-1);
    code.op(eq).if(type, false);
    constant(0);
    code.get(0).op(sub).else().get(0).get(1).op(instruction).end();
  } else code.get(0).get(1).op(instruction);
  code.end();
  return f;
}

/** Schoolbook multiplication on 32-bit halves. */
function multiplyHigh(module: ModuleWriter): Callable {
  const f = module.function("i64.mulhU", binary(I64));
  const { code } = f;
  const [aLow, aHigh, bLow, bHigh, middle] = Array.from({ length: 5 }, () => code.local(I64)) as [number, number, number, number, number];
  const LOW = 0xffff_ffff;
  code.get(0).i64(LOW).op(Op.i64And).set(aLow).get(0).i64(32).op(Op.i64ShrU).set(aHigh);
  code.get(1).i64(LOW).op(Op.i64And).set(bLow).get(1).i64(32).op(Op.i64ShrU).set(bHigh);
  code.get(aHigh).get(bLow).op(Op.i64Mul).get(aLow).get(bLow).op(Op.i64Mul).i64(32).op(Op.i64ShrU, Op.i64Add).set(middle);
  code.get(aHigh).get(bHigh).op(Op.i64Mul).get(middle).i64(32).op(Op.i64ShrU, Op.i64Add);
  code.get(aLow).get(bHigh).op(Op.i64Mul).get(middle).i64(LOW).op(Op.i64And, Op.i64Add).i64(32).op(Op.i64ShrU, Op.i64Add);
  return f;
}

/** From the unsigned product: a negative factor contributes -(other factor) to the high half. */
function signedHigh(module: ModuleWriter, op: "mulhS" | "mulhSU", unsigned: Callable): Callable {
  const f = module.function(`i64.${op}`, binary(I64));
  f.code.get(0).get(1).call(unsigned).get(0).i64(63).op(Op.i64ShrS).get(1).op(Op.i64And, Op.i64Sub);
  if (op === "mulhS") f.code.get(1).i64(63).op(Op.i64ShrS).get(0).op(Op.i64And, Op.i64Sub);
  return f;
}

/** B, Zbc: one round per set bit of the second operand. clmulh shifts right by the distance to bit 64, in two steps: never by 64. */
function carryLess(module: ModuleWriter, op: "clmul" | "clmulh"): Callable {
  const f = module.function(`i64.${op}`, binary(I64));
  const { code } = f;
  const [bit, sum] = [code.local(I64), code.local(I64)];
  const done = code.block();
  const again = code.loop();
  code.get(1).op(Op.i64Eqz).brIf(done, false);
  code.get(1).op(Op.i64Ctz).set(bit);
  code.get(sum).get(0);
  if (op === "clmul") code.get(bit).op(Op.i64Shl);
  else code.i64(1).op(Op.i64ShrU).i64(63).get(bit).op(Op.i64Sub, Op.i64ShrU);
  code.op(Op.i64Xor).set(sum);
  code.get(1).get(1).i64(1).op(Op.i64Sub, Op.i64And).set(1);
  code.br(again).end().end().get(sum);
  return f;
}

/** amomin and amomax: (place, value) -> old value, by compare-and-swap. */
export function defineMinMax(module: ModuleWriter): ReadonlyMap<string, Callable> {
  const functions = new Map<string, Callable>();
  const compare = { minS: [Op.i32LtS, Op.i64LtS], maxS: [Op.i32GtS, Op.i64GtS], minU: [Op.i32LtU, Op.i64LtU], maxU: [Op.i32GtU, Op.i64GtU] } as const;
  for (const [op, [narrow, wide]] of Object.entries(compare)) {
    for (const bytes of [4, 8] as const) {
      const f = module.function(`${op}${bytes}`, { parameters: [I32, I64], results: [I64] });
      const { code } = f;
      const old = code.local(I64);
      const atomics = bytes === 4 ? [Atomic.i64Load32U, Atomic.i64Cmpxchg32U] as const : [Atomic.i64Load, Atomic.i64Cmpxchg] as const;
      const retry = code.loop();
      code.get(0).get(0).atomic(atomics[0]).tee(old);
      code.get(1).get(old);
      code.get(1);
      if (bytes === 4) code.op(Op.i32WrapI64);
      code.get(old);
      if (bytes === 4) code.op(Op.i32WrapI64);
      code.op(bytes === 4 ? narrow : wide, Op.select);
      code.atomic(atomics[1]).get(old).op(Op.i64Ne).brIf(retry, false).end().get(old);
      functions.set(`${op}${bytes}`, f);
    }
  }
  return functions;
}
