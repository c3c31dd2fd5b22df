import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ARP_REQUEST, DNS_QUERY_OFFLOADED, fromHex, PING_REQUEST, TCP_SYN_OFFLOADED, toHex, UDHCPC_DISCOVER } from "./golden.ts";
import * as wire from "./index.ts";

const { DHCP_OPTION, ETHERTYPE, IP_PROTOCOL } = wire;
const ip = (text: string) => wire.parseIpv4(text)!;
const mac = (text: string) => wire.parseMac(text)!;
const GUEST_MAC = mac("52:54:00:12:34:56");
const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffff_ffff);
const bytes = (maxLength: number) => fc.uint8Array({ maxLength });

function ipv4Of(hex: string): wire.Ipv4Packet {
  return wire.parseIpv4Packet(wire.parseEthernet(fromHex(hex))!.payload)!;
}

describe("addresses", () => {
  it("are written and read as people do", () => {
    expect(wire.formatMac(GUEST_MAC)).toBe("52:54:00:12:34:56");
    expect(wire.formatMac(1)).toBe("00:00:00:00:00:01");
    expect(wire.formatIpv4(ip("192.168.0.199"))).toBe("192.168.0.199");
    for (const bad of ["", "1.2.3", "1.2.3.256", "1.2.3.4.5", "a.b.c.d", "1..2.3"]) expect(wire.parseIpv4(bad)).toBeUndefined();
    for (const bad of ["", "52:54:00:12:34", "52-54-00-12-34-56", "zz:54:00:12:34:56"]) expect(wire.parseMac(bad)).toBeUndefined();
  });
  it("subnets: mask, membership, broadcast; bits beyond the prefix are refused", () => {
    const subnet = wire.parseSubnet("10.0.2.0/24")!;
    expect(wire.formatIpv4(wire.subnetMask(24))).toBe("255.255.255.0");
    expect(wire.inSubnet(subnet, ip("10.0.2.200"))).toBe(true);
    expect(wire.inSubnet(subnet, ip("10.0.3.1"))).toBe(false);
    expect(wire.formatIpv4(wire.subnetBroadcast(subnet))).toBe("10.0.2.255");
    for (const bad of ["10.0.2.1/24", "10.0.2.0", "10.0.2.0/33", "x/8"]) expect(wire.parseSubnet(bad)).toBeUndefined();
    expect(wire.inSubnet(wire.parseSubnet("0.0.0.0/0")!, 0xffff_ffff)).toBe(true);
  });
  it("group addresses have the group bit", () => {
    expect(wire.isGroupMac(wire.MAC_BROADCAST)).toBe(true);
    expect(wire.isGroupMac(mac("01:00:5e:00:00:fb"))).toBe(true);
    expect(wire.isGroupMac(GUEST_MAC)).toBe(false);
  });
});

describe("checksums", () => {
  it("the example of RFC 1071, section 3", () => {
    expect(wire.internetChecksum(fromHex("0001f203f4f5f6f7"))).toBe(~0xddf2 & 0xffff);
  });
  it("long data, at even and odd addresses, sums as word by word", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(5), fc.nat(3), (data, offset, repeat) => {
        const bytes = new Uint8Array(offset + data.length * 400 * repeat).subarray(offset);
        for (let i = 0; i < bytes.length; i++) bytes[i] = data[i % data.length]! | (i & 0xc1);
        let sum = 0;
        for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
        expect(wire.internetChecksum(bytes)).toBe(wire.finishChecksum(sum));
      }),
      { numRuns: 40 },
    );
    expect(wire.internetChecksum(new Uint8Array(200_000).fill(255))).toBe(0);
  });
  it("one that the driver left to the device is completed to what a full computation gives (virtio 1.2, 5.1.6.2)", () => {
    for (const [hex, protocol, offset] of [[DNS_QUERY_OFFLOADED, IP_PROTOCOL.UDP, 6], [TCP_SYN_OFFLOADED, IP_PROTOCOL.TCP, 16]] as const) {
      const frame = fromHex(hex);
      expect(protocol === IP_PROTOCOL.UDP ? wire.parseUdp(ipv4Of(hex).payload, ipv4Of(hex)) : wire.parseTcp(ipv4Of(hex).payload, ipv4Of(hex))).toBeUndefined();
      expect(wire.completeChecksum(frame, 34, offset)).toBe(true);
      const packet = wire.parseIpv4Packet(frame.subarray(14))!;
      expect(packet.protocol).toBe(protocol);
      expect(protocol === IP_PROTOCOL.UDP ? wire.parseUdp(packet.payload, packet) : wire.parseTcp(packet.payload, packet)).toBeDefined();
    }
    expect(wire.completeChecksum(new Uint8Array(20), 14, 5)).toBe(false);
    expect(wire.completeChecksum(new Uint8Array(20), 0xffff, 0xffff)).toBe(false);
  });
});

