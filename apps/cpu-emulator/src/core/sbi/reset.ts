import { ExitReason } from "../engine.ts";
import { ExitKind, HSM_STATE } from "../mailbox.ts";
import { HartState } from "./hsm.ts";
import { SbiError, type SbiExtension } from "./extension.ts";

const COLD_REBOOT = 1n;
const WARM_REBOOT = 2n;

/**
 * System Reset (SBI 2.0, chapter 10). The device-bus decides what power-off or reset means; the calling hart stops, as
 * the call does not return.
 */
export const systemReset: SbiExtension = {
  id: 0x5352_5354,
  counts: "sbi-srst",
  call(context, fid, args) {
    if (fid !== 0) return undefined;
    const type = args[0]! & 0xffff_ffffn;
    const reason = args[1]! & 0xffff_ffffn;
    if (type > WARM_REBOOT && type < 0xf000_0000n) return { error: SbiError.INVALID_PARAM };
    if (type > WARM_REBOOT) return { error: SbiError.NOT_SUPPORTED }; // vendor reset types
    if (reason > COLD_REBOOT && reason < 0xe000_0000n) return { error: SbiError.INVALID_PARAM };
    context.mailbox.post(ExitKind.SYSTEM_RESET, 0, type, reason);
    Atomics.store(context.core.cells.i32, HSM_STATE >> 2, HartState.STOPPED);
    return { error: 0n, leave: ExitReason.CORE };
  },
};
