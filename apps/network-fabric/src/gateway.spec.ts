import fc from "fast-check";
import { Network, NetworkMode, Port, type FrameBatch } from "@polyvisor/contracts/network";
import { channelPair } from "@polyvisor/contracts";
import { manualClock, testContext } from "@polyvisor/testkit";
import * as wire from "@polyvisor/wire";
import { ARP_REQUEST, DNS_QUERY_OFFLOADED, fromHex, PING_REQUEST, TCP_SYN_OFFLOADED, toHex, UDHCPC_DISCOVER } from "@polyvisor/wire/golden";
import { describe, expect, it } from "vitest";
import { createService, DEFAULT_CONFIG, type DnsUpstream } from "./index.ts";
import { FakeHost } from "./testing/fake-host.ts";

const { DHCP_MESSAGE, DHCP_OPTION, ETHERTYPE, IP_PROTOCOL } = wire;
const ip = (text: string) => wire.parseIpv4(text)!;
const GUEST = ip("10.0.2.15");
const GUEST_MAC = wire.parseMac("52:54:00:12:34:56")!;
const ROUTER_MAC = wire.parseMac("52:55:0a:00:02:02")!;

/** A NIC on the network `nat`, with time and DNS in the test's hands. */
async function start({ dns, mtu = 0, spoof = "" }: { dns?: DnsUpstream; mtu?: number; spoof?: string } = {}) {
  const clock = manualClock();
  const context = { ...testContext(), clock };
  const host = new FakeHost();
  const service = await createService(DEFAULT_CONFIG, { host, dns: dns ?? { query: () => new Promise(() => {}) } }, context);
  const { createNetwork, createPort, frames, listLeases, readNetworkStats } = service.implementation;
  const network = mtu || spoof ? "other" : "nat";
  if (network !== "nat") await createNetwork!({ network: Network.fromPartial({ name: network, mode: NetworkMode.NAT, mtu, spoof }) });
  await createPort!({ port: Port.fromPartial({ id: "web/net0", machine: "web", network, mac: "52:54:00:12:34:56", linkUp: true }) });
  const [nic, fabricEnd] = channelPair<FrameBatch, FrameBatch>();
  frames!(fabricEnd);
  let received: Uint8Array[] = [];
  nic.onMessage((batch) => received.push(...batch.frames.map(({ data }) => data)));
  const give = (list: FrameBatch["frames"], credit: number) => nic.send({ machine: "web", port: "web/net0", frames: list, credit, linkUp: false, takesOffload: false });
  give([], 60_000);
  const send = (data: Uint8Array, offload?: FrameBatch["frames"][0]["offload"]): Uint8Array[] => {
    received = [];
    give([{ data, offload }], 0);
    return received;
  };
  const sendIp = (fields: Parameters<typeof wire.ipv4Datagram>[0]) => send(inFrame(fields));
  const leases = async () => (await listLeases!({ network: "" })).leases;
  const counter = async (name: string) => (await readNetworkStats!({ machine: "web", network: "" })).counters.get(`web/net0.${name}`);
  return { ...service, host, clock, facts: context.facts, send, sendIp, leases, counter, received: () => received };
}
function inFrame(fields: Parameters<typeof wire.ipv4Datagram>[0], source = GUEST_MAC): Uint8Array {
  const payload = wire.emitIpv4(wire.ipv4Datagram(fields));
  return wire.emitEthernet({ destination: ROUTER_MAC, source, etherType: ETHERTYPE.IPV4, payload });
}
function packetOf(frame: Uint8Array | undefined): wire.Ipv4Packet {
  const ethernet = wire.parseEthernet(frame!)!;
  expect(ethernet.etherType).toBe(ETHERTYPE.IPV4);
  return wire.parseIpv4Packet(ethernet.payload)!;
}
function udpOf(frame: Uint8Array | undefined): wire.UdpDatagram {
  const packet = packetOf(frame);
  return wire.parseUdp(packet.payload, packet)!;
}
const dhcpOf = (frame: Uint8Array | undefined) => wire.parseDhcp(udpOf(frame).payload)!;
const typeOf = (message: wire.DhcpMessage) => wire.dhcpOption(message, DHCP_OPTION.MESSAGE_TYPE)![0];
const addressIn = (message: wire.DhcpMessage, code: number) => wire.formatIpv4(wire.dhcpAddressOption(message, code)!);

