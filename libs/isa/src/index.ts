export * as ir from "./ir.ts";
export type {
  AmoOp, BinaryOp, Bytes, Expr, FpFormat, FpOp, RegisterField, Stmt, SystemOp, Type, UnaryOp,
} from "./ir.ts";
export type { Compressed, Extension, Format, FormatName, Instruction, Operand } from "./instruction.ts";
export { FORMATS, usesFloatState } from "./instruction.ts";
export { BY_NAME, COMPRESSED_INSTRUCTIONS, instructionNamed, INSTRUCTIONS } from "./instructions/table.ts";
export { decode, matchesCompressed, type Decoded } from "./decode.ts";
export { CSR_BY_NAME, CSR_BY_NUMBER, csrNumber, CSRS, type Csr } from "./csr.ts";
export * as privileged from "./privileged.ts";
export { EXCEPTION, INTERRUPT, INTERRUPT_FLAG, PRIVILEGE, type Privilege } from "./privileged.ts";
export { boxS, FLAG, fp, ROUNDING, unboxS, type FpResult } from "./softfloat.ts";
export { evaluate, HartTrap, illegalInstruction, typeOf, type CsrAccess, type Environment } from "./evaluate.ts";
export { encode, encodeCompressed, type Fields } from "./encode.ts";
export { disassemble } from "./disassemble.ts";
export { assemble, type AssembleOptions, type Assembly } from "./assemble.ts";
export { AssemblyError } from "./assembler/source.ts";
export { F_NAMES, X_NAMES } from "./registers.ts";
