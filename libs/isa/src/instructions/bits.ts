/** Zba, Zbb, Zbc and Zbs (unprivileged manual, chapter B: bit manipulation), and Zicond. */

import { bin, i32, i64, imm, local, set, setX, un, x, type BinaryOp, type Expr, type Stmt, type Type } from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

const rs1 = x("rs1");
const rs2 = x("rs2");
const word1 = un("wrap", rs1);
const word2 = un("wrap", rs2);
const low32 = bin("and", rs1, i64(0xffff_ffffn));
const extend = (word: Expr): Stmt => setX(un("extendS", word));

/** rs2 + (a << shift) */
const shiftAdd = (a: Expr, shift: number): Stmt => setX(bin("add", rs2, bin("shl", a, i64(shift))));
/** Shift amounts count modulo the width, so the opposite shift is by the negative. */
const rotateLeft = (a: Expr, by: Expr, type: Type): Expr =>
  bin("or", bin("shl", a, by, type), bin("shrU", a, bin("sub", zeroOf(type), by, type), type), type);
const rotateRight = (a: Expr, by: Expr, type: Type): Expr =>
  bin("or", bin("shrU", a, by, type), bin("shl", a, bin("sub", zeroOf(type), by, type), type), type);
const zeroOf = (type: Type): Expr => (type === "i32" ? i32(0) : i64(0));
const choose = (op: BinaryOp): Stmt => setX({ kind: "select", cond: bin(op, rs1, rs2), then: rs1, else: rs2 });
const not = (a: Expr): Expr => bin("xor", a, i64(-1));
const oneBit = (position: Expr): Expr => bin("shl", i64(1), position);

/** Swaps neighbouring groups of `bits` bits; `mask` selects the lower ones. */
const swap = (a: Expr, bits: number, mask: bigint): Expr =>
  bin("or", bin("and", bin("shrU", a, i64(bits)), i64(mask)), bin("shl", bin("and", a, i64(mask)), i64(bits)));

/** The top bit of every byte that is not zero: adding 0x7f carries into it unless the low seven bits are zero. */
const nonZeroBytes: Expr = bin(
  "and",
  bin("or", rs1, bin("add", bin("and", rs1, i64(0x7f7f_7f7f_7f7f_7f7fn)), i64(0x7f7f_7f7f_7f7f_7f7fn))),
  i64(0x8080_8080_8080_8080n),
);

const zba = rows("Zba", "B, Zba: Address Generation");
const zbb = rows("Zbb", "B, Zbb: Basic Bit-Manipulation");
const zbc = rows("Zbc", "B, Zbc: Carry-Less Multiplication");
const zbs = rows("Zbs", "B, Zbs: Single-Bit Instructions");
const zicond = rows("Zicond", "Zicond, Integer Conditional Operations");

