import { CSRS as TABLE, privileged as spec, type ir } from "@polyvisor/isa";
import { Csr, csrNumbers, csrRow, Interrupt, MEIP, MSIP, MStatus, MTIP, SEIP, SSIP, stce, STIP } from "./csr.ts";
import type { HartCells } from "./cells.ts";
import { Cause, ExitReason, type PmpAccess, type PrivilegedCore, type TranslationListener } from "./engine.ts";
import type { GuestTime } from "./guest-time.ts";
import { CSRS, EXTERNAL_PENDING, FFLAGS, FRM, INSTRET, PC, PRIVILEGE, RESERVATION, TRAP_CAUSE, TRAP_VALUE, X } from "./hart-state.ts";
import { MTIMECMP, TRAP_COUNTS } from "./mailbox.ts";
import { Pmp } from "./pmp.ts";
import { enterTrap, machineReturn, supervisorReturn } from "./trap.ts";

/** Answers `ecall` from S-mode when the firmware is ours (sbi/). PC is already past the ecall. */
export type SupervisorCalls = () => ExitReason | -1;

/** Order in which interrupts of equal privilege are taken (privileged spec, section 3.1.9). */
const PRIORITY = [Interrupt.MEI, Interrupt.MSI, Interrupt.MTI, Interrupt.SEI, Interrupt.SSI, Interrupt.STI] as const;
const SXL_UXL_64 = 0xa;
const ENVCFG = { CBIE: Number(spec.ENVCFG.CBIE), CBCFE: Number(spec.ENVCFG.CBCFE), CBZE: Number(spec.ENVCFG.CBZE) } as const;

/**
 * The privileged core of one hart. Everything architectural lives in the cells; the object only caches (decoded PMP,
 * timer bits), so another thread may build one over the same cells to read them while the hart is parked.
 */
export class Privileged implements PrivilegedCore {
  readonly cells: HartCells;
  readonly time: GuestTime;
  readonly pmp: Pmp;
  translation: TranslationListener = { contextChanged() {}, flushTlb() {} };
  /** Undefined: ecall from S-mode is a trap to the M-mode firmware. */
  supervisorCalls: SupervisorCalls | undefined;
  leave = false;
  /** A debugger's breakpoints: an ebreak that is one of them is not executed. */
  debugger: { ebreak(): boolean } | undefined;

  constructor(cells: HartCells, time: GuestTime) {
    this.cells = cells;
    this.time = time;
    this.pmp = new Pmp(cells);
  }

  get privilege(): number {
    return this.cells.i32[PRIVILEGE >> 2]!;
  }

  /** State after reset (section 3.4): M-mode, translation and interrupts off, registers zero, a0 and a1 as given. */
  reset(pc: bigint, a0: bigint, a1: bigint): void {
    this.cells.u8.fill(0, X, PC);
    this.cells.u8.fill(0, CSRS, CSRS + 4096 * 8);
    this.cells.u64[PC >> 3] = pc;
    this.cells.u64[(X >> 3) + 10] = a0;
    this.cells.u64[(X >> 3) + 11] = a1;
    this.cells.i32[PRIVILEGE >> 2] = 3;
    this.cells.i32[FFLAGS >> 2] = 0;
    this.cells.i32[FRM >> 2] = 0;
    this.cells.i64[RESERVATION >> 3] = -1n;
    for (const csr of TABLE) this.cells.setCsr(csr.number, csr.reset);
    this.cells.setCsr(Csr.MHARTID, BigInt(this.cells.hart));
    this.cells.i64[MTIMECMP >> 3] = -1n;
    this.setStatus(0);
    this.pmp.changed();
  }

  csr(number: number, op: "write" | "set" | "clear", operand: bigint, reads: boolean, writes: boolean): bigint | undefined {
    const row = csrRow(number);
    if (!row || ((number >> 8) & 3) > this.privilege || (writes && number >> 10 === 3) || (row.legal && !row.legal(this))) {
      this.cells.i64[TRAP_CAUSE >> 3] = BigInt(Cause.ILLEGAL_INSTRUCTION);
      this.cells.i64[TRAP_VALUE >> 3] = 0n;
      return undefined;
    }
    const old = reads || op !== "write" ? row.read(this) : 0n;
    if (writes) {
      if (op === "write") row.write(this, operand);
      else {
        const base = row.base ? row.base(this) : old;
        row.write(this, op === "set" ? base | operand : base & ~operand);
      }
    }
    return old;
  }

