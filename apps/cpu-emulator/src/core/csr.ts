import { CSRS as TABLE, privileged as spec, type Csr as CsrDefinition } from "@polyvisor/isa";
import { CSRS, EXTERNAL_PENDING, FFLAGS, FRM, INSTRET } from "./hart-state.ts";
import type { Privileged } from "./privileged.ts";

/**
 * What reading and writing a control and status register does (privileged spec 1.13, machine and supervisor levels, Sstc;
 * unprivileged spec, Zicsr, Zicntr). libs/isa says which registers there are and which bits; `plain` ones are just
 * cells with masks, the others have their behaviour here. A number without a row does not exist: illegal instruction.
 * Privilege and read-only come from the number itself ("CSR address mapping conventions").
 */
export interface CsrRow {
  readonly name: string;
  read(hart: Privileged): bigint;
  write(hart: Privileged, value: bigint): void;
  /** What csrrs and csrrc modify, where that is not what they read (mip.SEIP). */
  base?(hart: Privileged): bigint;
  /** Conditions besides privilege and read-only. */
  legal?(hart: Privileged): boolean;
}

export const Csr = {
  FFLAGS: 0x001, FRM: 0x002, FCSR: 0x003,
  SSTATUS: 0x100, SIE: 0x104, STVEC: 0x105, SCOUNTEREN: 0x106, SENVCFG: 0x10a,
  SSCRATCH: 0x140, SEPC: 0x141, SCAUSE: 0x142, STVAL: 0x143, SIP: 0x144, STIMECMP: 0x14d, SATP: 0x180,
  MSTATUS: 0x300, MISA: 0x301, MEDELEG: 0x302, MIDELEG: 0x303, MIE: 0x304, MTVEC: 0x305, MCOUNTEREN: 0x306,
  MENVCFG: 0x30a, MCOUNTINHIBIT: 0x320,
  MSCRATCH: 0x340, MEPC: 0x341, MCAUSE: 0x342, MTVAL: 0x343, MIP: 0x344,
  PMPCFG0: 0x3a0, PMPADDR0: 0x3b0,
  MCYCLE: 0xb00, MINSTRET: 0xb02,
  CYCLE: 0xc00, TIME: 0xc01, INSTRET: 0xc02,
  MVENDORID: 0xf11, MARCHID: 0xf12, MIMPID: 0xf13, MHARTID: 0xf14, MCONFIGPTR: 0xf15,
} as const;

/** mstatus fields (section 3.1.6); all that we implement lie in the low word, UXL, SXL and SD aside. */
export const MStatus = {
  SIE: 1 << 1, MIE: 1 << 3, SPIE: 1 << 5, MPIE: 1 << 7, SPP: 1 << 8, MPP: 3 << 11, FS: 3 << 13, MPRV: 1 << 17,
  SUM: 1 << 18, MXR: 1 << 19, TVM: 1 << 20, TW: 1 << 21, TSR: 1 << 22,
} as const;
const SSTATUS_WRITABLE = MStatus.SIE | MStatus.SPIE | MStatus.SPP | MStatus.FS | MStatus.SUM | MStatus.MXR;
const MSTATUS_WRITABLE =
  SSTATUS_WRITABLE | MStatus.MIE | MStatus.MPIE | MStatus.MPP | MStatus.MPRV | MStatus.TVM | MStatus.TW | MStatus.TSR;
/** SD, UXL and what of the low word S-mode sees. */
const SSTATUS_VISIBLE = (1n << 63n) | (3n << 32n) | BigInt(SSTATUS_WRITABLE | (3 << 9) | (3 << 15));

/** Interrupt bits of mip and mie (section 3.1.9). */
export const Interrupt = { SSI: 1, MSI: 3, STI: 5, MTI: 7, SEI: 9, MEI: 11 } as const;
export const SSIP = 1 << 1;
export const MSIP = 1 << 3;
export const STIP = 1 << 5;
export const MTIP = 1 << 7;
export const SEIP = 1 << 9;
export const MEIP = 1 << 11;
const ALL_INTERRUPTS = SSIP | MSIP | STIP | MTIP | SEIP | MEIP;
const SUPERVISOR_INTERRUPTS = SSIP | STIP | SEIP;

