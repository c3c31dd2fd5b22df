import type { CloudEvent, Fact, ServiceContext } from "@polyvisor/service-kit";

/** A ServiceContext for tests: facts are kept, logs are kept at warn and above, time is real. */
export function testContext(): ServiceContext & { facts: Fact[]; warnings: unknown[] } {
  const facts: Fact[] = [];
  const warnings: unknown[] = [];
  const nothing = (): void => {};
  const warn = (...args: unknown[]): void => void warnings.push(args);
  const log = { trace: nothing, debug: nothing, info: nothing, warn, error: warn, fatal: warn };
  return {
    facts,
    warnings,
    log: log as unknown as ServiceContext["log"],
    events: {
      publish: (fact) => void facts.push(fact),
      subscribe: (_pattern: string, _listener: (event: CloudEvent) => void) => nothing,
      close: async () => {},
    },
    clock: {
      now: () => Date.now(),
      monotonic: () => performance.now(),
      after(ms, run) {
        const timer = setTimeout(run, ms);
        return () => clearTimeout(timer);
      },
    },
  };
}
