import { F_NAMES, X_NAMES } from "@polyvisor/isa";
import { csrNumbers, csrRow } from "../csr.ts";
import { F, PC, PRIVILEGE, X } from "../hart-state.ts";
import type { Privileged } from "../privileged.ts";

/**
 * Registers by GDB's numbers for RISC-V (gdb/riscv-tdep.h: x, pc, f, then CSRs by their own numbers, then priv). All are sent
 * as 64-bit little-endian.
 */
const PC_NUMBER = 32;
const F_FIRST = 33;
const CSR_FIRST = 65;
const PRIV_NUMBER = CSR_FIRST + 4096;

/** Undefined: there is no such register. */
export function readRegister(hart: Privileged, number: number): bigint | undefined {
  const { cells } = hart;
  if (number < PC_NUMBER) return cells.u64[(X >> 3) + number]!;
  if (number === PC_NUMBER) return cells.u64[PC >> 3]!;
  if (number < CSR_FIRST) return cells.u64[(F >> 3) + number - F_FIRST]!;
  if (number === PRIV_NUMBER) return BigInt(hart.privilege);
  return hart.readOne(number - CSR_FIRST);
}

/** False: no such register, or one that cannot be written. CSRs follow the rules of a csrw in M-mode. */
export function writeRegister(hart: Privileged, number: number, value: bigint): boolean {
  const { cells } = hart;
  if (number === 0) return true; // x0 takes every value and keeps none
  if (number < PC_NUMBER) cells.u64[(X >> 3) + number] = value;
  else if (number === PC_NUMBER) cells.u64[PC >> 3] = value & ~1n;
  else if (number < CSR_FIRST) {
    cells.u64[(F >> 3) + number - F_FIRST] = value;
    hart.fpDirty();
  } else if (number === PRIV_NUMBER) {
    if (value !== 0n && value !== 1n && value !== 3n) return false;
    cells.i32[PRIVILEGE >> 2] = Number(value);
  } else {
    const csr = number - CSR_FIRST;
    return csr >> 10 !== 3 && hart.writeOne(csr, value);
  }
  return true;
}

/** Registers in the answer to `g`: x and pc; GDB asks for the others one by one. */
export const GENERAL_REGISTERS = PC_NUMBER + 1;

/** The target description (GDB manual, "RISC-V Features"). */
export function targetDescription(): string {
  const reg = (name: string, number: number, type: string, group = ""): string =>
    `<reg name="${name}" bitsize="64" type="${type}" regnum="${number}"${group}/>`;
  const typeOf = (name: string): string => (name === "ra" ? "code_ptr" : ["sp", "gp", "tp", "s0"].includes(name) ? "data_ptr" : "int");
  return [
    '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>riscv:rv64</architecture>',
    '<feature name="org.gnu.gdb.riscv.cpu">',
    ...X_NAMES.map((name, n) => reg(name === "s0" ? "fp" : name, n, typeOf(name))),
    reg("pc", PC_NUMBER, "code_ptr"),
    '</feature><feature name="org.gnu.gdb.riscv.fpu">',
    '<union id="riscv_double"><field name="float" type="ieee_single"/><field name="double" type="ieee_double"/></union>',
    ...F_NAMES.map((name, n) => reg(name, F_FIRST + n, "riscv_double")),
    '</feature><feature name="org.gnu.gdb.riscv.csr">',
    ...csrNumbers().map((number) => reg(csrRow(number)!.name, CSR_FIRST + number, "int", ' group="csr" save-restore="no"')),
    '</feature><feature name="org.gnu.gdb.riscv.virtual">',
    reg("priv", PRIV_NUMBER, "int"),
    "</feature></target>",
  ].join("");
}
