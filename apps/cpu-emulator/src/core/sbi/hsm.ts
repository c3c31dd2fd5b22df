import { ExitReason } from "../engine.ts";
import { HSM_ADDRESS, HSM_OPAQUE, HSM_STATE, wake } from "../mailbox.ts";
import { SbiError, type SbiExtension } from "./extension.ts";

/** Hart states (SBI 2.0, table 5), kept in each hart's HSM_STATE. The pending states of stop and suspend are never seen. */
export const HartState = { STARTED: 0, STOPPED: 1, START_PENDING: 2, SUSPENDED: 4 } as const;

const RETENTIVE_DEFAULT = 0n;

/** Hart State Management (SBI 2.0, chapter 9). */
export const hartStateManagement: SbiExtension = {
  id: 0x48_534d,
  counts: "sbi-hsm",
  call(context, fid, args) {
    const own = context.core.cells;
    switch (fid) {
      case 0: { // hart_start(hartid, start_addr, opaque)
        const hart = args[0]! < 64n ? context.harts[Number(args[0]!)] : undefined;
        if (!hart) return { error: SbiError.INVALID_PARAM };
        if (!context.memory.read(args[1]!, new Uint8Array(2))) return { error: SbiError.INVALID_ADDRESS };
        const state = Atomics.load(hart.i32, HSM_STATE >> 2);
        if (state !== HartState.STOPPED) return { error: SbiError.ALREADY_AVAILABLE };
        hart.u64[HSM_ADDRESS >> 3] = args[1]!;
        hart.u64[HSM_OPAQUE >> 3] = args[2]!;
        // Two callers may race: one wins.
        if (Atomics.compareExchange(hart.i32, HSM_STATE >> 2, HartState.STOPPED, HartState.START_PENDING) !== HartState.STOPPED) {
          return { error: SbiError.ALREADY_AVAILABLE };
        }
        wake(hart);
        return { error: 0n };
      }
      case 1: // hart_stop: does not return; the hart loop waits for a start
        Atomics.store(own.i32, HSM_STATE >> 2, HartState.STOPPED);
        return { error: 0n, leave: ExitReason.CORE };
      case 2: { // hart_get_status(hartid)
        const hart = args[0]! < 64n ? context.harts[Number(args[0]!)] : undefined;
        if (!hart) return { error: SbiError.INVALID_PARAM };
        return { error: 0n, value: BigInt(Atomics.load(hart.i32, HSM_STATE >> 2)) };
      }
      case 3: { // hart_suspend(type, resume_addr, opaque): default retentive is a WFI
        const type = args[0]! & 0xffff_ffffn;
        if (type === RETENTIVE_DEFAULT) return { error: 0n, leave: ExitReason.WFI };
        return { error: type & 0x8000_0000n ? SbiError.NOT_SUPPORTED : SbiError.INVALID_PARAM };
      }
      default: return undefined;
    }
  },
};
