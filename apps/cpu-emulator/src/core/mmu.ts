import type { HartCells } from "./cells.ts";
import { Cause, DEBUG_CAUSE, type PageWatch, type PhysicalAccess, type PmpAccess, type PrivilegedCore, type TranslationListener } from "./engine.ts";
import { CSRS, GIVEN_UP, PRIVILEGE, TRAP_CAUSE, TRAP_GPA, TRAP_GUEST, TRAP_INSTRUCTION, TRAP_VALUE, VIRTUAL } from "./hart-state.ts";
import { TLB_MISSES } from "./mailbox.ts";
import { Access } from "./tlb.ts";
import { MPRV, MSTATUS, MXR, SATP, SUM, Tlb, VSSTATUS } from "./tlb-sets.ts";

export { Access };

/** Answers of `translate` that are not a place in linear memory. */
export const FAULT = -1;
export const DEVICE = -2;

export interface MmuOptions {
  readonly memory: WebAssembly.Memory;
  readonly cells: HartCells;
  readonly core: PrivilegedCore;
  readonly physical: PhysicalAccess;
  /** Guest-physical start of RAM, its length, and where it lies in linear memory. */
  readonly ramBase: number;
  readonly ramBytes: number;
  readonly ramOffset: number;
}

const VSATP = (CSRS + 0x280 * 8) >> 2;
const HGATP = (CSRS + 0x680 * 8) >> 2;
const HENVCFG = (CSRS + 0x60a * 8) >> 2;
const MENVCFG = (CSRS + 0x30a * 8) >> 2;

const MPV_HIGH = 1 << 7; // mstatus bit 39
const PBMTE_HIGH = 1 << 30; // menvcfg bit 62
const ADUE_HIGH = 1 << 29; // menvcfg bit 61

// Page table entry bits (privileged spec 1.13, section 11.4.1 "Addressing and Memory Protection").
const V = 1;
const R = 2;
const W = 4;
const X = 8;
const U = 16;
const A = 64;
const D = 128;
const PTE_RESERVED_HIGH = 0xffc0_0000; // bits 63:54: N, PBMT and reserved
const PTE_PBMT_HIGH = 0x6000_0000;
const PTE_NAPOT_HIGH = 1 << 31; // N, bit 63

const GUEST_PAGE_CAUSE = [Cause.LOAD_GUEST_PAGE, Cause.STORE_GUEST_PAGE, Cause.INSTRUCTION_GUEST_PAGE] as const;
const PAGE_CAUSE = [Cause.LOAD_PAGE, Cause.STORE_PAGE, Cause.INSTRUCTION_PAGE] as const;
const ACCESS_CAUSE = [Cause.LOAD_ACCESS, Cause.STORE_ACCESS, Cause.INSTRUCTION_ACCESS] as const;
const PMP_ACCESS: readonly PmpAccess[] = ["read", "write", "execute"];

const PMPCFG0 = (CSRS + 0x3a0 * 8) >> 2;
const PMPADDR0 = (CSRS + 0x3b0 * 8) >> 2;
const PMP_WORDS = 8 + 32; // pmpcfg0..3 and pmpaddr0..15
const NOT_PHYSICAL = -3;
const GUEST_FAULT = -4;
/** htinst of a guest-page fault of a page-table access for VS-stage translation: a read, a write (H, "Transformed Instruction"). */
const PSEUDO_READ = 0x3000;
const PSEUDO_WRITE = 0x3020;

/**
 * Address translation of one hart: Sv39, Sv48, Sv57 and bare, PMP, page leases; the translations are kept in tlb-sets.ts.
 * Accessed and dirty bits are set here, by compare-and-swap (Svadu), or fault when menvcfg.ADUE is clear (Svade).
 * Svpbmt: memory types change nothing, all accesses are coherent. Svnapot: 64 KiB pages.
 * A guest's addresses (V = 1, chapter H) go through two stages: its own page tables, whose addresses and results are
 * guest-physical, and the hypervisor's (hgatp). TLB entries hold both in one.
 * Addresses come as two 32-bit halves, so that a TLB miss allocates no BigInt.
 */
