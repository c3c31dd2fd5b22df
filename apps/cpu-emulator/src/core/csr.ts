import { CSRS as TABLE, privileged as spec, type Csr as CsrDefinition } from "@polyvisor/isa";
import {
  ALL_INTERRUPTS, Csr, GUEST_INTERRUPTS, HStatus, low, MSTATUS_HIGH_WRITABLE, MSTATUS_WRITABLE, MStatus, row, csrRow, type CsrRow, SEIP, SGEIP,
  SSIP, SSTATUS_VISIBLE, SSTATUS_WRITABLE, STIP, SUPERVISOR_INTERRUPTS, VSSIP,
} from "./csr-row.ts";
import {
  counter, envcfg, readGuestBits, STCE, stce, timerCompare, translationRoot, writeEnable, writeGuestEnable, writeGuestPending,
  writeGuestRoot, writeTimer,
} from "./csr-rules.ts";
import { defineCounters } from "./counters.ts";
import { EXTERNAL_PENDING, FFLAGS, FRM } from "./hart-state.ts";
import { defineHypervisorCsrs } from "./hypervisor-csr.ts";
import type { Privileged } from "./privileged.ts";

export * from "./csr-row.ts";
export { guestStce, stce } from "./csr-rules.ts";

/**
 * What reading and writing a control and status register does (privileged spec 1.13, machine and supervisor levels, Sstc;
 * unprivileged spec, Zicsr, Zicntr). libs/isa says which registers there are and which bits; `plain` ones are just
 * cells with masks, the others have their behaviour here. A number without a row does not exist: illegal instruction.
 * Privilege and read-only come from the number itself ("CSR address mapping conventions").
 */

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

defineCounters();
/** What a guest reads as time. */
const guestTime = (hart: Privileged): bigint => BigInt.asUintN(64, BigInt(hart.time.ticks()) + hart.cells.csr(Csr.HTIMEDELTA));
row(Csr.TIME, { name: "time", legal: (hart) => counter(hart, Csr.TIME), read: (hart) => hart.virtual ? guestTime(hart) : BigInt(hart.time.ticks()), write: () => {} });

// Status
row(Csr.MSTATUS, {
  name: "mstatus",
  read: (hart) => hart.cells.csr(Csr.MSTATUS),
  write: (hart, value) => {
    const old = hart.cells.csr32(Csr.MSTATUS);
    let next = (old & ~MSTATUS_WRITABLE) | (low(value) & MSTATUS_WRITABLE);
    if ((next & MStatus.MPP) === 2 << 11) next = (next & ~MStatus.MPP) | (old & MStatus.MPP); // WARL: 2 is no mode
    const high = Number((value >> 32n) & 0xffff_ffffn);
    hart.setStatus(next, hart.hypervisor ? high & MSTATUS_HIGH_WRITABLE : 0);
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

row(Csr.MEDELEG, {
  name: "medeleg",
  read: (hart) => hart.cells.csr(Csr.MEDELEG),
  write: (hart, value) => hart.cells.setCsr(Csr.MEDELEG, value & (hart.hypervisor ? spec.DELEGABLE_WITH_H : spec.DELEGABLE)),
});
row(Csr.MIDELEG, {
  name: "mideleg",
  read: (hart) => hart.cells.csr(Csr.MIDELEG),
  // With H, the interrupts of guests are always delegated (H, Machine Interrupt Delegation Register).
  write: (hart, value) => {
    const fixed = hart.hypervisor ? GUEST_INTERRUPTS | SGEIP : 0;
    hart.cells.setCsr(Csr.MIDELEG, BigInt((low(value) & SUPERVISOR_INTERRUPTS) | fixed));
    hart.unmasked();
  },
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
  write: (hart, value) => {
    hart.cells.setCsr(Csr.MIE, value & BigInt(ALL_INTERRUPTS | (hart.hypervisor ? GUEST_INTERRUPTS | SGEIP : 0)));
    hart.unmasked();
  },
});
row(Csr.SIE, {
  name: "sie",
  read: (hart) => (hart.virtual ? readGuestBits(hart, hart.cells.csr32(Csr.MIE)) : BigInt(hart.cells.csr32(Csr.MIE) & delegated(hart))),
  write: (hart, value) => (hart.virtual ? writeGuestEnable(hart, value) : writeEnable(hart, low(value), delegated(hart))),
});
/** The interrupts that sie and sip are about. */
const delegated = (hart: Privileged): number => hart.cells.csr32(Csr.MIDELEG) & SUPERVISOR_INTERRUPTS;
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
  write: (hart, value) => {
    if (hart.hypervisor) writeGuestPending(hart, low(value), VSSIP);
    writePending(hart, low(value), SSIP | SEIP | (stce(hart) ? 0 : STIP));
  },
});
row(Csr.SIP, {
  name: "sip",
  read: (hart) => {
    hart.refreshTimers();
    return hart.virtual ? readGuestBits(hart, hart.pending()) : BigInt(hart.pending() & delegated(hart));
  },
  write: (hart, value) => {
    if (hart.virtual) writeGuestPending(hart, low(value) << 1, VSSIP & hart.cells.csr32(Csr.HIDELEG));
    else writePending(hart, low(value), SSIP & delegated(hart));
  },
});

/** A guest's stimecmp is vstimecmp. */
const timerOf = (hart: Privileged): number => (hart.virtual ? Csr.VSTIMECMP : Csr.STIMECMP);
row(Csr.STIMECMP, {
  name: "stimecmp",
  legal: timerCompare,
  read: (hart) => hart.cells.csr(timerOf(hart)),
  write: (hart, value) => writeTimer(hart, timerOf(hart), value),
});

// Address translation (section 10.1.11): Bare, Sv39, Sv48, Sv57; ASIDLEN = 0. Other modes leave satp as it is.
row(Csr.SATP, {
  name: "satp",
  legal: (hart) => {
    if (hart.virtual) return hart.cells.csr32(Csr.HSTATUS) & HStatus.VTVM ? "virtual" : true;
    return hart.privilege === 3 || !(hart.cells.csr32(Csr.MSTATUS) & MStatus.TVM);
  },
  read: (hart) => hart.cells.csr(Csr.SATP),
  write: (hart, value) => {
    if (hart.virtual) return writeGuestRoot(hart, Csr.SATP, value, spec.SATP.PPN);
    const old = hart.cells.csr(Csr.SATP);
    const next = translationRoot(hart, old, value, spec.SATP.PPN);
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

defineHypervisorCsrs();
for (const definition of TABLE) {
  if (csrRow(definition.number)) continue;
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
