export * as ir from "./ir.ts";
export type {
  AmoOp, BinaryOp, Bytes, Expr, FpFormat, FpOp, RegisterField, Stmt, SystemOp, Type, UnaryOp,
} from "./ir.ts";
export type { Compressed, Extension, Format, FormatName, Instruction, Operand } from "./instruction.ts";
export { FORMATS } from "./instruction.ts";
export { BY_NAME, COMPRESSED_INSTRUCTIONS, instructionNamed, INSTRUCTIONS } from "./instructions/table.ts";
export { decode, matchesCompressed, type Decoded } from "./decode.ts";
