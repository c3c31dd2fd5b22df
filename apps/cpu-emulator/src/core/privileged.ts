import { CSRS as TABLE, privileged as spec, type ir } from "@polyvisor/isa";
import {
  Csr, csrNumbers, csrRow, GUEST_INTERRUPTS, guestStce, HStatus, Interrupt, MEIP, MSIP, MStatus, MSTATUS_HIGH_WRITABLE, MTIP, SEIP, SGEIP,
  SSIP, SSTATUS_VISIBLE, stce, STIP, VSTIP, type CsrRow,
} from "./csr.ts";
import { fpState, type HartCells } from "./cells.ts";
import { Cause, ExitReason, type PmpAccess, type PrivilegedCore, type TranslationListener } from "./engine.ts";
import type { GuestTime } from "./guest-time.ts";
import { CSRS, EXTERNAL_PENDING, FFLAGS, FRM, INSTRET, PC, PRIVILEGE, RESERVATION, TRAP_CAUSE, TRAP_VALUE, VIRTUAL, X } from "./hart-state.ts";
import { exchangedNumber, exchangeGuestRegisters, statusBeneath } from "./hypervisor.ts";
import { MTIMECMP, TRAP_COUNTS } from "./mailbox.ts";
import { type CpuFeatures, DEFAULT_FEATURES, PAGING_MODE } from "./cpu-features.ts";
import { Pmp } from "./pmp.ts";
import { enterTrap, machineReturn, supervisorReturn } from "./trap.ts";

/** Answers `ecall` from S-mode when the firmware is ours (sbi/). PC is already past the ecall. */
export type SupervisorCalls = () => ExitReason | -1;

