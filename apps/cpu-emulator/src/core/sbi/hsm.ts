import type { HartCells } from "../cells.ts";
import { ExitReason } from "../engine.ts";
import { HSM_ADDRESS, HSM_OPAQUE, HSM_STATE, wake } from "../mailbox.ts";
import { SbiError, type SbiContext, type SbiExtension } from "./extension.ts";

/**
 * Hart states in each hart's HSM_STATE: the low byte is that of SBI 2.0, table 5; above it, what only we tell apart. The
 * pending states of stop and suspend are never seen.
 */
export const HartState = {
  STARTED: 0, STOPPED: 1, START_PENDING: 2, SUSPENDED: 4,
  /** A hart_start has won, and is writing where the hart begins. */
  START_CLAIMED: 0x102,
  /** Begins anew at HSM_ADDRESS when an interrupt is pending. */
  SUSPENDED_TO_RESUME: 0x104,
} as const;
const SPECIFIED = 0xff;
export const isSuspended = (state: number): boolean => (state & SPECIFIED) === HartState.SUSPENDED;

const SuspendType = { RETENTIVE: 0n, NON_RETENTIVE: 0x8000_0000n } as const;

/** An address that a hart may begin at: in RAM, and of an instruction. */
export const entryPoint = ({ memory }: Pick<SbiContext, "memory">, address: bigint): boolean =>
  (address & 1n) === 0n && memory.read(address, new Uint8Array(2));

/** This hart's state is lost; the hart loop lets it begin at `address` again. */
export function suspendUntilInterrupt(cells: HartCells, address: bigint, opaque: bigint): void {
  cells.u64[HSM_ADDRESS >> 3] = address;
  cells.u64[HSM_OPAQUE >> 3] = opaque;
  Atomics.store(cells.i32, HSM_STATE >> 2, HartState.SUSPENDED_TO_RESUME);
}

const hartOf = ({ harts }: SbiContext, id: bigint): HartCells | undefined => (id < 64n ? harts[Number(id)] : undefined);

/** Hart State Management (SBI 2.0, chapter 9). */
export const hartStateManagement: SbiExtension = {
  id: 0x48_534d,
  counts: "sbi-hsm",
  call(context, fid, args) {
    const own = context.core.cells;
    switch (fid) {
      case 0: { // hart_start(hartid, start_addr, opaque)
        const hart = hartOf(context, args[0]!);
        if (!hart) return { error: SbiError.INVALID_PARAM };
        if (!entryPoint(context, args[1]!)) return { error: SbiError.INVALID_ADDRESS };
        // Callers may race: one wins, and only it writes where the hart begins.
        if (Atomics.compareExchange(hart.i32, HSM_STATE >> 2, HartState.STOPPED, HartState.START_CLAIMED) !== HartState.STOPPED) {
          return { error: SbiError.ALREADY_AVAILABLE };
        }
        hart.u64[HSM_ADDRESS >> 3] = args[1]!;
        hart.u64[HSM_OPAQUE >> 3] = args[2]!;
        Atomics.store(hart.i32, HSM_STATE >> 2, HartState.START_PENDING);
        wake(hart);
        return { error: 0n };
      }
      case 1: // hart_stop: does not return; the hart loop waits for a start
        Atomics.store(own.i32, HSM_STATE >> 2, HartState.STOPPED);
        return { error: 0n, leave: ExitReason.CORE };
      case 2: { // hart_get_status(hartid)
        const hart = hartOf(context, args[0]!);
        if (!hart) return { error: SbiError.INVALID_PARAM };
        return { error: 0n, value: BigInt(Atomics.load(hart.i32, HSM_STATE >> 2) & SPECIFIED) };
      }
      case 3: { // hart_suspend(suspend_type, resume_addr, opaque)
        const type = BigInt.asUintN(32, args[0]!);
        if (type === SuspendType.RETENTIVE) {
          Atomics.store(own.i32, HSM_STATE >> 2, HartState.SUSPENDED);
          return { error: 0n, leave: ExitReason.CORE };
        }
        if (type !== SuspendType.NON_RETENTIVE) return { error: SbiError.INVALID_PARAM }; // reserved, or a platform's that we have not
        if (!entryPoint(context, args[1]!)) return { error: SbiError.INVALID_ADDRESS };
        suspendUntilInterrupt(own, args[1]!, args[2]!);
        return { error: 0n, leave: ExitReason.CORE };
      }
      default: return undefined;
    }
  },
};
