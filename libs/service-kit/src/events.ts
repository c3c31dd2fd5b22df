/**
 * Facts: past-tense events with CloudEvents 1.0 attributes on subjects `pv.v1.<machine>.<service>.<fact>`
 * (architecture page, section 2). Fire and forget: publishing never fails the caller.
 */
export interface Fact<Data = Record<string, unknown>> {
  /** Machine id, or "-" for facts about a service itself. */
  machine: string;
  service: string;
  /** Kebab-case past tense, e.g. "machine-started". */
  fact: string;
  data: Data;
}

/** A fact as received: CloudEvents attributes (spec 1.0.2, section 3.1) beside it. */
export interface CloudEvent<Data = Record<string, unknown>> extends Fact<Data> {
  specversion: "1.0";
  id: string;
  source: string; // "/polyvisor/<service>"
  type: string; // "polyvisor.<service>.<fact>.v1"
  subject: string; // the machine
  time: string; // RFC 3339
  datacontenttype: "application/json";
}

export interface EventBus {
  publish(fact: Fact): void;
  /** `pattern` as NATS: `*` one token, `>` the rest. The answer unsubscribes. */
  subscribe(pattern: string, listener: (event: CloudEvent) => void): () => void;
  close(): Promise<void>;
}
