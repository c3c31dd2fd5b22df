/**
 * One hart's architectural and engine state, laid out in the machine's shared WebAssembly memory, so that generated
 * Wasm code, the TypeScript core and (for the mailbox words) other threads all work on the same bytes.
 *
 * Memory map of one machine (wasm32, at most 4 GiB):
 *   [0, ramOffset)                    holder reserve: `MACHINE_WORDS` page, then one area per hart
 *   [ramOffset, ramOffset + ram)      guest RAM, identity: address - ram_base + ramOffset
 *
 * The area of hart n starts at HART_AREA_BASE + n * HART_AREA_BYTES. All offsets below are relative to it.
 */
export const HART_AREA_BASE = 0x100_0000; // 16 MiB: before it, words shared by all harts (page states, see lease.ts)
export const HART_AREA_BYTES = 0x600_0000; // 96 MiB, lazily committed; must fit holderReserveBytes() of libs/machine

export const X = 0x0000; // 32 × i64, x[0] stays 0
export const F = 0x0100; // 32 × i64 raw bits, NaN-boxed
export const PC = 0x0200; // i64
export const INSTRET = 0x0208; // i64: retired, exact whenever generated code has returned
export const PRIVILEGE = 0x0210; // i32: 0 U, 1 S, 3 M
export const FFLAGS = 0x0214; // i32
export const FRM = 0x0218; // i32
export const EXIT_REASON = 0x021c; // i32, see engine.ts
export const TRAP_CAUSE = 0x0220; // i64: set with EXIT_REASON = TRAP
export const TRAP_VALUE = 0x0228; // i64
export const RESERVATION = 0x0230; // i64: reserved physical address, -1 = none
export const RESERVED_VALUE = 0x0238; // i64: what lr read there; sc is a compare-and-swap with it
export const TLB_SET = 0x0240; // i32: byte offset of the active load TLB set, see tlb.ts (written by the core when
//                                privilege, SUM, MXR, MPRV or satp.MODE change)
export const FP_STATE = 0x0244; // i32: 0 mstatus.FS Off, 1 on, 2 Dirty; kept by the engine from mstatus (mmu.ts)
export const FP_DIRTY = 2;
export const VIRTUAL = 0x0248; // i32: 1 while the hart runs a guest (V = 1, the hypervisor extension), see hypervisor.ts
export const TRAP_GUEST = 0x024c; // i32: 1 when TRAP_VALUE of a memory fault is an address of a guest
export const TRAP_GPA = 0x0250; // i64: with a guest-page fault, what goes to htval or mtval2: the guest-physical address >> 2
export const TRAP_INSTRUCTION = 0x0258; // i32: … and htinst or mtinst
export const TLB_STALE = 0x025c; // i32: bit per translation context: its set (tlb.ts) must be emptied before it is chosen
export const SECOND_GENERATION = 0x0260; // i64: which entries of the TLB's second level are right, see tlb.ts
export const SCRATCH = 0x0280; // 128 bytes for helpers

/** Words other threads touch with Atomics. */
export const ATTENTION = 0x0300; // i32: non-zero = look at the mailbox before the next slice; also the futex of WFI
export const EXTERNAL_PENDING = 0x0304; // i32: bits of mip driven from outside: MEIP 1<<11, SEIP 1<<9, MSIP 1<<3, SSIP 1<<1
export const REQUESTS = 0x0308; // i32 bit set: what to do at attention, see mailbox.ts
export const GIVEN_UP = 0x030c; // i32: counts TLB flushes made while ensurePage blocked, see engine.ts
export const MAILBOX = 0x0400; // exits ring and fault mailbox, see mailbox.ts (0x0400..0x1000 and 0x9000..0xffff)

/** CSR cells: CSR n at CSRS + n * 8, i64. Plain CSRs live only here; the others have hooks (csr.ts). */
export const CSRS = 0x1000; // 4096 × i64 = 32 KiB

/** TLBs and the decode cache start here; the engine lays them out (tlb.ts, decode-cache.ts). */
export const ENGINE = 0x1_0000;

/** Words of the whole machine, absolute addresses below HART_AREA_BASE. The engine uses nothing below it. */
export const MACHINE_WORDS = 0x1000; // 4 KiB: doorbell, guest clock, see mailbox.ts and guest-time.ts
export const PAGE_STATES = 0x10_0000; // one byte per RAM page (1 MiB for 4 GiB), see lease.ts
