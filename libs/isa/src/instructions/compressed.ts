/**
 * RVC for RV64GC (unprivileged manual, chapter C) and Zcb (chapter Zc): each row names the base instruction it expands to. Reserved
 * encodings are excluded; HINTs (such as c.li x0) expand to base instructions that write x0 and so do nothing.
 */

import { immediate, type Immediate } from "../immediate.ts";
import type { Compressed, Operand } from "../instruction.ts";

const FUNCT3 = 0xe003;
const RD = 0x0f80; // bits 11:7
const RS2 = 0x007c; // bits 6:2
const IMM6 = 0x107c; // bit 12 and bits 6:2

const SIX = immediate("12=5 6:2=4:0", "signed");
const SHAMT = immediate("12=5 6:2=4:0", "unsigned");
const LUI = immediate("12=17 6:2=16:12", "signed");
const SP16 = immediate("12=9 6=4 5=6 4:3=8:7 2=5", "signed");
const SPN4 = immediate("12:11=5:4 10:7=9:6 6=2 5=3", "unsigned");
const WORD = immediate("12:10=5:3 6=2 5=6", "unsigned");
const DOUBLE = immediate("12:10=5:3 6:5=7:6", "unsigned");
const LOAD_WORD_SP = immediate("12=5 6:4=4:2 3:2=7:6", "unsigned");
const LOAD_DOUBLE_SP = immediate("12=5 6:5=4:3 4:2=8:6", "unsigned");
const STORE_WORD_SP = immediate("12:9=5:2 8:7=7:6", "unsigned");
const STORE_DOUBLE_SP = immediate("12:10=5:3 9:7=8:6", "unsigned");
const JUMP = immediate("12=11 11=4 10:9=9:8 8=10 7=6 6=7 5:3=3:1 2=5", "signed");
const BRANCH = immediate("12=8 11:10=4:3 6:5=7:6 4:3=2:1 2=5", "signed");

type Registers = Compressed["registers"];
interface Encoding {
  readonly match: number;
  readonly mask?: number;
  readonly except?: Compressed["except"];
  readonly imm?: Immediate;
  readonly constant?: number;
}

const rows = (section: string, extension: Compressed["extension"] = "C") =>
  (name: string, expands: string, operands: readonly Operand[], registers: Registers, encoding: Encoding): Compressed => ({
    name, extension, section, expands, operands, registers,
    mask: encoding.mask ?? FUNCT3, match: encoding.match, except: encoding.except ?? [],
    ...(encoding.imm && { immediate: encoding.imm }),
    ...(encoding.constant !== undefined && { constant: encoding.constant }),
  });

const stack = rows("C, Stack-Pointer-Based Loads and Stores");
const memory = rows("C, Register-Based Loads and Stores");
const control = rows("C, Control Transfer Instructions");
const constants = rows("C, Integer Constant-Generation Instructions");
const immediates = rows("C, Integer Register-Immediate Operations");
const registers = rows("C, Integer Register-Register Operations");
const zcb = rows("Zc, Zcb", "Zcb");

const UPDATE: Registers = { rd: "11:7", rs1: "11:7" };
const UPDATE_SHORT: Registers = { rd: "9:7'", rs1: "9:7'" };
const SHORT_PAIR: Registers = { rd: "9:7'", rs1: "9:7'", rs2: "4:2'" };
const LOAD: Registers = { rd: "4:2'", rs1: "9:7'" };
const STORE: Registers = { rs2: "4:2'", rs1: "9:7'" };
const ARITHMETIC = 0xfc63; // funct6 and funct2 of register-register
const MEMORY = 0xfc03; // Zcb: funct6
const HALF = 0xfc43; // … and bit 6
const UNARY = 0xfc7f;
const BYTE_OFFSET = immediate("6=0 5=1", "unsigned");
const HALF_OFFSET = immediate("5=1", "unsigned");