describe("golden bytes, both ways", () => {
  it("Ethernet and ARP (RFC 826)", () => {
    const frame = wire.parseEthernet(fromHex(ARP_REQUEST))!;
    expect(frame).toMatchObject({ destination: wire.MAC_BROADCAST, source: GUEST_MAC, etherType: ETHERTYPE.ARP });
    const arp = wire.parseArp(frame.payload)!;
    expect(arp).toEqual({
      operation: 1,
      senderMac: GUEST_MAC,
      senderAddress: ip("10.0.2.15"),
      targetMac: 0,
      targetAddress: ip("10.0.2.2"),
    });
    expect(toHex(wire.emitEthernet({ ...frame, payload: wire.emitArp(arp) }))).toBe(ARP_REQUEST);
  });
  it("an 802.1Q tag (802.1Q, 9.6)", () => {
    const hex = "ffffffffffff5254001234568100b0640806aabb";
    const frame = wire.parseEthernet(fromHex(hex))!;
    expect(frame).toMatchObject({ vlan: { priority: 5, dropEligible: true, id: 100 }, etherType: ETHERTYPE.ARP });
    expect(toHex(wire.emitEthernet(frame))).toBe(hex);
  });
  it("IPv4 (RFC 791) and ICMP echo (RFC 792)", () => {
    const frame = wire.parseEthernet(fromHex(PING_REQUEST))!;
    const packet = wire.parseIpv4Packet(frame.payload)!;
    expect(packet).toMatchObject({
      identification: 0xdc31,
      flags: wire.IPV4_FLAG.DONT_FRAGMENT,
      timeToLive: 64,
      protocol: IP_PROTOCOL.ICMP,
      source: ip("10.0.2.15"),
      destination: ip("10.0.2.2"),
    });
    const echo = wire.parseIcmp(packet.payload)!;
    expect(echo).toMatchObject({ type: 8, code: 0, rest: 0x44d8_0000 });
    expect(echo.payload.length).toBe(56);
    const back = wire.emitEthernet({ ...frame, payload: wire.emitIpv4({ ...packet, payload: wire.emitIcmp(echo) }) });
    expect(toHex(back)).toBe(PING_REQUEST);
  });
  it("UDP (RFC 768) and DHCP (RFC 2131, 2132) as udhcpc sends it", () => {
    const packet = ipv4Of(UDHCPC_DISCOVER);
    const udp = wire.parseUdp(packet.payload, packet)!;
    expect(udp).toMatchObject({ sourcePort: 68, destinationPort: 67 });
    const dhcp = wire.parseDhcp(udp.payload)!;
    expect(dhcp).toMatchObject({ op: 1, transactionId: 0x0d3f_d043, clientMac: GUEST_MAC, broadcast: false });
    expect(dhcp.options.map((option) => option.code)).toEqual([53, 57, 55, 12, 60, 61]);
    expect(new TextDecoder().decode(wire.dhcpOption(dhcp, DHCP_OPTION.HOST_NAME))).toBe("debian");
    expect(toHex(wire.emitUdp({ ...udp, payload: wire.emitDhcp(dhcp) }, packet))).toBe(toHex(packet.payload));
  });
  it("TCP and its options (RFC 9293, 7323, 2018)", () => {
    const frame = fromHex(TCP_SYN_OFFLOADED);
    wire.completeChecksum(frame, 34, 16);
    const packet = wire.parseIpv4Packet(frame.subarray(14))!;
    const syn = wire.parseTcp(packet.payload, packet)!;
    expect(syn).toMatchObject({ sourcePort: 40001, destinationPort: 80, sequence: 0xb8bf4299, flags: wire.TCP_FLAG.SYN, window: 64240 });
    expect(wire.parseTcpOptions(syn.options)).toEqual({
      maximumSegmentSize: 1460,
      sackPermitted: true,
      timestamps: { value: 0x1f050a9b, echo: 0 },
      windowScale: 10,
    });
    expect(toHex(wire.emitTcp(syn, packet))).toBe(toHex(packet.payload));
  });
  it("DNS: question echoed with SERVFAIL (RFC 1035, 4.1.1)", () => {
    const query = ipv4Of(DNS_QUERY_OFFLOADED).payload.subarray(8);
    expect(wire.parseDnsHead(query)).toEqual({ id: 0x1234, response: false, questions: 1, questionsEnd: query.length });
    expect(toHex(wire.dnsFailure(query, wire.DNS_RCODE.SERVER_FAILURE)!)).toBe(
      "1234818200010000000000000664656269616e036f72670000010001",
    );
  });
});

