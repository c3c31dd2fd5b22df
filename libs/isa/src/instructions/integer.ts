/** RV64I, Zifencei and M (RISC-V unprivileged manual, chapters RV32I, RV64I, Zifencei, M). */

import {
  bin, branch, i64, imm, jump, load, local, next, pc, set, setX, store, system, un, x,
  type BinaryOp, type Bytes, type Expr, type Stmt,
} from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

const rs1 = x("rs1");
const rs2 = x("rs2");
const address = bin("add", rs1, imm);

const op = (operation: BinaryOp, a: Expr, b: Expr): Stmt => setX(bin(operation, a, b));
const flag = (operation: BinaryOp, a: Expr, b: Expr): Stmt => setX(un("extendU", bin(operation, a, b)));
/** 32-bit arithmetic whose low 32 result bits depend only on the low 32 operand bits. */
const word = (operation: "add" | "sub" | "mul", a: Expr, b: Expr): Stmt => setX(un("sext32", bin(operation, a, b)));
/** 32-bit arithmetic on the low words. */
const word32 = (operation: BinaryOp, a: Expr, b: Expr): Stmt =>
  setX(un("extendS", bin(operation, un("wrap", a), un("wrap", b), "i32")));
const read = (bytes: Bytes, signed: boolean): Stmt => setX(load(bytes, signed, address));
const write = (bytes: Bytes): Stmt => store(bytes, address, rs2);
const when = (operation: BinaryOp): Stmt => branch(bin(operation, rs1, rs2));

const immediates = rows("I", "RV32I, Integer Register-Immediate Instructions");
const registers = rows("I", "RV32I, Integer Register-Register Operations");
const transfers = rows("I", "RV32I, Control Transfer Instructions");
const memory = rows("I", "RV32I, Load and Store Instructions");
const ordering = rows("I", "RV32I, Memory Ordering Instructions");
const environment = rows("I", "RV32I, Environment Call and Breakpoints");
const immediates64 = rows("I", "RV64I, Integer Register-Immediate Instructions");
const registers64 = rows("I", "RV64I, Integer Register-Register Operations");
const memory64 = rows("I", "RV64I, Load and Store Instructions");
const zifencei = rows("Zifencei", "Zifencei, Instruction-Fetch Fence");
const multiply = rows("M", "M, Multiplication Operations");
const divide = rows("M", "M, Division Operations");

