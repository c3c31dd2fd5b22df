import { ContractError } from "@polyvisor/contracts";
import type { HartState } from "@polyvisor/contracts/cpu";
import { Csr, csrRow } from "./csr.ts";
import { F, FFLAGS, FRM, INSTRET, PC, PRIVILEGE, RESERVATION, X } from "./hart-state.ts";
import type { Privileged } from "./privileged.ts";

export type HartStatus = "running" | "waiting" | "stopped" | "paused" | "failed";

/** The architectural state of a hart as cpu.proto's HartState. */
export function readHartState(core: Privileged, status: HartStatus): HartState {
  const { cells } = core;
  return {
    hart: cells.hart,
    pc: cells.u64[PC >> 3]!,
    x: [...cells.u64.subarray(X >> 3, (X >> 3) + 32)],
    f: [...cells.u64.subarray(F >> 3, (F >> 3) + 32)],
    csr: core.readAll(),
    privilege: core.privilege,
    virtual: core.virtual,
    status,
    instructions: cells.u64[INSTRET >> 3]!,
  };
}

/** Views of other registers: written through those. */
const VIEWS: ReadonlySet<number> = new Set([
  Csr.FFLAGS, Csr.FRM, Csr.SSTATUS, Csr.SIE, Csr.SIP, Csr.HIE, Csr.HIP, Csr.VSIE, Csr.VSIP,
]);

/**
 * Writes all of it. CSR values go through the same rules as a csrw in M-mode (fields that cannot be written stay); PMP
 * configuration after the addresses, because of its locks. CSRs that are not named keep their values.
 */
export function writeHartState(core: Privileged, state: HartState): void {
  const { cells } = core;
  if (state.x.length !== 32 || state.f.length !== 32) {
    throw new ContractError("invalid", `writeHart: ${state.x.length} x and ${state.f.length} f registers; all 32 of each are written`);
  }
  if (![0, 1, 3].includes(state.privilege)) throw new ContractError("invalid", `writeHart: privilege ${state.privilege}; 0 = U, 1 = S, 3 = M`);
  if (state.virtual && (!core.hypervisor || state.privilege === 3)) {
    throw new ContractError("invalid", "writeHart: virtual with privilege 3, or on a hart without the H extension (cpu h=off)");
  }
  const unknown = [...state.csr.keys()].find((number) => core.readOne(number) === undefined);
  if (unknown !== undefined) throw new ContractError("invalid", `writeHart: there is no CSR 0x${unknown.toString(16)}`);

  const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);
  cells.u64[PC >> 3] = u64(state.pc) & ~1n;
  state.x.forEach((value, n) => (cells.u64[(X >> 3) + n] = n === 0 ? 0n : u64(value)));
  state.f.forEach((value, n) => (cells.u64[(F >> 3) + n] = u64(value)));
  cells.u64[INSTRET >> 3] = u64(state.instructions);
  core.setVirtual(false); // so that CSRs are where their numbers say
  cells.i32[PRIVILEGE >> 2] = state.privilege;
  cells.i64[RESERVATION >> 3] = -1n;
  const isConfig = (number: number): boolean => number >= Csr.PMPCFG0 && number < Csr.PMPADDR0;
  const numbers = [...state.csr.keys()].sort((a, b) => Number(isConfig(a)) - Number(isConfig(b)));
  for (const number of numbers) {
    const value = u64(state.csr.get(number)!);
    if (VIEWS.has(number) || csrRow(number)!.read(core) === value) continue;
    if (number === Csr.FCSR) {
      // Not through its row: that would make mstatus.FS dirty.
      cells.i32[FFLAGS >> 2] = Number(value & 31n);
      cells.i32[FRM >> 2] = Number((value >> 5n) & 7n);
    } else core.writeOne(number, value);
  }
  core.setVirtual(state.virtual);
}
