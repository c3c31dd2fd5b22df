/** Operand texts to instruction fields, by the operand list of the row. */

import { CSR_BY_NAME } from "../csr.ts";
import type { Fields } from "../encode.ts";
import type { Operand } from "../instruction.ts";
import { FLI_NAMES } from "../instructions/float-extra.ts";
import { F_NUMBERS, ROUNDING_NAMES, X_NUMBERS } from "../registers.ts";

export interface OperandContext {
  readonly evaluate: (expression: string) => bigint;
  /** Address of the instruction, for targets. */
  readonly address: bigint;
  /** The immediate is written without its 12 low zero bits (lui, auipc, c.lui). */
  readonly upperImmediate: boolean;
}

type MutableFields = { -readonly [K in keyof Fields]: Fields[K] };

export function parseOperands(operands: readonly Operand[], texts: readonly string[], context: OperandContext): Fields {
  const required = operands.filter((operand) => operand !== "rm").length;
  if (texts.length < required || texts.length > operands.length) {
    throw new Error(`expected ${describeOperands(operands)}, got ${texts.length} operand${texts.length === 1 ? "" : "s"}`);
  }
  const fields: MutableFields = {};
  texts.forEach((text, index) => parseOperand(operands[index] ?? "imm", text, context, fields));
  return fields;
}

export function describeOperands(operands: readonly Operand[]): string {
  if (operands.length === 0) return "no operands";
  return `operands ${operands.map((operand) => NAMES[operand] ?? operand).join(", ")}`;
}

const NAMES: Partial<Record<Operand, string>> = { mem: "imm(rs1)", base: "(rs1)", rm: "[rounding mode]", zimm: "0..31", fli: "a constant of Zfa" };

function parseOperand(operand: Operand, text: string, context: OperandContext, fields: MutableFields): void {
  switch (operand) {
    case "rd": case "rs1": case "rs2":
      fields[operand] = register(X_NUMBERS, text, "an integer register (x0..x31 or ABI name)");
      return;
    case "fd": case "fs1": case "fs2": case "fs3":
      fields[operand === "fd" ? "rd" : (`r${operand.slice(1)}` as "rs1" | "rs2" | "rs3")] =
        register(F_NUMBERS, text, "an FP register (f0..f31 or ABI name)");
      return;
    case "mem": case "base": {
      const match = /^(.*)\(\s*([\w]+)\s*\)$/s.exec(text);
      if (!match) throw new Error(`operand ${text}: expected ${operand === "mem" ? "offset(register)" : "(register)"}`);
      const [, offset = "", base = ""] = match;
      const value = offset.trim() === "" ? 0 : small(context.evaluate(offset));
      if (operand === "base" && value !== 0) throw new Error(`operand ${text}: expected (register) without an offset`);
      fields.rs1 = register(X_NUMBERS, base, "an integer register (x0..x31 or ABI name)");
      if (operand === "mem") fields.imm = value;
      return;
    }
    case "imm":
      fields.imm = context.upperImmediate ? upper(context.evaluate(text)) : small(context.evaluate(text));
      return;
    case "target":
      fields.imm = small(BigInt.asIntN(64, context.evaluate(text) - context.address));
      return;
    case "csr":
      fields.imm = CSR_BY_NAME.get(text)?.number ?? bounded(context.evaluate(text), 4095, "a CSR name or number");
      return;
    case "zimm":
      fields.rs1 = bounded(context.evaluate(text), 31, "an immediate");
      return;
    case "fli":
      fields.rs1 = constantNumber(text);
      return;
    case "rtz":
      if (text !== "rtz") throw new Error(`rounding mode ${text}: this instruction has only rtz`);
      return;
    case "rm": {
      const rm = ROUNDING_NAMES.indexOf(text);
      if (rm < 0) throw new Error(`rounding mode ${text}: expected rne, rtz, rdn, rup, rmm or dyn`);
      fields.rm = rm;
      return;
    }
    case "pred": case "succ":
      fields.imm = (fields.imm ?? 0) | (fenceBits(text) << (operand === "pred" ? 4 : 0));
      return;
    default:
      operand satisfies never;
  }
}

/** One of the values that fli loads, by its name or as a number: `0x1p-3` is not read, 0.125 is. */
function constantNumber(text: string): number {
  const byName = FLI_NAMES.indexOf(text);
  const number = byName >= 0 ? byName : FLI_NAMES.findIndex((name) => Number(name) === Number(text));
  if (number < 0) throw new Error(`operand ${text}: expected a constant that fli has: ${FLI_NAMES.join(", ")}`);
  return number;
}

function register(numbers: ReadonlyMap<string, number>, text: string, expected: string): number {
  const number = numbers.get(text);
  if (number === undefined) throw new Error(`operand ${text}: expected ${expected}`);
  return number;
}

/** As a number; too large values stay too large for every immediate, so that the encoder refuses them. */
function small(value: bigint): number {
  return Number(value);
}

/** lui 0xfffff is lui -1: 20 bits, signed or unsigned. */
function upper(value: bigint): number {
  if (value < -0x80000n || value > 0xfffffn) throw new Error(`immediate ${value}: expected -524288..1048575 (20 bits)`);
  return Number(BigInt.asIntN(32, value << 12n));
}

function bounded(value: bigint, max: number, expected: string): number {
  if (value < 0n || value > BigInt(max)) throw new Error(`operand ${value}: expected ${expected} in 0..${max}`);
  return Number(value);
}

function fenceBits(text: string): number {
  if (text === "0") return 0;
  if (!/^i?o?r?w?$/.test(text) || text === "") throw new Error(`fence set ${text}: expected letters of iorw, or 0`);
  return [...text].reduce((bits, letter) => bits | (8 >> "iorw".indexOf(letter)), 0);
}
