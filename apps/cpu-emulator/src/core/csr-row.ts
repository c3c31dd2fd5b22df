import type { Privileged } from "./privileged.ts";

/** The behaviour of one CSR; csr.ts and hypervisor-csr.ts define them. */
export interface CsrRow {
  readonly name: string;
  read(hart: Privileged): bigint;
  write(hart: Privileged, value: bigint): void;
  /** What csrrs and csrrc modify, where that is not what they read (mip.SEIP). */
  base?(hart: Privileged): bigint;
  /** Conditions besides privilege and read-only: false raises an illegal instruction, "virtual" a virtual instruction exception. */
  legal?(hart: Privileged): boolean | "virtual";
}

export const Csr = {
  FFLAGS: 0x001, FRM: 0x002, FCSR: 0x003,
  SSTATUS: 0x100, SIE: 0x104, STVEC: 0x105, SCOUNTEREN: 0x106, SENVCFG: 0x10a,
  SSCRATCH: 0x140, SEPC: 0x141, SCAUSE: 0x142, STVAL: 0x143, SIP: 0x144, STIMECMP: 0x14d, SATP: 0x180,
  MSTATUS: 0x300, MISA: 0x301, MEDELEG: 0x302, MIDELEG: 0x303, MIE: 0x304, MTVEC: 0x305, MCOUNTEREN: 0x306,
  MENVCFG: 0x30a, MCOUNTINHIBIT: 0x320,
  MSCRATCH: 0x340, MEPC: 0x341, MCAUSE: 0x342, MTVAL: 0x343, MIP: 0x344,
  MTINST: 0x34a, MTVAL2: 0x34b,
  PMPCFG0: 0x3a0, PMPADDR0: 0x3b0,
  VSSTATUS: 0x200, VSIE: 0x204, VSTVEC: 0x205, VSSCRATCH: 0x240, VSEPC: 0x241, VSCAUSE: 0x242, VSTVAL: 0x243, VSIP: 0x244,
  VSTIMECMP: 0x24d, VSATP: 0x280,
  HSTATUS: 0x600, HEDELEG: 0x602, HIDELEG: 0x603, HIE: 0x604, HTIMEDELTA: 0x605, HCOUNTEREN: 0x606, HENVCFG: 0x60a,
  HTVAL: 0x643, HIP: 0x644, HVIP: 0x645, HTINST: 0x64a, HGATP: 0x680,
  MCYCLE: 0xb00, MINSTRET: 0xb02,
  CYCLE: 0xc00, TIME: 0xc01, INSTRET: 0xc02,
  MVENDORID: 0xf11, MARCHID: 0xf12, MIMPID: 0xf13, MHARTID: 0xf14, MCONFIGPTR: 0xf15,
} as const;

/** The hpm counters that there are, 3 to 10, as bits of mcountinhibit and mcounteren. */
export const HPM_MASK = 0x7f8;

/** mstatus fields (section 3.1.6); all that we implement lie in the low word, UXL, SXL and SD aside. */
export const MStatus = {
  SIE: 1 << 1, MIE: 1 << 3, SPIE: 1 << 5, MPIE: 1 << 7, SPP: 1 << 8, MPP: 3 << 11, FS: 3 << 13, MPRV: 1 << 17,
  SUM: 1 << 18, MXR: 1 << 19, TVM: 1 << 20, TW: 1 << 21, TSR: 1 << 22,
} as const;
export const SSTATUS_WRITABLE = MStatus.SIE | MStatus.SPIE | MStatus.SPP | MStatus.FS | MStatus.SUM | MStatus.MXR;
export const MSTATUS_WRITABLE =
  SSTATUS_WRITABLE | MStatus.MIE | MStatus.MPIE | MStatus.MPP | MStatus.MPRV | MStatus.TVM | MStatus.TW | MStatus.TSR;
/** mstatus.GVA and MPV, in the high word. */
export const MSTATUS_GVA_HIGH = 1 << 6;
export const MSTATUS_MPV_HIGH = 1 << 7;
export const MSTATUS_HIGH_WRITABLE = MSTATUS_GVA_HIGH | MSTATUS_MPV_HIGH;
/** SD, UXL and what of the low word S-mode sees. */
export const SSTATUS_VISIBLE = (1n << 63n) | (3n << 32n) | BigInt(SSTATUS_WRITABLE | (3 << 9) | (3 << 15));

/** Interrupt bits of mip and mie (section 3.1.9). */
export const Interrupt = { SSI: 1, MSI: 3, STI: 5, MTI: 7, SEI: 9, MEI: 11 } as const;
export const SSIP = 1 << 1;
export const MSIP = 1 << 3;
export const STIP = 1 << 5;
export const MTIP = 1 << 7;
export const SEIP = 1 << 9;
export const MEIP = 1 << 11;
export const VSSIP = SSIP << 1;
export const VSTIP = STIP << 1;
export const ALL_INTERRUPTS = SSIP | MSIP | STIP | MTIP | SEIP | MEIP;
export const SUPERVISOR_INTERRUPTS = SSIP | STIP | SEIP;
/** Interrupts of a guest, one place above the supervisor's (H). */
export const GUEST_INTERRUPTS = SUPERVISOR_INTERRUPTS << 1;
export const SGEIP = 1 << 12;

const rows: (CsrRow | undefined)[] = Array.from({ length: 4096 });
/** The row of a CSR number, or undefined. */
export function csrRow(number: number): CsrRow | undefined {
  return rows[number];
}
/** All numbers with a row, ascending. */
export function csrNumbers(): number[] {
  return rows.flatMap((row, number) => (row ? [number] : []));
}
export function row(number: number, definition: CsrRow): void {
  rows[number] = definition;
}
export const low = (value: bigint): number => Number(BigInt.asIntN(32, value));

/** hstatus fields (H), all in the low word, VSXL aside. */
export const HStatus = { GVA: 1 << 6, SPV: 1 << 7, SPVP: 1 << 8, HU: 1 << 9, VTVM: 1 << 20, VTW: 1 << 21, VTSR: 1 << 22 } as const;
