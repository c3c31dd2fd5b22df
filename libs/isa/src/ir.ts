/**
 * The meaning of an instruction as data. One definition per instruction; the reference interpreter evaluates it, the
 * Wasm interpreter and the translator compile it.
 *
 * Values are i64 (guest words, addresses, raw FP bits) or i32 (conditions: 0 or 1, and 32-bit arithmetic). FP
 * registers are 64 raw bits, binary32 values NaN-boxed (RISC-V unprivileged spec, "NaN Boxing of Narrower Values").
 * An instruction is precise: every statement that can fault comes before the first one that changes a register.
 */

export type Type = "i32" | "i64";

/** Operand fields as the decoder delivers them: register numbers, the immediate, FP rounding mode, CSR number. */
export type RegisterField = "rd" | "rs1" | "rs2" | "rs3";

export type UnaryOp =
  | "eqz" // any -> i32
  | "clz" | "ctz" | "popcnt" // same type
  | "wrap" // i64 -> i32
  | "extendS" | "extendU" // i32 -> i64
  | "sext8" | "sext16" | "sext32"; // i64 -> i64: sign-extend the low bits

export type BinaryOp =
  | "add" | "sub" | "mul" | "and" | "or" | "xor"
  | "shl" | "shrS" | "shrU" // shift amount modulo the width, as RISC-V and Wasm both say
  | "mulhS" | "mulhU" | "mulhSU" // i64: high half
  | "clmul" | "clmulh" // i64: low and high half of the carry-less product (Zbc)
  | "divS" | "divU" | "remS" | "remU" // RISC-V results for zero divisors and overflow (M extension), total functions
  | "eq" | "ne" | "ltS" | "ltU" | "geS" | "geU"; // -> i32

export type Bytes = 1 | 2 | 4 | 8;
export type FpFormat = "s" | "d";
/** Operations on raw bits. Operands of format s are unboxed (improper box = canonical NaN), results are boxed. */
export type FpOp =
  | "add" | "sub" | "mul" | "div" | "sqrt" // rounded by rm
  | "madd" | "msub" | "nmsub" | "nmadd" // fused, rounded by rm
  | "min" | "max" // IEEE 754-2019 minimumNumber / maximumNumber as F 2.2 says
  | "minm" | "maxm" // minimum / maximum: NaN if either is (Zfa)
  | "round" | "roundnx" // to an integral value, by rm; only roundnx says whether that was inexact (Zfa)
  | "eq" | "lt" | "le" // -> 0 or 1; eq quiet, lt and le signaling
  | "ltq" | "leq" // quiet (Zfa)
  | "classify"
  | "sgnj" | "sgnjn" | "sgnjx"
  | "toI32" | "toU32" | "toI64" | "toU64" // FP -> integer, rounded by rm, results sign-extended from 32
  | "toI32Modular" // truncated, the low 32 bits of the integer, sign-extended; flags as toI32 (Zfa)
  | "fromI32" | "fromU32" | "fromI64" | "fromU64" // integer -> FP, rounded by rm
  | "toS" | "toD"; // between formats: `format` is the source's
export type AmoOp = "swap" | "add" | "and" | "or" | "xor" | "minS" | "maxS" | "minU" | "maxU";

export type Expr =
  | { readonly kind: "const"; readonly type: Type; readonly value: bigint }
  /** The decoded immediate, sign-extended to i64 (already shifted for U, J and B formats). */
  | { readonly kind: "imm" }
  /** The 5-bit rs1 field as a number, zero-extended to i64: the operand of csrrwi, csrrsi and csrrci. */
  | { readonly kind: "uimm" }
  /** Address of this instruction / of the one after it (pc + 2 or + 4). i64. */
  | { readonly kind: "pc" }
  | { readonly kind: "next" }
  /** Integer register; x0 reads 0. */
  | { readonly kind: "x"; readonly reg: RegisterField }
  /** FP register, raw 64 bits. */
  | { readonly kind: "f"; readonly reg: RegisterField }
  | { readonly kind: "local"; readonly name: string; readonly type: Type }
  | { readonly kind: "unary"; readonly op: UnaryOp; readonly a: Expr }
  | { readonly kind: "binary"; readonly op: BinaryOp; readonly type: Type; readonly a: Expr; readonly b: Expr }
  | { readonly kind: "select"; readonly cond: Expr; readonly then: Expr; readonly else: Expr }
  /** Memory read through the MMU, little-endian, extended to i64. Misaligned addresses work. */
  | { readonly kind: "load"; readonly bytes: Bytes; readonly signed: boolean; readonly address: Expr }
  /** Accrues fflags; `rounded` ops use the instruction's rm (7 = frm; reserved modes are illegal instructions). */
  | { readonly kind: "fp"; readonly op: FpOp; readonly format: FpFormat; readonly args: readonly Expr[] }
  /** Atomic read-modify-write, sequentially consistent; misaligned = store/AMO misaligned exception. Old value, sign-extended. */
  | { readonly kind: "amo"; readonly op: AmoOp; readonly bytes: 4 | 8; readonly address: Expr; readonly value: Expr }
  | { readonly kind: "lr"; readonly bytes: 4 | 8; readonly address: Expr }
  /** 0 = stored, 1 = failed. */
  | { readonly kind: "sc"; readonly bytes: 4 | 8; readonly address: Expr; readonly value: Expr }
  /** Memory as the guest of a hypervisor sees it (HLV); `execute`: needs execute instead of read permission (HLVX). Left to TypeScript. */
  | { readonly kind: "guestLoad"; readonly bytes: Bytes; readonly signed: boolean; readonly execute: boolean; readonly address: Expr }
  /**
   * Old value of the CSR numbered by the immediate, written as `op` says with `operand` ("write" replaces, "set" ors,
   * "clear" and-nots). CSRRW with rd = x0 does not read; CSRRS/CSRRC with rs1 = x0 (or uimm 0) do not write: the
   * backend looks at the decoded fields. Illegal access traps.
   */
  | { readonly kind: "csr"; readonly op: "write" | "set" | "clear"; readonly operand: Expr };

