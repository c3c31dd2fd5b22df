import { Csr } from "../csr.ts";
import type { SbiExtension } from "./extension.ts";

/** Timer extension (SBI 2.0, chapter 6): sets stimecmp, which also clears a pending STIP when the time is in the future. */
export const timer: SbiExtension = {
  id: 0x5449_4d45,
  counts: "sbi-time",
  call(context, fid, args) {
    if (fid !== 0) return undefined;
    context.core.writeOne(Csr.STIMECMP, args[0]!);
    return { error: 0n };
  },
};
