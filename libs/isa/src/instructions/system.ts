/** Zicsr (unprivileged manual) and the instructions of the privileged manual's Machine and Supervisor chapters. */

import { setX, system, uimm, x, type Expr, type Stmt } from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

const csr = (op: "write" | "set" | "clear", operand: Expr): Stmt => setX({ kind: "csr", op, operand });

const zicsr = rows("Zicsr", "Zicsr, CSR Instructions");
const machine = rows("Privileged", "Machine-Level ISA, Machine-Mode Privileged Instructions");
const supervisor = rows("Privileged", "Supervisor-Level ISA, Supervisor Instructions");
const svinval = rows("Svinval", "Svinval, Fine-Grained Address-Translation Cache Invalidation");

export const SYSTEM: readonly Instruction[] = [
  zicsr("csrrw", "csr", 0x1073, csr("write", x("rs1"))),
  zicsr("csrrs", "csr", 0x2073, csr("set", x("rs1"))),
  zicsr("csrrc", "csr", 0x3073, csr("clear", x("rs1"))),
  zicsr("csrrwi", "csrI", 0x5073, csr("write", uimm)),
  zicsr("csrrsi", "csrI", 0x6073, csr("set", uimm)),
  zicsr("csrrci", "csrI", 0x7073, csr("clear", uimm)),
  supervisor("sret", "none", 0x1020_0073, system("sret")),
  machine("mret", "none", 0x3020_0073, system("mret")),
  machine("wfi", "none", 0x1050_0073, system("wfi")),
  supervisor("sfence.vma", "sfence", 0x1200_0073, system("sfence.vma")),
  // Nothing is reordered here: the fence is done by sinval.vma itself.
  svinval("sinval.vma", "sfence", 0x1600_0073, system("sfence.vma")),
  svinval("sfence.w.inval", "none", 0x1800_0073, system("sfence.inval")),
  svinval("sfence.inval.ir", "none", 0x1810_0073, system("sfence.inval")),
];