/** udhcpc's own DISCOVER, turned into another message. */
function dhcpFrame(type: number, options: wire.DhcpOption[] = [], fields: Partial<wire.DhcpMessage> = {}, mac = GUEST_MAC): Uint8Array {
  const discover = dhcpOf(fromHex(UDHCPC_DISCOVER));
  const rest = discover.options.filter(({ code }) => code !== DHCP_OPTION.MESSAGE_TYPE);
  const message = { ...discover, clientMac: mac, ...fields, options: [wire.dhcpU8(DHCP_OPTION.MESSAGE_TYPE, type), ...rest, ...options] };
  const pair = { source: message.clientAddress, destination: wire.IPV4_BROADCAST };
  const payload = wire.emitUdp({ sourcePort: 68, destinationPort: 67, payload: wire.emitDhcp(message) }, pair);
  return inFrame({ ...pair, protocol: IP_PROTOCOL.UDP, payload }, mac);
}
const requested = (text: string) => wire.dhcpU32(DHCP_OPTION.REQUESTED_ADDRESS, ip(text));
const SERVER = wire.dhcpU32(DHCP_OPTION.SERVER_IDENTIFIER, ip("10.0.2.2"));

describe("ARP", () => {
  it("a request as Linux sends it → the router's address, byte for byte (RFC 826)", async () => {
    const { send } = await start();
    expect(send(fromHex(ARP_REQUEST)).map(toHex)).toEqual([
      ["525400123456", "52550a000202", "0806", "0001080006040002", "52550a000202", "0a000202", "525400123456", "0a00020f"].join(""),
    ]);
  });
  it("for anybody else, also the guest's own address (a probe) → silence", async () => {
    const { send } = await start();
    for (const last of [15, 4, 255]) {
      const request = fromHex(ARP_REQUEST);
      request[41] = last;
      expect(send(request)).toEqual([]);
    }
  });
});

