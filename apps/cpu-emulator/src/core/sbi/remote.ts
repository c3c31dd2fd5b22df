import type { HartCells } from "../cells.ts";
import { SSIP } from "../csr.ts";
import { EXTERNAL_PENDING } from "../hart-state.ts";
import { DONE_SEQ, HSM_STATE, request, Request, served, wake } from "../mailbox.ts";
import { HartState } from "./hsm.ts";
import { SbiError, type SbiContext, type SbiExtension } from "./extension.ts";

/**
 * The harts that a mask names (SBI 2.0, chapter 3): bit i of `mask` is hart `base + i`; base = -1 means all. Undefined: a
 * hart that does not exist.
 */
function selected(context: SbiContext, mask: bigint, base: bigint): HartCells[] | undefined {
  if (BigInt.asIntN(64, base) === -1n) return [...context.harts];
  const harts: HartCells[] = [];
  for (let bit = 0n; mask >> bit !== 0n; bit++) {
    if (!((mask >> bit) & 1n)) continue;
    const hart = context.harts[Number(base + bit)];
    if (!hart) return undefined;
    harts.push(hart);
  }
  return harts;
}

/** IPI extension (SBI 2.0, chapter 7): supervisor software interrupts. */
export const interprocessor: SbiExtension = {
  id: 0x73_5049,
  counts: "sbi-ipi",
  call(context, fid, args) {
    if (fid !== 0) return undefined;
    const harts = selected(context, args[0]!, args[1]!);
    if (!harts) return { error: SbiError.INVALID_PARAM };
    for (const hart of harts) {
      Atomics.or(hart.i32, EXTERNAL_PENDING >> 2, SSIP);
      if (hart !== context.core.cells) wake(hart);
    }
    context.core.unmasked();
    return { error: 0n };
  },
};

// Functions: 0 fence_i, 1 sfence_vma, 2 sfence_vma_asid, 3 to 6 hfence.gvma and hfence.vvma with and without VMID and ASID.
const FENCE_I = 0;
const SFENCE_VMA_ASID = 2;
const HFENCE_VVMA = 6;

/**
 * RFENCE extension (SBI 2.0, chapter 8). Address ranges, ASIDs and VMIDs are hints: a whole flush is always right, of guests'
 * translations too. The hypervisor fences do not exist without the H extension.
 */
export const remoteFence: SbiExtension = {
  id: 0x5246_4e43,
  counts: "sbi-rfence",
  call(context, fid, args) {
    if (fid > HFENCE_VVMA) return undefined;
    if (fid > SFENCE_VMA_ASID && !context.core.hypervisor) return { error: SbiError.NOT_SUPPORTED };
    const harts = selected(context, args[0]!, args[1]!);
    if (!harts) return { error: SbiError.INVALID_PARAM };
    const tickets: [HartCells, number][] = [];
    for (const hart of harts) {
      if (hart === context.core.cells) {
        if (fid === FENCE_I) context.fenceI();
        else context.flushTlb();
      } else if (Atomics.load(hart.i32, HSM_STATE >> 2) !== HartState.STOPPED) {
        tickets.push([hart, request(hart, fid === FENCE_I ? Request.FENCE_I : Request.FLUSH_TLB)]);
      }
    }
    if (tickets.some(([hart, ticket]) => !served(hart, ticket))) {
      // Asleep meanwhile, so that two harts that fence each other need not wait for one another.
      context.mailbox.block(() => {
        for (const [hart, ticket] of tickets) {
          while (!served(hart, ticket)) {
            Atomics.wait(hart.i32, DONE_SEQ >> 2, Atomics.load(hart.i32, DONE_SEQ >> 2), 1);
          }
        }
      });
    }
    return { error: 0n };
  },
};
