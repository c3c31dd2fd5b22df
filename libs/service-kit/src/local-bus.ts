import type { Logger } from "pino";
import { cloudEventOf, decodeCloudEvent, encodeCloudEvent, subjectMatches, subjectOf } from "./cloud-event.ts";
import type { CloudEvent, EventBus, Fact } from "./events.ts";

/**
 * The bus of the embedded topology. Listeners run in a later microtask, as with a server in between, and get what JSON
 * keeps of the data; one that throws is logged and disturbs nobody.
 */
export function createLocalBus(log?: Logger): EventBus {
  const subscriptions = new Set<{ pattern: string; listener: (event: CloudEvent) => void }>();
  return {
    publish(fact: Fact): void {
      const subject = subjectOf(fact);
      const matching = [...subscriptions].filter(({ pattern }) => subjectMatches(pattern, subject));
      if (matching.length === 0) return;
      const json = encodeCloudEvent(cloudEventOf(fact));
      queueMicrotask(() => {
        for (const subscription of matching) {
          if (!subscriptions.has(subscription)) continue;
          try {
            subscription.listener(decodeCloudEvent(json));
          } catch (error) {
            log?.warn({ err: error, subject }, "an event listener failed");
          }
        }
      });
    },
    subscribe(pattern, listener) {
      const subscription = { pattern, listener };
      subscriptions.add(subscription);
      return () => void subscriptions.delete(subscription);
    },
    async close() {
      subscriptions.clear();
    },
  };
}