export const INTEGER: readonly Instruction[] = [
  immediates("lui", "U", 0x37, setX(imm)),
  immediates("auipc", "U", 0x17, op("add", pc, imm)),
  immediates("addi", "I", 0x0013, op("add", rs1, imm)),
  immediates("slti", "I", 0x2013, flag("ltS", rs1, imm)),
  immediates("sltiu", "I", 0x3013, flag("ltU", rs1, imm)),
  immediates("xori", "I", 0x4013, op("xor", rs1, imm)),
  immediates("ori", "I", 0x6013, op("or", rs1, imm)),
  immediates("andi", "I", 0x7013, op("and", rs1, imm)),
  immediates64("slli", "shift", 0x1013, op("shl", rs1, imm)),
  immediates64("srli", "shift", 0x5013, op("shrU", rs1, imm)),
  immediates64("srai", "shift", 0x4000_5013, op("shrS", rs1, imm)),
  immediates64("addiw", "I", 0x001b, word("add", rs1, imm)),
  immediates64("slliw", "shiftW", 0x101b, word32("shl", rs1, imm)),
  immediates64("srliw", "shiftW", 0x501b, word32("shrU", rs1, imm)),
  immediates64("sraiw", "shiftW", 0x4000_501b, word32("shrS", rs1, imm)),

  registers("add", "R", 0x0033, op("add", rs1, rs2)),
  registers("sub", "R", 0x4000_0033, op("sub", rs1, rs2)),
  registers("sll", "R", 0x1033, op("shl", rs1, rs2)),
  registers("slt", "R", 0x2033, flag("ltS", rs1, rs2)),
  registers("sltu", "R", 0x3033, flag("ltU", rs1, rs2)),
  registers("xor", "R", 0x4033, op("xor", rs1, rs2)),
  registers("srl", "R", 0x5033, op("shrU", rs1, rs2)),
  registers("sra", "R", 0x4000_5033, op("shrS", rs1, rs2)),
  registers("or", "R", 0x6033, op("or", rs1, rs2)),
  registers("and", "R", 0x7033, op("and", rs1, rs2)),
  registers64("addw", "R", 0x003b, word("add", rs1, rs2)),
  registers64("subw", "R", 0x4000_003b, word("sub", rs1, rs2)),
  registers64("sllw", "R", 0x103b, word32("shl", rs1, rs2)),
  registers64("srlw", "R", 0x503b, word32("shrU", rs1, rs2)),
  registers64("sraw", "R", 0x4000_503b, word32("shrS", rs1, rs2)),

  // rd may be rs1, so the target is taken before the link is written.
  transfers("jal", "J", 0x6f, set("target", bin("add", pc, imm)), setX(next), jump(local("target"))),
  transfers("jalr", "load", 0x67, set("target", bin("and", address, i64(-2))), setX(next), jump(local("target"))),
  transfers("beq", "B", 0x0063, when("eq")),
  transfers("bne", "B", 0x1063, when("ne")),
  transfers("blt", "B", 0x4063, when("ltS")),
  transfers("bge", "B", 0x5063, when("geS")),
  transfers("bltu", "B", 0x6063, when("ltU")),
  transfers("bgeu", "B", 0x7063, when("geU")),

  memory("lb", "load", 0x0003, read(1, true)),
  memory("lh", "load", 0x1003, read(2, true)),
  memory("lw", "load", 0x2003, read(4, true)),
  memory64("ld", "load", 0x3003, read(8, true)),
  memory("lbu", "load", 0x4003, read(1, false)),
  memory("lhu", "load", 0x5003, read(2, false)),
  memory64("lwu", "load", 0x6003, read(4, false)),
  memory("sb", "store", 0x0023, write(1)),
  memory("sh", "store", 0x1023, write(2)),
  memory("sw", "store", 0x2023, write(4)),
  memory64("sd", "store", 0x3023, write(8)),

  // Reserved fm, rd and rs1 values are treated as a normal fence, as the manual asks of base implementations.
  ordering("fence", "fence", 0x000f, { kind: "fence" }),
  zifencei("fence.i", "fenceI", 0x100f, system("fence.i")),
  environment("ecall", "none", 0x0000_0073, system("ecall")),
  environment("ebreak", "none", 0x0010_0073, system("ebreak")),

  multiply("mul", "R", 0x0200_0033, op("mul", rs1, rs2)),
  multiply("mulh", "R", 0x0200_1033, op("mulhS", rs1, rs2)),
  multiply("mulhsu", "R", 0x0200_2033, op("mulhSU", rs1, rs2)),
  multiply("mulhu", "R", 0x0200_3033, op("mulhU", rs1, rs2)),
  multiply("mulw", "R", 0x0200_003b, word("mul", rs1, rs2)),
  divide("div", "R", 0x0200_4033, op("divS", rs1, rs2)),
  divide("divu", "R", 0x0200_5033, op("divU", rs1, rs2)),
  divide("rem", "R", 0x0200_6033, op("remS", rs1, rs2)),
  divide("remu", "R", 0x0200_7033, op("remU", rs1, rs2)),
  divide("divw", "R", 0x0200_403b, word32("divS", rs1, rs2)),
  divide("divuw", "R", 0x0200_503b, word32("divU", rs1, rs2)),
  divide("remw", "R", 0x0200_603b, word32("remS", rs1, rs2)),
  divide("remuw", "R", 0x0200_703b, word32("remU", rs1, rs2)),
];
