/**
 * Numbers of the privileged architecture (RISC-V privileged manual 1.12/1.13): modes, causes, CSR fields, page tables.
 * Bit fields are masks in place; `*_SHIFT` gives the position of multi-bit ones.
 */

const bit = (position: number): bigint => 1n << BigInt(position);

/** Privilege modes, as in mstatus.MPP. */
export const PRIVILEGE = { U: 0, S: 1, M: 3 } as const;
export type Privilege = (typeof PRIVILEGE)[keyof typeof PRIVILEGE];

/** mcause/scause codes of exceptions (Machine Cause Register, table "mcause values after trap"). */
export const EXCEPTION = {
  instructionMisaligned: 0,
  instructionAccess: 1,
  illegalInstruction: 2,
  breakpoint: 3,
  loadMisaligned: 4,
  loadAccess: 5,
  storeMisaligned: 6,
  storeAccess: 7,
  ecallU: 8,
  ecallS: 9,
  ecallM: 11,
  ecallVS: 10,
  instructionPage: 12,
  loadPage: 13,
  storePage: 15,
  instructionGuestPage: 20,
  loadGuestPage: 21,
  virtualInstruction: 22,
  storeGuestPage: 23,
} as const;

/** Interrupt codes: bit positions in mip and mie; the cause is `INTERRUPT_FLAG | code`. */
export const INTERRUPT = { SSI: 1, MSI: 3, STI: 5, MTI: 7, SEI: 9, MEI: 11 } as const;
export const INTERRUPT_FLAG = bit(63);
/** Highest first (Machine Interrupt Registers). */
export const INTERRUPT_PRIORITY = [INTERRUPT.MEI, INTERRUPT.MSI, INTERRUPT.MTI, INTERRUPT.SEI, INTERRUPT.SSI, INTERRUPT.STI] as const;

export const MIP = {
  SSIP: bit(INTERRUPT.SSI), MSIP: bit(INTERRUPT.MSI), STIP: bit(INTERRUPT.STI),
  MTIP: bit(INTERRUPT.MTI), SEIP: bit(INTERRUPT.SEI), MEIP: bit(INTERRUPT.MEI),
} as const;
/** Interrupts that M-mode may delegate, and that S-mode sees in sip and sie. */
export const SUPERVISOR_INTERRUPTS = MIP.SSIP | MIP.STIP | MIP.SEIP;
export const ALL_INTERRUPTS = SUPERVISOR_INTERRUPTS | MIP.MSIP | MIP.MTIP | MIP.MEIP;
/** Interrupts of a guest, one place above those of the supervisor (H, hvip). SGEI never comes: no guest external interrupts. */
export const GUEST_INTERRUPTS = SUPERVISOR_INTERRUPTS << 1n;
export const SGEIP = bit(12);

export const MSTATUS = {
  SIE: bit(1), MIE: bit(3), SPIE: bit(5), UBE: bit(6), MPIE: bit(7), SPP: bit(8),
  VS: 3n << 9n, MPP: 3n << 11n, FS: 3n << 13n, XS: 3n << 15n,
  MPRV: bit(17), SUM: bit(18), MXR: bit(19), TVM: bit(20), TW: bit(21), TSR: bit(22),
  UXL: 3n << 32n, SXL: 3n << 34n, SBE: bit(36), MBE: bit(37), GVA: bit(38), MPV: bit(39), SD: bit(63),
} as const;
export const MSTATUS_MPP_SHIFT = 11;
export const MSTATUS_SPP_SHIFT = 8;
export const MSTATUS_FS_SHIFT = 13;
/** Values of mstatus.FS. */
export const FS = { off: 0, initial: 1, clean: 2, dirty: 3 } as const;
/** UXL and SXL fixed at 64 bits (value 2). */
export const MSTATUS_FIXED = (2n << 32n) | (2n << 34n);
/** Fields software may change in our harts: little-endian only, no V, no X. MPP is WARL (2 is not a mode): a hook. */
export const MSTATUS_WRITABLE =
  MSTATUS.SIE | MSTATUS.MIE | MSTATUS.SPIE | MSTATUS.MPIE | MSTATUS.SPP | MSTATUS.MPP | MSTATUS.FS |
  MSTATUS.MPRV | MSTATUS.SUM | MSTATUS.MXR | MSTATUS.TVM | MSTATUS.TW | MSTATUS.TSR;
