import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromHex, NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION, toHex } from "./golden.ts";
import * as wire from "./index.ts";

const ip6 = (text: string) => wire.parseIpv6(text)!;
const address = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n });
const u32 = fc.nat(0xffff_ffff);
const LINK_LOCAL = ip6("fe80::5054:ff:fe12:3456");

describe("IPv6 addresses", () => {
  it("are written as RFC 5952 says, and read in every form of RFC 4291, 2.2", () => {
    for (const text of ["::", "::1", "fe80::5054:ff:fe12:3456", "2001:db8::1:0:0:1", "1:2:3:4:5:6:7:8", "fd00::", "1:0:3:4:5:6:7:8"]) {
      expect(wire.formatIpv6(ip6(text))).toBe(text);
    }
    expect(ip6("2001:DB8:0:0:0:0:0:1")).toBe(ip6("2001:db8::1"));
    expect(wire.formatIpv6(ip6("::ffff:192.0.2.1"))).toBe("::ffff:c000:201");
    for (const bad of ["", ":", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::", "::1.2.3.256"]) expect(wire.parseIpv6(bad)).toBeUndefined();
    fc.assert(fc.property(address, (value) => void expect(wire.parseIpv6(wire.formatIpv6(value))).toBe(value)));
  });
  it("identifier of a MAC (RFC 4291, appendix A), solicited node and its Ethernet address (RFC 2464, 7)", () => {
    expect((ip6("fe80::") | wire.interfaceIdentifier(wire.parseMac("52:54:00:12:34:56")!))).toBe(LINK_LOCAL);
    expect(wire.formatIpv6(wire.solicitedNode(LINK_LOCAL))).toBe("ff02::1:ff12:3456");
    expect(wire.formatMac(wire.multicastMac(ip6("ff02::1:ff12:3456")))).toBe("33:33:ff:12:34:56");
    expect([wire.isLinkLocal(LINK_LOCAL), wire.isLinkLocal(ip6("fd00::1")), wire.isMulticastIpv6(ip6("ff02::1"))]).toEqual([true, false, true]);
  });
});

describe("golden bytes, both ways (Linux 6)", () => {
  it("Router Solicitation", () => {
    const frame = wire.parseEthernet(fromHex(ROUTER_SOLICITATION))!;
    const packet = wire.parseIpv6Packet(frame.payload)!;
    expect(packet).toMatchObject({ nextHeader: 58, hopLimit: 255, source: LINK_LOCAL, destination: ip6("ff02::2") });
    const message = wire.parseIcmpv6(packet.payload, packet)!;
    expect(message.type).toBe(wire.ICMPV6_TYPE.ROUTER_SOLICITATION);
    expect(wire.linkAddressIn(wire.parseNdpOptions(message.body.subarray(4))!, wire.NDP_OPTION.SOURCE_LINK_ADDRESS)).toBe(wire.parseMac("52:54:00:12:34:56"));
    const back = wire.emitEthernet({ ...frame, payload: wire.emitIpv6({ ...packet, payload: wire.emitIcmpv6(message, packet) }) });
    expect(toHex(back)).toBe(ROUTER_SOLICITATION);
  });
  it("Neighbour Solicitation", () => {
    const packet = wire.parseIpv6Packet(fromHex(NEIGHBOUR_SOLICITATION).subarray(14))!;
    const message = wire.parseIcmpv6(packet.payload, packet)!;
    const solicitation = wire.parseNeighbour(message)!;
    expect(solicitation).toMatchObject({ flags: 0, target: LINK_LOCAL });
    expect(toHex(wire.emitIcmpv6({ ...message, body: wire.emitNeighbour(solicitation) }, packet))).toBe(toHex(packet.payload));
  });
});

describe("any values survive emit and parse", () => {
  const pair = fc.record({ source: address, destination: address });
  it("IPv6, ICMPv6, neighbours, router advertisements", () => {
    const packet = fc.record({
      ...{ trafficClass: fc.nat(255), flowLabel: fc.nat(0xfffff), nextHeader: fc.nat(255), hopLimit: fc.nat(255) },
      ...{ source: address, destination: address, payload: fc.uint8Array({ maxLength: 64 }) },
    });
    fc.assert(fc.property(packet, (value) => void expect(wire.parseIpv6Packet(wire.emitIpv6(value))).toEqual(value)));
    const message = fc.record({ type: fc.nat(255), code: fc.nat(255), body: fc.uint8Array({ minLength: 4, maxLength: 65 }) });
    fc.assert(fc.property(message, pair, (value, p) => void expect(wire.parseIcmpv6(wire.emitIcmpv6(value, p), p)).toEqual(value)));
    const options = fc.array(fc.record({ type: fc.nat(255), data: fc.nat(4).chain((n) => fc.uint8Array({ minLength: 6 + 8 * n, maxLength: 6 + 8 * n })) }), { maxLength: 4 });
    const neighbour = fc.record({ flags: u32, target: address, options });
    const body = (bytes: Uint8Array) => ({ type: 0, code: 0, body: bytes });
    fc.assert(fc.property(neighbour, (value) => void expect(wire.parseNeighbour(body(wire.emitNeighbour(value)))).toEqual(value)));
    const router = fc.record({ hopLimit: fc.nat(255), flags: fc.nat(255), lifetimeSeconds: fc.nat(65_535), reachableMs: u32, retransmitMs: u32, options });
    fc.assert(fc.property(router, (value) => void expect(wire.parseRouterAdvertisement(body(wire.emitRouterAdvertisement(value)))).toEqual(value)));
  });
  it("extension headers are walked; fragments and endless chains are not", () => {
    const base = { trafficClass: 0, flowLabel: 0, hopLimit: 64, source: 1n, destination: 2n };
    const hop = (next: number) => Uint8Array.of(next, 0, 1, 4, 0, 0, 0, 0);
    const two = Uint8Array.of(...hop(60), ...hop(17), 9, 9);
    expect(wire.ipv6Transport({ ...base, nextHeader: 0, payload: two })).toEqual({ protocol: 17, payload: Uint8Array.of(9, 9) });
    expect(wire.ipv6Transport({ ...base, nextHeader: 44, payload: two })).toBeUndefined();
    const endless = new Uint8Array(8 * 20);
    expect(wire.ipv6Transport({ ...base, nextHeader: 0, payload: endless })).toBeUndefined();
  });
  it("errors: never about errors, groups or nobody (RFC 4443, 2.4(e)); quoted within 1280 bytes", () => {
    const base = { trafficClass: 0, flowLabel: 0, hopLimit: 64, nextHeader: 17, source: 1n, destination: 2n, payload: new Uint8Array(3000) };
    expect(wire.icmpv6Error(base, 1, 0)!.body.length).toBe(1280 - 48 + 4);
    for (const fields of [{ destination: ip6("ff02::1") }, { source: 0n }, { nextHeader: 58, payload: Uint8Array.of(1, 0, 0, 0) }]) {
      expect(wire.icmpv6Error({ ...base, ...fields }, 1, 0)).toBeUndefined();
    }
  });
});

describe("garbage", () => {
  it("never throws", () => {
    const damaged = fc
      .tuple(fc.constantFrom(ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION), fc.nat(60), fc.array(fc.tuple(fc.nat(90), fc.nat(255)), { maxLength: 4 }))
      .map(([hex, from, changes]) => {
        const copy = fromHex(hex).slice(from);
        for (const [at, byte] of changes) if (at < copy.length) copy[at] = byte;
        return copy;
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 120 }), damaged), (input) => {
        const packet = wire.parseIpv6Packet(input);
        if (packet) wire.ipv6Transport(packet);
        wire.parseIcmpv6(input, { source: 1n, destination: 2n });
        wire.parseNdpOptions(input);
        wire.parseNeighbour({ type: 0, code: 0, body: input });
        wire.parseRouterAdvertisement({ type: 0, code: 0, body: input });
      }),
      { numRuns: 1000 },
    );
  });
});