describe("answers that the specs prescribe", () => {
  it("a SYN to nobody → RST and ACK of its sequence number + 1; a reset → nothing (RFC 9293, 3.10.7.1)", () => {
    const frame = fromHex(TCP_SYN_OFFLOADED);
    wire.completeChecksum(frame, 34, 16);
    const packet = wire.parseIpv4Packet(frame.subarray(14))!;
    const reset = wire.resetFor(wire.parseTcp(packet.payload, packet)!)!;
    expect(reset).toMatchObject({ sourcePort: 80, destinationPort: 40001, sequence: 0, acknowledgment: 0xb8bf429a, flags: 0x14 });
    expect(wire.resetFor(reset)).toBeUndefined();
  });
  it("an ICMP error is never about an ICMP error or a later fragment (RFC 1122, 3.2.2)", () => {
    const echo = ipv4Of(PING_REQUEST);
    const error = wire.unreachable(echo, wire.UNREACHABLE_CODE.HOST)!;
    expect(toHex(error.payload)).toBe(PING_REQUEST.slice(28));
    const packet = wire.ipv4Datagram({ protocol: 1, source: 1, destination: 2, payload: wire.emitIcmp(error) });
    expect(wire.unreachable(packet, 1)).toBeUndefined();
    expect(wire.unreachable({ ...echo, protocol: 17, fragmentOffset: 8 }, 1)).toBeUndefined();
  });
  it("fragments fit the MTU, and joined are the datagram again (RFC 791, 3.2)", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 6000 }), fc.integer({ min: 68, max: 1500 }), (payload, mtu) => {
        const parts = wire.fragmentIpv4(wire.ipv4Datagram({ protocol: 17, source: 1, destination: 2, payload }), mtu);
        const joined = new Uint8Array(payload.length);
        parts.forEach((part, i) => {
          expect(wire.emitIpv4(part).length).toBeLessThanOrEqual(Math.max(mtu, 20));
          expect((part.flags & 1) === 1).toBe(i < parts.length - 1);
          joined.set(part.payload, part.fragmentOffset);
        });
        expect(joined).toEqual(payload);
      }),
      { numRuns: 50 },
    );
  });
});