/** Order in which interrupts of equal privilege are taken (privileged spec, section 3.1.9). */
const PRIORITY = [
  Interrupt.MEI, Interrupt.MSI, Interrupt.MTI, Interrupt.SEI, Interrupt.SSI, Interrupt.STI,
  12, Interrupt.SEI + 1, Interrupt.SSI + 1, Interrupt.STI + 1, // SGEI and the guest's, H
] as const;
const MISA_H = 1 << 7;
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
  readonly #features: CpuFeatures;
  /** misa.H */
  readonly hypervisor: boolean;
  /** While CSRs of a running guest's hart are read from outside. */
  #beneath = false;

  constructor(cells: HartCells, time: GuestTime, features: CpuFeatures = DEFAULT_FEATURES) {
    this.cells = cells;
    this.time = time;
    this.#features = features;
    this.hypervisor = features.hypervisor;
    this.pmp = new Pmp(cells);
  }

  ticks(): number {
    return this.time.ticks();
  }

  get privilege(): number {
    return this.cells.i32[PRIVILEGE >> 2]!;
  }
  /** V: the hart runs a guest of its hypervisor. */
  get virtual(): boolean {
    return this.cells.i32[VIRTUAL >> 2] !== 0 && !this.#beneath;
  }
  /** The largest MODE that satp, vsatp and hgatp take: 8 = Sv39, 9 = Sv48, 10 = Sv57. */
  get largestPagingMode(): bigint {
    return PAGING_MODE[this.#features.paging];
  }

  /** State after reset (section 3.4): M-mode, translation and interrupts off, registers zero, a0 and a1 as given. */
  reset(pc: bigint, a0: bigint, a1: bigint): void {
    this.cells.u8.fill(0, X, PC);
    this.cells.u8.fill(0, CSRS, CSRS + 4096 * 8);
    this.cells.u64[PC >> 3] = pc;
    this.cells.u64[(X >> 3) + 10] = a0;
    this.cells.u64[(X >> 3) + 11] = a1;
    this.cells.i32[PRIVILEGE >> 2] = 3;
    this.cells.i32[VIRTUAL >> 2] = 0;
    this.cells.i32[FFLAGS >> 2] = 0;
    this.cells.i32[FRM >> 2] = 0;
    this.cells.i64[RESERVATION >> 3] = -1n;
    for (const csr of TABLE) this.cells.setCsr(csr.number, csr.reset);
    this.cells.setCsr(Csr.MHARTID, BigInt(this.cells.hart));
    if (this.hypervisor) {
      this.cells.i32[(CSRS >> 2) + Csr.MISA * 2]! |= MISA_H;
      this.cells.setCsr(Csr.MIDELEG, BigInt(GUEST_INTERRUPTS | SGEIP));
    }
    this.cells.i64[MTIMECMP >> 3] = -1n;
    this.setStatus(0);
    this.pmp.changed();
  }

  csr(number: number, op: "write" | "set" | "clear", operand: bigint, reads: boolean, writes: boolean): bigint | undefined {
    const row = csrRow(number);
    const refused = row ? this.#refuseCsr(row, number, writes) : Cause.ILLEGAL_INSTRUCTION;
    if (!row || refused) {
      this.cells.i64[TRAP_CAUSE >> 3] = BigInt(refused);
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

  /** 0, or the cause of the exception. What only its virtual mode refuses a guest is for its hypervisor to emulate. */
  #refuseCsr(row: CsrRow, number: number, writes: boolean): number {
    const { privilege } = this;
    const level = (number >> 8) & 3;
    if ((writes && number >> 10 === 3) || (level === 2 && !this.hypervisor)) return Cause.ILLEGAL_INSTRUCTION;
    // HS-mode has the hypervisor's registers (level 2); neither a guest nor its user mode has.
    if (level > privilege && !(level === 2 && privilege === 1 && !this.virtual)) {
      return this.virtual && level < 3 ? Cause.VIRTUAL_INSTRUCTION : Cause.ILLEGAL_INSTRUCTION;
    }
    const legal = row.legal ? row.legal(this) : true;
    return legal === true ? 0 : legal === "virtual" ? Cause.VIRTUAL_INSTRUCTION : Cause.ILLEGAL_INSTRUCTION;
  }

  system(op: Exclude<ir.SystemOp, "fence.i">, instruction: number, _rs1: bigint, _rs2: bigint, length: number): ExitReason | -1 {
    const privilege = this.privilege;
    const refused = op === "ecall" ? 0 : this.#refuseSystem(op);
    if (refused) {
      this.trap(refused, BigInt(instruction >>> 0));
      return -1;
    }
    switch (op) {
      case "ecall":
        if (privilege === 1 && this.virtual) {
          this.trap(Cause.ECALL_VS, 0n);
          return -1;
        }
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
        this.#retired();
        machineReturn(this);
        return this.#interruptReady() ? ExitReason.CORE : -1;
      case "sret":
        this.#retired();
        supervisorReturn(this);
        return this.#interruptReady() ? ExitReason.CORE : -1;
      case "wfi":
        this.#advance(length);
        return ExitReason.WFI;
      case "sfence.vma":
        this.#fence((instruction >>> 15) & 31 ? _rs1 : undefined);
        this.#advance(length);
        return -1;
      case "hfence.vvma":
      case "hfence.gvma":
        this.flushGuest();
        this.#advance(length);
        return -1;
      case "sfence.inval":
        this.#advance(length);
        return -1;
      case "illegal":
        this.trap(Cause.ILLEGAL_INSTRUCTION, BigInt(instruction >>> 0));
        return -1;
    }
  }

  /** 0, or the cause of the exception that a system instruction raises in this mode (sections 3.1.6.6, 3.3; H, "Trap Cause Codes"). */
  #refuseSystem(op: Exclude<ir.SystemOp, "fence.i">): number {
    const { privilege, virtual } = this;
    switch (op) {
      case "sret": return this.#refuseSupervisor(MStatus.TSR, HStatus.VTSR);
      case "mret": return privilege < 3 ? Cause.ILLEGAL_INSTRUCTION : 0;
      // Section 3.1.6.5: with TW = 0, U-mode may still be refused; we refuse it, as S-mode is implemented.
      case "wfi":
        if (virtual && this.cells.csr32(Csr.MSTATUS) & MStatus.TW) return Cause.ILLEGAL_INSTRUCTION;
        return this.#refuseSupervisor(MStatus.TW, HStatus.VTW);
      case "sfence.vma": return this.#refuseSupervisor(MStatus.TVM, HStatus.VTVM);
      case "sfence.inval": return this.#refuseSupervisor(0, 0);
      case "hfence.vvma":
      case "hfence.gvma":
        if (!this.hypervisor) return Cause.ILLEGAL_INSTRUCTION;
        if (virtual) return Cause.VIRTUAL_INSTRUCTION;
        return this.#refuseSupervisor(op === "hfence.gvma" ? MStatus.TVM : 0, 0);
      default: return 0;
    }
  }
  /** What a supervisor may do unless M-mode (mstatus) or, of a guest's, the hypervisor (hstatus) wants to; user modes may not. */
  #refuseSupervisor(machine: number, hypervisor: number): number {
    const { privilege } = this;
    if (!this.virtual) return privilege === 0 || (privilege === 1 && this.cells.csr32(Csr.MSTATUS) & machine) ? Cause.ILLEGAL_INSTRUCTION : 0;
    return privilege === 0 || this.cells.csr32(Csr.HSTATUS) & hypervisor ? Cause.VIRTUAL_INSTRUCTION : 0;
  }

  /** sfence.vma, of one address or of all: of the guest's translations when a guest executes it. */
  #fence(address: bigint | undefined): void {
    if (address !== undefined && this.translation.flushPage) this.translation.flushPage(address);
    else if (this.virtual) this.flushGuest();
    else this.translation.flushTlb();
  }
  flushGuest(): void {
    if (this.translation.flushGuest) this.translation.flushGuest();
    else this.translation.flushTlb();
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
    if (this.hypervisor) {
      pending = (pending & ~GUEST_INTERRUPTS) | cells.csr32(Csr.HVIP);
      if (guestStce(this) && now >= this.#guestTimer()) pending |= VSTIP;
    }
    cells.i32[at] = pending;
  }
  /** The earliest time, in ticks, at which an enabled timer that is not pending yet will fire. */
  nextTimer(): number {
    const enabled = this.cells.csr32(Csr.MIE) & ~this.cells.csr32(Csr.MIP);
    return Math.min(
      enabled & MTIP ? this.cells.asNumber(MTIMECMP) : Infinity,
      enabled & STIP && stce(this) ? this.cells.asNumber(CSRS + Csr.STIMECMP * 8) : Infinity,
      enabled & VSTIP && guestStce(this) ? this.#guestTimer() : Infinity,
    );
  }
  /** When vstimecmp fires, in our ticks: the guest's time is ours plus htimedelta (Sstc, vstimecmp). Deltas that wrap are rare: exact, in BigInt. */
  #guestTimer(): number {
    const delta = this.cells.csr(Csr.HTIMEDELTA);
    if (delta === 0n) return this.cells.asNumber(CSRS + Csr.VSTIMECMP * 8);
    const compare = this.cells.csr(Csr.VSTIMECMP);
    const guestNow = BigInt.asUintN(64, BigInt(this.time.ticks()) + delta);
    return compare <= guestNow ? 0 : this.time.ticks() + Number(compare - guestNow);
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
    const refused = this.virtual ? Cause.VIRTUAL_INSTRUCTION : Cause.ILLEGAL_INSTRUCTION;
    if (this.virtual && !(this.cells.csr32(Csr.HENVCFG) & grant)) return refused;
    return this.privilege === 0 && !(this.cells.csr32(Csr.SENVCFG) & grant) ? refused : 0;
  }
  refuseGuestAccess(): number {
    if (!this.hypervisor) return Cause.ILLEGAL_INSTRUCTION;
    if (this.virtual) return Cause.VIRTUAL_INSTRUCTION;
    return this.privilege === 0 && !(this.cells.csr32(Csr.HSTATUS) & HStatus.HU) ? Cause.ILLEGAL_INSTRUCTION : 0;
  }

  /** A guest needs FP from its hypervisor too: vsstatus.FS and the HS-level sstatus.FS are both in effect. */
  fpEnabled(): boolean {
    return fpState(this.cells) !== 0;
  }
  fpDirty(): void {
    const status = this.cells.csr32(Csr.MSTATUS);
    if ((status & MStatus.FS) !== MStatus.FS) this.setStatus(status | MStatus.FS);
    if (this.virtual) this.cells.i32[(CSRS >> 2) + Csr.VSSTATUS * 2]! |= MStatus.FS;
  }
  pmpAllows(physical: bigint, access: PmpAccess, privilege: number): boolean {
    return this.pmp.allows(physical, access, privilege);
  }

  /** Replaces the low word of mstatus, and GVA and MPV above it; keeps the read-only fields right. */
  setStatus(next: number, high = this.cells.i32[(CSRS >> 2) + Csr.MSTATUS * 2 + 1]! & MSTATUS_HIGH_WRITABLE): void {
    const at = (CSRS >> 2) + Csr.MSTATUS * 2;
    const changed = this.cells.i32[at]! ^ next;
    this.cells.i32[at] = next;
    this.cells.i32[at + 1] = SXL_UXL_64 | high | ((next & MStatus.FS) === MStatus.FS ? 1 << 31 : 0); // SD
    const translation = MStatus.SUM | MStatus.MXR | MStatus.MPRV;
    if (changed & translation || (next & MStatus.MPRV && changed & MStatus.MPP)) this.translation.contextChanged();
  }
  /** Changes V and with it which registers are the supervisor's. The caller sets the privilege next. */
  setVirtual(virtual: boolean): void {
    if (virtual === this.virtual) return;
    const status = exchangeGuestRegisters(this.cells);
    this.cells.i32[VIRTUAL >> 2] = virtual ? 1 : 0;
    this.setStatus(status);
    this.translation.contextChanged();
  }
  /** Privilege changes on every trap and return. */
  setPrivilege(privilege: number): void {
    if (privilege === this.privilege) return;
    this.cells.i32[PRIVILEGE >> 2] = privilege;
    this.translation.contextChanged();
  }

  /** Every CSR by number, read with M-mode rights (debug and ReadHart): s* are the hypervisor's, vs* the guest's, also while V = 1. */
  readAll(): Map<number, bigint> {
    return new Map(this.csrNumbers().map((number) => [number, this.readOne(number)!]));
  }
  /** The numbers of the CSRs that this hart has. */
  csrNumbers(): number[] {
    return csrNumbers().filter((number) => this.#has(number));
  }
  readOne(number: number): bigint | undefined {
    const row = this.#has(number) ? csrRow(number) : undefined;
    if (!row) return undefined;
    return this.virtual ? this.#readBeneath(number) : row.read(this);
  }
  /** What it would read with V = 0. Changes nothing: the hart may be running, in another thread. */
  #readBeneath(number: number): bigint {
    const { mstatus, vsstatus } = statusBeneath(this.cells);
    const full = (status: number, high: bigint): bigint => {
      const dirty = (status & MStatus.FS) === MStatus.FS ? spec.MSTATUS.SD : 0n;
      return (high & ~spec.MSTATUS.SD & ~0xffff_ffffn) | BigInt(status >>> 0) | dirty;
    };
    const high = this.cells.csr(Csr.MSTATUS);
    if (number === Csr.MSTATUS) return full(mstatus, high);
    if (number === Csr.SSTATUS) return full(mstatus, high) & SSTATUS_VISIBLE;
    if (number === Csr.VSSTATUS) return full(vsstatus, high) & SSTATUS_VISIBLE;
    this.#beneath = true;
    try {
      return csrRow(exchangedNumber(number))!.read(this);
    } finally {
      this.#beneath = false;
    }
  }
  /** Writes one CSR with M-mode rights, as csrw would (WriteHart); false when there is none with that number. */
  writeOne(number: number, value: bigint): boolean {
    const row = this.#has(number) ? csrRow(number) : undefined;
    if (!row) return false;
    if (number >> 10 === 3) return true;
    const write = (): void => row.write(this, BigInt.asUintN(64, value));
    if (this.virtual) this.#asHypervisor(write);
    else write();
    return true;
  }
  /** H's registers exist with H only: those of level 2, and two of M-mode's. */
  #has(number: number): boolean {
    return csrRow(number) !== undefined && (this.hypervisor || (((number >> 8) & 3) !== 2 && number !== Csr.MTINST && number !== Csr.MTVAL2));
  }
  /** With V = 0 for a moment: the hart stands still. */
  #asHypervisor<T>(work: () => T): T {
    const { translation } = this;
    this.translation = { contextChanged() {}, flushTlb: () => translation.flushTlb() };
    this.setVirtual(false);
    try {
      return work();
    } finally {
      this.setVirtual(true);
      this.translation = translation;
    }
  }

  #ready(): number {
    const pending = this.pending() & this.cells.csr32(Csr.MIE);
    if (pending === 0) return 0;
    const privilege = this.privilege;
    const status = this.cells.csr32(Csr.MSTATUS);
    const delegated = pending & this.cells.csr32(Csr.MIDELEG);
    const machine = privilege < 3 || status & MStatus.MIE ? pending & ~delegated : 0;
    if (machine || privilege === 3) return machine;
    const enabled = privilege === 0 || (status & MStatus.SIE) !== 0; // of the guest's supervisor when V = 1
    if (!this.hypervisor) return enabled ? delegated : 0;
    const toGuest = delegated & this.cells.csr32(Csr.HIDELEG);
    const toHypervisor = delegated & ~toGuest;
    if (!this.virtual) return enabled ? toHypervisor : 0;
    return toHypervisor || (enabled ? toGuest : 0);
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