export const COMPRESSED: readonly Compressed[] = [
  // Quadrant 0. The all-zero halfword is c.addi4spn with immediate 0: reserved, hence illegal.
  immediates("c.addi4spn", "addi", ["rd", "rs1", "imm"], { rd: "4:2'", rs1: 2 }, { match: 0x0000, except: [[0x1fe0, 0]], imm: SPN4 }),
  memory("c.fld", "fld", ["fd", "mem"], LOAD, { match: 0x2000, imm: DOUBLE }),
  memory("c.lw", "lw", ["rd", "mem"], LOAD, { match: 0x4000, imm: WORD }),
  memory("c.ld", "ld", ["rd", "mem"], LOAD, { match: 0x6000, imm: DOUBLE }),
  memory("c.fsd", "fsd", ["fs2", "mem"], STORE, { match: 0xa000, imm: DOUBLE }),
  memory("c.sw", "sw", ["rs2", "mem"], STORE, { match: 0xc000, imm: WORD }),
  memory("c.sd", "sd", ["rs2", "mem"], STORE, { match: 0xe000, imm: DOUBLE }),
  zcb("c.lbu", "lbu", ["rd", "mem"], LOAD, { mask: MEMORY, match: 0x8000, imm: BYTE_OFFSET }),
  zcb("c.lhu", "lhu", ["rd", "mem"], LOAD, { mask: HALF, match: 0x8400, imm: HALF_OFFSET }),
  zcb("c.lh", "lh", ["rd", "mem"], LOAD, { mask: HALF, match: 0x8440, imm: HALF_OFFSET }),
  zcb("c.sb", "sb", ["rs2", "mem"], STORE, { mask: MEMORY, match: 0x8800, imm: BYTE_OFFSET }),
  zcb("c.sh", "sh", ["rs2", "mem"], STORE, { mask: HALF, match: 0x8c00, imm: HALF_OFFSET }),

  // Quadrant 1
  rows("C, NOP Instruction")("c.nop", "addi", [], { rd: 0, rs1: 0 }, { mask: 0xffff, match: 0x0001 }),
  immediates("c.addi", "addi", ["rd", "imm"], UPDATE, { match: 0x0001, except: [[RD | IMM6, 0]], imm: SIX }),
  immediates("c.addiw", "addiw", ["rd", "imm"], UPDATE, { match: 0x2001, except: [[RD, 0]], imm: SIX }),
  constants("c.li", "addi", ["rd", "imm"], { rd: "11:7", rs1: 0 }, { match: 0x4001, imm: SIX }),
  immediates("c.addi16sp", "addi", ["rd", "imm"], { rd: 2, rs1: 2 }, { mask: FUNCT3 | RD, match: 0x6101, except: [[IMM6, 0]], imm: SP16 }),
  constants("c.lui", "lui", ["rd", "imm"], { rd: "11:7" }, { match: 0x6001, except: [[RD, 0x0100], [IMM6, 0]], imm: LUI }),
  immediates("c.srli", "srli", ["rd", "imm"], UPDATE_SHORT, { mask: 0xec03, match: 0x8001, imm: SHAMT }),
  immediates("c.srai", "srai", ["rd", "imm"], UPDATE_SHORT, { mask: 0xec03, match: 0x8401, imm: SHAMT }),
  immediates("c.andi", "andi", ["rd", "imm"], UPDATE_SHORT, { mask: 0xec03, match: 0x8801, imm: SIX }),
  registers("c.sub", "sub", ["rd", "rs2"], SHORT_PAIR, { mask: ARITHMETIC, match: 0x8c01 }),
  registers("c.xor", "xor", ["rd", "rs2"], SHORT_PAIR, { mask: ARITHMETIC, match: 0x8c21 }),
  registers("c.or", "or", ["rd", "rs2"], SHORT_PAIR, { mask: ARITHMETIC, match: 0x8c41 }),
  registers("c.and", "and", ["rd", "rs2"], SHORT_PAIR, { mask: ARITHMETIC, match: 0x8c61 }),
  registers("c.subw", "subw", ["rd", "rs2"], SHORT_PAIR, { mask: ARITHMETIC, match: 0x9c01 }),
  registers("c.addw", "addw", ["rd", "rs2"], SHORT_PAIR, { mask: ARITHMETIC, match: 0x9c21 }),
  zcb("c.mul", "mul", ["rd", "rs2"], SHORT_PAIR, { mask: ARITHMETIC, match: 0x9c41 }),
  zcb("c.zext.b", "andi", ["rd"], UPDATE_SHORT, { mask: UNARY, match: 0x9c61, constant: 0xff }),
  zcb("c.sext.b", "sext.b", ["rd"], UPDATE_SHORT, { mask: UNARY, match: 0x9c65 }),
  zcb("c.zext.h", "zext.h", ["rd"], UPDATE_SHORT, { mask: UNARY, match: 0x9c69 }),
  zcb("c.sext.h", "sext.h", ["rd"], UPDATE_SHORT, { mask: UNARY, match: 0x9c6d }),
  zcb("c.zext.w", "add.uw", ["rd"], { ...UPDATE_SHORT, rs2: 0 }, { mask: UNARY, match: 0x9c71 }),
  zcb("c.not", "xori", ["rd"], UPDATE_SHORT, { mask: UNARY, match: 0x9c75, constant: -1 }),
  control("c.j", "jal", ["target"], { rd: 0 }, { match: 0xa001, imm: JUMP }),
  control("c.beqz", "beq", ["rs1", "target"], { rs1: "9:7'", rs2: 0 }, { match: 0xc001, imm: BRANCH }),
  control("c.bnez", "bne", ["rs1", "target"], { rs1: "9:7'", rs2: 0 }, { match: 0xe001, imm: BRANCH }),

  // Quadrant 2
  immediates("c.slli", "slli", ["rd", "imm"], UPDATE, { match: 0x0002, imm: SHAMT }),
  stack("c.fldsp", "fld", ["fd", "mem"], { rd: "11:7", rs1: 2 }, { match: 0x2002, imm: LOAD_DOUBLE_SP }),
  stack("c.lwsp", "lw", ["rd", "mem"], { rd: "11:7", rs1: 2 }, { match: 0x4002, except: [[RD, 0]], imm: LOAD_WORD_SP }),
  stack("c.ldsp", "ld", ["rd", "mem"], { rd: "11:7", rs1: 2 }, { match: 0x6002, except: [[RD, 0]], imm: LOAD_DOUBLE_SP }),
  control("c.jr", "jalr", ["rs1"], { rd: 0, rs1: "11:7" }, { mask: 0xf07f, match: 0x8002, except: [[RD, 0]] }),
  registers("c.mv", "add", ["rd", "rs2"], { rd: "11:7", rs1: 0, rs2: "6:2" }, { mask: 0xf003, match: 0x8002, except: [[RS2, 0]] }),
  rows("C, Breakpoint Instruction")("c.ebreak", "ebreak", [], {}, { mask: 0xffff, match: 0x9002 }),
  control("c.jalr", "jalr", ["rs1"], { rd: 1, rs1: "11:7" }, { mask: 0xf07f, match: 0x9002, except: [[RD, 0]] }),
  registers("c.add", "add", ["rd", "rs2"], { rd: "11:7", rs1: "11:7", rs2: "6:2" }, { mask: 0xf003, match: 0x9002, except: [[RS2, 0]] }),
  stack("c.fsdsp", "fsd", ["fs2", "mem"], { rs2: "6:2", rs1: 2 }, { match: 0xa002, imm: STORE_DOUBLE_SP }),
  stack("c.swsp", "sw", ["rs2", "mem"], { rs2: "6:2", rs1: 2 }, { match: 0xc002, imm: STORE_WORD_SP }),
  stack("c.sdsp", "sd", ["rs2", "mem"], { rs2: "6:2", rs1: 2 }, { match: 0xe002, imm: STORE_DOUBLE_SP }),
];
