import { DNS_RCODE, dnsFailure, dnsLocalAnswer, parseDnsHead, type Ipv4Address } from "@polyvisor/wire";
import type { Clock } from "@polyvisor/service-kit";

export type DnsTransport = "udp" | "tcp";
/** Asks a real resolver. Rejects when none answers; `signal` ends the attempt. */
export interface DnsUpstream {
  query(message: Uint8Array, signal: AbortSignal, transport?: DnsTransport): Promise<Uint8Array>;
}

/** Queries of one gateway on their way; more get SERVFAIL at once. */
export const MAX_PENDING_QUERIES = 128;

/** Answers for the names of the network's own machines, passes other queries on and answers back, unchanged. A query that gets no answer in time is answered SERVFAIL. */
export class DnsForwarder {
  readonly #upstream: DnsUpstream;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #pending = new Set<AbortController>();
  readonly #names: (name: string) => Ipv4Address | undefined;
  readonly counters = { dns_queries: 0, dns_answers: 0, dns_failures: 0, dns_local: 0 };
  #closed = false;

  constructor(upstream: DnsUpstream, clock: Clock, timeoutMs: number, names: (name: string) => Ipv4Address | undefined = () => undefined) {
    this.#names = names;
    this.#upstream = upstream;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * `answer` is called at most once; false: what came is no query, and there will be none. An answer that is too long for UDP
   * says so (TC), and the guest asks again over TCP, as it would without us (RFC 7766, 5).
   */
  forward(query: Uint8Array, transport: DnsTransport, answer: (response: Uint8Array) => void): boolean {
    const head = parseDnsHead(query);
    if (!head || head.response || head.questions === 0) return false;
    this.counters.dns_queries++;
    const local = dnsLocalAnswer(query, this.#names);
    if (local) {
      this.counters.dns_local++;
      answer(local);
      return true;
    }
    const fail = () => {
      this.counters.dns_failures++;
      answer(dnsFailure(query, DNS_RCODE.SERVER_FAILURE)!);
    };
    if (this.#pending.size >= MAX_PENDING_QUERIES) {
      fail();
      return true;
    }
    const attempt = new AbortController();
    this.#pending.add(attempt);
    let settled = false;
    const settle = (response?: Uint8Array) => {
      if (settled) return;
      settled = true;
      cancelTimer();
      this.#pending.delete(attempt);
      if (this.#closed) return;
      const got = response && parseDnsHead(response);
      if (!got || !got.response || got.id !== head.id) return fail();
      this.counters.dns_answers++;
      answer(response);
    };
    const cancelTimer = this.#clock.after(this.#timeoutMs, () => {
      settle();
      attempt.abort();
    });
    this.#upstream.query(query.slice(), attempt.signal, transport).then(settle, () => settle());
    return true;
  }
  close(): void {
    this.#closed = true;
    for (const attempt of this.#pending) attempt.abort(); // each settles, and cancels its timer
  }
}
