import type { ServiceContext } from "@polyvisor/service-kit";
import { manualClock, testContext, type ManualClock } from "@polyvisor/testkit";

/** A test context in which time stands still until `clock.advance`. */
export function stillContext(): ReturnType<typeof testContext> & ServiceContext & { clock: ManualClock } {
  return { ...testContext(), clock: manualClock() };
}
