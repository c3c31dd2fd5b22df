/**
 * The reference interpreter: the IR's meaning in the plainest form, on bigints. Slow and precise; what other engines
 * are compared with. Integers are 64-bit unsigned bigints, i32 values 32-bit unsigned ones.
 */

import type { Decoded } from "./decode.ts";
import { usesFloatState } from "./instruction.ts";
import type { AmoOp, BinaryOp, Bytes, CacheBlockOp, Expr, SystemOp, UnaryOp } from "./ir.ts";
import { EXCEPTION } from "./privileged.ts";
import { fp } from "./softfloat.ts";

/** A synchronous exception of the guest. Only the reference interpreter and its environments throw it. */
export class HartTrap extends Error {
  override readonly name = "HartTrap";
  /** `EXCEPTION` code. */
  override readonly cause: number;
  /** What goes to xtval. */
  readonly value: bigint;

  constructor(cause: number, value: bigint) {
    super(`trap, cause ${cause}, value 0x${value.toString(16)}`);
    this.cause = cause;
    this.value = value;
  }
}

/** A CSR instruction after the x0 rules of Zicsr: what is to be done. */
export interface CsrAccess {
  readonly number: number;
  readonly op: "write" | "set" | "clear";
  readonly operand: bigint;
  readonly reads: boolean;
  readonly writes: boolean;
}

/**
 * The hart around one instruction. All values are unsigned 64-bit bigints. Methods that touch memory, CSRs or the
 * system throw `HartTrap`, before any effect.
 */
export interface Environment {
  /** Address of the instruction. */
  readonly pc: bigint;
  readX(register: number): bigint;
  /** Never called for x0. */
  writeX(register: number, value: bigint): void;
  readF(register: number): bigint;
  /** Also makes mstatus.FS dirty. */
  writeF(register: number, value: bigint): void;
  /** mstatus.FS is not Off. */
  fpEnabled(): boolean;
  /** fcsr.frm, 0..7. */
  frm(): number;
  /** Ors `FLAG` bits into fcsr.fflags. */
  accrue(flags: number): void;
  load(address: bigint, bytes: Bytes, signed: boolean): bigint;
  /** Stores the low `bytes` of value. */
  store(address: bigint, bytes: Bytes, value: bigint): void;
  /** Returns the old value, sign-extended; the low `bytes` of value count. */
  amo(op: AmoOp, address: bigint, bytes: 4 | 8, value: bigint): bigint;
  lr(address: bigint, bytes: 4 | 8): bigint;
  /** Whether it stored. */
  sc(address: bigint, bytes: 4 | 8, value: bigint): boolean;
  /** The old value (any when not `reads`). `decoded.word` is xtval of an illegal access. */
  csr(access: CsrAccess, decoded: Decoded): bigint;
  /** The next pc when it is not the following instruction. sfence.vma finds its operands in `decoded`. */
  system(op: SystemOp, decoded: Decoded): bigint | undefined;
  fence(): void;
  /** Throws unless the mode may execute cbo.zero. */
  require(grant: "CBZE", decoded: Decoded): void;
  cacheBlock(op: CacheBlockOp, address: bigint, decoded: Decoded): void;
  /** Hypervisor loads and stores; `execute`: HLVX. */
  guestLoad(address: bigint, bytes: Bytes, signed: boolean, execute: boolean, decoded: Decoded): bigint;
  guestStore(address: bigint, bytes: Bytes, value: bigint, decoded: Decoded): void;
}

interface Scope {
  readonly decoded: Decoded;
  readonly env: Environment;
  readonly locals: Map<string, bigint>;
}

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

export const illegalInstruction = (word: number): HartTrap => new HartTrap(EXCEPTION.illegalInstruction, BigInt(word));

