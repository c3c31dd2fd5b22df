import { privileged as spec } from "@polyvisor/isa";
import { Csr, GUEST_INTERRUPTS, HStatus, low, MStatus, row, SGEIP, SSTATUS_VISIBLE, SSTATUS_WRITABLE, VSSIP } from "./csr-row.ts";
import {
  envcfg, readGuestBits, timerCompare, writeEnable, writeGuestEnable, writeGuestPending, writeGuestRoot, writeTimer,
} from "./csr-rules.ts";
import type { Privileged } from "./privileged.ts";

const HSTATUS_WRITABLE = HStatus.GVA | HStatus.SPV | HStatus.SPVP | HStatus.HU | HStatus.VTVM | HStatus.VTW | HStatus.VTSR;

/**
 * The hypervisor's CSRs with a behaviour of their own (privileged spec, chapter H, "Hypervisor and Virtual Supervisor CSRs").
 * They are only reached with V = 0: csr() raises a virtual instruction exception for a guest. The cells of the vs* registers
 * hold the guest's values then; while the guest runs they are exchanged with those of the s* registers (hypervisor.ts).
 */
export function defineHypervisorCsrs(): void {
  const withH = (hart: Privileged): boolean => hart.hypervisor;
  for (const [name, number] of [["mtinst", Csr.MTINST], ["mtval2", Csr.MTVAL2]] as const) {
    row(number, { name, legal: withH, read: (hart) => hart.cells.csr(number), write: (hart, value) => hart.cells.setCsr(number, value) });
  }
  row(Csr.HSTATUS, {
    name: "hstatus",
    read: (hart) => hart.cells.csr(Csr.HSTATUS),
    write: (hart, value) => hart.cells.setCsr(Csr.HSTATUS, spec.HSTATUS_FIXED | BigInt(low(value) & HSTATUS_WRITABLE)),
  });
  row(Csr.VSSTATUS, {
    name: "vsstatus",
    read: (hart) => {
      const status = hart.cells.csr(Csr.VSSTATUS) & SSTATUS_VISIBLE;
      return (low(status) & MStatus.FS) === MStatus.FS ? status | spec.MSTATUS.SD : status & ~spec.MSTATUS.SD;
    },
    write: (hart, value) => hart.cells.setCsr(Csr.VSSTATUS, (spec.MSTATUS_FIXED & spec.MSTATUS.UXL) | BigInt(low(value) & SSTATUS_WRITABLE)),
  });

  row(Csr.HIDELEG, {
    name: "hideleg",
    read: (hart) => hart.cells.csr(Csr.HIDELEG),
    write: (hart, value) => { hart.cells.setCsr(Csr.HIDELEG, value & BigInt(GUEST_INTERRUPTS)); hart.unmasked(); },
  });
  row(Csr.HIE, {
    name: "hie",
    read: (hart) => BigInt(hart.cells.csr32(Csr.MIE) & (GUEST_INTERRUPTS | SGEIP)),
    write: (hart, value) => writeEnable(hart, low(value), GUEST_INTERRUPTS | SGEIP),
  });
  row(Csr.HIP, {
    name: "hip",
    read: (hart) => { hart.refreshTimers(); return BigInt(hart.pending() & GUEST_INTERRUPTS); },
    base: (hart) => hart.cells.csr(Csr.HVIP),
    write: (hart, value) => writeGuestPending(hart, low(value), VSSIP),
  });
  row(Csr.HVIP, {
    name: "hvip",
    read: (hart) => hart.cells.csr(Csr.HVIP),
    write: (hart, value) => writeGuestPending(hart, low(value), GUEST_INTERRUPTS),
  });
  row(Csr.VSIE, {
    name: "vsie",
    read: (hart) => readGuestBits(hart, hart.cells.csr32(Csr.MIE)),
    write: writeGuestEnable,
  });
  row(Csr.VSIP, {
    name: "vsip",
    read: (hart) => { hart.refreshTimers(); return readGuestBits(hart, hart.pending()); },
    write: (hart, value) => writeGuestPending(hart, low(value) << 1, VSSIP & hart.cells.csr32(Csr.HIDELEG)),
  });

  row(Csr.HTIMEDELTA, {
    name: "htimedelta",
    read: (hart) => hart.cells.csr(Csr.HTIMEDELTA),
    write: (hart, value) => writeTimer(hart, Csr.HTIMEDELTA, value),
  });
  row(Csr.VSTIMECMP, {
    name: "vstimecmp",
    legal: timerCompare,
    read: (hart) => hart.cells.csr(Csr.VSTIMECMP),
    write: (hart, value) => writeTimer(hart, Csr.VSTIMECMP, value),
  });
  row(Csr.HENVCFG, {
    name: "henvcfg",
    // What menvcfg does not give cannot be passed on: those bits are read-only zero.
    read: (hart) => hart.cells.csr(Csr.HENVCFG) & (hart.cells.csr(Csr.MENVCFG) | ~FROM_MENVCFG),
    write: (hart, value) => {
      const old = hart.cells.csr(Csr.HENVCFG);
      const given = hart.cells.csr(Csr.MENVCFG) | ~FROM_MENVCFG;
      hart.cells.setCsr(Csr.HENVCFG, envcfg(old, value & given, spec.MENVCFG_WRITABLE));
      if ((old ^ value) & (spec.ENVCFG.ADUE | spec.ENVCFG.PBMTE)) hart.flushGuest();
      hart.refreshTimers();
      hart.unmasked();
    },
  });

  row(Csr.VSATP, {
    name: "vsatp",
    read: (hart) => hart.cells.csr(Csr.VSATP),
    write: (hart, value) => writeGuestRoot(hart, Csr.VSATP, value, spec.SATP.PPN),
  });
  row(Csr.HGATP, {
    name: "hgatp",
    legal: (hart) => hart.privilege === 3 || !(hart.cells.csr32(Csr.MSTATUS) & MStatus.TVM),
    read: (hart) => hart.cells.csr(Csr.HGATP),
    write: (hart, value) => writeGuestRoot(hart, Csr.HGATP, value, spec.HGATP.PPN),
  });
}

const FROM_MENVCFG = spec.ENVCFG.ADUE | spec.ENVCFG.PBMTE | spec.ENVCFG.STCE;
