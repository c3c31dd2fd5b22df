/**
 * F and D (unprivileged manual, chapters F and D). The two differ by the fmt field and by how narrow values sit in
 * 64-bit registers, so one function makes both sets of rows. All need mstatus.FS != Off: the backend checks that.
 */

import { bin, f, fp, i64, imm, load, setF, setX, store, un, x, type Expr, type FpFormat, type FpOp } from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

const a = f("rs1");
const b = f("rs2");
const c = f("rs3");
const address = bin("add", x("rs1"), imm);
/** NaN boxing: the upper half all ones (D, NaN Boxing of Narrower Values). */
const box = (low: Expr): Expr => bin("or", low, i64(0xffff_ffff_0000_0000n));

const INTEGERS: readonly (readonly [name: string, rs2: number, to: FpOp, from: FpOp])[] = [
  ["w", 0, "toI32", "fromI32"],
  ["wu", 1, "toU32", "fromU32"],
  ["l", 2, "toI64", "fromI64"],
  ["lu", 3, "toU64", "fromU64"],
];

function formatRows(format: FpFormat): Instruction[] {
  const extension = format === "s" ? "F" : "D";
  const fmt = (format === "s" ? 0 : 1) << 25;
  const opFp = (funct5: number, rs2 = 0, funct3 = 0): number => (funct5 << 27) | fmt | (rs2 << 20) | (funct3 << 12) | 0x53;

  const compute = rows(extension, `${extension}, Floating-Point Computational Instructions`);
  const convert = rows(extension, `${extension}, Floating-Point Conversion and Move Instructions`);
  const compare = rows(extension, `${extension}, Floating-Point Compare Instructions`);
  const classify = rows(extension, `${extension}, Floating-Point Classify Instruction`);

  return [
    compute(`fmadd.${format}`, "f4", fmt | 0x43, setF(fp("madd", format, a, b, c))),
    compute(`fmsub.${format}`, "f4", fmt | 0x47, setF(fp("msub", format, a, b, c))),
    compute(`fnmsub.${format}`, "f4", fmt | 0x4b, setF(fp("nmsub", format, a, b, c))),
    compute(`fnmadd.${format}`, "f4", fmt | 0x4f, setF(fp("nmadd", format, a, b, c))),
    compute(`fadd.${format}`, "f2Rounded", opFp(0x00), setF(fp("add", format, a, b))),
    compute(`fsub.${format}`, "f2Rounded", opFp(0x01), setF(fp("sub", format, a, b))),
    compute(`fmul.${format}`, "f2Rounded", opFp(0x02), setF(fp("mul", format, a, b))),
    compute(`fdiv.${format}`, "f2Rounded", opFp(0x03), setF(fp("div", format, a, b))),
    compute(`fsqrt.${format}`, "f1Rounded", opFp(0x0b), setF(fp("sqrt", format, a))),
    compute(`fmin.${format}`, "f2", opFp(0x05, 0, 0), setF(fp("min", format, a, b))),
    compute(`fmax.${format}`, "f2", opFp(0x05, 0, 1), setF(fp("max", format, a, b))),
    convert(`fsgnj.${format}`, "f2", opFp(0x04, 0, 0), setF(fp("sgnj", format, a, b))),
    convert(`fsgnjn.${format}`, "f2", opFp(0x04, 0, 1), setF(fp("sgnjn", format, a, b))),
    convert(`fsgnjx.${format}`, "f2", opFp(0x04, 0, 2), setF(fp("sgnjx", format, a, b))),
    compare(`fle.${format}`, "fCompare", opFp(0x14, 0, 0), setX(fp("le", format, a, b))),
    compare(`flt.${format}`, "fCompare", opFp(0x14, 0, 1), setX(fp("lt", format, a, b))),
    compare(`feq.${format}`, "fCompare", opFp(0x14, 0, 2), setX(fp("eq", format, a, b))),
    classify(`fclass.${format}`, "fToX", opFp(0x1c, 0, 1), setX(fp("classify", format, a))),
    ...INTEGERS.flatMap(([name, rs2, to, from]) => [
      convert(`fcvt.${name}.${format}`, "fToXRounded", opFp(0x18, rs2), setX(fp(to, format, a))),
      {
        ...convert(`fcvt.${format}.${name}`, "xToFRounded", opFp(0x1a, rs2), setF(fp(from, format, x("rs1")))),
        ...(format === "d" && rs2 < 2 ? { defaultRm: 0 } : {}), // 32-bit integers are exact in binary64
      },
    ]),
  ];
}

const singleMemory = rows("F", "F, Single-Precision Load and Store Instructions");
const singleMoves = rows("F", "F, Floating-Point Conversion and Move Instructions");
const doubleMemory = rows("D", "D, Double-Precision Load and Store Instructions");
const doubleMoves = rows("D", "D, Floating-Point Conversion and Move Instructions");

export const FLOAT: readonly Instruction[] = [
  singleMemory("flw", "fLoad", 0x2007, setF(box(load(4, false, address)))),
  singleMemory("fsw", "fStore", 0x2027, store(4, address, b)),
  ...formatRows("s"),
  singleMoves("fmv.x.w", "fToX", 0xe000_0053, setX(un("sext32", a))),
  singleMoves("fmv.w.x", "xToF", 0xf000_0053, setF(box(bin("and", x("rs1"), i64(0xffff_ffffn))))),

  doubleMemory("fld", "fLoad", 0x3007, setF(load(8, false, address))),
  doubleMemory("fsd", "fStore", 0x3027, store(8, address, b)),
  ...formatRows("d"),
  doubleMoves("fcvt.s.d", "f1Rounded", 0x4010_0053, setF(fp("toS", "d", a))),
  { ...doubleMoves("fcvt.d.s", "f1Rounded", 0x4200_0053, setF(fp("toD", "s", a))), defaultRm: 0 },
  doubleMoves("fmv.x.d", "fToX", 0xe200_0053, setX(a)),
  doubleMoves("fmv.d.x", "xToF", 0xf200_0053, setF(x("rs1"))),
];
