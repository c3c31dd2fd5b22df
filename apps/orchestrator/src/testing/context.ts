import type { ServiceContext } from "@polyvisor/service-kit";
import pino from "pino";

/** A context with real time, no log, and a bus that notes facts as "<machine>: <fact>". */
export function testContext(facts: string[] = []): ServiceContext {
  return {
    log: pino({ level: "silent" }),
    events: {
      publish: (fact) => void facts.push(`${fact.machine}: ${fact.fact}`),
      subscribe: () => () => {},
      close: async () => {},
    },
    clock: {
      now: () => Date.now(),
      monotonic: () => performance.now(),
      after: (ms, run) => {
        const timer = setTimeout(run, ms);
        return () => clearTimeout(timer);
      },
    },
  };
}
