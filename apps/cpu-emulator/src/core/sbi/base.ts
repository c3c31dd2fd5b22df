import { Csr } from "../csr.ts";
import type { SbiExtension } from "./extension.ts";

const SPEC_VERSION = 2n << 24n; // 2.0: bits 30:24 major, 23:0 minor
/** No number is registered for Polyvisor; the ids above 0x7fffffff of the list are free for experiments. */
const IMPLEMENTATION_ID = 0x5056n; // "PV"
const IMPLEMENTATION_VERSION = 1n;

/** Base extension (SBI 2.0, chapter 4). */
export const base: SbiExtension = {
  id: 0x10,
  counts: "sbi-base",
  call(context, fid, args) {
    const answer = (value: bigint) => ({ error: 0n, value });
    switch (fid) {
      case 0: return answer(SPEC_VERSION);
      case 1: return answer(IMPLEMENTATION_ID);
      case 2: return answer(IMPLEMENTATION_VERSION);
      case 3: return answer(context.hasExtension(args[0]!) ? 1n : 0n);
      case 4: return answer(context.core.cells.csr(Csr.MVENDORID));
      case 5: return answer(context.core.cells.csr(Csr.MARCHID));
      case 6: return answer(context.core.cells.csr(Csr.MIMPID));
      default: return undefined;
    }
  },
};
