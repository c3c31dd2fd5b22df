import type { CloudEvent, Fact, ServiceContext } from "@polyvisor/service-kit";

/** A context for tests: facts are kept, time stands still until `advance` is called, logs go nowhere. */
export function testContext(): ServiceContext & { facts: Fact[]; advance(ms: number): void } {
  const facts: Fact[] = [];
  const timers = new Set<{ at: number; run: () => void }>();
  let now = 0;
  const nothing = () => {};
  const log = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing, fatal: nothing };
  return {
    facts,
    log: log as unknown as ServiceContext["log"],
    events: {
      publish: (fact) => void facts.push(fact),
      subscribe: (_pattern: string, _listener: (event: CloudEvent) => void) => nothing,
      close: async () => {},
    },
    clock: {
      now: () => now,
      monotonic: () => now,
      after(ms, run) {
        const timer = { at: now + ms, run };
        timers.add(timer);
        return () => void timers.delete(timer);
      },
    },
    advance(ms) {
      now += ms;
      for (const timer of [...timers].sort((a, b) => a.at - b.at)) {
        if (timer.at > now || !timers.delete(timer)) continue;
        timer.run();
      }
    },
  };
}
