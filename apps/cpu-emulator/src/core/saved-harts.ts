import { ContractError, decodeSaved, encodeSaved } from "@polyvisor/contracts";
import { SavedHarts, type HartState, type SavedHart } from "@polyvisor/contracts/cpu";
import { COUNTER_NUMBERS, setCounter } from "./counters.ts";
import { Csr, SEIP, STIP } from "./csr.ts";
import { CSRS, EXTERNAL_PENDING, RESERVATION, RESERVED_VALUE } from "./hart-state.ts";
import { readHartState, writeHartState } from "./hart-snapshot.ts";
import { EXTERNAL, type Privileged } from "./privileged.ts";
import { HSM_ADDRESS, HSM_OPAQUE, HSM_STATE, MTIMECMP } from "./mailbox.ts";
import { HartState as Hsm } from "./sbi/hsm.ts";

/** The blob of SaveHarts (cpu.proto, SavedHarts): protobuf, so that another implementation of the contract can read it. */
export const SAVED_HARTS_VERSION = 1;
const FORMAT = { magic: "PVHARTS", version: SAVED_HARTS_VERSION, operation: "restoreHarts" } as const;

export function encodeSavedHarts(saved: SavedHarts): Uint8Array {
  return encodeSaved(FORMAT, SavedHarts.encode(saved).finish());
}

/** Throws `corrupt` for what is no such blob or a damaged one, `invalid` for one of a version that this code does not know. */
export function decodeSavedHarts(blob: Uint8Array): SavedHarts {
  return decodeSaved(FORMAT, blob, (payload) => SavedHarts.decode(payload));
}

/** One hart that stands still. */
export function saveHart(core: Privileged): SavedHart {
  const { cells } = core;
  return {
    state: readHartState(core, "paused"),
    hsmState: Atomics.load(cells.i32, HSM_STATE >> 2),
    hsmAddress: cells.u64[HSM_ADDRESS >> 3]!,
    hsmOpaque: cells.u64[HSM_OPAQUE >> 3]!,
    mtimecmp: cells.u64[MTIMECMP >> 3]!,
    softwarePending: cells.csr32(Csr.MIP) & (SEIP | STIP),
    externalPending: Atomics.load(cells.i32, EXTERNAL_PENDING >> 2),
    reservation: cells.u64[RESERVATION >> 3]!,
    reservedValue: cells.u64[RESERVED_VALUE >> 3]!,
  };
}

/** CSRs that are not compared after a restore: they follow time and wires, or are restored outside their rules. */
const NOT_COMPARED: ReadonlySet<number> = new Set([Csr.MIP, Csr.SIP, Csr.TIME]);
const EXTERNAL_BITS = EXTERNAL.MEIP | EXTERNAL.SEIP | EXTERNAL.MSIP | EXTERNAL.SSIP;

/**
 * Puts a saved hart into one that stands still. CSRs go through the rules of csrw from their reset values, then all are read
 * back: a state that this hart cannot hold is `invalid` (the caller puts the hart's cells back).
 */
export function restoreHart(core: Privileged, saved: SavedHart): void {
  const { cells } = core;
  const state = checked(saved, cells.hart);
  try {
    core.reset(state.pc, 0n, 0n);
    writeHartState(core, state);
    // The counters' own rules count the instruction that writes them.
    for (const n of COUNTER_NUMBERS) {
      const value = state.csr.get(Csr.MCYCLE + n);
      if (value !== undefined) setCounter(core, n, value);
    }
    const pending = cells.csr32(Csr.MIP) & ~(SEIP | STIP);
    cells.i32[(CSRS >> 2) + Csr.MIP * 2] = pending | (saved.softwarePending & (SEIP | STIP));
    cells.u64[MTIMECMP >> 3] = BigInt.asUintN(64, saved.mtimecmp);
    cells.u64[RESERVATION >> 3] = BigInt.asUintN(64, saved.reservation);
    cells.u64[RESERVED_VALUE >> 3] = BigInt.asUintN(64, saved.reservedValue);
    cells.u64[HSM_ADDRESS >> 3] = BigInt.asUintN(64, saved.hsmAddress);
    cells.u64[HSM_OPAQUE >> 3] = BigInt.asUintN(64, saved.hsmOpaque);
    Atomics.store(cells.i32, EXTERNAL_PENDING >> 2, saved.externalPending & EXTERNAL_BITS);
    Atomics.store(cells.i32, HSM_STATE >> 2, saved.hsmState);
    core.refreshTimers();
    const held = core.readAll();
    for (const [number, value] of state.csr) {
      if (NOT_COMPARED.has(number) || held.get(number) === BigInt.asUintN(64, value)) continue;
      throw refused(cells.hart, `CSR 0x${number.toString(16)} = 0x${value.toString(16)} becomes 0x${held.get(number)?.toString(16)} here`);
    }
  } catch (error) {
    throw error instanceof ContractError && !error.message.startsWith("restoreHarts") ? refused(cells.hart, error.message) : error;
  }
}

const SAVED_STATES: readonly number[] = [Hsm.STARTED, Hsm.STOPPED, Hsm.START_PENDING, Hsm.SUSPENDED, Hsm.SUSPENDED_TO_RESUME];
function checked({ state, hsmState }: SavedHart, hart: number): HartState {
  if (!state) throw refused(hart, "it has no registers");
  if (!SAVED_STATES.includes(hsmState)) throw refused(hart, `HSM state ${hsmState}`);
  return state;
}
function refused(hart: number, what: string): ContractError {
  return new ContractError("invalid", `restoreHarts: the state of hart ${hart} does not fit this machine: ${what}`);
}
