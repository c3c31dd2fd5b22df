import type { HartCells } from "./cells.ts";
import { Csr, SSTATUS_WRITABLE } from "./csr-row.ts";
import { CSRS } from "./hart-state.ts";

/**
 * What a guest reaches as s* registers are the vs* ones (privileged spec, chapter H, "Virtual Supervisor CSRs"). So that
 * generated code finds them where it looks for the s* registers, the cells are exchanged whenever V changes: while V = 1 the
 * vs* cells hold the hypervisor's values.
 */
const PAIRS: readonly (readonly [number, number])[] = [
  [Csr.STVEC, Csr.VSTVEC], [Csr.SSCRATCH, Csr.VSSCRATCH], [Csr.SEPC, Csr.VSEPC], [Csr.SCAUSE, Csr.VSCAUSE], [Csr.STVAL, Csr.VSTVAL],
  [Csr.SATP, Csr.VSATP],
];

const PARTNER: ReadonlyMap<number, number> = new Map(PAIRS.flatMap(([s, vs]) => [[s, vs], [vs, s]]));
/** Where a register of the pairs is while V = 1. */
export const exchangedNumber = (number: number): number => PARTNER.get(number) ?? number;

/** The low words of mstatus and vsstatus as they would be with V = 0, while V = 1. */
export function statusBeneath(cells: HartCells): { readonly mstatus: number; readonly vsstatus: number } {
  const [status, other] = [cells.csr32(Csr.MSTATUS), cells.csr32(Csr.VSSTATUS)];
  return { mstatus: (status & ~SSTATUS_WRITABLE) | (other & SSTATUS_WRITABLE), vsstatus: status & SSTATUS_WRITABLE };
}

/** Exchanges the registers and answers the low word of mstatus as it is then; the caller stores it. */
export function exchangeGuestRegisters(cells: HartCells): number {
  const words = cells.i32;
  for (const [s, vs] of PAIRS) {
    const [a, b] = [(CSRS >> 2) + s * 2, (CSRS >> 2) + vs * 2];
    const [low, high] = [words[a]!, words[a + 1]!];
    words[a] = words[b]!;
    words[a + 1] = words[b + 1]!;
    words[b] = low;
    words[b + 1] = high;
  }
  const at = (CSRS >> 2) + Csr.VSSTATUS * 2;
  const [status, other] = [cells.csr32(Csr.MSTATUS), words[at]!];
  words[at] = (other & ~SSTATUS_WRITABLE) | (status & SSTATUS_WRITABLE);
  return (status & ~SSTATUS_WRITABLE) | (other & SSTATUS_WRITABLE);
}
