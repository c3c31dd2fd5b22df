/** The shape of a row of the instruction table, and the operand formats that rows refer to. */

import { immediate, type Immediate } from "./immediate.ts";
import type { Stmt } from "./ir.ts";

export type Extension =
  | "I" | "M" | "A" | "F" | "D" | "C" | "Zicsr" | "Zifencei" | "Zba" | "Zbb" | "Zbc" | "Zbs" | "Zicond" | "Zicbom" | "Zicboz" | "Zawrs" | "Svinval" | "H" | "Zfa"
  | "Privileged"; // xRET, WFI, SFENCE.VMA of the privileged manual

/**
 * One operand as written in assembly, in order.
 * rd rs1 rs2: integer registers; fd fs1 fs2 fs3: FP registers in the same fields; mem: `imm(rs1)`; base: `(rs1)`;
 * target: pc-relative label; csr: imm as CSR number; zimm: 5 bits in the rs1 field; fli: the same as a number that they
 * stand for (Zfa); rtz: the rounding mode that the encoding fixes; rm: FP rounding mode, may be left
 * out; pred, succ: fence sets.
 */
export type Operand =
  | "rd" | "rs1" | "rs2" | "fd" | "fs1" | "fs2" | "fs3"
  | "imm" | "mem" | "base" | "target" | "csr" | "zimm" | "fli" | "rm" | "rtz" | "pred" | "succ";

/** Fields of a 32-bit instruction: which operands, which immediate, and which bits are opcode (the default mask). */
export interface Format {
  readonly operands: readonly Operand[];
  readonly immediate?: Immediate;
  readonly mask: number;
}

const I = immediate("31:20=11:0", "signed");
const S = immediate("31:25=11:5 11:7=4:0", "signed");
const B = immediate("31=12 30:25=10:5 11:8=4:1 7=11", "signed");
const U = immediate("31:12=31:12", "signed");
const J = immediate("31=20 30:21=10:1 20=11 19:12=19:12", "signed");
const CSR = immediate("31:20=11:0", "unsigned");
const SHAMT = immediate("25:20=5:0", "unsigned");
const SHAMTW = immediate("24:20=4:0", "unsigned");
const FENCE = immediate("31:20=11:0", "unsigned");

const OPCODE = 0x7f;
const FUNCT3 = 0x707f;
const FUNCT7 = 0xfe00_707f;
const UNARY = 0xfff0_707f; // the rs2 field selects the operation