/** What of mstatus sstatus shows (Supervisor Status Register), and what it can write. */
export const SSTATUS_READABLE =
  MSTATUS.SIE | MSTATUS.SPIE | MSTATUS.UBE | MSTATUS.SPP | MSTATUS.VS | MSTATUS.FS | MSTATUS.XS |
  MSTATUS.SUM | MSTATUS.MXR | MSTATUS.UXL | MSTATUS.SD;
export const SSTATUS_WRITABLE = MSTATUS_WRITABLE & SSTATUS_READABLE;

/**
 * Fields of menvcfg; henvcfg has the same, senvcfg those of the low word. FIOM is writable and has no effect: our fences
 * order everything. CBIE: 0 illegal, 1 flush, 3 invalidate; 2 is reserved.
 */
export const ENVCFG = { FIOM: bit(0), CBIE: 3n << 4n, CBCFE: bit(6), CBZE: bit(7), ADUE: bit(61), PBMTE: bit(62), STCE: bit(63) } as const;
const ENVCFG_USER = ENVCFG.FIOM | ENVCFG.CBIE | ENVCFG.CBCFE | ENVCFG.CBZE;
export const SENVCFG_WRITABLE = ENVCFG_USER;
export const MENVCFG_WRITABLE = ENVCFG_USER | ENVCFG.ADUE | ENVCFG.PBMTE | ENVCFG.STCE;

/** hstatus: VSXL fixed at 64 bits; guests are little-endian; VGEIN stays 0. */
export const HSTATUS = {
  GVA: bit(6), SPV: bit(7), SPVP: bit(8), HU: bit(9), VTVM: bit(20), VTW: bit(21), VTSR: bit(22), VSXL: 3n << 32n,
} as const;
export const HSTATUS_FIXED = 2n << 32n;
export const HSTATUS_WRITABLE = HSTATUS.GVA | HSTATUS.SPV | HSTATUS.SPVP | HSTATUS.HU | HSTATUS.VTVM | HSTATUS.VTW | HSTATUS.VTSR;
/** Exceptions that M-mode may delegate: all but its own ecall and the reserved codes; and those that HS-mode may. */
export const DELEGABLE = 0xb3ffn;
export const DELEGABLE_WITH_H = 0xf0_b7ffn;
export const DELEGABLE_TO_GUEST = 0xb1ffn;
/** hgatp: as satp, with a VMID in place of the ASID (none here) and a root table of 16 KiB. */
export const HGATP = { MODE: 15n << 60n, PPN: (bit(44) - 1n) & ~3n } as const;

/** mcounteren and scounteren. */
export const COUNTEREN = { CY: bit(0), TM: bit(1), IR: bit(2) } as const;

/** satp (RV64): MODE 63:60, ASID 59:44, PPN 43:0. */
export const SATP = { MODE: 15n << 60n, ASID: 0xffffn << 44n, PPN: bit(44) - 1n } as const;
export const SATP_MODE_SHIFT = 60;
export const SATP_ASID_SHIFT = 44;
export const SATP_MODE = { bare: 0, sv39: 8, sv48: 9, sv57: 10 } as const;

/** Page table entry (Sv39, Addressing and Memory Protection). */
export const PTE = {
  V: bit(0), R: bit(1), W: bit(2), X: bit(3), U: bit(4), G: bit(5), A: bit(6), D: bit(7), RSW: 3n << 8n,
  PPN: (bit(44) - 1n) << 10n, RESERVED: 0x7fn << 54n, PBMT: 3n << 61n, N: bit(63),
} as const;
export const PTE_PPN_SHIFT = 10;
export const PAGE_SHIFT = 12;

/** tvec: MODE 1:0 (0 direct, 1 vectored), BASE above. */
export const TVEC_MODE = 3n;
export const TVEC_VECTORED = 1n;

/** misa: MXL = 2 (64 bits) and one bit per letter. */
export function misa(letters: string): bigint {
  return [...letters].reduce((value, letter) => value | bit(letter.charCodeAt(0) - 65), 2n << 62n);
}
