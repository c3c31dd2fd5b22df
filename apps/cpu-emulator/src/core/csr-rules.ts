import { privileged as spec } from "@polyvisor/isa";
import { Csr, low } from "./csr-row.ts";
import { CSRS } from "./hart-state.ts";
import type { Privileged } from "./privileged.ts";

// Rules that several CSRs share, the hypervisor's among them.

/** menvcfg.STCE: stimecmp drives mip.STIP (Sstc). */
export const STCE = 1n << 63n;
/** The reserved value of CBIE is not taken. */
export function envcfg(old: bigint, value: bigint, writable: bigint): bigint {
  const next = value & writable;
  return (next & CBIE) === CBIE_RESERVED ? (next & ~CBIE) | (old & CBIE) : next;
}
const { CBIE } = spec.ENVCFG;
const CBIE_RESERVED = 2n << 4n;

/** Writes the bits of `mask` in mie. */
export function writeEnable(hart: Privileged, value: number, mask: number): void {
  hart.cells.setCsr(Csr.MIE, BigInt((hart.cells.csr32(Csr.MIE) & ~mask) | (value & mask)));
  hart.unmasked();
}
/** Bits 2, 6 and 10 of mip or mie as the guest sees them, where hideleg lets it (H, vsip and vsie). */
export const readGuestBits = (hart: Privileged, bits: number): bigint => BigInt((bits & hart.cells.csr32(Csr.HIDELEG)) >> 1);
export function writeGuestEnable(hart: Privileged, value: bigint): void {
  writeEnable(hart, low(value) << 1, hart.cells.csr32(Csr.HIDELEG));
}
/** Writes the bits of `mask` in hvip, which hip, mip and vsip show. */
export function writeGuestPending(hart: Privileged, value: number, mask: number): void {
  hart.cells.setCsr(Csr.HVIP, BigInt((hart.cells.csr32(Csr.HVIP) & ~mask) | (value & mask)));
  hart.refreshTimers();
  hart.unmasked();
}
/** henvcfg.STCE: the guest has a timer of its own. */
export function guestStce(hart: Privileged): boolean {
  return stce(hart) && hart.cells.i32[(CSRS >> 2) + Csr.HENVCFG * 2 + 1]! < 0;
}
/** menvcfg.STCE of this hart. */
export function stce(hart: Privileged): boolean {
  return hart.cells.i32[(CSRS >> 2) + Csr.MENVCFG * 2 + 1]! < 0; // bit 63
}
/** Sstc: what stimecmp and vstimecmp need below M-mode. */
export function timerCompare(hart: Privileged): boolean | "virtual" {
  if (hart.privilege === 3) return true;
  if (!stce(hart) || !(hart.cells.csr32(Csr.MCOUNTEREN) & 2)) return false;
  if (hart.virtual && (!guestStce(hart) || !(hart.cells.csr32(Csr.HCOUNTEREN) & 2))) return "virtual";
  return true;
}
export function writeTimer(hart: Privileged, number: number, value: bigint): void {
  hart.cells.setCsr(number, value);
  hart.refreshTimers();
  hart.unmasked();
}
/** The legal value for a satp-like register: an unknown mode leaves it as it was, Bare clears it. */
export function translationRoot(hart: Privileged, old: bigint, value: bigint, page: bigint): bigint {
  const mode = value >> 60n;
  if (mode !== 0n && (mode < 8n || mode > hart.largestPagingMode)) return old;
  return mode === 0n ? 0n : value & (spec.SATP.MODE | page);
}
/** vsatp (which the guest reaches as satp) and hgatp. */
export function writeGuestRoot(hart: Privileged, number: number, value: bigint, page: bigint): void {
  const old = hart.cells.csr(number);
  const next = translationRoot(hart, old, value, page);
  if (next === old) return;
  hart.cells.setCsr(number, next);
  hart.flushGuest();
}
export function counter(hart: Privileged, number: number): boolean | "virtual" {
  const bit = 1 << (number & 31);
  if (hart.privilege < 3 && !(hart.cells.csr32(Csr.MCOUNTEREN) & bit)) return false;
  if (hart.virtual && !(hart.cells.csr32(Csr.HCOUNTEREN) & bit)) return "virtual";
  return hart.privilege > 0 || (hart.cells.csr32(Csr.SCOUNTEREN) & bit) !== 0 || (hart.virtual ? "virtual" : false);
}