/** menvcfg.STCE: stimecmp drives mip.STIP (Sstc). */
const STCE = 1n << 63n;
/** The reserved value of CBIE is not taken. */
function envcfg(old: bigint, value: bigint, writable: bigint): bigint {
  const next = value & writable;
  return (next & CBIE) === CBIE_RESERVED ? (next & ~CBIE) | (old & CBIE) : next;
}
const { CBIE } = spec.ENVCFG;
const CBIE_RESERVED = 2n << 4n;

const rows: (CsrRow | undefined)[] = Array.from({ length: 4096 });
/** The row of a CSR number, or undefined. */
export function csrRow(number: number): CsrRow | undefined {
  return rows[number];
}
/** All numbers with a row, ascending. */
export function csrNumbers(): number[] {
  return rows.flatMap((row, number) => (row ? [number] : []));
}
function row(number: number, definition: CsrRow): void {
  rows[number] = definition;
}
const low = (value: bigint): number => Number(BigInt.asIntN(32, value));
const fp = (hart: Privileged): boolean => hart.fpEnabled();

// Unprivileged floating point (F, "Floating-Point Control and Status Register")
row(Csr.FFLAGS, {
  name: "fflags", legal: fp,
  read: (hart) => BigInt(hart.cells.i32[FFLAGS >> 2]!),
  write: (hart, value) => { hart.cells.i32[FFLAGS >> 2] = low(value) & 31; hart.fpDirty(); },
});
row(Csr.FRM, {
  name: "frm", legal: fp,
  read: (hart) => BigInt(hart.cells.i32[FRM >> 2]!),
  write: (hart, value) => { hart.cells.i32[FRM >> 2] = low(value) & 7; hart.fpDirty(); },
});
row(Csr.FCSR, {
  name: "fcsr", legal: fp,
  read: (hart) => BigInt(hart.cells.i32[FFLAGS >> 2]! | (hart.cells.i32[FRM >> 2]! << 5)),
  write: (hart, value) => {
    hart.cells.i32[FFLAGS >> 2] = low(value) & 31;
    hart.cells.i32[FRM >> 2] = (low(value) >> 5) & 7;
    hart.fpDirty();
  },
});

// Counters (Zicntr; sections 3.1.10 to 3.1.12, 4.1.5). cycle counts instructions, as an IPC-1 machine would.
function counter(hart: Privileged, number: number): boolean {
  const bit = 1 << (number & 31);
  if (hart.privilege < 3 && !(hart.cells.csr32(Csr.MCOUNTEREN) & bit)) return false;
  return hart.privilege > 0 || (hart.cells.csr32(Csr.SCOUNTEREN) & bit) !== 0;
}
const retired = (hart: Privileged, offsetCell: number): bigint =>
  BigInt.asUintN(64, hart.cells.u64[INSTRET >> 3]! + hart.cells.csr(offsetCell));
for (const [name, number] of [["cycle", Csr.MCYCLE], ["instret", Csr.MINSTRET]] as const) {
  // The cell of the machine register holds the difference to INSTRET; a write takes effect after its instruction.
  row(number, {
    name: `m${name}`,
    read: (hart) => retired(hart, number),
    write: (hart, value) => hart.cells.setCsr(number, BigInt.asUintN(64, value - hart.cells.u64[INSTRET >> 3]! - 1n)),
  });
  const user = number - Csr.MCYCLE + Csr.CYCLE;
  row(user, { name, legal: (hart) => counter(hart, user), read: (hart) => retired(hart, number), write: () => {} });
}
row(Csr.TIME, { name: "time", legal: (hart) => counter(hart, Csr.TIME), read: (hart) => BigInt(hart.time.ticks()), write: () => {} });
for (let n = 3; n < 32; n++) {
  row(0xc00 + n, { name: `hpmcounter${n}`, legal: (hart) => counter(hart, 0xc00 + n), read: () => 0n, write: () => {} });
}

