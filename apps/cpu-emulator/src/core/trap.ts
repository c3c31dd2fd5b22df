import { Csr, HStatus, MSTATUS_GVA_HIGH, MSTATUS_HIGH_WRITABLE, MSTATUS_MPV_HIGH, MStatus } from "./csr.ts";
import { Cause } from "./engine.ts";
import { CSRS, PC, RESERVATION, TRAP_GPA, TRAP_GUEST, TRAP_INSTRUCTION, TRAP_VALUE, VIRTUAL } from "./hart-state.ts";
import type { Privileged } from "./privileged.ts";

const MACHINE = 0x300;
const SUPERVISOR = 0x100;
const cell = (number: number): number => CSRS + number * 8;
const HSTATUS = cell(Csr.HSTATUS) >> 2;
const HTVAL = cell(Csr.HTVAL) >> 2;
const HTINST = cell(Csr.HTINST) >> 2;

/** Exceptions that say in TRAP_GUEST whether their address is a guest's: misaligned, access, page and guest-page faults. */
const MEMORY_FAULTS = [
  Cause.INSTRUCTION_MISALIGNED, Cause.INSTRUCTION_ACCESS, Cause.LOAD_MISALIGNED, Cause.LOAD_ACCESS, Cause.STORE_MISALIGNED,
  Cause.STORE_ACCESS, Cause.INSTRUCTION_PAGE, Cause.LOAD_PAGE, Cause.STORE_PAGE,
  Cause.INSTRUCTION_GUEST_PAGE, Cause.LOAD_GUEST_PAGE, Cause.STORE_GUEST_PAGE,
].reduce<number>((mask, cause) => mask | (1 << cause), 0);
const GUEST_PAGE_FAULTS = (1 << Cause.INSTRUCTION_GUEST_PAGE) | (1 << Cause.LOAD_GUEST_PAGE) | (1 << Cause.STORE_GUEST_PAGE);

/**
 * Trap entry and return (privileged spec 1.13, sections 3.1.6.1, 3.1.8, 3.3.2, 10.1.2; chapter H, "Trap Entry" and "Trap
 * Return"). Runs on 32-bit halves of the cells: Linux comes here tens of thousands of times a second.
 */
export function enterTrap(hart: Privileged, cause: number, interrupt: boolean): void {
  const { cells, privilege } = hart;
  const delegated = privilege <= 1 && ((cells.csr32(interrupt ? Csr.MIDELEG : Csr.MEDELEG) >>> cause) & 1) === 1;
  if (!delegated) {
    if (hart.hypervisor) leaveGuest(hart, cause, interrupt, "machine");
    const status = cells.csr32(Csr.MSTATUS);
    let next = (status & ~(MStatus.MIE | MStatus.MPIE | MStatus.MPP)) | (privilege << 11);
    if (status & MStatus.MIE) next |= MStatus.MPIE;
    enter(hart, MACHINE, cause, interrupt, next, 3);
    return;
  }
  if (hart.virtual && ((cells.csr32(interrupt ? Csr.HIDELEG : Csr.HEDELEG) >>> cause) & 1) === 1) {
    // The guest's supervisor takes it, and knows nothing of being a guest: its interrupts have the supervisor's numbers.
    enterSupervisor(hart, interrupt ? cause - 1 : cause, interrupt);
    return;
  }
  if (hart.hypervisor) {
    if (hart.virtual || cells.i32[TRAP_GUEST >> 2] !== 0) leaveGuest(hart, cause, interrupt, "supervisor");
    else forgetGuest(hart);
  }
  enterSupervisor(hart, cause, interrupt);
}

function enterSupervisor(hart: Privileged, cause: number, interrupt: boolean): void {
  const status = hart.cells.csr32(Csr.MSTATUS);
  let next = status & ~(MStatus.SIE | MStatus.SPIE | MStatus.SPP);
  if (status & MStatus.SIE) next |= MStatus.SPIE;
  if (hart.privilege === 1) next |= MStatus.SPP;
  enter(hart, SUPERVISOR, cause, interrupt, next, 1);
}

/** `base`: the number of the mode's CSRs less those of xepc 0x41, xcause 0x42, xtval 0x43, xtvec 0x05. */
function enter(hart: Privileged, base: number, cause: number, interrupt: boolean, status: number, privilege: number): void {
  const { cells } = hart;
  cells.copy64(cell(base + 0x41), PC);
  cells.i32[cell(base + 0x42) >> 2] = cause;
  cells.i32[(cell(base + 0x42) >> 2) + 1] = interrupt ? 1 << 31 : 0;
  if (interrupt) clear64(hart, base + 0x43);
  else cells.copy64(cell(base + 0x43), TRAP_VALUE);

  hart.setStatus(status); // before privilege: MPRV reads the new MPP
  const vector = cell(base + 5);
  const vectored = cells.i32[vector >> 2]! & 1;
  cells.copy64(PC, vector);
  cells.i32[PC >> 2]! &= ~3;
  if (vectored && interrupt) cells.i64[PC >> 3]! += BigInt(4 * cause);
  hart.setPrivilege(privilege);
}