  system(op: Exclude<ir.SystemOp, "fence.i">, instruction: number, _rs1: bigint, _rs2: bigint, length: number): ExitReason | -1 {
    const privilege = this.privilege;
    const status = this.cells.csr32(Csr.MSTATUS);
    switch (op) {
      case "ecall":
        if (privilege === 1 && this.supervisorCalls) {
          this.leave = false;
          this.#advance(length);
          const answer = this.supervisorCalls();
          return answer === -1 && this.leave ? ExitReason.CORE : answer;
        }
        this.trap(Cause.ECALL_U + privilege, 0n);
        return -1;
      case "ebreak":
        if (this.debugger?.ebreak()) return ExitReason.CORE;
        this.trap(Cause.BREAKPOINT, this.cells.u64[PC >> 3]!);
        return -1;
      case "mret":
        if (privilege < 3) break;
        this.#retired();
        machineReturn(this);
        return this.#interruptReady() ? ExitReason.CORE : -1;
      case "sret":
        if (privilege < 1 || (privilege === 1 && status & MStatus.TSR)) break;
        this.#retired();
        supervisorReturn(this);
        return this.#interruptReady() ? ExitReason.CORE : -1;
      case "wfi":
        // Section 3.1.6.5: with TW = 0, U-mode may still be refused; we refuse it, as S-mode is implemented.
        if (privilege === 0 || (privilege === 1 && status & MStatus.TW)) break;
        this.#advance(length);
        return ExitReason.WFI;
      case "sfence.vma":
        if (privilege === 0 || (privilege === 1 && status & MStatus.TVM)) break;
        // rs1 = x0: all addresses.
        if ((instruction >>> 15) & 31 && this.translation.flushPage) this.translation.flushPage(_rs1);
        else this.translation.flushTlb();
        this.#advance(length);
        return -1;
      case "sfence.inval":
        if (privilege === 0) break;
        this.#advance(length);
        return -1;
      case "illegal":
        break;
    }
    this.trap(Cause.ILLEGAL_INSTRUCTION, BigInt(instruction >>> 0));
    return -1;
  }

  /** Takes the exception at PC. */
  trap(cause: number, value: bigint): void {
    this.cells.u64[TRAP_VALUE >> 3] = value;
    this.cells.f64[(TRAP_COUNTS >> 3) + cause]!++;
    enterTrap(this, cause, false);
  }
  /** Takes the exception that the engine left in TRAP_CAUSE and TRAP_VALUE. */
  takeTrap(): void {
    const cause = this.cells.i32[TRAP_CAUSE >> 2]!;
    this.cells.f64[(TRAP_COUNTS >> 3) + (cause & 31)]!++;
    enterTrap(this, cause, false);
  }