// Status
row(Csr.MSTATUS, {
  name: "mstatus",
  read: (hart) => hart.cells.csr(Csr.MSTATUS),
  write: (hart, value) => {
    const old = hart.cells.csr32(Csr.MSTATUS);
    let next = (old & ~MSTATUS_WRITABLE) | (low(value) & MSTATUS_WRITABLE);
    if ((next & MStatus.MPP) === 2 << 11) next = (next & ~MStatus.MPP) | (old & MStatus.MPP); // WARL: 2 is no mode
    hart.setStatus(next);
    hart.unmasked();
  },
});
row(Csr.SSTATUS, {
  name: "sstatus",
  read: (hart) => hart.cells.csr(Csr.MSTATUS) & SSTATUS_VISIBLE,
  write: (hart, value) => {
    hart.setStatus((hart.cells.csr32(Csr.MSTATUS) & ~SSTATUS_WRITABLE) | (low(value) & SSTATUS_WRITABLE));
    hart.unmasked();
  },
});

row(Csr.MIDELEG, {
  name: "mideleg",
  read: (hart) => hart.cells.csr(Csr.MIDELEG),
  write: (hart, value) => { hart.cells.setCsr(Csr.MIDELEG, value & BigInt(SUPERVISOR_INTERRUPTS)); hart.unmasked(); },
});
row(Csr.MENVCFG, {
  name: "menvcfg",
  read: (hart) => hart.cells.csr(Csr.MENVCFG),
  write: (hart, value) => {
    // STIP changes hands between software and stimecmp: whoever had it, it starts clear.
    const old = hart.cells.csr(Csr.MENVCFG);
    if ((old ^ value) & STCE) hart.cells.setCsr(Csr.MIP, BigInt(hart.cells.csr32(Csr.MIP) & ~STIP));
    hart.cells.setCsr(Csr.MENVCFG, envcfg(old, value, spec.MENVCFG_WRITABLE));
    // Translations may have been made under other rules (section 3.1.18: software fences, but flushing is cheap).
    if ((old ^ value) & (spec.ENVCFG.PBMTE | spec.ENVCFG.ADUE)) hart.translation.flushTlb();
    hart.refreshTimers();
    hart.unmasked();
  },
});
row(Csr.SENVCFG, {
  name: "senvcfg",
  read: (hart) => hart.cells.csr(Csr.SENVCFG),
  write: (hart, value) => hart.cells.setCsr(Csr.SENVCFG, envcfg(hart.cells.csr(Csr.SENVCFG), value, spec.SENVCFG_WRITABLE)),
});

// Interrupts. mip = what is driven from outside (EXTERNAL_PENDING) | its cell: what software set, and the timers.
row(Csr.MIE, {
  name: "mie",
  read: (hart) => hart.cells.csr(Csr.MIE),
  write: (hart, value) => { hart.cells.setCsr(Csr.MIE, value & BigInt(ALL_INTERRUPTS)); hart.unmasked(); },
});
row(Csr.SIE, {
  name: "sie",
  read: (hart) => hart.cells.csr(Csr.MIE) & hart.cells.csr(Csr.MIDELEG),
  write: (hart, value) => {
    const delegated = hart.cells.csr(Csr.MIDELEG);
    hart.cells.setCsr(Csr.MIE, (hart.cells.csr(Csr.MIE) & ~delegated) | (value & delegated));
    hart.unmasked();
  },
});
function writePending(hart: Privileged, value: number, writable: number): void {
  const stored = writable & (SEIP | STIP);
  hart.cells.setCsr(Csr.MIP, BigInt((hart.cells.csr32(Csr.MIP) & ~stored) | (value & stored)));
  if (writable & SSIP) {
    if (value & SSIP) Atomics.or(hart.cells.i32, EXTERNAL_PENDING >> 2, SSIP);
    else Atomics.and(hart.cells.i32, EXTERNAL_PENDING >> 2, ~SSIP);
  }
  hart.unmasked();
}
row(Csr.MIP, {
  name: "mip",
  read: (hart) => { hart.refreshTimers(); return BigInt(hart.pending()); },
  // Section 3.1.9: csrrs and csrrc see only the software-written SEIP.
  base: (hart) => BigInt((hart.pending() & ~SEIP) | (hart.cells.csr32(Csr.MIP) & SEIP)),
  write: (hart, value) => writePending(hart, low(value), SSIP | SEIP | (stce(hart) ? 0 : STIP)),
});
row(Csr.SIP, {
  name: "sip",
  read: (hart) => { hart.refreshTimers(); return BigInt(hart.pending() & hart.cells.csr32(Csr.MIDELEG)); },
  write: (hart, value) => writePending(hart, low(value), SSIP & hart.cells.csr32(Csr.MIDELEG)),
});

