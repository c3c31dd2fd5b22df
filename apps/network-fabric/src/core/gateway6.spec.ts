import fc from "fast-check";
import * as wire from "@polyvisor/wire";
import { describe, expect, it } from "vitest";
import { Ipv6Gateway } from "./gateway6.ts";

const { ICMPV6_TYPE, NEIGHBOUR_FLAG } = wire;
const ip = (text: string) => wire.parseIpv6(text)!;
const MAC = wire.parseMac("52:55:0a:00:02:02")!;
const GUEST_MAC = wire.parseMac("52:54:00:12:34:56")!;
const LINK_LOCAL = ip("fe80::5055:aff:fe00:202");
const ON_LINK = ip("fd50:5600:a00:200::2");
const GUEST = ip("fe80::5054:ff:fe12:3456");
const UNSPECIFIED = ip("::");

function start() {
  const sent: Uint8Array[] = [];
  const gateway = new Ipv6Gateway({ mac: MAC, subnetBase: wire.parseIpv4("10.0.2.0")!, mtu: 1500 }, ({ data }) => void sent.push(data));
  const give = (payload: Uint8Array, destination = MAC) => {
    sent.length = 0;
    const handled = gateway.handle({ destination, source: GUEST_MAC, etherType: wire.ETHERTYPE.IPV6, payload });
    return { handled, answers: sent.map(answerIn) };
  };
  const packet = (fields: Partial<wire.Ipv6Packet>) =>
    wire.emitIpv6({ trafficClass: 0, flowLabel: 0, nextHeader: 58, hopLimit: 255, source: GUEST, destination: ON_LINK, payload: new Uint8Array(0), ...fields });
  const icmp = (message: wire.Icmpv6Message, fields: Partial<wire.Ipv6Packet> = {}) => {
    const pair = { source: fields.source ?? GUEST, destination: fields.destination ?? ON_LINK };
    return packet({ ...fields, ...pair, payload: wire.emitIcmpv6(message, pair) });
  };
  const solicit = (target: bigint, fields: Partial<wire.Ipv6Packet> = {}) =>
    icmp({ type: ICMPV6_TYPE.NEIGHBOUR_SOLICITATION, code: 0, body: wire.emitNeighbour({ flags: 0, target, options: [] }) }, { destination: wire.solicitedNode(target), ...fields });
  return { gateway, give, packet, icmp, solicit };
}
function answerIn(frame: Uint8Array) {
  const ethernet = wire.parseEthernet(frame)!;
  const packet = wire.parseIpv6Packet(ethernet.payload)!;
  return { to: ethernet.destination, packet, message: wire.parseIcmpv6(packet.payload, packet)! };
}

describe("IPv6 at the gateway", () => {
  it("router solicitation → a prefix to make addresses in, and no router (lifetime 0); to all nodes when the asker has no address", () => {
    const { give, icmp } = start();
    const solicitation = { type: ICMPV6_TYPE.ROUTER_SOLICITATION, code: 0, body: new Uint8Array(4) };
    const [answer] = give(icmp(solicitation, { destination: ip("ff02::2") }), wire.multicastMac(ip("ff02::2"))).answers;
    expect(answer).toMatchObject({ to: GUEST_MAC, packet: { source: LINK_LOCAL, destination: GUEST, hopLimit: 255 } });
    const advertisement = wire.parseRouterAdvertisement(answer!.message)!;
    expect(advertisement.lifetimeSeconds).toBe(0);
    const prefix = advertisement.options.find(({ type }) => type === wire.NDP_OPTION.PREFIX)!.data;
    expect([prefix[0], prefix[1], wire.formatIpv6(wire.readIpv6(prefix, 14))]).toEqual([64, 0xc0, "fd50:5600:a00:200::"]);
    expect(wire.linkAddressIn(advertisement.options, wire.NDP_OPTION.SOURCE_LINK_ADDRESS)).toBe(MAC);
    const [all] = give(icmp(solicitation, { source: UNSPECIFIED, destination: ip("ff02::2") }), wire.multicastMac(ip("ff02::2"))).answers;
    expect(all).toMatchObject({ to: wire.multicastMac(ip("ff02::1")), packet: { destination: ip("ff02::1") } });
    expect(give(icmp(solicitation, { destination: ip("ff02::2"), hopLimit: 254 })).answers).toEqual([]); // came over a router
  });
  it("neighbour solicitation for either address → its MAC; for others → nothing; a probe (RFC 4862) → to all nodes", () => {
    const { give, solicit } = start();
    for (const target of [LINK_LOCAL, ON_LINK]) {
      const [answer] = give(solicit(target), wire.multicastMac(wire.solicitedNode(target))).answers;
      const neighbour = wire.parseNeighbour(answer!.message)!;
      expect(neighbour).toMatchObject({ target, flags: (NEIGHBOUR_FLAG.SOLICITED | NEIGHBOUR_FLAG.OVERRIDE) >>> 0 });
      expect(wire.linkAddressIn(neighbour.options, wire.NDP_OPTION.TARGET_LINK_ADDRESS)).toBe(MAC);
    }
    expect(give(solicit(ON_LINK, { source: UNSPECIFIED })).answers[0]).toMatchObject({ packet: { destination: ip("ff02::1") } });
    expect(give(solicit(ip("fd50:5600:a00:200::77"))).answers).toEqual([]);
    expect(give(solicit(ON_LINK, { hopLimit: 64 })).answers).toEqual([]);
  });
  it("echo → reply; another port of ours → port unreachable; the world → no route; last hop → time exceeded", () => {
    const { give, icmp, packet } = start();
    const body = Uint8Array.of(0, 1, 0, 2, 9, 9);
    const [reply] = give(icmp({ type: ICMPV6_TYPE.ECHO_REQUEST, code: 0, body })).answers;
    expect(reply).toMatchObject({ packet: { source: ON_LINK, destination: GUEST }, message: { type: ICMPV6_TYPE.ECHO_REPLY } });
    expect([...reply!.message.body]).toEqual([...body]);
    const udp = { nextHeader: 17, payload: new Uint8Array(20) };
    expect(give(packet(udp)).answers[0]!.message).toMatchObject({ type: 1, code: 4 });
    expect(give(packet({ ...udp, destination: ip("2001:db8::1") })).answers[0]!.message).toMatchObject({ type: 1, code: 0 });
    expect(give(packet({ ...udp, destination: ip("2001:db8::1"), hopLimit: 1 })).answers[0]!.message).toMatchObject({ type: 3, code: 0 });
    expect(give(packet({ ...udp, destination: ip("ff02::1") }), wire.multicastMac(ip("ff02::1"))).answers).toEqual([]); // no errors about groups
  });
  it("whatever comes: nothing throws, every answer is whole", () => {
    const { give, icmp } = start();
    const type = fc.constantFrom(...Object.values(ICMPV6_TYPE));
    fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => void give(bytes)));
    fc.assert(
      fc.property(type, fc.nat(5), fc.uint8Array({ minLength: 4, maxLength: 100 }), fc.constantFrom(GUEST, UNSPECIFIED, ON_LINK), fc.constantFrom(ON_LINK, ip("ff02::1"), ip("ff02::2"), ip("2001:db8::1")), (kind, code, body, source, destination) => {
        for (const { message } of give(icmp({ type: kind, code, body }, { source, destination })).answers) expect(message).toBeDefined();
      }),
    );
  });
});