/** What only the privileged core can do. Each ends the basic block. */
export type SystemOp = "ecall" | "ebreak" | "mret" | "sret" | "wfi" | "sfence.vma" | "sfence.inval" | "hfence.vvma" | "hfence.gvma" | "fence.i" | "illegal";

/** Cache-block management (CMO, Zicbom): memory is coherent here, so only permission and translation are checked. */
export type CacheBlockOp = "inval" | "clean" | "flush";

export type Stmt =
  | { readonly kind: "let"; readonly name: string; readonly value: Expr }
  | { readonly kind: "setX"; readonly reg: "rd"; readonly value: Expr }
  | { readonly kind: "setF"; readonly reg: "rd"; readonly value: Expr }
  | { readonly kind: "store"; readonly bytes: Bytes; readonly address: Expr; readonly value: Expr }
  /** Conditional jump relative to pc by the immediate. */
  | { readonly kind: "branch"; readonly cond: Expr }
  /** Unconditional; `target` has bit 0 cleared by the definition. Evaluated before any setX of the instruction. */
  | { readonly kind: "jump"; readonly target: Expr }
  | { readonly kind: "system"; readonly op: SystemOp }
  /** cbo.zero is an illegal (virtual) instruction unless the envcfg registers above the mode grant it: CBZE. Comes first. */
  | { readonly kind: "require"; readonly grant: "CBZE" }
  /** Checked as a load or store of the block at `address`; envcfg CBIE, CBCFE. Left to TypeScript. */
  | { readonly kind: "cacheBlock"; readonly op: CacheBlockOp; readonly address: Expr }
  /** HSV; as guestLoad. */
  | { readonly kind: "guestStore"; readonly bytes: Bytes; readonly address: Expr; readonly value: Expr }
  /** Memory ordering; a full barrier is always right. */
  | { readonly kind: "fence" };

// Builders, so that the table reads like the manual.
export const i64 = (value: bigint | number): Expr => ({ kind: "const", type: "i64", value: BigInt(value) });
export const i32 = (value: bigint | number): Expr => ({ kind: "const", type: "i32", value: BigInt(value) });
export const imm: Expr = { kind: "imm" };
export const uimm: Expr = { kind: "uimm" };
export const pc: Expr = { kind: "pc" };
export const next: Expr = { kind: "next" };
export const x = (reg: RegisterField): Expr => ({ kind: "x", reg });
export const f = (reg: RegisterField): Expr => ({ kind: "f", reg });
export const un = (op: UnaryOp, a: Expr): Expr => ({ kind: "unary", op, a });
export const bin = (op: BinaryOp, a: Expr, b: Expr, type: Type = "i64"): Expr => ({ kind: "binary", op, type, a, b });
export const local = (name: string, type: Type = "i64"): Expr => ({ kind: "local", name, type });
export const load = (bytes: Bytes, signed: boolean, address: Expr): Expr => ({ kind: "load", bytes, signed, address });
export const fp = (op: FpOp, format: FpFormat, ...args: readonly Expr[]): Expr => ({ kind: "fp", op, format, args });
export const set = (name: string, value: Expr): Stmt => ({ kind: "let", name, value });
export const setX = (value: Expr): Stmt => ({ kind: "setX", reg: "rd", value });
export const setF = (value: Expr): Stmt => ({ kind: "setF", reg: "rd", value });
export const store = (bytes: Bytes, address: Expr, value: Expr): Stmt => ({ kind: "store", bytes, address, value });
export const branch = (cond: Expr): Stmt => ({ kind: "branch", cond });
export const jump = (target: Expr): Stmt => ({ kind: "jump", target });
export const system = (op: SystemOp): Stmt => ({ kind: "system", op });