export class Mmu implements TranslationListener {
  /** Low 12 bits included; valid after `translate` answered DEVICE. */
  devicePhysical = 0;
  /** Set while a debugger watches pages. */
  watch: PageWatch | undefined;
  misses = 0;

  readonly #options: MmuOptions;
  readonly #cells: HartCells;
  readonly #i32: Int32Array;
  /** Physical page number of the first page of RAM, and how many there are. */
  readonly #firstPage: number;
  readonly #ramPages: number;
  readonly #ramOffset: number;
  readonly #tlb: Tlb;
  /** PMP decisions per page of RAM: bit `access` below M-mode, bit 3 + `access` in M-mode. */
  readonly #pmpKnown: Uint8Array;
  readonly #pmpAllowed: Uint8Array;
  readonly #pmpWords = new Int32Array(PMP_WORDS);
  /** Privilege and V of the access that is being translated. */
  #privilege = 0;
  #virtual = false;
  /** HLV, HLVX, HSV: the guest privilege they act with, and whether execute permission counts instead of read. */
  #asGuest: { readonly privilege: number; readonly execute: boolean } | undefined;

  constructor(options: MmuOptions) {
    this.#options = options;
    this.#cells = options.cells;
    this.#i32 = new Int32Array(options.memory.buffer);
    this.#firstPage = options.ramBase / 4096;
    this.#ramPages = options.ramBytes / 4096;
    this.#pmpKnown = new Uint8Array(this.#ramPages);
    this.#pmpAllowed = new Uint8Array(this.#ramPages);
    this.#ramOffset = options.ramOffset;
    this.#tlb = new Tlb(this.#i32, options.cells);
  }

  get flushes(): number {
    return this.#tlb.flushes;
  }
  get pageFlushes(): number {
    return this.#tlb.pageFlushes;
  }
  /** Addends of all fetch TLB entries, and of some that were since replaced. */
  get fetched(): Set<number> {
    return this.#tlb.fetched;
  }