/** Executes one instruction and returns the next pc. */
export function evaluate(decoded: Decoded, env: Environment): bigint {
  const { instruction } = decoded;
  if (usesFloatState(instruction) && !env.fpEnabled()) {
    throw illegalInstruction(decoded.word);
  }
  const scope: Scope = { decoded, env, locals: new Map() };
  let next = u64(env.pc + BigInt(decoded.length));
  for (const statement of instruction.semantics) {
    switch (statement.kind) {
      case "let":
        scope.locals.set(statement.name, value(statement.value, scope));
        break;
      case "setX": {
        const result = value(statement.value, scope);
        if (decoded.rd !== 0) env.writeX(decoded.rd, result);
        break;
      }
      case "setF":
        env.writeF(decoded.rd, value(statement.value, scope));
        break;
      case "store":
        env.store(value(statement.address, scope), statement.bytes, value(statement.value, scope));
        break;
      case "branch":
        if (value(statement.cond, scope) !== 0n) next = u64(env.pc + BigInt(decoded.imm));
        break;
      case "jump":
        next = value(statement.target, scope);
        break;
      case "system":
        next = env.system(statement.op, decoded) ?? next;
        break;
      case "fence":
        env.fence();
        break;
      case "require":
        env.require(statement.grant, decoded);
        break;
      case "guestStore":
        env.guestStore(value(statement.address, scope), statement.bytes, value(statement.value, scope), decoded);
        break;
      case "cacheBlock":
        env.cacheBlock(statement.op, value(statement.address, scope), decoded);
        break;
      default:
        return statement satisfies never;
    }
  }
  return next;
}

function value(expr: Expr, scope: Scope): bigint {
  const { decoded, env } = scope;
  switch (expr.kind) {
    case "const": return BigInt.asUintN(expr.type === "i32" ? 32 : 64, expr.value);
    case "imm": return u64(BigInt(decoded.imm));
    case "uimm": return BigInt(decoded.rs1);
    case "pc": return env.pc;
    case "next": return u64(env.pc + BigInt(decoded.length));
    case "x": return decoded[expr.reg] === 0 ? 0n : env.readX(decoded[expr.reg]);
    case "f": return env.readF(decoded[expr.reg]);
    case "local": {
      const local = scope.locals.get(expr.name);
      if (local === undefined) throw new Error(`${decoded.instruction.name}: local ${expr.name} is read before its let`);
      return local;
    }
    case "unary": return unary(expr.op, value(expr.a, scope), typeOf(expr.a) === "i32" ? 32 : 64);
    case "binary": return binary(expr.op, value(expr.a, scope), value(expr.b, scope), expr.type === "i32" ? 32 : 64);
    case "select": return value(expr.cond, scope) !== 0n ? value(expr.then, scope) : value(expr.else, scope);
    case "load": return u64(env.load(value(expr.address, scope), expr.bytes, expr.signed));
    case "guestLoad": return u64(env.guestLoad(value(expr.address, scope), expr.bytes, expr.signed, expr.execute, decoded));
    case "fp": {
      const operands = expr.args.map((arg) => value(arg, scope));
      const rm = decoded.rm === 7 ? env.frm() : decoded.rm;
      if (rm > 4) throw illegalInstruction(decoded.word); // reserved value in frm
      const { bits, flags } = fp(expr.op, expr.format, rm, operands[0] ?? 0n, operands[1], operands[2]);
      if (flags !== 0) env.accrue(flags);
      return bits;
    }
    case "amo": return u64(env.amo(expr.op, value(expr.address, scope), expr.bytes, value(expr.value, scope)));
    case "lr": return u64(env.lr(value(expr.address, scope), expr.bytes));
    case "sc": return env.sc(value(expr.address, scope), expr.bytes, value(expr.value, scope)) ? 0n : 1n;
    case "csr": {
      // Zicsr, table "Conditions determining whether a CSR instruction reads or writes the specified CSR".
      const reads = expr.op !== "write" || decoded.rd !== 0;
      const writes = expr.op === "write" || decoded.rs1 !== 0;
      const operand = value(expr.operand, scope);
      return u64(env.csr({ number: decoded.imm, op: expr.op, operand, reads, writes }, decoded));
    }
    default: return expr satisfies never;
  }
}

