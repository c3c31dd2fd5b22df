/** Decoded instructions to text, in the style of GNU objdump -M no-aliases: base names, ABI register names. */

import { CSR_BY_NUMBER } from "./csr.ts";
import type { Decoded } from "./decode.ts";
import { FORMATS, type Operand } from "./instruction.ts";
import { FLI_NAMES } from "./instructions/float-extra.ts";
import { F_NAMES, fenceSet, ROUNDING_NAMES, X_NAMES } from "./registers.ts";

const ORDERING_SUFFIX = ["", ".rl", ".aq", ".aqrl"] as const;

/**
 * One line, such as `c.addi sp,-16` or `beq a0,zero,0x80000010`. `pc` is the instruction's address, for targets.
 * `assemble` reads the result again.
 */
export function disassemble(decoded: Decoded, pc: bigint): string {
  const { instruction, compressed, word } = decoded;
  const suffix = instruction.extension === "A" ? (ORDERING_SUFFIX[(word >>> 25) & 3] ?? "") : "";
  const name = (compressed ?? instruction).name + suffix;
  const operands = (compressed?.operands ?? FORMATS[instruction.format].operands)
    .filter((operand) => operand !== "rm" || writesRm(decoded))
    .map((operand) => operandText(operand, decoded, pc));
  return operands.length === 0 ? name : `${name} ${operands.join(",")}`;
}

/** The mode that the assembler would write by itself is left out. */
function writesRm({ instruction, rm }: Decoded): boolean {
  return rm !== (instruction.defaultRm ?? 7);
}

function operandText(operand: Operand, decoded: Decoded, pc: bigint): string {
  const { instruction, rd, rs1, rs2, rs3, imm, rm } = decoded;
  switch (operand) {
    case "rd": return x(rd);
    case "rs1": return x(rs1);
    case "rs2": return x(rs2);
    case "fd": return f(rd);
    case "fs1": return f(rs1);
    case "fs2": return f(rs2);
    case "fs3": return f(rs3);
    case "imm":
      if (instruction.format === "U") return hex((imm >>> 12) & 0xfffff);
      return instruction.format === "shift" || instruction.format === "shiftW" ? hex(imm) : String(imm);
    case "mem": return `${imm}(${x(rs1)})`;
    case "base": return `(${x(rs1)})`;
    case "target": return `0x${BigInt.asUintN(64, pc + BigInt(imm)).toString(16)}`;
    case "csr": return CSR_BY_NUMBER.get(imm)?.name ?? hex(imm);
    case "zimm": return String(rs1);
    case "fli": return FLI_NAMES[rs1]!;
    case "rtz": return "rtz";
    case "rm": return ROUNDING_NAMES[rm] ?? String(rm);
    case "pred": return fenceSet((imm >>> 4) & 15);
    case "succ": return fenceSet(imm & 15);
    default: return operand satisfies never;
  }
}

const x = (register: number): string => X_NAMES[register] ?? `x${register}`;
const f = (register: number): string => F_NAMES[register] ?? `f${register}`;
const hex = (value: number): string => `0x${value.toString(16)}`;