  contextChanged(): void {
    this.#tlb.contextChanged();
  }
  flushTlb(): void {
    this.#checkPmp();
    this.#tlb.flush();
  }
  flushGuest(): void {
    this.#tlb.flushGuest();
  }
  /** sfence.vma of one address, in all address spaces. */
  flushPage(address: bigint): void {
    if (this.#tlb.flushPage(address)) return;
    if (this.#cells.i32[VIRTUAL >> 2]) this.flushGuest();
    else this.flushTlb();
  }
  flushFetch(): void {
    this.#tlb.flushFetch();
  }

  /** Installs a translation. `addend` as in tlb.ts. */
  fill(access: Access, low: number, high: number, addend: number): void {
    if (!this.#asGuest) this.#tlb.fill(access, low, high, addend); // else not a translation of the hart's own mode
  }

  /**
   * Translates one address for an access that stays in its page. Answers its place in linear memory (0 and up) when it
   * is RAM, and then the page's TLB entry is filled (loads and stores only); DEVICE; or FAULT with TRAP_CAUSE and
   * TRAP_VALUE set. `probe`: only find out; set no accessed and dirty bits, fill no TLB entry.
   */
  translate(low: number, high: number, access: Access, probe = false): number {
    this.misses++;
    this.#cells.f64[(TLB_MISSES >> 3) + access]!++;
    if (this.watch !== undefined && !probe && this.watch.stops(low, high, access)) return this.#fault(DEBUG_CAUSE, low, high);
    const { core, physical } = this.#options;
    for (;;) {
      const givenUp = Atomics.load(this.#cells.i32, GIVEN_UP >> 2);
      this.#takeMode(access);
      const privilege = this.#privilege;
      const page = this.#walk(low, high, access, probe);
      if (page < 0) return this.#fault(page === FAULT ? PAGE_CAUSE[access] : page === GUEST_FAULT ? GUEST_PAGE_CAUSE[access] : ACCESS_CAUSE[access], low, high);
      const ramPage = page - this.#firstPage;
      if (ramPage < 0 || ramPage >= this.#ramPages) {
        if (page >= PHYSICAL_PAGES) return this.#fault(ACCESS_CAUSE[access], low, high);
        this.devicePhysical = page * 4096 + (low & 0xfff);
        return core.pmpAllows(BigInt(page) << 12n, PMP_ACCESS[access]!, privilege) ? DEVICE : this.#fault(ACCESS_CAUSE[access], low, high);
      }
      if (!this.#permitted(ramPage, access, privilege)) return this.#fault(ACCESS_CAUSE[access], low, high);
      const write = access === Access.WRITE;
      if (!physical.holds?.(ramPage, write)) {
        if (!physical.ensurePage(BigInt(page) << 12n, write)) return this.#fault(ACCESS_CAUSE[access], low, high);
        // Pages were recalled while ensurePage blocked: the page tables may have changed, walk again.
        if (Atomics.load(this.#cells.i32, GIVEN_UP >> 2) !== givenUp) continue;
      }
      const place = ramPage * 4096 + this.#ramOffset + (low & 0xfff);
      if (access !== Access.EXECUTE && !probe && !this.watch?.bypass) this.fill(access, low, high, (place - low) | 0);
      return place;
    }
  }

  /** Guest-physical address of a place in linear memory. */
  physicalOf(place: number): number {
    return place - this.#ramOffset + this.#firstPage * 4096;
  }
  /** RAM page number (0 = first page of RAM) of a place in linear memory. */
  ramPage(place: number): number {
    return (place - this.#ramOffset) >>> 12;
  }

  /** PMP decision for a page of RAM, remembered until a PMP register changes. */
  #permitted(ramPage: number, access: Access, privilege: number): boolean {
    const bit = (privilege === 3 ? 8 : 1) << access;
    const known = this.#pmpKnown[ramPage]!;
    if (known & bit) return (this.#pmpAllowed[ramPage]! & bit) !== 0;
    const allowed = this.#options.core.pmpAllows(BigInt(ramPage + this.#firstPage) << 12n, PMP_ACCESS[access]!, privilege);
    this.#pmpKnown[ramPage]! |= bit;
    if (allowed) this.#pmpAllowed[ramPage]! |= bit;
    else this.#pmpAllowed[ramPage]! &= ~bit;
    return allowed;
  }

  /** PMP registers are only written with a flush after it: compare them with what the remembered decisions come from. */
  #checkPmp(): void {
    const cells = this.#cells.i32;
    let same = true;
    for (let i = 0; i < PMP_WORDS; i++) {
      const word = cells[(i < 8 ? PMPCFG0 : PMPADDR0 - 8) + i]!;
      if (word === this.#pmpWords[i]) continue;
      this.#pmpWords[i] = word;
      same = false;
    }
    if (!same) this.#pmpKnown.fill(0);
  }

  #fault(cause: number, low: number, high: number): typeof FAULT {
    const cells = this.#cells.i32;
    cells[TRAP_CAUSE >> 2] = cause;
    cells[(TRAP_CAUSE >> 2) + 1] = 0;
    cells[TRAP_VALUE >> 2] = low;
    cells[(TRAP_VALUE >> 2) + 1] = high;
    cells[TRAP_GUEST >> 2] = this.#virtual ? 1 : 0;
    return FAULT;
  }

  /** Raises an access fault for an address that `translate` accepted (a device that does not answer). */
  accessFault(low: number, high: number, access: Access): void {
    this.#takeMode(access);
    this.#fault(ACCESS_CAUSE[access], low, high);
  }
  /** Raises a misaligned exception: atomics need natural alignment. */
  misaligned(low: number, high: number, access: Access): void {
    this.#takeMode(access);
    this.#fault(access === Access.READ ? Cause.LOAD_MISALIGNED : Cause.STORE_MISALIGNED, low, high);
  }

  /** Does memory accesses as HLV, HLVX (`execute`) and HSV do: as the guest would, with the privilege of hstatus.SPVP. */
  asGuest<T>(privilege: number, execute: boolean, work: () => T): T {
    this.#asGuest = { privilege, execute };
    try {
      return work();
    } finally {
      this.#asGuest = undefined;
    }
  }

  /** The privilege and V that an access has: MPRV makes loads and stores those of mstatus.MPP and MPV. */
  #takeMode(access: Access): void {
    const cells = this.#cells.i32;
    if (this.#asGuest) {
      this.#privilege = this.#asGuest.privilege;
      this.#virtual = true;
      return;
    }
    this.#privilege = cells[PRIVILEGE >> 2]!;
    this.#virtual = cells[VIRTUAL >> 2] !== 0;
    const status = cells[MSTATUS]!;
    if (access === Access.EXECUTE || !(status & MPRV)) return;
    this.#privilege = (status >> 11) & 3;
    this.#virtual = this.#privilege !== 3 && (cells[MSTATUS + 1]! & MPV_HIGH) !== 0;
  }

  /**
   * The physical page number, FAULT (page fault), GUEST_FAULT (guest-page fault) or NOT_PHYSICAL (access fault). Spec: section
   * 11.3.2 "Virtual Address Translation Process"; H, "Two-Stage Address Translation". Page numbers are small integers unless
   * the page tables say otherwise (44 bits): then doubles, exact.
   */
  #walk(low: number, high: number, access: Access, probe: boolean): number {
    const cells = this.#cells.i32;
    const virtual = this.#virtual;
    const privilege = this.#privilege;
    // While the hart is in V = 1 the guest's registers are where the supervisor's are (hypervisor.ts).
    const exchanged = virtual && cells[VIRTUAL >> 2] === 0;
    const satp = exchanged ? VSATP : SATP;
    const satpHigh = cells[satp + 1]!;
    const mode = satpHigh >>> 28;
    if (privilege === 3 || mode === 0) {
      if (virtual) return this.#guestPage(page52(low, high), low, access, probe);
      return page52(low, high);
    }
    const levels = mode - 5; // 8: Sv39, 9: Sv48, 10: Sv57
    // Bits above the highest translated one must all equal it.
    const sign = high >> (levels === 3 ? 6 : levels === 4 ? 15 : 24);
    if (sign !== 0 && sign !== -1) return FAULT;

    const i32 = this.#i32;
    let status = cells[exchanged ? VSSTATUS : MSTATUS]!;
    let config = cells[MENVCFG + 1]!;
    if (virtual) {
      status |= cells[exchanged ? MSTATUS : VSSTATUS]! & MXR; // the hypervisor's MXR is for both stages
      config &= cells[HENVCFG + 1]!;
    }
    const allowedHigh = config & PBMTE_HIGH ? PTE_PBMT_HIGH | PTE_NAPOT_HIGH : PTE_NAPOT_HIGH;
    restart: for (;;) {
      let ppn = pageOf(cells[satp]!, satpHigh, 0);
      for (let level = levels - 1; level >= 0; level--) {
        const slot = index(low, high, level);
        let tablePage = ppn;
        if (virtual) {
          tablePage = this.#guestTable(ppn, slot, PSEUDO_READ, probe);
          if (tablePage < 0) return tablePage;
        }
        const table = this.#table(tablePage, false);
        if (table === NOT_PHYSICAL) return NOT_PHYSICAL;
        const pte = table + slot * 2;
        const bits = Atomics.load(i32, pte);
        const upper = i32[pte + 1]!;
        if (!(bits & V) || (bits & (R | W)) === W || upper & PTE_RESERVED_HIGH & ~allowedHigh) return FAULT;
        const from = ppn;
        ppn = pageOf(bits, upper, 10);
        if (!(bits & (R | X))) {
          if (bits & (A | D | U) || upper & PTE_RESERVED_HIGH) return FAULT;
          continue;
        }
        if (!this.#allowed(bits, access, privilege, status) || (upper & PTE_PBMT_HIGH) === PTE_PBMT_HIGH) return FAULT; // PBMT 3 is reserved
        if (upper < 0) {
          // Svnapot: the only size is 64 KiB, at the last level: ppn[3:0] = 8 stands for the address's bits.
          if (level > 0 || (ppn & 15) !== 8) return FAULT;
          ppn += ((low >>> 12) & 15) - 8;
          this.#tlb.sawSuperpage(low, high, 1);
        }
        if (level > 0) {
          const pages = SUPERPAGE_PAGES[level]!;
          if (ppn % pages !== 0) return FAULT; // misaligned superpage
          ppn += page52(low, high) % pages;
          this.#tlb.sawSuperpage(low, high, level);
        }
        const wanted = access === Access.WRITE ? A | D : A;
        if ((bits & wanted) !== wanted && !(config & ADUE_HIGH)) return FAULT;
        if ((bits & wanted) !== wanted && !probe) {
          const written = virtual ? this.#guestTable(from, slot, PSEUDO_WRITE, probe) : 0;
          if (written < 0) return written;
          if (this.#table(tablePage, true) === NOT_PHYSICAL) return NOT_PHYSICAL;
          if (Atomics.compareExchange(i32, pte, bits, bits | wanted) !== bits) continue restart;
        }
        return virtual ? this.#guestPage(ppn, low, access, probe) : ppn;
      }
      return FAULT;
    }
  }

  /** Page permissions, as HLVX sees them: execute permission is read permission. */
  #allowed(bits: number, access: Access, privilege: number, status: number): boolean {
    if (!this.#asGuest?.execute) return permitted(bits, access, privilege, status);
    return (bits & X) !== 0 && permitted(bits | R, access, privilege, status);
  }

  /** The physical page of a page table of the guest; the access is implicit. */
  #guestTable(guestPage: number, slot: number, pseudo: typeof PSEUDO_READ | typeof PSEUDO_WRITE, probe: boolean): number {
    const page = this.#stageTwo(guestPage, pseudo === PSEUDO_READ ? Access.READ : Access.WRITE, true, probe);
    return page === GUEST_FAULT ? this.#guestFault(guestPage, slot * 8, pseudo) : page;
  }
  /** The physical page of what the guest accesses. */
  #guestPage(guestPage: number, low: number, access: Access, probe: boolean): number {
    const page = this.#stageTwo(guestPage, access, false, probe);
    return page === GUEST_FAULT ? this.#guestFault(guestPage, low & 0xfff, 0) : page;
  }
  #guestFault(guestPage: number, offset: number, instruction: number): typeof GUEST_FAULT {
    this.#cells.u64[TRAP_GPA >> 3] = ((BigInt(guestPage) << 12n) | BigInt(offset)) >> 2n;
    this.#cells.i32[TRAP_INSTRUCTION >> 2] = instruction;
    return GUEST_FAULT;
  }

  /**
   * G-stage translation (H, "Guest Physical Address Translation"): as the first stage, but with two more address bits in a root
   * table of 16 KiB, and every access is one of user mode.
   */
  #stageTwo(guestPage: number, access: Access, implicit: boolean, probe: boolean): number {
    const cells = this.#cells.i32;
    const rootHigh = cells[HGATP + 1]!;
    const mode = rootHigh >>> 28;
    if (mode === 0) return guestPage;
    const levels = mode - 5;
    if (guestPage >= 4 * 512 ** levels) return GUEST_FAULT;
    const i32 = this.#i32;
    const config = cells[MENVCFG + 1]!;
    const allowedHigh = config & PBMTE_HIGH ? PTE_PBMT_HIGH | PTE_NAPOT_HIGH : PTE_NAPOT_HIGH;
    // Only the hypervisor's MXR counts here; HLVX needs X in both stages, but page tables are always read.
    const status = implicit ? 0 : cells[cells[VIRTUAL >> 2] ? VSSTATUS : MSTATUS]! & MXR;
    restart: for (;;) {
      let ppn = pageOf(cells[HGATP]!, rootHigh, 0);
      for (let level = levels - 1; level >= 0; level--) {
        const slot = Math.floor(guestPage / SUPERPAGE_PAGES[level]!) % (level === levels - 1 ? 2048 : 512);
        const tablePage = ppn + (slot >> 9);
        const table = this.#table(tablePage, false);
        if (table === NOT_PHYSICAL) return NOT_PHYSICAL;
        const pte = table + (slot & 511) * 2;
        const bits = Atomics.load(i32, pte);
        const upper = i32[pte + 1]!;
        if (!(bits & V) || (bits & (R | W)) === W || upper & PTE_RESERVED_HIGH & ~allowedHigh) return GUEST_FAULT;
        ppn = pageOf(bits, upper, 10);
        if (!(bits & (R | X))) {
          if (bits & (A | D | U) || upper & PTE_RESERVED_HIGH) return GUEST_FAULT;
          continue;
        }
        const allowed = implicit ? permitted(bits, access, 0, status) : this.#allowed(bits, access, 0, status);
        if (!allowed || (upper & PTE_PBMT_HIGH) === PTE_PBMT_HIGH) return GUEST_FAULT;
        if (upper < 0) {
          if (level > 0 || (ppn & 15) !== 8) return GUEST_FAULT;
          ppn += (guestPage % 16) - 8;
        }
        if (level > 0) {
          const pages = SUPERPAGE_PAGES[level]!;
          if (ppn % pages !== 0) return GUEST_FAULT;
          ppn += guestPage % pages;
        }
        const wanted = access === Access.WRITE ? A | D : A;
        if ((bits & wanted) !== wanted && !(config & ADUE_HIGH)) return GUEST_FAULT;
        if ((bits & wanted) !== wanted && !probe) {
          if (this.#table(tablePage, true) === NOT_PHYSICAL) return NOT_PHYSICAL;
          if (Atomics.compareExchange(i32, pte, bits, bits | wanted) !== bits) continue restart;
        }
        return ppn;
      }
      return GUEST_FAULT;
    }
  }

  /** Index in #i32 of the page table at a physical page. Page tables are accessed with S-mode privilege. */
  #table(ppn: number, write: boolean): number {
    const ramPage = ppn - this.#firstPage;
    if (ramPage < 0 || ramPage >= this.#ramPages) return NOT_PHYSICAL;
    if (!this.#permitted(ramPage, write ? Access.WRITE : Access.READ, 1)) return NOT_PHYSICAL;
    const { physical } = this.#options;
    if (!physical.holds?.(ramPage, write) && !physical.ensurePage(BigInt(ppn) << 12n, write)) return NOT_PHYSICAL;
    return (ramPage * 4096 + this.#ramOffset) / 4;
  }
}

/** Pages of a leaf at each level. */
const SUPERPAGE_PAGES = [1, 512, 512 ** 2, 512 ** 3, 512 ** 4] as const;
/** Nothing of ours lies above 2^44. */
const PHYSICAL_PAGES = 2 ** 32;

/** The page number in a 64-bit word: 44 bits from bit 0 (satp) or 10 (page table entry). */
function pageOf(low: number, high: number, shift: 0 | 10): number {
  return shift === 0 ? (high & 0xfff) * 0x1_0000_0000 + (low >>> 0) : (high & 0x3f_ffff) * 0x40_0000 + (low >>> 10);
}
/** The page number of an address of 64 bits. */
function page52(low: number, high: number): number {
  return (high >>> 0) * 0x10_0000 + (low >>> 12);
}

/** VPN[level] of an address. */
function index(low: number, high: number, level: number): number {
  switch (level) {
    case 0: return (low >>> 12) & 511;
    case 1: return (low >>> 21) & 511;
    case 2: return ((low >>> 30) | (high << 2)) & 511;
    case 3: return (high >>> 7) & 511;
    default: return (high >>> 16) & 511;
  }
}

function permitted(bits: number, access: Access, privilege: number, status: number): boolean {
  if (privilege === 0) {
    if (!(bits & U)) return false;
  } else if (bits & U && (access === Access.EXECUTE || !(status & SUM))) return false;
  if (access === Access.READ) return (bits & R) !== 0 || ((status & MXR) !== 0 && (bits & X) !== 0);
  return (bits & (access === Access.WRITE ? W : X)) !== 0;
}
