/** Zfa, Additional Floating-Point Instructions, for F and D. */

import { bin, f, fp, i64, setF, setX, uimm, type Expr, type FpFormat } from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

const a = f("rs1");
const b = f("rs2");

/** What fli loads, by the number in the rs1 field, as GNU as writes it (Zfa, table "Immediate Values Loaded by FLI"). */
export const FLI_NAMES: readonly string[] = [
  "-1.0", "min", "1.52587890625e-05", "3.0517578125e-05", "0.00390625", "0.0078125", "0.0625", "0.125",
  "0.25", "0.3125", "0.375", "0.4375", "0.5", "0.625", "0.75", "0.875",
  "1.0", "1.25", "1.5", "1.75", "2.0", "2.5", "3.0", "4.0",
  "8.0", "16.0", "128.0", "256.0", "32768.0", "65536.0", "inf", "nan",
];
const SMALLEST_NORMAL = { s: 2 ** -126, d: 2 ** -1022 } as const;

function constant(name: string, format: FpFormat): bigint {
  const value = name === "min" ? SMALLEST_NORMAL[format] : name === "inf" ? Infinity : Number(name); // "nan" is NaN: the canonical one
  const view = new DataView(new ArrayBuffer(8));
  if (format === "d") view.setFloat64(0, value);
  else view.setFloat32(4, value);
  return format === "d" ? view.getBigUint64(0) : view.getBigUint64(0) | 0xffff_ffff_0000_0000n;
}

/** Choices that fold away where the field is known. */
const constantOf = (format: FpFormat): Expr =>
  FLI_NAMES.map((name) => i64(constant(name, format))).reduceRight((rest, value, number) =>
    number === FLI_NAMES.length - 1 ? value : { kind: "select", cond: bin("eq", uimm, i64(number)), then: value, else: rest },
  );

function formatRows(format: FpFormat): Instruction[] {
  const fmt = (format === "s" ? 0 : 1) << 25;
  const opFp = (funct5: number, rs2 = 0, funct3 = 0): number => (funct5 << 27) | fmt | (rs2 << 20) | (funct3 << 12) | 0x53;
  const load = rows("Zfa", "Zfa, Load-Immediate Instructions");
  const extremum = rows("Zfa", "Zfa, Minimum and Maximum Instructions");
  const round = rows("Zfa", "Zfa, Round-to-Integer Instructions");
  const compare = rows("Zfa", "Zfa, Comparison Instructions");
  return [
    load(`fli.${format}`, "fConstant", opFp(0x1e, 1), setF(constantOf(format))),
    extremum(`fminm.${format}`, "f2", opFp(0x05, 0, 2), setF(fp("minm", format, a, b))),
    extremum(`fmaxm.${format}`, "f2", opFp(0x05, 0, 3), setF(fp("maxm", format, a, b))),
    round(`fround.${format}`, "f1Rounded", opFp(0x08, 4), setF(fp("round", format, a))),
    round(`froundnx.${format}`, "f1Rounded", opFp(0x08, 5), setF(fp("roundnx", format, a))),
    compare(`fleq.${format}`, "fCompare", opFp(0x14, 0, 4), setX(fp("leq", format, a, b))),
    compare(`fltq.${format}`, "fCompare", opFp(0x14, 0, 5), setX(fp("ltq", format, a, b))),
  ];
}

const modular = rows("Zfa", "Zfa, Modular Convert-to-Integer Instruction");

export const FLOAT_EXTRA: readonly Instruction[] = [
  ...formatRows("s"),
  ...formatRows("d"),
  modular("fcvtmod.w.d", "fToXTruncated", 0xc280_1053, setX(fp("toI32Modular", "d", a))),
];