describe("segmentation offload (virtio 1.2, 5.1.6.2)", () => {
  const superFrame = (payload: Uint8Array, flags: number) => {
    const pair = { source: ip("10.0.2.15"), destination: ip("192.0.2.1") };
    const options = wire.emitTcpOptions({ timestamps: { value: 1, echo: 2 } });
    const tcp = wire.emitTcp({ sourcePort: 1, destinationPort: 2, sequence: 0xffff_ff00, acknowledgment: 9, flags, window: 5, urgentPointer: 0, options, payload }, pair);
    const packet = wire.emitIpv4(wire.ipv4Datagram({ ...pair, protocol: IP_PROTOCOL.TCP, identification: 0xffff, payload: tcp }));
    return wire.emitEthernet({ destination: 1, source: 2, etherType: ETHERTYPE.IPV4, payload: packet });
  };
  const request = { needsChecksum: true, checksumStart: 34, checksumOffset: 16, gsoType: wire.GSO.TCPV4, headerLength: 66 };
  it("whole segments with good checksums that join to the same bytes; FIN and PSH only at the end, CWR only at the start", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 5000 }), fc.integer({ min: 1, max: 1460 }).filter((size) => size > 200), (payload, gsoSize) => {
        const flags = wire.TCP_FLAG.ACK | wire.TCP_FLAG.PSH | wire.TCP_FLAG.FIN | wire.TCP_FLAG.CWR;
        const frame = superFrame(payload, flags);
        const before = frame.slice();
        const parts = wire.completeFrame(frame, { ...request, gsoSize })!;
        expect(frame).toEqual(before);
        const joined: number[] = [];
        parts.forEach((part, i) => {
          const packet = wire.parseIpv4Packet(wire.parseEthernet(part)!.payload)!;
          const segment = wire.parseTcp(packet.payload, packet)!;
          expect(packet.identification).toBe((0xffff + i) & 0xffff);
          expect(segment.sequence).toBe((0xffff_ff00 + joined.length) >>> 0);
          expect((segment.flags & wire.TCP_FLAG.FIN) !== 0).toBe(i === parts.length - 1);
          expect((segment.flags & wire.TCP_FLAG.CWR) !== 0).toBe(i === 0);
          joined.push(...segment.payload);
        });
        expect(Uint8Array.from(joined)).toEqual(payload);
      }),
      { numRuns: 50 },
    );
  });
  it("what is no TCP, or a size of 0 → undefined; nothing asked → the frame itself", () => {
    const frame = superFrame(new Uint8Array(10), wire.TCP_FLAG.ACK);
    expect(wire.completeFrame(frame, { ...request, gsoSize: 0 })).toBeUndefined();
    expect(wire.completeFrame(fromHex(PING_REQUEST), { ...request, gsoSize: 100 })).toBeUndefined();
    expect(wire.completeFrame(frame, undefined)).toEqual([frame]);
  });
});

