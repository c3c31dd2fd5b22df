import { ExitReason } from "../engine.ts";
import { HSM_STATE } from "../mailbox.ts";
import { SbiError, type SbiExtension } from "./extension.ts";
import { entryPoint, HartState, suspendUntilInterrupt } from "./hsm.ts";

const SUSPEND_TO_RAM = 0n;

/**
 * System Suspend (SBI 2.0, chapter 13). The machine's memory, devices and clock stay as they are; the hart begins again at
 * the resume address as soon as an interrupt that is enabled in mie is pending.
 */
export const systemSuspend: SbiExtension = {
  id: 0x5355_5350,
  counts: "sbi-susp",
  call(context, fid, [type, address, opaque]) {
    if (fid !== 0) return undefined;
    if (BigInt.asUintN(32, type!) !== SUSPEND_TO_RAM) return { error: SbiError.INVALID_PARAM };
    if (!entryPoint(context, address!)) return { error: SbiError.INVALID_ADDRESS };
    const { cells } = context.core;
    const awake = context.harts.some((hart) => hart !== cells && Atomics.load(hart.i32, HSM_STATE >> 2) !== HartState.STOPPED);
    if (awake) return { error: SbiError.DENIED };
    suspendUntilInterrupt(cells, address!, opaque!);
    return { error: 0n, leave: ExitReason.CORE };
  },
};