export const FORMATS = {
  R: { operands: ["rd", "rs1", "rs2"], mask: FUNCT7 },
  R1: { operands: ["rd", "rs1"], mask: UNARY },
  I: { operands: ["rd", "rs1", "imm"], immediate: I, mask: FUNCT3 },
  shift: { operands: ["rd", "rs1", "imm"], immediate: SHAMT, mask: 0xfc00_707f },
  shiftW: { operands: ["rd", "rs1", "imm"], immediate: SHAMTW, mask: FUNCT7 },
  load: { operands: ["rd", "mem"], immediate: I, mask: FUNCT3 },
  store: { operands: ["rs2", "mem"], immediate: S, mask: FUNCT3 },
  B: { operands: ["rs1", "rs2", "target"], immediate: B, mask: FUNCT3 },
  U: { operands: ["rd", "imm"], immediate: U, mask: OPCODE },
  J: { operands: ["rd", "target"], immediate: J, mask: OPCODE },
  none: { operands: [], mask: 0xffff_ffff },
  fence: { operands: ["pred", "succ"], immediate: FENCE, mask: FUNCT3 },
  fenceI: { operands: [], mask: FUNCT3 },
  sfence: { operands: ["rs1", "rs2"], mask: 0xfe00_7fff },
  hlv: { operands: ["rd", "base"], mask: UNARY },
  hsv: { operands: ["rs2", "base"], mask: 0xfe00_7fff },
  cbo: { operands: ["base"], mask: 0xfff0_7fff },
  csr: { operands: ["rd", "csr", "rs1"], immediate: CSR, mask: FUNCT3 },
  csrI: { operands: ["rd", "csr", "zimm"], immediate: CSR, mask: FUNCT3 },
  lr: { operands: ["rd", "base"], mask: 0xf9f0_707f },
  amo: { operands: ["rd", "rs2", "base"], mask: 0xf800_707f },
  fLoad: { operands: ["fd", "mem"], immediate: I, mask: FUNCT3 },
  fStore: { operands: ["fs2", "mem"], immediate: S, mask: FUNCT3 },
  f4: { operands: ["fd", "fs1", "fs2", "fs3", "rm"], mask: 0x0600_007f },
  f2Rounded: { operands: ["fd", "fs1", "fs2", "rm"], mask: 0xfe00_007f },
  f1Rounded: { operands: ["fd", "fs1", "rm"], mask: 0xfff0_007f },
  f2: { operands: ["fd", "fs1", "fs2"], mask: FUNCT7 },
  fCompare: { operands: ["rd", "fs1", "fs2"], mask: FUNCT7 },
  fToX: { operands: ["rd", "fs1"], mask: UNARY },
  fToXRounded: { operands: ["rd", "fs1", "rm"], mask: 0xfff0_007f },
  fToXTruncated: { operands: ["rd", "fs1", "rtz"], mask: UNARY },
  fConstant: { operands: ["fd", "fli"], mask: UNARY },
  xToF: { operands: ["fd", "rs1"], mask: UNARY },
  xToFRounded: { operands: ["fd", "rs1", "rm"], mask: 0xfff0_007f },
} as const satisfies Record<string, Format>;

export type FormatName = keyof typeof FORMATS;

/** One instruction: how it is encoded and, once for the whole project, what it means. */
export interface Instruction {
  readonly name: string;
  readonly extension: Extension;
  readonly format: FormatName;
  /** `(word & mask) === match`, both unsigned 32-bit. */
  readonly mask: number;
  readonly match: number;
  /** Manual section that defines it. */
  readonly section: string;
  readonly semantics: readonly Stmt[];
  /** Rounding mode that the assembler writes when none is given (7, dynamic, unless the result is always exact). */
  readonly defaultRm?: number;
}

/** Where a register operand of a compressed instruction comes from: a 5-bit field, a 3-bit field (x8..x15), or fixed. */
export type RegisterSource = "11:7" | "6:2" | "9:7'" | "4:2'" | 0 | 1 | 2;

/** A 16-bit instruction: an encoding of a base instruction, whose meaning it has. */
export interface Compressed {
  readonly name: string;
  readonly extension: "C" | "Zcb";
  readonly mask: number;
  readonly match: number;
  /** Encodings inside mask/match that are reserved or belong to another row: pairs [mask, match]. */
  readonly except: readonly (readonly [number, number])[];
  readonly section: string;
  /** Name of the base instruction. */
  readonly expands: string;
  readonly registers: { readonly rd?: RegisterSource; readonly rs1?: RegisterSource; readonly rs2?: RegisterSource };
  readonly immediate?: Immediate;
  /** The immediate of an expansion whose encoding has none (c.not: xori with -1). */
  readonly constant?: number;
  /** Operands as written in assembly; registers named twice by the expansion are written once. */
  readonly operands: readonly Operand[];
}

/** Illegal while mstatus.FS is Off. */
export const usesFloatState = ({ extension }: Instruction): boolean => extension === "F" || extension === "D" || extension === "Zfa";

/** A section of the table: rows of one extension and one manual section, with the mask taken from the format. */
export function rows(extension: Extension, section: string) {
  return (name: string, format: FormatName, match: number, ...semantics: readonly Stmt[]): Instruction => ({
    name, extension, format, mask: FORMATS[format].mask >>> 0, match: match >>> 0, section, semantics,
  });
}