export const BITS: readonly Instruction[] = [
  zba("add.uw", "R", 0x0800_003b, shiftAdd(low32, 0)),
  zba("sh1add", "R", 0x2000_2033, shiftAdd(rs1, 1)),
  zba("sh2add", "R", 0x2000_4033, shiftAdd(rs1, 2)),
  zba("sh3add", "R", 0x2000_6033, shiftAdd(rs1, 3)),
  zba("sh1add.uw", "R", 0x2000_203b, shiftAdd(low32, 1)),
  zba("sh2add.uw", "R", 0x2000_403b, shiftAdd(low32, 2)),
  zba("sh3add.uw", "R", 0x2000_603b, shiftAdd(low32, 3)),
  zba("slli.uw", "shift", 0x0800_101b, setX(bin("shl", low32, imm))),

  zbb("andn", "R", 0x4000_7033, setX(bin("and", rs1, not(rs2)))),
  zbb("orn", "R", 0x4000_6033, setX(bin("or", rs1, not(rs2)))),
  zbb("xnor", "R", 0x4000_4033, setX(not(bin("xor", rs1, rs2)))),
  zbb("clz", "R1", 0x6000_1013, setX(un("clz", rs1))),
  zbb("ctz", "R1", 0x6010_1013, setX(un("ctz", rs1))),
  zbb("cpop", "R1", 0x6020_1013, setX(un("popcnt", rs1))),
  zbb("clzw", "R1", 0x6000_101b, extend(un("clz", word1))),
  zbb("ctzw", "R1", 0x6010_101b, extend(un("ctz", word1))),
  zbb("cpopw", "R1", 0x6020_101b, extend(un("popcnt", word1))),
  zbb("min", "R", 0x0a00_4033, choose("ltS")),
  zbb("minu", "R", 0x0a00_5033, choose("ltU")),
  zbb("max", "R", 0x0a00_6033, choose("geS")),
  zbb("maxu", "R", 0x0a00_7033, choose("geU")),
  zbb("sext.b", "R1", 0x6040_1013, setX(un("sext8", rs1))),
  zbb("sext.h", "R1", 0x6050_1013, setX(un("sext16", rs1))),
  zbb("zext.h", "R1", 0x0800_403b, setX(bin("and", rs1, i64(0xffff)))),
  zbb("rol", "R", 0x6000_1033, setX(rotateLeft(rs1, rs2, "i64"))),
  zbb("ror", "R", 0x6000_5033, setX(rotateRight(rs1, rs2, "i64"))),
  zbb("rori", "shift", 0x6000_5013, setX(rotateRight(rs1, imm, "i64"))),
  zbb("rolw", "R", 0x6000_103b, extend(rotateLeft(word1, word2, "i32"))),
  zbb("rorw", "R", 0x6000_503b, extend(rotateRight(word1, word2, "i32"))),
  zbb("roriw", "shiftW", 0x6000_501b, extend(rotateRight(word1, un("wrap", imm), "i32"))),
  zbb("orc.b", "R1", 0x2870_5013,
    set("bytes", nonZeroBytes), // 0x80 for each to 0xff for each: 2 * 0x80 - 0x80 / 0x80, byte by byte without borrows
    setX(bin("sub", bin("shl", local("bytes"), i64(1)), bin("shrU", local("bytes"), i64(7))))),
  zbb("rev8", "R1", 0x6b80_5013,
    set("bytes", swap(rs1, 8, 0x00ff_00ff_00ff_00ffn)),
    set("halves", swap(local("bytes"), 16, 0x0000_ffff_0000_ffffn)),
    setX(swap(local("halves"), 32, 0x0000_0000_ffff_ffffn))),

  zbc("clmul", "R", 0x0a00_1033, setX(bin("clmul", rs1, rs2))),
  zbc("clmulh", "R", 0x0a00_3033, setX(bin("clmulh", rs1, rs2))),
  // Bits 126:63 of the product: its high half one to the left, the top bit of the low half below it.
  zbc("clmulr", "R", 0x0a00_2033,
    setX(bin("or", bin("shl", bin("clmulh", rs1, rs2), i64(1)), bin("shrU", bin("clmul", rs1, rs2), i64(63))))),

  zbs("bclr", "R", 0x4800_1033, setX(bin("and", rs1, not(oneBit(rs2))))),
  zbs("bclri", "shift", 0x4800_1013, setX(bin("and", rs1, not(oneBit(imm))))),
  zbs("bext", "R", 0x4800_5033, setX(bin("and", bin("shrU", rs1, rs2), i64(1)))),
  zbs("bexti", "shift", 0x4800_5013, setX(bin("and", bin("shrU", rs1, imm), i64(1)))),
  zbs("binv", "R", 0x6800_1033, setX(bin("xor", rs1, oneBit(rs2)))),
  zbs("binvi", "shift", 0x6800_1013, setX(bin("xor", rs1, oneBit(imm)))),
  zbs("bset", "R", 0x2800_1033, setX(bin("or", rs1, oneBit(rs2)))),
  zbs("bseti", "shift", 0x2800_1013, setX(bin("or", rs1, oneBit(imm)))),

  zicond("czero.eqz", "R", 0x0e00_5033, setX({ kind: "select", cond: un("eqz", rs2), then: i64(0), else: rs1 })),
  zicond("czero.nez", "R", 0x0e00_7033, setX({ kind: "select", cond: un("eqz", rs2), then: rs1, else: i64(0) })),
];
