import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeFrame, parseDns, PcapngReader, pcapngInterface, pcapngPacket, pcapngSection, SETTABLE_FIELDS, withFrameField, dnsLocalAnswer } from "./index.ts";
import { ARP_REQUEST, DNS_QUERY_OFFLOADED, fromHex, PING_REQUEST, TCP_SYN_OFFLOADED, UDHCPC_DISCOVER } from "./golden.ts";

const CORPUS = [ARP_REQUEST, DNS_QUERY_OFFLOADED, PING_REQUEST, TCP_SYN_OFFLOADED, UDHCPC_DISCOVER].map((hex) => fromHex(hex));
/** A captured frame with some bytes changed and its end cut. */
const hostile = fc
  .tuple(fc.constantFrom(...CORPUS), fc.array(fc.tuple(fc.nat(600), fc.nat(255)), { maxLength: 8 }), fc.nat(400))
  .map(([frame, changes, cut]) => {
    const bytes = frame.slice(0, Math.max(0, frame.length - cut));
    for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
    return bytes;
  });

describe("frames under the names of packet filters", () => {
  it("captured frames show their layers", () => {
    expect(decodeFrame(CORPUS[0]!)).toMatchObject({ arp: { op: "request" } });
    expect(decodeFrame(CORPUS[1]!)).toMatchObject({ ip: { version: 4 }, udp: { dport: 53 }, dns: { response: false } });
    expect(decodeFrame(CORPUS[2]!)).toMatchObject({ icmp: { type: 8 } });
    expect(decodeFrame(CORPUS[3]!)).toMatchObject({ tcp: { flags: "syn" } });
    expect(decodeFrame(CORPUS[4]!)).toMatchObject({ dhcp: { type: "discover" } });
  });
  it("whatever the bytes: no exception, and setting a field gives a frame of the same length or none", () => {
    const paths = SETTABLE_FIELDS.map((field) => field.replace("[N]", ".0").split("."));
    fc.assert(
      fc.property(fc.oneof(hostile, fc.uint8Array({ maxLength: 120 })), fc.constantFrom(...paths), fc.oneof(fc.constantFrom("1.2.3.4", "52:54:00:00:00:01"), fc.nat(70_000)), (bytes, path, value) => {
        decodeFrame(bytes);
        const changed = withFrameField(bytes, path, value);
        if (changed) expect(changed.length).toBe(bytes.length);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("DNS messages", () => {
  it("hostile names (pointers to themselves, forwards, in circles, cut) → undefined, in time", () => {
    const head = [0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for (const name of [[0xc0, 12], [0xc0, 14, 0xc0, 12], [1, 97, 0xc0, 12], [0xc0], [63, 1], [64, 0], []]) expect(parseDns(Uint8Array.of(...head, ...name))).toBeUndefined();
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => void parseDns(Uint8Array.of(...head, ...bytes))));
  });
  it("names of our own are answered; other types of them without records; other names not", () => {
    const query = (type: number) => Uint8Array.of(0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 0x57, 0x65, 0x62, 0, 0, type, 0, 1);
    const names = (name: string) => (name.toLowerCase() === "web" ? 0x0a000310 : undefined);
    const answer = parseDns(dnsLocalAnswer(query(1), names)!)!;
    expect(answer).toMatchObject({ id: 9, response: true, rcode: 0, answers: [{ name: "Web", type: 1, address: "10.0.3.16" }] });
    expect(parseDns(dnsLocalAnswer(query(28), names)!)).toMatchObject({ response: true, rcode: 0, answers: [] });
    expect(dnsLocalAnswer(query(1), () => undefined)).toBeUndefined();
  });
});

describe("pcapng", () => {
  it("what is written is read again, in whatever pieces it comes", () => {
    const packets = CORPUS.map((data, i) => ({ interface: i % 2, unixNanoseconds: 1_700_000_000_000_000_000n + BigInt(i), data, originalLength: data.length, direction: i % 2 ? ("in" as const) : ("out" as const) }));
    const file = Buffer.concat([pcapngSection("test"), pcapngInterface("web/net0", 0), pcapngInterface("gateway", 0), ...packets.map(pcapngPacket)]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 200 }), { maxLength: 20 }), (sizes) => {
        const reader = new PcapngReader();
        let at = 0;
        const read = [...sizes, file.length].flatMap((size) => reader.push(file.subarray(at, (at += size))));
        expect(read.map(({ data, interface: name, unixNanoseconds, direction }) => [name, unixNanoseconds, direction, Buffer.from(data).toString("hex")])).toEqual(
          packets.map((packet) => [packet.interface ? "gateway" : "web/net0", packet.unixNanoseconds, packet.direction, Buffer.from(packet.data).toString("hex")]),
        );
      }),
    );
  });
});
