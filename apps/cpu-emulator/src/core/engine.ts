import type { ir } from "@polyvisor/isa";

/**
 * What runs instructions. One engine object per hart, in the hart's worker thread. Engines share the state of
 * hart-state.ts, so a hart can change engines between two slices.
 */
export const ExitReason = {
  /** The instruction budget is used up (or attention was asked for at a slice boundary). */
  BUDGET: 0,
  /** A synchronous exception: TRAP_CAUSE, TRAP_VALUE are set, PC is the faulting instruction. */
  TRAP: 1,
  /** WFI retired: PC is the next instruction. The hart loop decides to sleep. */
  WFI: 2,
  /** The core asks to leave generated code (interrupt became pending by a CSR write, satp changed, shutdown). */
  CORE: 3,
} as const;
export type ExitReason = (typeof ExitReason)[keyof typeof ExitReason];

export interface Engine {
  readonly name: string;
  /**
   * Runs at most about `budget` instructions from PC (never more than budget + 64) and returns why it stopped.
   * INSTRET, PC and all registers are exact on return. Does not look at interrupts: the hart loop does, between calls.
   */
  run(budget: number): ExitReason;
  /** fence.i, also on behalf of another hart: code decoded so far is compared with memory before it runs again. */
  fenceI(): void;
  /** sfence.vma with any operands may flush everything. Also after a recall of pages or a change of PMP. */
  flushTlb(): void;
  /** Another engine runs next: what this one keeps in places that others read is taken back. */
  leave?(): void;
  /** Numbers for statistics, by name: "tlb-miss", "decode-page" ... */
  events(): Record<string, number>;
}

/** What engines need from the privileged core (csr.ts, trap.ts; ecall from U, sret and sstatus have a copy in generated code, interpreter/system-function.ts). */
export interface PrivilegedCore {
  /**
   * Executes a CSR instruction at the current PC on the CSR cells, with all checks (existence, privilege, read-only,
   * TVM, counter enables, FS). Answers the old value, or undefined when it is refused: TRAP_CAUSE says how, TRAP_VALUE is 0
   * (the engine puts the instruction's bits there), PC and registers are untouched, and the engine returns TRAP.
   * INSTRET is exact when it is called and does not include this instruction; the engine counts it.
   * `operand` and the answer are unsigned 64-bit.
   */
  csr(number: number, op: "write" | "set" | "clear", operand: bigint, reads: boolean, writes: boolean): bigint | undefined;
  /**
   * Executes mret, sret, wfi, sfence.vma, ecall, ebreak at PC, completely: sets PC, and takes the trap itself where
   * there is one (never answers TRAP). Counts the instruction in INSTRET when it retires, so the engine does not.
   * Answers why to leave, or -1 to go on at PC.
   */
  system(op: Exclude<ir.SystemOp, "fence.i">, instruction: number, rs1: bigint, rs2: bigint, length: number): ExitReason | -1;
  /** Whether a cache-block operation is allowed: 0, or the cause of the exception (envcfg fields CBIE, CBCFE, CBZE). */
  refuseCacheBlock(op: ir.CacheBlockOp | "zero"): number;
  /** Whether HLV, HLVX and HSV are allowed: 0, or the cause of the exception. Their privilege is that of hstatus.SPVP. */
  refuseGuestAccess(): number;
  /** What `time` reads without V, a whole number of ticks. */
  ticks(): number;
  /** mstatus.FS = Off makes FP instructions illegal; engines call it before FP (or keep FP_ENABLED in a cell). */
  fpEnabled(): boolean;
  /** FP state written: mstatus.FS = Dirty. */
  fpDirty(): void;
  /**
   * True after a `csr` that unmasked a pending interrupt (`system` answers CORE instead): the engine leaves with
   * ExitReason.CORE, PC at the next instruction. The hart loop clears it before each slice.
   */
  leave: boolean;
  /**
   * PMP decision for a whole page (our PMP granularity is 4 KiB, privileged spec "PMP address matching", G = 10), at
   * an effective privilege. The MMU asks when it fills a TLB entry and for page-table accesses (privilege 1).
   */
  pmpAllows(physical: bigint, access: PmpAccess, privilege: number): boolean;
}

export type PmpAccess = "read" | "write" | "execute";

/**
 * What the core tells about translation; csr.ts and trap.ts call it. The MMU implements it (it owns the TLB layout),
 * for all engines of the hart at once.
 */
export interface TranslationListener {
  /** PRIVILEGE, mstatus.{SUM,MXR,MPRV,MPP} or satp.MODE changed: choose TLB_SET. Cheap: called on every trap and return. */
  contextChanged(): void;
  /** satp.PPN / ASID changed, sfence.vma, PMP changed: entries are stale. */
  flushTlb(): void;
  /** sfence.vma of one address: only its entries are stale. Absent: flushTlb does. */
  flushPage?(address: bigint): void;
  /** The translations of guests (V = 1) are stale: vsatp, hgatp, HFENCE, a guest's sfence.vma. Absent: flushTlb does. */
  flushGuest?(): void;
}

/** Physical memory beyond RAM the hart already holds. */
export interface PhysicalAccess {
  /**
   * Makes the RAM page at this physical address usable for reading or writing (page lease). Blocks. False: access fault.
   * Called by the MMU before it installs a TLB entry or touches a page table. While it blocks, pages may be recalled
   * and the TLB flushed: after a call that blocked (GIVEN_UP in hart-state.ts changed), translations that the same
   * instruction made before it must be made again.
   */
  ensurePage(physical: bigint, write: boolean): boolean;
  /**
   * Whether ensurePage for this page of RAM (0 = the first) would answer true at once; the MMU asks this first. Absent:
   * unknown.
   */
  holds?(ramPage: number, write: boolean): boolean;
  /** Naturally aligned device read; undefined: access fault. CLINT is answered here without leaving the worker. */
  mmioRead(physical: bigint, bytes: 1 | 2 | 4 | 8): bigint | undefined;
  /** Posted device write; false: access fault known at once. */
  mmioWrite(physical: bigint, bytes: 1 | 2 | 4 | 8, value: bigint): boolean;
}

/**
 * TRAP_CAUSE of an access that a debugger wants to see, given by the MMU: no exception of the guest. Engines answer TRAP
 * for it as for a page fault, with everything as before the instruction.
 */
export const DEBUG_CAUSE = 64;

/** What the MMU asks before it translates, while a debugger watches pages (debug/hart-debug.ts). */
export interface PageWatch {
  /** Stepping over a watched access: it goes through, but must not leave a TLB entry behind. */
  readonly bypass: boolean;
  stops(low: number, high: number, access: number): boolean;
}

/** Exception causes (privileged spec, table "mcause values after trap"). */
export const Cause = {
  INSTRUCTION_MISALIGNED: 0, INSTRUCTION_ACCESS: 1, ILLEGAL_INSTRUCTION: 2, BREAKPOINT: 3,
  LOAD_MISALIGNED: 4, LOAD_ACCESS: 5, STORE_MISALIGNED: 6, STORE_ACCESS: 7,
  ECALL_U: 8, ECALL_S: 9, ECALL_VS: 10, ECALL_M: 11,
  INSTRUCTION_PAGE: 12, LOAD_PAGE: 13, STORE_PAGE: 15,
  INSTRUCTION_GUEST_PAGE: 20, LOAD_GUEST_PAGE: 21, VIRTUAL_INSTRUCTION: 22, STORE_GUEST_PAGE: 23,
} as const;
