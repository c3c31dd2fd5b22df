import { ExitReason } from "../engine.ts";
import { ExitKind, HSM_STATE } from "../mailbox.ts";
import { HartState } from "./hsm.ts";
import { SbiError, type SbiExtension } from "./extension.ts";

const WARM_REBOOT = 2n; // types: 0 shutdown, 1 cold reboot, 2 warm reboot
const SYSTEM_FAILURE = 1n; // reasons: 0 none, 1 system failure

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
    // Reserved, or a platform's own that there is not.
    if (type > WARM_REBOOT || reason > SYSTEM_FAILURE) return { error: SbiError.INVALID_PARAM };
    context.mailbox.post(ExitKind.SYSTEM_RESET, 0, type, reason);
    Atomics.store(context.core.cells.i32, HSM_STATE >> 2, HartState.STOPPED);
    return { error: 0n, leave: ExitReason.CORE };
  },
};