/** The type of an expression: comparisons, eqz and wrap give i32; most others follow from the IR's fixed types. */
export function typeOf(expr: Expr): "i32" | "i64" {
  switch (expr.kind) {
    case "const": case "local": return expr.type;
    case "select": return typeOf(expr.then);
    case "unary":
      if (expr.op === "eqz" || expr.op === "wrap") return "i32";
      return expr.op === "clz" || expr.op === "ctz" || expr.op === "popcnt" ? typeOf(expr.a) : "i64";
    case "binary": return COMPARISONS.has(expr.op) ? "i32" : expr.type;
    default: return "i64";
  }
}

const COMPARISONS: ReadonlySet<BinaryOp> = new Set(["eq", "ne", "ltS", "ltU", "geS", "geU"]);

function unary(op: UnaryOp, a: bigint, width: 32 | 64): bigint {
  switch (op) {
    case "eqz": return a === 0n ? 1n : 0n;
    case "clz": return BigInt(width - (a === 0n ? 0 : a.toString(2).length));
    case "ctz": return a === 0n ? BigInt(width) : BigInt((a & -a).toString(2).length - 1);
    case "popcnt": return BigInt(a.toString(2).replaceAll("0", "").length);
    case "wrap": return BigInt.asUintN(32, a);
    case "extendU": return a;
    case "extendS": case "sext32": return u64(BigInt.asIntN(32, a));
    case "sext16": return u64(BigInt.asIntN(16, a));
    case "sext8": return u64(BigInt.asIntN(8, a));
    default: return op satisfies never;
  }
}

function binary(op: BinaryOp, a: bigint, b: bigint, width: 32 | 64): bigint {
  const unsigned = (result: bigint): bigint => BigInt.asUintN(width, result);
  const signed = (operand: bigint): bigint => BigInt.asIntN(width, operand);
  const flag = (condition: boolean): bigint => (condition ? 1n : 0n);
  const amount = b & BigInt(width - 1);
  switch (op) {
    case "add": return unsigned(a + b);
    case "sub": return unsigned(a - b);
    case "mul": return unsigned(a * b);
    case "and": return a & b;
    case "or": return a | b;
    case "xor": return a ^ b;
    case "shl": return unsigned(a << amount);
    case "shrU": return a >> amount;
    case "shrS": return unsigned(signed(a) >> amount);
    case "mulhS": return unsigned((signed(a) * signed(b)) >> BigInt(width));
    case "mulhU": return (a * b) >> BigInt(width);
    case "mulhSU": return unsigned((signed(a) * b) >> BigInt(width));
    case "clmul": return unsigned(carryLess(a, b));
    case "clmulh": return carryLess(a, b) >> BigInt(width);
    // M, table "Semantics for division by zero and division overflow"; overflow wraps to itself by itself.
    case "divS": return b === 0n ? unsigned(-1n) : unsigned(signed(a) / signed(b));
    case "divU": return b === 0n ? unsigned(-1n) : a / b;
    case "remS": return b === 0n ? a : unsigned(signed(a) % signed(b));
    case "remU": return b === 0n ? a : a % b;
    case "eq": return flag(a === b);
    case "ne": return flag(a !== b);
    case "ltS": return flag(signed(a) < signed(b));
    case "ltU": return flag(a < b);
    case "geS": return flag(signed(a) >= signed(b));
    case "geU": return flag(a >= b);
    default: return op satisfies never;
  }
}

/** The 128-bit carry-less product (B, Zbc): sums of shifted copies without carries. */
function carryLess(a: bigint, b: bigint): bigint {
  let product = 0n;
  for (let bit = 0n; b >> bit !== 0n; bit++) if ((b >> bit) & 1n) product ^= a << bit;
  return product;
}