/** menvcfg.STCE of this hart. */
export function stce(hart: Privileged): boolean {
  return hart.cells.i32[(CSRS >> 2) + Csr.MENVCFG * 2 + 1]! < 0; // bit 63
}
row(Csr.STIMECMP, {
  name: "stimecmp",
  legal: (hart) => hart.privilege === 3 || (stce(hart) && (hart.cells.csr32(Csr.MCOUNTEREN) & 2) !== 0),
  read: (hart) => hart.cells.csr(Csr.STIMECMP),
  write: (hart, value) => { hart.cells.setCsr(Csr.STIMECMP, value); hart.refreshTimers(); hart.unmasked(); },
});

// Address translation (section 10.1.11): Bare, Sv39, Sv48, Sv57; ASIDLEN = 0. Other modes leave satp as it is.
row(Csr.SATP, {
  name: "satp",
  legal: (hart) => hart.privilege === 3 || !(hart.cells.csr32(Csr.MSTATUS) & MStatus.TVM),
  read: (hart) => hart.cells.csr(Csr.SATP),
  write: (hart, value) => {
    const mode = value >> 60n;
    if (mode !== 0n && (mode < 8n || mode > 10n)) return;
    const next = mode === 0n ? 0n : value & ~(0xffffn << 44n);
    const old = hart.cells.csr(Csr.SATP);
    if (next === old) return;
    hart.cells.setCsr(Csr.SATP, next);
    hart.translation.flushTlb();
    if (next >> 60n !== old >> 60n) hart.translation.contextChanged();
  },
});

// PMP: 16 entries (pmp.ts); the table has none. RV64 has the even pmpcfg registers only (section 3.7.1).
for (let n = 0; n < 16; n += 2) {
  row(Csr.PMPCFG0 + n, {
    name: `pmpcfg${n}`,
    read: (hart) => hart.pmp.readConfig(Csr.PMPCFG0 + n),
    write: (hart, value) => { hart.pmp.writeConfig(Csr.PMPCFG0 + n, value); hart.translation.flushTlb(); },
  });
}
for (let n = 0; n < 64; n++) {
  row(Csr.PMPADDR0 + n, {
    name: `pmpaddr${n}`,
    read: (hart) => hart.pmp.readAddress(Csr.PMPADDR0 + n),
    write: (hart, value) => { hart.pmp.writeAddress(Csr.PMPADDR0 + n, value); hart.translation.flushTlb(); },
  });
}

for (const definition of TABLE) {
  if (rows[definition.number]) continue;
  if (definition.kind === "hook") throw new Error(`CSR ${definition.name} needs a row in csr.ts`);
  row(definition.number, plain(definition));
}
function plain({ name, number, readMask, writeMask }: CsrDefinition): CsrRow {
  return {
    name,
    read: (hart) => hart.cells.csr(number) & readMask,
    write: (hart, value) => hart.cells.setCsr(number, (hart.cells.csr(number) & ~writeMask) | (value & writeMask)),
  };
}
