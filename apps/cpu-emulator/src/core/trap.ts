import { Csr, MStatus } from "./csr.ts";
import { CSRS, PC, RESERVATION, TRAP_VALUE } from "./hart-state.ts";
import type { Privileged } from "./privileged.ts";

/**
 * Trap entry and return (privileged spec 1.13, sections 3.1.6.1, 3.1.8, 3.3.2, 10.1.2). Runs on 32-bit halves of the
 * cells: Linux comes here tens of thousands of times a second.
 */
export function enterTrap(hart: Privileged, cause: number, interrupt: boolean): void {
  const cells = hart.cells;
  const privilege = hart.privilege;
  const delegation = cells.csr32(interrupt ? Csr.MIDELEG : Csr.MEDELEG);
  const status = cells.csr32(Csr.MSTATUS);
  const supervisor = privilege <= 1 && ((delegation >>> cause) & 1) === 1;
  const base = supervisor ? 0x100 : 0x300;
  const cell = (number: number): number => CSRS + number * 8;

  cells.copy64(cell(base + 0x41), PC); // xepc
  cells.i32[cell(base + 0x42) >> 2] = cause; // xcause
  cells.i32[(cell(base + 0x42) >> 2) + 1] = interrupt ? 1 << 31 : 0;
  if (interrupt) cells.i64[cell(base + 0x43) >> 3] = 0n; // xtval
  else cells.copy64(cell(base + 0x43), TRAP_VALUE);

  let next: number;
  if (supervisor) {
    next = status & ~(MStatus.SIE | MStatus.SPIE | MStatus.SPP);
    if (status & MStatus.SIE) next |= MStatus.SPIE;
    if (privilege === 1) next |= MStatus.SPP;
  } else {
    next = status & ~(MStatus.MIE | MStatus.MPIE | MStatus.MPP);
    if (status & MStatus.MIE) next |= MStatus.MPIE;
    next |= privilege << 11;
  }
  // mstatus before privilege: MPRV reads the new MPP.
  hart.setStatus(next);

  const vector = cell(base + 5);
  const vectored = cells.i32[vector >> 2]! & 1;
  cells.copy64(PC, vector);
  cells.i32[PC >> 2]! &= ~3;
  if (vectored && interrupt) cells.i64[PC >> 3]! += BigInt(4 * cause);
  hart.setPrivilege(supervisor ? 1 : 3);
}

export function machineReturn(hart: Privileged): void {
  const status = hart.cells.csr32(Csr.MSTATUS);
  const privilege = (status & MStatus.MPP) >> 11;
  let next = (status & ~(MStatus.MIE | MStatus.MPP)) | MStatus.MPIE;
  if (status & MStatus.MPIE) next |= MStatus.MIE;
  if (privilege !== 3) next &= ~MStatus.MPRV;
  returnTo(hart, next, privilege, Csr.MEPC);
}

export function supervisorReturn(hart: Privileged): void {
  const status = hart.cells.csr32(Csr.MSTATUS);
  let next = (status & ~(MStatus.SIE | MStatus.SPP | MStatus.MPRV)) | MStatus.SPIE;
  if (status & MStatus.SPIE) next |= MStatus.SIE;
  returnTo(hart, next, status & MStatus.SPP ? 1 : 0, Csr.SEPC);
}

function returnTo(hart: Privileged, status: number, privilege: number, epc: number): void {
  hart.cells.copy64(PC, CSRS + epc * 8);
  // "xRET instructions always clear the LR address reservation on some implementations" (section 3.3.2): it keeps a
  // preempted lr/sc pair from succeeding by chance.
  hart.cells.i64[RESERVATION >> 3] = -1n;
  hart.setStatus(status);
  hart.setPrivilege(privilege);
}