  /** mip as seen now; timers as of the last refresh. */
  pending(): number {
    return this.cells.csr32(Csr.MIP) | Atomics.load(this.cells.i32, EXTERNAL_PENDING >> 2);
  }
  /**
   * Brings MTIP and STIP up to date. They live in the mip cell, where generated code looks before it switches sstatus.SIE
   * on by itself. STIP is the software's bit when menvcfg.STCE is clear.
   */
  refreshTimers(): void {
    const now = this.time.ticks();
    const cells = this.cells;
    const at = (CSRS >> 2) + Csr.MIP * 2;
    let pending = cells.i32[at]! & ~MTIP;
    if (now >= cells.asNumber(MTIMECMP)) pending |= MTIP;
    if (stce(this)) pending = now >= cells.asNumber(CSRS + Csr.STIMECMP * 8) ? pending | STIP : pending & ~STIP;
    cells.i32[at] = pending;
  }
  /** The earliest time, in ticks, at which an enabled timer that is not pending yet will fire. */
  nextTimer(): number {
    const enabled = this.cells.csr32(Csr.MIE) & ~this.cells.csr32(Csr.MIP);
    return Math.min(
      enabled & MTIP ? this.cells.asNumber(MTIMECMP) : Infinity,
      enabled & STIP && stce(this) ? this.cells.asNumber(CSRS + Csr.STIMECMP * 8) : Infinity,
    );
  }
  /** WFI ends when an interrupt is pending and enabled in mie, whatever the global enables (section 3.3.3). */
  wakes(): boolean {
    return (this.pending() & this.cells.csr32(Csr.MIE)) !== 0;
  }
  /** Takes the interrupt of highest priority, if one is pending and enabled. */
  takeInterrupt(): boolean {
    const ready = this.#ready();
    if (ready === 0) return false;
    for (const code of PRIORITY) {
      if (!(ready & (1 << code))) continue;
      this.cells.f64[(TRAP_COUNTS >> 3) + 32 + code]!++;
      enterTrap(this, code, true);
      return true;
    }
    return false;
  }
  /** Called after writes that may enable a pending interrupt. */
  unmasked(): void {
    if (this.#interruptReady()) this.leave = true;
  }

  /** CMO, "Control and Status Register Support"; senvcfg is for U-mode. */
  refuseCacheBlock(op: ir.CacheBlockOp | "zero"): number {
    const grant = op === "zero" ? ENVCFG.CBZE : op === "inval" ? ENVCFG.CBIE : ENVCFG.CBCFE;
    if (this.privilege === 3) return 0;
    if (!(this.cells.csr32(Csr.MENVCFG) & grant)) return Cause.ILLEGAL_INSTRUCTION;
    return this.privilege === 0 && !(this.cells.csr32(Csr.SENVCFG) & grant) ? Cause.ILLEGAL_INSTRUCTION : 0;
  }

  fpEnabled(): boolean {
    return (this.cells.csr32(Csr.MSTATUS) & MStatus.FS) !== 0;
  }
  fpDirty(): void {
    const status = this.cells.csr32(Csr.MSTATUS);
    if ((status & MStatus.FS) !== MStatus.FS) this.setStatus(status | MStatus.FS);
  }
  pmpAllows(physical: bigint, access: PmpAccess, privilege: number): boolean {
    return this.pmp.allows(physical, access, privilege);
  }

  /** Replaces the low word of mstatus; keeps the read-only fields above it right. */
  setStatus(next: number): void {
    const at = (CSRS >> 2) + Csr.MSTATUS * 2;
    const changed = this.cells.i32[at]! ^ next;
    this.cells.i32[at] = next;
    this.cells.i32[at + 1] = SXL_UXL_64 | ((next & MStatus.FS) === MStatus.FS ? 1 << 31 : 0); // SD
    const translation = MStatus.SUM | MStatus.MXR | MStatus.MPRV;
    if (changed & translation || (next & MStatus.MPRV && changed & MStatus.MPP)) this.translation.contextChanged();
  }
  /** Privilege changes on every trap and return. */
  setPrivilege(privilege: number): void {
    if (privilege === this.privilege) return;
    this.cells.i32[PRIVILEGE >> 2] = privilege;
    this.translation.contextChanged();
  }

  /** Every CSR by number, read with M-mode rights (debug and ReadHart). */
  readAll(): Map<number, bigint> {
    return new Map(csrNumbers().map((number) => [number, csrRow(number)!.read(this)]));
  }
  /** Writes one CSR with M-mode rights, as csrw would (WriteHart); false when there is none with that number. */
  writeOne(number: number, value: bigint): boolean {
    const row = csrRow(number);
    if (!row) return false;
    if (number >> 10 !== 3) row.write(this, BigInt.asUintN(64, value));
    return true;
  }

  #ready(): number {
    const pending = this.pending() & this.cells.csr32(Csr.MIE);
    if (pending === 0) return 0;
    const privilege = this.privilege;
    const status = this.cells.csr32(Csr.MSTATUS);
    const delegated = this.cells.csr32(Csr.MIDELEG);
    const machine = privilege < 3 || status & MStatus.MIE ? pending & ~delegated : 0;
    if (machine) return machine;
    return privilege < 1 || (privilege === 1 && status & MStatus.SIE) ? pending & delegated : 0;
  }
  #interruptReady(): boolean {
    return this.#ready() !== 0;
  }
  #advance(length: number): void {
    this.cells.i64[PC >> 3]! += BigInt(length);
    this.#retired();
  }
  #retired(): void {
    this.cells.i64[INSTRET >> 3]! += 1n;
  }
}

/** Bits of EXTERNAL_PENDING. */
export const EXTERNAL = { MEIP, SEIP, MSIP, SSIP } as const;
