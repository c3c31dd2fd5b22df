/**
 * The control and status registers of our harts as data (privileged manual, chapter CSRs; Zicsr, Zicntr, Sstc).
 * A number that is not in the table is an illegal instruction when accessed.
 */

import {
  ALL_INTERRUPTS, DELEGABLE_TO_GUEST, DELEGABLE_WITH_H, ENVCFG, GUEST_INTERRUPTS, HGATP, HSTATUS_FIXED, HSTATUS_WRITABLE,
  MENVCFG_WRITABLE, MIP, misa, MSTATUS_FIXED, MSTATUS_WRITABLE, SATP, SENVCFG_WRITABLE, SGEIP, SSTATUS_READABLE, SSTATUS_WRITABLE,
  SUPERVISOR_INTERRUPTS, MSTATUS, type Privilege,
} from "./privileged.ts";

export interface Csr {
  readonly number: number;
  readonly name: string;
  /** Lowest mode with access: bits 9:8 of the number. 2: hypervisor CSRs, for HS-mode. */
  readonly privilege: Privilege | 2;
  /** Bits 11:10 are 3: a write is an illegal instruction. */
  readonly readOnly: boolean;
  /**
   * plain: a cell; reads give `cell & readMask`, writes `(cell & ~writeMask) | (value & writeMask)`.
   * hook: the core must act as well (a view of another register, a live value, an extra access check, a WARL rule, or
   * an effect on translation or interrupts); the masks still say which bits exist and which can change.
   */
  readonly kind: "plain" | "hook";
  readonly readMask: bigint;
  readonly writeMask: bigint;
  /** Value of the cell at reset. mhartid: the core puts the hart's number in the cell. */
  readonly reset: bigint;
}

const ALL = (1n << 64n) - 1n;

type Properties = Partial<Pick<Csr, "readMask" | "writeMask" | "reset">>;

function row(kind: Csr["kind"], name: string, number: number, { readMask = ALL, writeMask = ALL, reset = 0n }: Properties): Csr {
  const readOnly = number >>> 10 === 3;
  return {
    number, name, kind, readMask, reset, readOnly,
    privilege: ((number >>> 8) & 3) as Privilege | 2,
    writeMask: readOnly ? 0n : writeMask,
  };
}
const plain = (name: string, number: number, properties: Properties = {}): Csr => row("plain", name, number, properties);
const hook = (name: string, number: number, properties: Properties = {}): Csr => row("hook", name, number, properties);
const zero = (name: string, number: number): Csr => plain(name, number, { readMask: 0n, writeMask: 0n });
/** `count` registers numbered and named upwards. */
const several = (count: number, make: (index: number) => Csr): Csr[] => Array.from({ length: count }, (_, index) => make(index));

const only = (mask: bigint): Properties => ({ readMask: mask, writeMask: mask });
const EXCEPT_BIT_0 = only(ALL & ~1n); // xepc: IALIGN is 16
const EXCEPT_BIT_1 = only(ALL & ~2n); // xtvec: MODE is 0 or 1
const VSSIP = MIP.SSIP << 1n;
const HPM = 8; // mhpmcounter3 to 10; the others are read-only zero and not for lower modes
const COUNTERS = 7n | (((1n << BigInt(HPM)) - 1n) << 3n); // CY, TM, IR

