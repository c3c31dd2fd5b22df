import { readU16, writeU16 } from "@polyvisor/wire";
import type { DnsForwarder } from "./dns-forwarder.ts";
import { HostError, type HostStream, type HostStreamEvents } from "./nat/host-network.ts";

/** Queries of one connection that may be open; a client that sends more has to wait for answers. */
const MAXIMUM_BUFFER = 64 * 1024;

/**
 * DNS over TCP (RFC 1035, 4.2.2; RFC 7766): messages with a length in front, answered in the order in which answers come.
 * It looks to a flow like a connection of the host. Without a forwarder: nobody listens.
 */
export function dnsStream(dns: DnsForwarder | undefined, events: HostStreamEvents): HostStream {
  let buffer = new Uint8Array(0);
  let open = 0;
  let ended = false;
  let over = false;
  queueMicrotask(() => {
    if (over) return;
    if (dns) return events.connected();
    over = true;
    events.finished(new HostError("refused", "the DNS address has no other service"));
  });
  const finishWhenDone = (): void => {
    if (!ended || open > 0 || over) return;
    over = true;
    events.ended();
    events.finished();
  };
  const answer = (response: Uint8Array): void => {
    if (over) return;
    const message = new Uint8Array(2 + response.length);
    writeU16(message, 0, response.length);
    message.set(response, 2);
    events.data(message);
  };
  const take = (): void => {
    while (buffer.length >= 2 && buffer.length >= 2 + readU16(buffer, 0)) {
      const end = 2 + readU16(buffer, 0);
      const query = buffer.slice(2, end);
      buffer = buffer.slice(end);
      open++;
      const accepted = dns!.forward(query, "tcp", (response) => {
        open--;
        answer(response);
        finishWhenDone();
      });
      if (!accepted) open--; // no query: nothing is said
    }
  };
  return {
    local: "dns",
    remote: "dns",
    get pending() {
      return buffer.length;
    },
    write(chunk) {
      if (over || buffer.length + chunk.length > MAXIMUM_BUFFER + 2) return;
      const joined = new Uint8Array(buffer.length + chunk.length);
      joined.set(buffer);
      joined.set(chunk, buffer.length);
      buffer = joined;
      take();
    },
    end() {
      ended = true;
      finishWhenDone();
    },
    pause() {},
    resume() {},
    mark() {},
    reset() {
      over = true;
    },
  };
}