describe("any values survive emit and parse", () => {
  const pair = fc.record({ source: u32, destination: u32 });
  it("Ethernet, ARP, IPv4, ICMP, UDP, TCP, DHCP", () => {
    const anyMac = fc.nat(0xffff_ffff_ffff);
    const ethernet = fc.record({
      destination: anyMac,
      source: anyMac,
      etherType: fc.nat(0xffff).filter((type) => type !== 0x8100),
      vlan: fc.option(fc.record({ priority: fc.nat(7), dropEligible: fc.boolean(), id: fc.nat(4095) }), { nil: undefined }),
      payload: bytes(64),
    });
    fc.assert(fc.property(ethernet, (frame) => void expect(wire.parseEthernet(wire.emitEthernet(frame))).toEqual(frame)));
    const arp = fc.record({ operation: u16, senderMac: anyMac, senderAddress: u32, targetMac: anyMac, targetAddress: u32 });
    fc.assert(fc.property(arp, (packet) => void expect(wire.parseArp(wire.emitArp(packet))).toEqual(packet)));
    const options = fc.nat(10).chain((words) => fc.uint8Array({ minLength: words * 4, maxLength: words * 4 }));
    const ipv4 = fc.record({
      ...{ trafficClass: fc.nat(255), identification: u16, flags: fc.nat(7), timeToLive: fc.nat(255), protocol: fc.nat(255) },
      ...{ fragmentOffset: fc.nat(0x1fff).map((n) => n * 8), source: u32, destination: u32, options, payload: bytes(64) },
    });
    fc.assert(fc.property(ipv4, (packet) => void expect(wire.parseIpv4Packet(wire.emitIpv4(packet))).toEqual(packet)));
    const icmp = fc.record({ type: fc.nat(255), code: fc.nat(255), rest: u32, payload: bytes(33) });
    fc.assert(fc.property(icmp, (message) => void expect(wire.parseIcmp(wire.emitIcmp(message))).toEqual(message)));
    const udp = fc.record({ sourcePort: u16, destinationPort: u16, payload: bytes(33) });
    fc.assert(fc.property(udp, pair, (datagram, p) => void expect(wire.parseUdp(wire.emitUdp(datagram, p), p)).toEqual(datagram)));
    const tcp = fc.record({
      ...{ sourcePort: u16, destinationPort: u16, sequence: u32, acknowledgment: u32, flags: fc.nat(0xfff), window: u16 },
      ...{ urgentPointer: u16, options, payload: bytes(33) },
    });
    fc.assert(fc.property(tcp, pair, (segment, p) => void expect(wire.parseTcp(wire.emitTcp(segment, p), p)).toEqual(segment)));
    const dhcp = fc.record({
      ...{ op: fc.nat(255), hops: fc.nat(255), transactionId: u32, seconds: u16, broadcast: fc.boolean(), clientMac: anyMac },
      ...{ clientAddress: u32, yourAddress: u32, serverAddress: u32, relayAddress: u32 },
      serverName: fc.uint8Array({ minLength: 64, maxLength: 64 }),
      file: fc.uint8Array({ minLength: 128, maxLength: 128 }),
      options: fc.array(fc.record({ code: fc.integer({ min: 1, max: 254 }), data: bytes(40) }), { maxLength: 8 }),
    });
    fc.assert(fc.property(dhcp, (message) => void expect(wire.parseDhcp(wire.emitDhcp(message))).toEqual(message)));
  });
  it("TCP options", () => {
    const anyOptions = fc.record(
      {
        ...{ maximumSegmentSize: u16, windowScale: fc.nat(14), sackPermitted: fc.constant(true as const) },
        timestamps: fc.record({ value: u32, echo: u32 }),
        unknown: fc.array(fc.record({ kind: fc.integer({ min: 60, max: 200 }), data: bytes(4) }), { minLength: 1, maxLength: 2 }),
      },
      { requiredKeys: [] },
    );
    fc.assert(fc.property(anyOptions, (options) => void expect(wire.parseTcpOptions(wire.emitTcpOptions(options))).toEqual(options)));
  });
});

describe("garbage", () => {
  const parsers: ((input: Uint8Array) => unknown)[] = [
    wire.parseEthernet,
    wire.parseArp,
    wire.parseIpv4Packet,
    wire.parseIcmp,
    (input) => wire.parseUdp(input, { source: 1, destination: 2 }),
    (input) => wire.parseTcp(input, { source: 1, destination: 2 }),
    wire.parseTcpOptions,
    wire.parseDhcp,
    wire.parseDnsHead,
    (input) => wire.dnsFailure(input, 2),
  ];
  it("never throws: any bytes, and golden frames cut short or with bytes changed", () => {
    const golden = [ARP_REQUEST, PING_REQUEST, UDHCPC_DISCOVER, DNS_QUERY_OFFLOADED, TCP_SYN_OFFLOADED].map(fromHex);
    const damaged = fc
      .tuple(fc.constantFrom(...golden), fc.nat(60), fc.nat(400), fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 }))
      .map(([frame, from, to, changes]) => {
        const copy = frame.slice(from, to);
        for (const [at, byte] of changes) if (at < copy.length) copy[at] = byte;
        return copy;
      });
    fc.assert(
      fc.property(fc.oneof(bytes(400), damaged), (input) => {
        for (const parse of parsers) parse(input);
      }),
      { numRuns: 1000 },
    );
  });
});