export const CSRS: readonly Csr[] = [
  // Floating point: illegal while mstatus.FS is Off; writes make it Dirty; fflags and frm are views of fcsr.
  hook("fflags", 0x001, only(0x1fn)),
  hook("frm", 0x002, only(0x7n)),
  hook("fcsr", 0x003, only(0xffn)),

  // Unprivileged counters: access depends on mcounteren and scounteren.
  hook("cycle", 0xc00),
  hook("time", 0xc01),
  hook("instret", 0xc02),
  ...several(29, (i) => hook(`hpmcounter${i + 3}`, 0xc03 + i, i < HPM ? {} : { readMask: 0n })),

  // Supervisor
  hook("sstatus", 0x100, { readMask: SSTATUS_READABLE, writeMask: SSTATUS_WRITABLE, reset: MSTATUS_FIXED & MSTATUS.UXL }),
  hook("sie", 0x104, only(SUPERVISOR_INTERRUPTS)),
  plain("stvec", 0x105, EXCEPT_BIT_1),
  plain("scounteren", 0x106, only(COUNTERS)),
  hook("senvcfg", 0x10a, only(SENVCFG_WRITABLE)),
  plain("sscratch", 0x140),
  plain("sepc", 0x141, EXCEPT_BIT_0),
  plain("scause", 0x142),
  plain("stval", 0x143),
  hook("sip", 0x144, { readMask: SUPERVISOR_INTERRUPTS, writeMask: 1n << 1n }), // only SSIP is writable from S-mode
  hook("stimecmp", 0x14d, { reset: ALL }), // needs menvcfg.STCE and mcounteren.TM below M-mode (Sstc)
  hook("satp", 0x180, only(SATP.MODE | SATP.ASID | SATP.PPN)),

  // Machine information: 0 = not implemented, which every register but mhartid may say.
  zero("mvendorid", 0xf11),
  zero("marchid", 0xf12),
  zero("mimpid", 0xf13),
  plain("mhartid", 0xf14),
  zero("mconfigptr", 0xf15),

  // Machine trap setup and handling
  hook("mstatus", 0x300, {
    readMask: MSTATUS_WRITABLE | MSTATUS_FIXED | MSTATUS.SD | MSTATUS.GVA | MSTATUS.MPV, writeMask: MSTATUS_WRITABLE | MSTATUS.GVA | MSTATUS.MPV,
    reset: MSTATUS_FIXED,
  }),
  plain("misa", 0x301, { writeMask: 0n, reset: misa("ABCDFIMSU") }),
  hook("medeleg", 0x302, only(DELEGABLE_WITH_H)), // the fields of H only with H, here and below
  hook("mideleg", 0x303, { readMask: SUPERVISOR_INTERRUPTS | GUEST_INTERRUPTS | SGEIP, writeMask: SUPERVISOR_INTERRUPTS }),
  hook("mie", 0x304, only(ALL_INTERRUPTS | GUEST_INTERRUPTS | SGEIP)),
  plain("mtvec", 0x305, EXCEPT_BIT_1),
  plain("mcounteren", 0x306, only(COUNTERS)),
  // Hardware sets accessed and dirty bits unless it is told not to, as harts without this bit do.
  hook("menvcfg", 0x30a, { ...only(MENVCFG_WRITABLE), reset: ENVCFG.ADUE }),
  hook("mcountinhibit", 0x320, only(COUNTERS & ~2n)),
  ...several(HPM, (i) => hook(`mhpmevent${i + 3}`, 0x323 + i, only(0xffff_ffffn))), // WARL: events that there are
  ...several(29 - HPM, (i) => zero(`mhpmevent${i + 3 + HPM}`, 0x323 + HPM + i)),
  plain("mscratch", 0x340),
  plain("mepc", 0x341, EXCEPT_BIT_0),
  plain("mcause", 0x342),
  plain("mtval", 0x343),
  hook("mip", 0x344, { readMask: ALL_INTERRUPTS | GUEST_INTERRUPTS, writeMask: SUPERVISOR_INTERRUPTS | VSSIP }), // STIP read-only while STCE is set
  hook("mtinst", 0x34a), // H
  hook("mtval2", 0x34b), // H

  // Hypervisor (H): what the guest is given, why it trapped, and the registers that it sees as its own supervisor ones.
  hook("hstatus", 0x600, { readMask: HSTATUS_WRITABLE | HSTATUS_FIXED, writeMask: HSTATUS_WRITABLE, reset: HSTATUS_FIXED }),
  plain("hedeleg", 0x602, only(DELEGABLE_TO_GUEST)),
  hook("hideleg", 0x603, only(GUEST_INTERRUPTS)),
  hook("hie", 0x604, only(GUEST_INTERRUPTS | SGEIP)),
  hook("htimedelta", 0x605),
  plain("hcounteren", 0x606, only(COUNTERS)),
  zero("hgeie", 0x607), // GEILEN = 0
  hook("henvcfg", 0x60a, only(MENVCFG_WRITABLE)),
  plain("htval", 0x643),
  hook("hip", 0x644, { readMask: GUEST_INTERRUPTS, writeMask: VSSIP }),
  hook("hvip", 0x645, only(GUEST_INTERRUPTS)),
  plain("htinst", 0x64a),
  hook("hgatp", 0x680, only(HGATP.MODE | HGATP.PPN)),
  zero("hgeip", 0xe12),
  hook("vsstatus", 0x200, { readMask: SSTATUS_READABLE, writeMask: SSTATUS_WRITABLE, reset: MSTATUS_FIXED & MSTATUS.UXL }),
  hook("vsie", 0x204, only(SUPERVISOR_INTERRUPTS)),
  plain("vstvec", 0x205, EXCEPT_BIT_1),
  plain("vsscratch", 0x240),
  plain("vsepc", 0x241, EXCEPT_BIT_0),
  plain("vscause", 0x242),
  plain("vstval", 0x243),
  hook("vsip", 0x244, { readMask: SUPERVISOR_INTERRUPTS, writeMask: 1n << 1n }),
  hook("vstimecmp", 0x24d, { reset: ALL }), // Sstc
  hook("vsatp", 0x280, only(SATP.MODE | SATP.ASID | SATP.PPN)),

  // Physical memory protection: 64 entries exist by number (the manual allows 0, 16 or 64), of which the first 16 can
  // be set; a locked entry is WARL, hence the hooks. RV64 has no odd pmpcfg.
  ...several(2, (i) => hook(`pmpcfg${2 * i}`, 0x3a0 + 2 * i, only(0x9f9f_9f9f_9f9f_9f9fn))), // L, A, X, W, R of 8 entries
  ...several(6, (i) => zero(`pmpcfg${2 * i + 4}`, 0x3a4 + 2 * i)),
  ...several(16, (i) => hook(`pmpaddr${i}`, 0x3b0 + i, only((1n << 54n) - 1n))),
  ...several(48, (i) => zero(`pmpaddr${i + 16}`, 0x3c0 + i)),

  // Machine counters
  hook("mcycle", 0xb00),
  hook("minstret", 0xb02),
  ...several(HPM, (i) => hook(`mhpmcounter${i + 3}`, 0xb03 + i)),
  ...several(29 - HPM, (i) => zero(`mhpmcounter${i + 3 + HPM}`, 0xb03 + HPM + i)),

  // Debug triggers: none (tselect stays 0 and tdata1.type 0 says that the trigger does not exist).
  zero("tselect", 0x7a0),
  zero("tdata1", 0x7a1),
  zero("tdata2", 0x7a2),
  zero("tdata3", 0x7a3),
];

export const CSR_BY_NUMBER: ReadonlyMap<number, Csr> = new Map(CSRS.map((csr) => [csr.number, csr]));
export const CSR_BY_NAME: ReadonlyMap<string, Csr> = new Map(CSRS.map((csr) => [csr.name, csr]));

/** Number of a CSR of the table; throws for a name that is not in it. */
export function csrNumber(name: string): number {
  const csr = CSR_BY_NAME.get(name);
  if (!csr) throw new Error(`no CSR is named ${name}`);
  return csr.number;
}
