import { createSocket, type Socket } from "node:dgram";
import { afterEach, describe, expect, it } from "vitest";
import { nameservers, resolverAddresses, resolverUpstream } from "./resolver.ts";

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});
/** A resolver on the loopback; answers its port. */
async function server(answer: (query: Buffer, reply: (message: Uint8Array) => void) => void): Promise<number> {
  const socket = createSocket("udp4");
  sockets.push(socket);
  socket.on("message", (query, from) => answer(query, (message) => socket.send(message, from.port, from.address)));
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return socket.address().port;
}
const QUERY = Uint8Array.from({ length: 20 }, (_, i) => i);

describe("resolverUpstream", () => {
  it("asks, leaves out answers with another id, and answers the right one", async () => {
    const right = QUERY.slice().fill(9, 4);
    const port = await server((query, reply) => {
      expect([...query]).toEqual([...QUERY]);
      reply(new Uint8Array(20).fill(77));
      reply(right);
    });
    const answer = await resolverUpstream(() => ["127.0.0.1"], port).query(QUERY, new AbortController().signal);
    expect([...answer]).toEqual([...right]);
  });
  it("a server that refuses → the next is asked", async () => {
    const port = await server((query, reply) => reply(query));
    const answer = await resolverUpstream(() => ["127.0.0.9", "127.0.0.1"], port).query(QUERY, new AbortController().signal);
    expect(answer.length).toBe(20);
  });
  it("no servers, or given up meanwhile → rejects", async () => {
    await expect(resolverUpstream(() => []).query(QUERY, new AbortController().signal)).rejects.toThrow("no DNS resolvers");
    const port = await server(() => {});
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 20);
    await expect(resolverUpstream(() => ["127.0.0.1"], port).query(QUERY, abort.signal)).rejects.toThrow();
  });
});

describe("resolver addresses", () => {
  it("the nameserver lines of resolv.conf(5), zone ids cut off, anything else left out", () => {
    expect(nameservers("# x\nsearch a\nnameserver 10.0.0.1\n nameserver fe80::1%eth0\nnameserver bogus\noptions edns0\n")).toEqual(["10.0.0.1", "fe80::1"]);
  });
  it("configured ones win; a missing file means none", () => {
    expect(resolverAddresses("1.1.1.1, 9.9.9.9")()).toEqual(["1.1.1.1", "9.9.9.9"]);
    expect(resolverAddresses("", "/no/such/file")()).toEqual([]);
  });
});
