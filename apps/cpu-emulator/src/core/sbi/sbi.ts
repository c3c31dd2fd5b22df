import { Csr, HPM_MASK } from "../csr.ts";
import type { ExitReason } from "../engine.ts";
import { PRIVILEGE, X } from "../hart-state.ts";
import { EVENT_COUNTS, EVENT_NAMES } from "../mailbox.ts";
import type { Privileged } from "../privileged.ts";
import { base } from "./base.ts";
import { debugConsole, legacyConsole } from "./console.ts";
import { SbiError, type SbiContext, type SbiExtension } from "./extension.ts";
import { hartStateManagement } from "./hsm.ts";
import { performanceMonitoring } from "./pmu.ts";
import { interprocessor, remoteFence } from "./remote.ts";
import { systemReset } from "./reset.ts";
import { systemSuspend } from "./suspend.ts";
import { timer } from "./timer.ts";

/**
 * The built-in firmware: RISC-V Supervisor Binary Interface 2.0, answered in TypeScript where OpenSBI would run guest
 * code in M-mode. The calling convention is chapter 3: a7 = extension, a6 = function, a0 to a5 arguments; a0 = error,
 * a1 = value. Everything but console and reset stays inside the cpu-emulator.
 */
const EXTENSIONS: readonly SbiExtension[] = [
  base, timer, interprocessor, remoteFence, hartStateManagement, systemReset, systemSuspend, performanceMonitoring, debugConsole, ...legacyConsole,
];
const BY_ID = new Map(EXTENSIONS.map((extension) => [extension.id, extension]));

function hasExtension(id: bigint): boolean {
  return BY_ID.has(Number(BigInt.asUintN(32, id)));
}

/** The handler for {@link Privileged.supervisorCalls}. */
export function supervisorCalls(hart: Omit<SbiContext, "hasExtension">): () => ExitReason | -1 {
  const context: SbiContext = { ...hart, hasExtension };
  const x = context.core.cells.u64;
  const at = X >> 3;
  const counts = context.core.cells.f64;
  return () => {
    const id = Number(x[at + 17]! & 0xffff_ffffn);
    const fid = Number(x[at + 16]! & 0xffff_ffffn);
    const extension = BY_ID.get(id);
    counts[(EVENT_COUNTS >> 3) + EVENT_NAMES.indexOf(extension?.counts ?? "sbi-unknown")]!++;
    const result = extension?.call(context, fid, [x[at + 10]!, x[at + 11]!, x[at + 12]!, x[at + 13]!, x[at + 14]!]) ?? {
      error: SbiError.NOT_SUPPORTED,
    };
    x[at + 10] = BigInt.asUintN(64, result.error);
    if (!result.legacy) x[at + 11] = BigInt.asUintN(64, result.value ?? 0n);
    return result.leave ?? -1;
  };
}

/**
 * What M-mode firmware has done by the time it enters S-mode: traps and interrupts of the supervisor delegated, counters
 * and the timer compare register its own, memory open. Misaligned accesses work in hardware here, and what OpenSBI would
 * redirect back (access faults, illegal instructions) is delegated at once.
 */
export function enterSupervisor(core: Privileged, pc: bigint, a0: bigint, a1: bigint): void {
  core.reset(pc, a0, a1);
  core.writeOne(Csr.MEDELEG, ~(1n << 9n)); // all but ecall from S
  core.writeOne(Csr.MIDELEG, ~0n);
  core.writeOne(Csr.MCOUNTEREN, ~0n);
  core.writeOne(Csr.MCOUNTINHIBIT, BigInt(HPM_MASK)); // as OpenSBI: cycle and instret run
  core.writeOne(Csr.SCOUNTEREN, 7n); // as OpenSBI: user mode reads time in the vDSO
  core.writeOne(Csr.MENVCFG, ~(2n << 4n)); // all there is; CBIE: cbo.inval invalidates
  core.pmp.open();
  core.cells.i32[PRIVILEGE >> 2] = 1;
  core.translation.flushTlb();
  core.translation.contextChanged();
}