/** The common case, a trap of HS-mode or its user mode: hstatus, htval and htinst say that no guest was there. */
function forgetGuest({ cells: { i32 } }: Privileged): void {
  i32[HSTATUS]! &= ~(HStatus.GVA | HStatus.SPV);
  i32[HTVAL] = i32[HTVAL + 1] = i32[HTINST] = i32[HTINST + 1] = 0;
}

/**
 * What the hypervisor or M-mode is told about where the trap came from (H, "Trap Entry"): V, the guest's privilege, whether
 * xtval is an address of the guest, and the guest-physical address of a guest-page fault. V is 0 afterwards.
 */
function leaveGuest(hart: Privileged, cause: number, interrupt: boolean, to: "machine" | "supervisor"): void {
  const { cells, virtual, privilege } = hart;
  const bit = 1 << cause;
  let guestAddress = false;
  if (!interrupt && cause < 32) {
    guestAddress = (bit & MEMORY_FAULTS) !== 0 ? cells.i32[TRAP_GUEST >> 2] !== 0 : virtual && cause === Cause.BREAKPOINT;
  }
  const guestPage = !interrupt && (bit & GUEST_PAGE_FAULTS) !== 0;
  hart.setVirtual(false);
  if (to === "machine") {
    hart.setStatus(cells.csr32(Csr.MSTATUS), (guestAddress ? MSTATUS_GVA_HIGH : 0) | (virtual ? MSTATUS_MPV_HIGH : 0));
  } else {
    let next = cells.i32[HSTATUS]! & ~(HStatus.GVA | HStatus.SPV);
    if (guestAddress) next |= HStatus.GVA;
    if (virtual) next = (next & ~HStatus.SPVP) | HStatus.SPV | (privilege === 1 ? HStatus.SPVP : 0);
    cells.i32[HSTATUS] = next;
  }
  const [address, instruction] = to === "machine" ? [Csr.MTVAL2, Csr.MTINST] : [Csr.HTVAL, Csr.HTINST];
  if (guestPage) cells.copy64(cell(address), TRAP_GPA);
  else clear64(hart, address);
  clear64(hart, instruction);
  if (guestPage) cells.i32[cell(instruction) >> 2] = cells.i32[TRAP_INSTRUCTION >> 2]!;
  cells.i32[TRAP_GUEST >> 2] = 0;
}

function clear64({ cells }: Privileged, number: number): void {
  cells.i32[cell(number) >> 2] = cells.i32[(cell(number) >> 2) + 1] = 0;
}

export function machineReturn(hart: Privileged): void {
  const { cells } = hart;
  const status = cells.csr32(Csr.MSTATUS);
  const privilege = (status & MStatus.MPP) >> 11;
  let next = (status & ~(MStatus.MIE | MStatus.MPP)) | MStatus.MPIE;
  if (status & MStatus.MPIE) next |= MStatus.MIE;
  if (privilege !== 3) next &= ~MStatus.MPRV;
  const high = cells.i32[(cell(Csr.MSTATUS) >> 2) + 1]! & MSTATUS_HIGH_WRITABLE;
  cells.copy64(PC, cell(Csr.MEPC));
  hart.setStatus(next, high & ~MSTATUS_MPV_HIGH);
  returnTo(hart, privilege, privilege !== 3 && (high & MSTATUS_MPV_HIGH) !== 0);
}

export function supervisorReturn(hart: Privileged): void {
  const { cells } = hart;
  const status = cells.csr32(Csr.MSTATUS);
  let next = (status & ~(MStatus.SIE | MStatus.SPP | MStatus.MPRV)) | MStatus.SPIE;
  if (status & MStatus.SPIE) next |= MStatus.SIE;
  let { virtual } = hart;
  if (!virtual && hart.hypervisor && cells.i32[HSTATUS]! & HStatus.SPV) {
    virtual = true;
    cells.i32[HSTATUS]! &= ~HStatus.SPV;
  }
  cells.copy64(PC, cell(Csr.SEPC));
  hart.setStatus(next);
  returnTo(hart, status & MStatus.SPP ? 1 : 0, virtual);
}

function returnTo(hart: Privileged, privilege: number, virtual: boolean): void {
  // "xRET instructions always clear the LR address reservation on some implementations" (section 3.3.2): it keeps a
  // preempted lr/sc pair from succeeding by chance.
  hart.cells.i64[RESERVATION >> 3] = -1n;
  if (virtual !== (hart.cells.i32[VIRTUAL >> 2] !== 0)) hart.setVirtual(virtual);
  hart.setPrivilege(privilege);
}