describe("DHCP, as udhcpc speaks it", () => {
  it("DISCOVER → OFFER of 10.0.2.15 with everything a guest needs, to its address", async () => {
    const { send, leases } = await start();
    const [frame] = send(fromHex(UDHCPC_DISCOVER));
    const ethernet = wire.parseEthernet(frame!)!;
    expect([ethernet.destination, ethernet.source]).toEqual([GUEST_MAC, ROUTER_MAC]);
    expect(packetOf(frame)).toMatchObject({ source: ip("10.0.2.2"), destination: GUEST });
    expect(udpOf(frame)).toMatchObject({ sourcePort: 67, destinationPort: 68 });
    const offer = dhcpOf(frame);
    expect(offer).toMatchObject({ op: 2, transactionId: 0x0d3fd043, yourAddress: GUEST, clientMac: GUEST_MAC });
    expect(typeOf(offer)).toBe(DHCP_MESSAGE.OFFER);
    expect(addressIn(offer, DHCP_OPTION.SUBNET_MASK)).toBe("255.255.255.0");
    expect(addressIn(offer, DHCP_OPTION.ROUTER)).toBe("10.0.2.2");
    expect(addressIn(offer, DHCP_OPTION.DNS_SERVER)).toBe("10.0.2.3");
    expect(addressIn(offer, DHCP_OPTION.SERVER_IDENTIFIER)).toBe("10.0.2.2");
    expect(wire.dhcpAddressOption(offer, DHCP_OPTION.LEASE_TIME)).toBe(86_400);
    expect([...wire.dhcpOption(offer, DHCP_OPTION.INTERFACE_MTU)!]).toEqual([1500 >> 8, 1500 & 255]);
    expect(toHex(wire.dhcpOption(offer, DHCP_OPTION.CLIENT_IDENTIFIER)!)).toBe("01525400123456"); // RFC 6842
    expect(await leases()).toEqual([]); // only offered
  });
  it("REQUEST → ACK, a lease that is listed with the host name, and a fact; asking again → the same, no second fact", async () => {
    const { send, leases, facts } = await start();
    send(fromHex(UDHCPC_DISCOVER));
    const request = () => dhcpFrame(DHCP_MESSAGE.REQUEST, [requested("10.0.2.15"), SERVER]);
    expect(typeOf(dhcpOf(send(request())[0]))).toBe(DHCP_MESSAGE.ACK);
    expect(typeOf(dhcpOf(send(request())[0]))).toBe(DHCP_MESSAGE.ACK);
    const lease = { network: "nat", mac: "52:54:00:12:34:56", address: "10.0.2.15", hostname: "debian" };
    expect(await leases()).toEqual([{ ...lease, expiresUnixMs: 1_700_000_000_000n + 86_400_000n }]);
    expect(facts.filter(({ fact }) => fact === "lease-granted").map(({ data }) => data)).toEqual([lease]);
  });
  it("the broadcast flag → the answer is broadcast (RFC 2131, 4.1)", async () => {
    const { send } = await start();
    const [frame] = send(dhcpFrame(DHCP_MESSAGE.DISCOVER, [], { broadcast: true }));
    expect(wire.parseEthernet(frame!)!.destination).toBe(wire.MAC_BROADCAST);
    expect(packetOf(frame).destination).toBe(wire.IPV4_BROADCAST);
  });
  it("renewal (ciaddr, no option 50) → ACK to that address, and the lease lasts from now", async () => {
    const { send, leases, clock } = await start();
    send(fromHex(UDHCPC_DISCOVER));
    send(dhcpFrame(DHCP_MESSAGE.REQUEST, [requested("10.0.2.15"), SERVER]));
    clock.advance(43_200_000);
    const [frame] = send(dhcpFrame(DHCP_MESSAGE.REQUEST, [], { clientAddress: GUEST }));
    expect(typeOf(dhcpOf(frame))).toBe(DHCP_MESSAGE.ACK);
    expect(packetOf(frame).destination).toBe(GUEST);
    expect((await leases())[0]!.expiresUnixMs).toBe(1_700_000_000_000n + 43_200_000n + 86_400_000n);
    clock.advance(86_400_000);
    expect(await leases()).toEqual([]);
  });
  it("a reboot that remembers a free address of ours → ACK; one of another network → NAK, broadcast (RFC 2131, 4.3.2)", async () => {
    const { send } = await start();
    expect(typeOf(dhcpOf(send(dhcpFrame(DHCP_MESSAGE.REQUEST, [requested("10.0.2.20")]))[0]))).toBe(DHCP_MESSAGE.ACK);
    const [frame] = send(dhcpFrame(DHCP_MESSAGE.REQUEST, [requested("192.168.1.5")]));
    expect(typeOf(dhcpOf(frame))).toBe(DHCP_MESSAGE.NAK);
    expect(wire.parseEthernet(frame!)!.destination).toBe(wire.MAC_BROADCAST);
    expect(dhcpOf(frame).yourAddress).toBe(0);
  });
  it("another server's offer taken → silence, and the address is free again", async () => {
    const { send } = await start({ spoof: "allow" });
    send(fromHex(UDHCPC_DISCOVER));
    const other = wire.dhcpU32(DHCP_OPTION.SERVER_IDENTIFIER, ip("10.0.2.77"));
    expect(send(dhcpFrame(DHCP_MESSAGE.REQUEST, [requested("10.0.2.15"), other]))).toEqual([]);
    expect(dhcpOf(send(dhcpFrame(DHCP_MESSAGE.DISCOVER, [], {}, 0x525400000001))[0]).yourAddress).toBe(GUEST);
  });
  it("RELEASE frees the lease; DECLINE keeps the address away for a while; a second client gets another", async () => {
    const { send, leases, clock } = await start({ spoof: "allow" });
    const take = (mac: number) => {
      const { yourAddress } = dhcpOf(send(dhcpFrame(DHCP_MESSAGE.DISCOVER, [], {}, mac))[0]);
      send(dhcpFrame(DHCP_MESSAGE.REQUEST, [wire.dhcpU32(DHCP_OPTION.REQUESTED_ADDRESS, yourAddress), SERVER], {}, mac));
      return wire.formatIpv4(yourAddress);
    };
    expect([take(1), take(2), take(1)]).toEqual(["10.0.2.15", "10.0.2.16", "10.0.2.15"]);
    send(dhcpFrame(DHCP_MESSAGE.RELEASE, [SERVER], { clientAddress: GUEST }, 1));
    expect((await leases()).map(({ address }) => address)).toEqual(["10.0.2.16"]);
    expect(take(3)).toBe("10.0.2.15");
    send(dhcpFrame(DHCP_MESSAGE.DECLINE, [requested("10.0.2.15"), SERVER], {}, 3));
    expect(take(3)).toBe("10.0.2.17");
    clock.advance(600_001);
    expect(take(4)).toBe("10.0.2.15");
  });
  it("INFORM → parameters without address and lease time (RFC 2131, 4.3.5)", async () => {
    const { send } = await start();
    const ack = dhcpOf(send(dhcpFrame(DHCP_MESSAGE.INFORM, [], { clientAddress: ip("10.0.2.99") }))[0]);
    expect([typeOf(ack), ack.yourAddress, wire.dhcpOption(ack, DHCP_OPTION.LEASE_TIME)]).toEqual([DHCP_MESSAGE.ACK, 0, undefined]);
    expect(addressIn(ack, DHCP_OPTION.ROUTER)).toBe("10.0.2.2");
  });
  it("a guest that invents clients → addresses run out, then silence; nothing grows", async () => {
    const { send } = await start({ spoof: "allow" });
    let offers = 0;
    for (let mac = 1; mac < 400; mac++) offers += send(dhcpFrame(DHCP_MESSAGE.DISCOVER, [], {}, mac)).length;
    expect(offers).toBe(240);
  });
});

