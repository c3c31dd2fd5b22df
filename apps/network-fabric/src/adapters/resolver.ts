import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { connect, isIP } from "node:net";
import type { DnsUpstream } from "../core/dns-forwarder.ts";

/** How long one server may take before the next is asked (resolv.conf(5) has 5 s; a guest's own resolver waits that long in all). */
const ATTEMPT_MS = 1500;
const ROUNDS = 2;

/** The `nameserver` lines of a resolv.conf(5). */
export function nameservers(resolvConf: string): string[] {
  return resolvConf
    .split("\n")
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1]?.split("%")[0] ?? "")
    .filter((address) => isIP(address) !== 0);
}

/** Servers of a configuration value, "1.1.1.1,9.9.9.9", or else of the host. Read when asked: a laptop changes networks. */
export function resolverAddresses(configured: string, file = "/etc/resolv.conf"): () => string[] {
  if (configured) return () => configured.split(",").map((address) => address.trim());
  return () => {
    try {
      return nameservers(readFileSync(file, "utf8"));
    } catch {
      return []; // no such file: no resolvers
    }
  };
}

/**
 * Asks resolvers, over UDP unless TCP is asked for, one after the other, twice round. Every attempt has a socket of its own: a fresh source port, and
 * only the server asked can answer it (RFC 5452, 9.2; the guest's query id stays as it is).
 */
export function resolverUpstream(servers: () => readonly string[], port = 53): DnsUpstream {
  return {
    async query(message, signal, transport = "udp") {
      const list = servers();
      if (list.length === 0) throw new Error("the host has no DNS resolvers");
      let failure: unknown;
      for (let attempt = 0; attempt < ROUNDS * list.length; attempt++) {
        if (signal.aborted) throw new Error("DNS query given up");
        try {
          const server = list[attempt % list.length]!;
          return await (transport === "udp" ? ask(server, port, message, signal) : askOverTcp(server, port, message, signal));
        } catch (error) {
          failure = error;
        }
      }
      throw failure;
    },
  };
}

function ask(server: string, port: number, message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIP(server) === 6 ? "udp6" : "udp4");
    const end = (finish: () => void) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      socket.close();
      finish();
    };
    const fail = (reason: string, cause?: unknown) => end(() => reject(new Error(`DNS resolver ${server}: ${reason}`, { cause })));
    const abort = () => fail("given up");
    const timer = setTimeout(() => fail(`no answer in ${ATTEMPT_MS} ms`), ATTEMPT_MS);
    signal.addEventListener("abort", abort);
    socket.on("error", (error) => fail(error.message, error));
    socket.on("message", (answer) => {
      if (answer.length >= 12 && answer[0] === message[0] && answer[1] === message[1]) end(() => resolve(new Uint8Array(answer)));
    });
    socket.on("connect", () => socket.send(message));
    socket.connect(port, server);
  });
}

/** RFC 1035, 4.2.2: a length of two bytes in front of each message. */
function askOverTcp(server: string, port: number, message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server, port, signal, timeout: ATTEMPT_MS });
    const chunks: Buffer[] = [];
    const fail = (reason: string, cause?: unknown) => {
      socket.destroy();
      reject(new Error(`DNS resolver ${server} over TCP: ${reason}`, { cause }));
    };
    socket.on("error", (error) => fail(error.message, error));
    socket.on("timeout", () => fail(`no answer in ${ATTEMPT_MS} ms`));
    socket.on("end", () => fail("closed without a whole answer"));
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      const all = Buffer.concat(chunks);
      if (all.length < 2 || all.length < 2 + all.readUInt16BE(0)) return;
      socket.destroy();
      resolve(new Uint8Array(all.subarray(2, 2 + all.readUInt16BE(0))));
    });
    const length = Buffer.alloc(2);
    length.writeUInt16BE(message.length);
    socket.write(Buffer.concat([length, message]));
  });
}