describe("ICMP", () => {
  it("Linux's echo request → the reply with its data, from the router; also from the DNS address", async () => {
    const { send, sendIp } = await start();
    const [frame] = send(fromHex(PING_REQUEST));
    expect(wire.parseEthernet(frame!)).toMatchObject({ destination: GUEST_MAC, source: ROUTER_MAC });
    const packet = packetOf(frame);
    expect(packet).toMatchObject({ source: ip("10.0.2.2"), destination: GUEST });
    const echo = packetOf(fromHex(PING_REQUEST)).payload;
    expect(wire.parseIcmp(packet.payload)).toMatchObject({ type: 0, rest: 0x44d80000, payload: echo.subarray(8) });
    expect(packetOf(sendIp({ source: GUEST, destination: ip("10.0.2.3"), protocol: 1, payload: echo })[0]).source).toBe(ip("10.0.2.3"));
  });
  it("unreachable: echo beyond a host that may not send it → 13; DNS address, other port → 3; nobody in the subnet → 1; no such network → 0", async () => {
    const { sendIp, host } = await start();
    Object.assign(host, { echo: undefined });
    const payload = (to: number) => wire.emitUdp({ sourcePort: 5000, destinationPort: 123, payload: Uint8Array.of(1) }, { source: GUEST, destination: to });
    const echo = packetOf(fromHex(PING_REQUEST)).payload;
    const codeFor = (text: string) => {
      const destination = ip(text);
      const icmp = text === "192.0.2.1";
      const packet = packetOf(sendIp({ source: GUEST, destination, protocol: icmp ? 1 : 17, payload: icmp ? echo : payload(destination) })[0]);
      expect(packet.destination).toBe(GUEST);
      const error = wire.parseIcmp(packet.payload)!;
      expect(error.type).toBe(3);
      expect(wire.parseIpv4Packet(error.payload)).toMatchObject({ source: GUEST, destination });
      return error.code;
    };
    expect(["192.0.2.1", "10.0.2.3", "10.0.2.77", "127.0.0.1", "0.1.2.3", "240.0.0.1"].map(codeFor)).toEqual([13, 3, 1, 0, 0, 0]);
  });
  it("never about broadcasts, multicasts, fragments, foreign or our own source addresses (RFC 1122, 3.2.2)", async () => {
    const { sendIp } = await start();
    const base = { protocol: 99, payload: new Uint8Array(16), source: GUEST, destination: ip("192.0.2.1") };
    const cases = [
      { destination: wire.IPV4_BROADCAST },
      { destination: ip("10.0.2.255") },
      { destination: ip("224.0.0.251") },
      { flags: 1 },
      { flags: 0, fragmentOffset: 8 },
      { source: ip("1.2.3.4") },
      { source: ip("10.0.2.2") },
      { source: 0 },
    ];
    expect(sendIp(base).length).toBe(1);
    for (const fields of cases) expect(sendIp({ ...base, ...fields })).toEqual([]);
  });
});

describe("TCP", () => {
  it("Linux's SYN, checksum offloaded → connect to the host's loopback; refused → reset, so that connect fails at once", async () => {
    const { send, received, host } = await start();
    const offload = { needsChecksum: true, checksumStart: 34, checksumOffset: 16, gsoType: 0, gsoSize: 0, headerLength: 0 };
    expect(send(fromHex(TCP_SYN_OFFLOADED), offload)).toEqual([]);
    expect(host.stream.to).toEqual({ address: "127.0.0.1", port: 80 });
    host.stream.fail("refused");
    const packet = packetOf(received()[0]);
    expect(packet).toMatchObject({ source: ip("10.0.2.2"), destination: GUEST });
    expect(wire.parseTcp(packet.payload, packet)).toMatchObject({
      sourcePort: 80,
      destinationPort: 40001,
      acknowledgment: 0xb8bf429a,
      flags: wire.TCP_FLAG.RST | wire.TCP_FLAG.ACK,
    });
  });
});

describe("DNS", () => {
  const offload = { needsChecksum: true, checksumStart: 34, checksumOffset: 6, gsoType: 0, gsoSize: 0, headerLength: 0 };
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  const answerTo = (query: Uint8Array, extra = 0) => {
    const bytes = new Uint8Array(query.length + extra);
    bytes.set(query);
    bytes[2]! |= 0x80;
    return bytes;
  };

  it("a query → passed on unchanged; its answer → back to the port that asked", async () => {
    const asked: Uint8Array[] = [];
    const { send, received, counter } = await start({ dns: { query: async (message) => (asked.push(message), answerTo(message)) } });
    send(fromHex(DNS_QUERY_OFFLOADED), offload);
    await settled();
    expect(asked.map(toHex)).toEqual([DNS_QUERY_OFFLOADED.slice(84)]);
    const packet = packetOf(received()[0]);
    expect(packet).toMatchObject({ source: ip("10.0.2.3"), destination: GUEST });
    expect(wire.parseUdp(packet.payload, packet)).toMatchObject({ sourcePort: 53, destinationPort: 40000 });
    expect(toHex(udpOf(received()[0]).payload)).toBe(toHex(answerTo(asked[0]!)));
    expect(await counter("dns_answers")).toBe(1n);
  });
  it("resolvers that refuse, answer something else, or nothing in time → SERVFAIL", async () => {
    const failing: DnsUpstream[] = [
      { query: () => Promise.reject(new Error("no resolvers")) },
      { query: async () => new Uint8Array(12) },
      { query: async (message) => message },
      { query: () => new Promise(() => {}) },
    ];
    for (const dns of failing) {
      const { send, received, clock } = await start({ dns });
      send(fromHex(DNS_QUERY_OFFLOADED), offload);
      await settled();
      clock.advance(DEFAULT_CONFIG.dnsTimeoutMs);
      expect(received().length).toBe(1);
      const answer = udpOf(received()[0]).payload;
      expect([answer[0], answer[1], answer[3]! & 15]).toEqual([0x12, 0x34, wire.DNS_RCODE.SERVER_FAILURE]);
    }
  });
  it("more queries than may be open → SERVFAIL for those; things that are no queries → silence", async () => {
    const { sendIp } = await start();
    const pair = { source: GUEST, destination: ip("10.0.2.3") };
    const query = fromHex(DNS_QUERY_OFFLOADED.slice(84));
    const ask = (payload: Uint8Array) =>
      sendIp({ ...pair, protocol: IP_PROTOCOL.UDP, payload: wire.emitUdp({ sourcePort: 1, destinationPort: 53, payload }, pair) });
    for (let i = 0; i < 128; i++) expect(ask(query)).toEqual([]);
    expect(ask(query).length).toBe(1);
    for (const bad of [new Uint8Array(0), new Uint8Array(12), query.slice(0, 20), answerTo(query)]) expect(ask(bad)).toEqual([]);
  });
  it("an answer larger than the MTU → fragments of one datagram that a guest can join", async () => {
    const { send, received } = await start({ dns: { query: async (message) => answerTo(message, 4000) } });
    send(fromHex(DNS_QUERY_OFFLOADED), offload);
    await settled();
    const parts = received().map(packetOf);
    expect(parts.length).toBe(3);
    expect(new Set(parts.map((part) => part.identification)).size).toBe(1);
    const joined = new Uint8Array(8 + 28 + 4000);
    for (const part of parts) joined.set(part.payload, part.fragmentOffset);
    expect(wire.parseUdp(joined, parts[0]!)!.payload.length).toBe(4028);
    expect(Math.max(...received().map((frame) => frame.length))).toBeLessThanOrEqual(1514);
  });
});

describe("garbage from a guest", () => {
  it("never throws, and is never answered with a malformed frame", async () => {
    const { send } = await start();
    const golden = [ARP_REQUEST, PING_REQUEST, UDHCPC_DISCOVER, DNS_QUERY_OFFLOADED, TCP_SYN_OFFLOADED].map(fromHex);
    const damaged = fc
      .tuple(fc.constantFrom(...golden), fc.array(fc.tuple(fc.nat(350), fc.nat(255)), { maxLength: 4 }), fc.nat(20), fc.boolean())
      .map(([frame, changes, cut, repair]) => {
        const copy = frame.slice(0, frame.length - cut);
        for (const [at, byte] of changes) if (at < copy.length) copy[at] = byte;
        // A right header checksum lets the damage reach further in.
        if (repair && copy.length > 34) {
          wire.writeU16(copy, 24, 0);
          wire.writeU16(copy, 24, wire.internetChecksum(copy.subarray(14, 34)));
        }
        return copy;
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 100 }), damaged), (frame) => {
        for (const answer of send(frame)) {
          const ethernet = wire.parseEthernet(answer)!;
          expect(wire.parseArp(ethernet.payload) ?? wire.parseIpv4Packet(ethernet.payload)).toBeDefined();
        }
      }),
      { numRuns: 2000 },
    );
  });
});
