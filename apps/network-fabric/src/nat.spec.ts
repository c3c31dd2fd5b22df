import { channelPair } from "@polyvisor/contracts";
import { Port, PublishRequest, type FrameBatch, type Offload } from "@polyvisor/contracts/network";
import { manualClock, testContext } from "@polyvisor/testkit";
import * as wire from "@polyvisor/wire";
import { describe, expect, it } from "vitest";
import { MAXIMUM_CONNECTING } from "./core/nat/tcp-nat.ts";
import { MAXIMUM_MAPPINGS_PER_GUEST, UDP_IDLE_MS } from "./core/nat/udp-nat.ts";
import { createService, DEFAULT_CONFIG } from "./index.ts";
import { HostError, type HostStreamEvents } from "./core/nat/host-network.ts";
import { FakeHost, FakeStream } from "./testing/fake-host.ts";

const { IP_PROTOCOL, TCP_FLAG } = wire;
const { SYN, ACK, FIN, RST } = TCP_FLAG;
const ip = (text: string) => wire.parseIpv4(text)!;
const GUEST = ip("10.0.2.15");
const GATEWAY = ip("10.0.2.2");
const WORLD = ip("198.51.100.7");
const ROUTER_MAC = wire.parseMac("52:55:0a:00:02:02")!;
const GUEST_MAC = wire.parseMac("52:54:00:12:34:56")!;
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();
const bytes = (value: string) => new Uint8Array(Buffer.from(value));

/** A guest on the network `nat`, played packet by packet; the host and time are the test's, too. */
async function start({ takesOffload = false }: { takesOffload?: boolean } = {}) {
  const clock = manualClock();
  const host = new FakeHost();
  const service = await createService(DEFAULT_CONFIG, { host, dns: { query: () => new Promise(() => {}) } }, { ...testContext(), clock });
  const api = service.implementation;
  await api.createPort!({ port: Port.fromPartial({ id: "web/net0", machine: "web", mac: wire.formatMac(GUEST_MAC) }) });
  const [nic, fabricEnd] = channelPair<FrameBatch, FrameBatch>();
  api.frames!(fabricEnd);
  let frames: { data: Uint8Array; offload: Offload | undefined }[] = [];
  nic.onMessage((batch) => void frames.push(...batch.frames));
  const give = (list: FrameBatch["frames"], credit = 0) => nic.send({ machine: "web", port: "web/net0", frames: list, credit, linkUp: false, takesOffload });
  give([], 60_000);
  const take = () => frames.splice(0);
  const packets = () =>
    take()
      .flatMap(({ data, offload }) => wire.completeFrame(new Uint8Array(data), offload)!)
      .map((data) => wire.parseEthernet(data)!)
      .filter(({ etherType }) => etherType === wire.ETHERTYPE.IPV4)
      .map(({ payload }) => wire.parseIpv4Packet(payload)!);
  const frameOf = (packet: wire.Ipv4Packet, mac = GUEST_MAC) =>
    wire.emitEthernet({ destination: ROUTER_MAC, source: mac, etherType: wire.ETHERTYPE.IPV4, payload: wire.emitIpv4(packet) });
  /** Sends packets in one batch, answers what comes back. */
  const send = (...list: Parameters<typeof wire.ipv4Datagram>[0][]) => {
    give(list.map((fields) => ({ data: frameOf(wire.ipv4Datagram(fields)), offload: undefined })));
    return packets();
  };
  const udpPacket = (payload: Uint8Array, { to = WORLD, port = 53_000, from = 4000 }: { to?: number; port?: number; from?: number } = {}) => {
    const pair = { source: GUEST, destination: to };
    return { ...pair, protocol: IP_PROTOCOL.UDP, payload: wire.emitUdp({ sourcePort: from, destinationPort: port, payload }, pair) };
  };
  const udp = (packet: wire.Ipv4Packet | undefined) => ({ ...wire.parseUdp(packet!.payload, packet!)!, source: packet!.source });
  const segments = (list = packets()) => list.filter(({ protocol }) => protocol === IP_PROTOCOL.TCP).map((packet) => wire.parseTcp(packet.payload, packet)!);
  const icmp = (list: wire.Ipv4Packet[]) => list.filter(({ protocol }) => protocol === IP_PROTOCOL.ICMP).map(({ payload }) => wire.parseIcmp(payload)!);
  const tcpPacket = (fields: Partial<wire.TcpSegment>, { to = WORLD, port = 80, from = 40_000 }: { to?: number; port?: number; from?: number } = {}) => {
    const pair = { source: GUEST, destination: to };
    const segment = { sourcePort: from, destinationPort: port, sequence: 1000, acknowledgment: 0, flags: SYN, window: 65_535, urgentPointer: 0, options: new Uint8Array(0), payload: new Uint8Array(0), ...fields };
    return { ...pair, protocol: IP_PROTOCOL.TCP, payload: wire.emitTcp(segment, pair) };
  };
  /** A connection that is established: `next` numbers of both sides. */
  const connect = (options: wire.TcpOptions = { maximumSegmentSize: 1460 }, address: { to?: number; port?: number; from?: number } = {}) => {
    send(tcpPacket({ options: wire.emitTcpOptions(options) }, address));
    const { stream } = host;
    stream.events.connected();
    const [synAck] = segments();
    const acknowledgment = (synAck!.sequence + 1) >>> 0;
    const say = (fields: Partial<wire.TcpSegment>) => segments(send(tcpPacket({ sequence: 1001, acknowledgment, flags: ACK, ...fields }, address)));
    say({});
    return { stream, synAck: synAck!, say, acknowledgment };
  };
  return { ...api, clock, host, nic, give, take, packets, send, udpPacket, udp, segments, icmp, tcpPacket, connect, frameOf };
}

describe("TCP through the NAT", () => {
  it("the SYN is answered when the host has connected, not before; the answer wears the world's address", async () => {
    const { send, tcpPacket, host, packets, segments } = await start();
    expect(send(tcpPacket({}), tcpPacket({}))).toEqual([]); // the SYN again changes nothing
    expect(host.streams.map(({ to }) => to)).toEqual([{ address: "198.51.100.7", port: 80 }]);
    host.stream.events.connected();
    const answer = packets();
    expect(answer).toMatchObject([{ source: WORLD, destination: GUEST }]);
    expect(segments(answer)).toMatchObject([{ flags: SYN | ACK, acknowledgment: 1001 }]);
  });
  it("DSCP of the guest goes on to the host's socket, from the SYN and whenever it changes; ECN does not (RFC 3168, 5)", async () => {
    const { send, tcpPacket, host, packets, segments } = await start();
    send({ ...tcpPacket({}), trafficClass: 0xb9 });
    expect(host.stream.trafficClass).toBe(0xb8);
    host.stream.events.connected();
    const [synAck] = segments(packets());
    const next = { ...tcpPacket({ flags: ACK, sequence: 1001, acknowledgment: synAck!.sequence + 1 }), trafficClass: 0x23 };
    send(next);
    expect(host.stream.trafficClass).toBe(0x20);
    send({ ...next, trafficClass: 0 });
    expect(host.stream.trafficClass).toBe(0);
  });
  it("a server that speaks first is not read before the guest's handshake is over: nothing it says is lost", async () => {
    const { send, tcpPacket, host, packets, segments } = await start();
    send(tcpPacket({}));
    host.stream.events.connected();
    expect(host.stream.paused).toBe(true);
    const [synAck] = segments(packets());
    send(tcpPacket({ flags: ACK, sequence: 1001, acknowledgment: synAck!.sequence + 1 }));
    expect(host.stream.paused).toBe(false);
  });
  it.each([
    ["refused", "reset"],
    ["host-unreachable", 1],
    ["network-unreachable", 0],
    ["denied", 13],
    ["timeout", 1],
    ["other", "reset"],
  ] as const)("a connect that ends as %s → %s", async (failure, expected) => {
    const { send, tcpPacket, host, packets, segments, icmp, listFlows } = await start();
    send(tcpPacket({}));
    host.stream.fail(failure);
    const answer = packets();
    if (expected === "reset") expect(segments(answer)).toMatchObject([{ flags: RST | ACK, acknowledgment: 1001 }]);
    else expect(icmp(answer)).toMatchObject([{ type: 3, code: expected }]);
    expect((await listFlows!({ machine: "" })).natFlows).toEqual([]);
  });
  it("bytes both ways; flows show both sides; half-close each way; the host's end of file is the guest's FIN", async () => {
    const { connect, segments, listFlows } = await start();
    const { stream, say, acknowledgment } = connect();
    say({ payload: bytes("GET /") });
    expect(text(stream.bytes)).toBe("GET /");
    stream.events.data(bytes("hello"));
    expect(segments()).toMatchObject([{ payload: bytes("hello"), sequence: acknowledgment }]);
    const [flow] = (await listFlows!({ machine: "web" })).natFlows;
    expect(flow).toMatchObject({ port: "web/net0", protocol: "tcp", guestLocal: "10.0.2.15:40000", guestRemote: "198.51.100.7:80" });
    expect(flow).toMatchObject({ hostLocal: "192.0.2.1:50000", hostRemote: "198.51.100.7:80", state: "ESTABLISHED", bytesFromGuest: 5n, bytesToGuest: 5n });
    const next = { sequence: 1006, acknowledgment: acknowledgment + 5 };
    say({ ...next, flags: FIN | ACK });
    expect(stream.ended).toBe(true);
    stream.events.data(bytes("more"));
    expect(segments()).toMatchObject([{ payload: bytes("more") }]);
    stream.events.ended();
    expect(segments()).toMatchObject([{ flags: FIN | ACK, sequence: acknowledgment + 9 }]);
    say({ sequence: 1007, acknowledgment: acknowledgment + 10 });
    expect((await listFlows!({ machine: "web" })).natFlows).toEqual([]);
    expect(stream.resets).toBe(0);
  });
  it("the host first: its end of file → FIN, and the guest may go on sending", async () => {
    const { connect, segments } = await start();
    const { stream, say, acknowledgment } = connect();
    stream.events.ended();
    expect(segments()).toMatchObject([{ flags: FIN | ACK }]);
    say({ acknowledgment: acknowledgment + 1, payload: bytes("still here") });
    expect(text(stream.bytes)).toBe("still here");
    expect(stream.ended).toBe(false);
  });
  it("a reset goes through both ways", async () => {
    const { connect, segments } = await start();
    const one = connect();
    one.say({ flags: RST });
    expect(one.stream.resets).toBe(1);
    const two = connect(undefined, { from: 40_001 });
    two.stream.fail("reset");
    expect(segments()).toMatchObject([{ flags: RST | ACK }]);
  });
  it("a host that takes nothing closes the guest's window, and memory stays bounded; taking opens it again", async () => {
    const { connect, segments } = await start();
    const { stream, say } = connect({ maximumSegmentSize: 1460, windowScale: 7 });
    stream.greedy = false;
    let sequence = 1001;
    let window = 1;
    for (let i = 0; i < 3000 && window > 0; i++) {
      const [answer] = say({ sequence, payload: new Uint8Array(1460) }).slice(-1);
      sequence = answer!.acknowledgment;
      window = answer!.window;
    }
    expect(window).toBe(0);
    expect(stream.pending).toBeLessThan(1024 * 1024 + 32); // rounded to the window scale
    expect(say({ sequence, payload: new Uint8Array(1460) }).at(-1)!.acknowledgment).toBe(sequence); // nothing more is taken
    stream.take(stream.pending);
    expect(segments()[0]!.window).toBeGreaterThan(1000);
  });
  it("a batch that fills the window out of order, and a host that takes it at once → the guest is told that it may go on", async () => {
    const { connect, give, tcpPacket, segments, frameOf } = await start({ takesOffload: true });
    const { say, acknowledgment } = connect({ maximumSegmentSize: 1460, windowScale: 7 });
    say({ payload: new Uint8Array(1460) }); // its answer says how large the window is, scaled
    const PIECE = 43 * 1460;
    const count = Math.floor((1024 * 1024) / PIECE);
    const offload = { needsChecksum: false, checksumStart: 0, checksumOffset: 0, gsoType: wire.GSO.TCPV4, gsoSize: 1460, headerLength: 54 };
    const batch = Array.from({ length: count }, (_, index) => {
      const packet = tcpPacket({ sequence: 2461 + index * PIECE, acknowledgment, flags: ACK, payload: new Uint8Array(PIECE) });
      return { data: frameOf(wire.ipv4Datagram(packet)), offload };
    });
    // The last two have changed places: what fills the gap is answered at once, while nothing has gone to the host's socket yet.
    give([...batch.slice(0, -2), batch.at(-1)!, batch.at(-2)!]);
    const answers = segments();
    expect(answers.at(-2)!.window << 5).toBeLessThan(2 * PIECE);
    expect(answers.at(-1)).toMatchObject({ acknowledgment: 2461 + count * PIECE });
    expect(answers.at(-1)!.window << 5).toBeGreaterThan(512 * 1024);
  });
  it("a guest that takes nothing pauses the host's socket", async () => {
    const { connect } = await start();
    const { stream, say } = connect();
    say({ window: 0 });
    for (let i = 0; i < 100 && !stream.paused; i++) stream.events.data(new Uint8Array(65_536));
    expect(stream.paused).toBe(true);
  });
  it("large pieces go as one frame to a guest that takes offload, as whole segments to others", async () => {
    const large = await start({ takesOffload: true });
    const one = large.connect();
    one.say({});
    one.stream.events.data(new Uint8Array(10_000));
    const [frame] = large.take();
    expect(frame!.data.length).toBe(54 + 10_000);
    expect(frame!.offload).toMatchObject({ needsChecksum: true, gsoType: wire.GSO.TCPV4, gsoSize: 1460, headerLength: 54 });
    const small = await start();
    const two = small.connect();
    two.stream.events.data(new Uint8Array(10_000));
    expect(small.segments().map(({ payload }) => payload.length)).toEqual([1460, 1460, 1460, 1460, 1460, 1460, 1240]);
  });
  it("a segment of no connection → reset; an ACK that is old news → silence of the host", async () => {
    const { send, tcpPacket, segments, host } = await start();
    expect(segments(send(tcpPacket({ flags: ACK, acknowledgment: 77 })))).toMatchObject([{ flags: RST, sequence: 77 }]);
    expect(host.streams).toEqual([]);
  });
  it("a flood of SYNs → no more than so many connects; the rest is dropped and counted, and a closed port frees its place", async () => {
    const { send, tcpPacket, host, readNetworkStats } = await start();
    for (let i = 0; i < MAXIMUM_CONNECTING + 100; i++) send(tcpPacket({}, { from: 1000 + i }));
    expect(host.streams.length).toBe(MAXIMUM_CONNECTING);
    const dropped = async () => (await readNetworkStats!({ machine: "web", network: "" })).counters.get("web/net0.nat_tcp_dropped");
    expect(await dropped()).toBe(100n);
    host.streams[0]!.fail("refused");
    send(tcpPacket({}, { from: 9999 }));
    expect(host.streams.length).toBe(MAXIMUM_CONNECTING + 1);
  });
  it("the port goes → connections of the host are reset", async () => {
    const { connect, deletePort } = await start();
    const { stream } = connect();
    await deletePort!({ id: "web/net0" });
    expect(stream.resets).toBe(1);
  });
});

describe("UDP through the NAT (RFC 4787)", () => {
  it("one socket for all destinations of a guest's port; answers from each, and from the host's loopback as the gateway", async () => {
    const { send, udpPacket, udp, host, packets } = await start();
    send(udpPacket(bytes("a")), udpPacket(bytes("b"), { to: ip("198.51.100.8") }), udpPacket(bytes("c"), { to: GATEWAY, port: 7 }));
    expect(host.sockets.length).toBe(1);
    expect(host.socket.sent.map(({ data, to }) => [text(data), to.address, to.port])).toEqual([
      ["a", "198.51.100.7", 53_000],
      ["b", "198.51.100.8", 53_000],
      ["c", "127.0.0.1", 7],
    ]);
    host.socket.events.received(bytes("x"), { address: "203.0.113.9", port: 99 });
    host.socket.events.received(bytes("y"), { address: "127.0.0.1", port: 7 });
    const [x, y] = packets().map(udp);
    expect(x).toMatchObject({ source: ip("203.0.113.9"), sourcePort: 99, destinationPort: 4000, payload: bytes("x") });
    expect(y).toMatchObject({ source: GATEWAY, sourcePort: 7, payload: bytes("y") });
  });
  it("60 KB in fragments, in any order → one datagram; 60 KB back → fragments that join", async () => {
    const { send, udpPacket, host, packets, udp } = await start();
    const large = Uint8Array.from({ length: 60_000 }, (_, i) => i * 31);
    const parts = wire.fragmentIpv4({ ...wire.ipv4Datagram(udpPacket(large)), identification: 7 }, 1500);
    expect(send(...parts.toReversed())).toEqual([]);
    expect(host.socket.sent.map(({ data }) => Buffer.from(data).equals(large))).toEqual([true]);
    host.socket.events.received(large, { address: "198.51.100.7", port: 53_000 });
    const back = packets();
    expect(back.length).toBe(Math.ceil(60_008 / 1480));
    const joined = new Uint8Array(60_008);
    for (const part of back) joined.set(part.payload, part.fragmentOffset);
    expect(Buffer.from(udp({ ...back[0]!, payload: joined }).payload).equals(large)).toBe(true);
  });
  it.each([
    ["refused", 3],
    ["host-unreachable", 1],
    ["network-unreachable", 0],
  ] as const)("what ICMP told the host about a destination (%s), the guest is told, with its own packet in it", async (failure, code) => {
    const { send, udpPacket, host, packets, icmp } = await start();
    send(udpPacket(bytes("hello")));
    const { HostError } = await import("./core/nat/host-network.ts");
    host.socket.events.failed({ address: "198.51.100.7", port: 53_000 }, new HostError(failure, failure));
    const [error] = icmp(packets());
    expect(error).toMatchObject({ type: 3, code });
    expect(wire.parseIpv4Packet(error!.payload)).toMatchObject({ source: GUEST, destination: WORLD, protocol: 17 });
  });
  it("a mapping that is idle for two minutes is forgotten; one in use is not", async () => {
    const { send, udpPacket, host, clock } = await start();
    send(udpPacket(bytes("a")), udpPacket(bytes("b"), { from: 4001 }));
    clock.advance(UDP_IDLE_MS - 20_000);
    send(udpPacket(bytes("b"), { from: 4001 }));
    clock.advance(30_000);
    expect(host.sockets.map(({ closed }) => closed)).toEqual([true, false]);
  });
  it("a guest that uses every port keeps a bounded number of sockets, its newest", async () => {
    const { send, udpPacket, host } = await start();
    for (let from = 1; from <= MAXIMUM_MAPPINGS_PER_GUEST + 50; from++) send(udpPacket(bytes("a"), { from }));
    expect(host.sockets.filter(({ closed }) => !closed).length).toBe(MAXIMUM_MAPPINGS_PER_GUEST);
  });
});

describe("fragments and hops", () => {
  it("overlapping fragments, holes and endless pieces → dropped and counted, nothing kept beyond its time", async () => {
    const { send, udpPacket, host, readNetworkStats, clock } = await start();
    const parts = wire.fragmentIpv4({ ...wire.ipv4Datagram(udpPacket(new Uint8Array(5000))), identification: 9 }, 1500);
    send(parts[0]!, { ...parts[1]!, fragmentOffset: parts[1]!.fragmentOffset - 8 }, ...parts.slice(2));
    for (let identification = 100; identification < 300; identification++) send({ ...parts[0]!, identification });
    clock.advance(31_000);
    send({ ...parts[0]!, identification: 999 });
    expect(host.sockets).toEqual([]);
    const { counters } = await readNetworkStats!({ machine: "web", network: "" });
    expect(counters.get("web/net0.reassembled")).toBe(0n);
    expect(Number(counters.get("web/net0.fragments_dropped"))).toBeGreaterThan(180);
  });
  it("a packet whose last hop is the gateway → time exceeded (RFC 792); to the gateway itself it arrives", async () => {
    const { send, udpPacket, icmp, host } = await start();
    expect(icmp(send({ ...udpPacket(bytes("a")), timeToLive: 1 }))).toMatchObject([{ type: 11, code: 0 }]);
    expect(host.sockets).toEqual([]);
    send({ ...udpPacket(bytes("a"), { to: GATEWAY }), timeToLive: 1 });
    expect(host.sockets.length).toBe(1);
  });
  it("a damaged checksum is not let through; one that was left to the device is", async () => {
    const { give, frameOf, udpPacket, host } = await start();
    const frame = frameOf(wire.ipv4Datagram(udpPacket(bytes("abc"))));
    frame[frame.length - 1]! ^= 1;
    give([{ data: frame, offload: undefined }]);
    expect(host.sockets).toEqual([]);
    give([{ data: frame, offload: { needsChecksum: true, checksumStart: 34, checksumOffset: 6, gsoType: 0, gsoSize: 0, headerLength: 0 } }]);
    expect(host.socket.sent.length).toBe(1);
  });
});

describe("ICMP echo to the world", () => {
  const ping = { source: GUEST, destination: WORLD, protocol: IP_PROTOCOL.ICMP, timeToLive: 9, payload: wire.emitIcmp({ type: 8, code: 0, rest: 0x1234_0007, payload: bytes("hello") }) };
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  it("goes on with one hop less; the answer has the request's identifier and number", async () => {
    const { host, send, icmp, packets } = await start();
    host.answer = { data: bytes("hello") };
    expect(send(ping)).toEqual([]);
    await settled();
    expect(host.echoes).toMatchObject([{ address: "198.51.100.7", timeToLive: 8 }]);
    expect(icmp(packets())).toMatchObject([{ type: 0, code: 0, rest: 0x1234_0007 }]);
  });
  it("an error on the way comes from who sent it, with the guest's packet in it; no answer → nothing; not allowed → 3/13", async () => {
    const { host, send, icmp, packets } = await start();
    host.answer = { type: 11, code: 0, from: "203.0.113.5" };
    send(ping);
    await settled();
    const [error] = packets();
    expect(error!.source).toBe(ip("203.0.113.5"));
    expect(icmp([error!])).toMatchObject([{ type: 11, code: 0 }]);
    expect(wire.parseIpv4Packet(icmp([error!])[0]!.payload)).toMatchObject({ source: GUEST, destination: WORLD });
    host.answer = undefined;
    send(ping);
    await settled();
    expect(packets()).toEqual([]);
    host.answer = new HostError("denied", "no");
    send(ping);
    await settled();
    expect(icmp(packets())).toMatchObject([{ type: 3, code: 13 }]);
  });
});

describe("port forwards", () => {
  const withForward = async (fields: Parameters<typeof PublishRequest.fromPartial>[0] = {}) => {
    const it = await start();
    await it.publish!(PublishRequest.fromPartial({ machine: "web", hostPort: 8080, guestPort: 80, guestAddress: "10.0.2.15", ...fields }));
    return it;
  };
  const accept = (host: FakeHost) => {
    const listener = host.listeners.get("tcp 127.0.0.1:8080")!;
    const stream = new FakeStream({ address: "127.0.0.1", port: 33_333 }, undefined as never);
    let events!: HostStreamEvents;
    listener(stream, (to) => (events = to));
    return { stream, events: () => events };
  };

  it("a connection → ARP for the guest, a SYN from the gateway; accepted → bytes both ways", async () => {
    const { host, take, give, segments, send, tcpPacket, listForwards, listFlows } = await withForward();
    const { stream, events } = accept(host);
    const [arp] = take().map(({ data }) => wire.parseArp(wire.parseEthernet(data)!.payload));
    expect(arp).toMatchObject({ operation: 1, senderAddress: GATEWAY, targetAddress: GUEST });
    const reply = wire.emitArp({ operation: 2, senderMac: GUEST_MAC, senderAddress: GUEST, targetMac: ROUTER_MAC, targetAddress: GATEWAY });
    give([{ data: wire.emitEthernet({ destination: ROUTER_MAC, source: GUEST_MAC, etherType: wire.ETHERTYPE.ARP, payload: reply }), offload: undefined }]);
    const [syn] = segments();
    expect(syn).toMatchObject({ flags: SYN, destinationPort: 80 });
    const answer = (fields: Partial<wire.TcpSegment>) => segments(send(tcpPacket({ sourcePort: 80, sequence: 1, acknowledgment: (syn!.sequence + 1) >>> 0, ...fields }, { to: GATEWAY, port: syn!.sourcePort, from: 80 })));
    expect(answer({ sequence: 0, flags: SYN | ACK })).toMatchObject([{ flags: ACK, acknowledgment: 1 }]);
    expect(stream.paused).toBe(false);
    events().data(bytes("GET /"));
    expect(segments()).toMatchObject([{ payload: bytes("GET /") }]);
    answer({ flags: ACK, payload: bytes("200") });
    expect(text(stream.bytes)).toBe("200");
    expect((await listForwards!({ machine: "" })).forwards).toMatchObject([{ id: "tcp/127.0.0.1:8080", connections: 1n }]);
    expect((await listFlows!({ machine: "web" })).natFlows).toMatchObject([{ forward: "tcp/127.0.0.1:8080", guestLocal: "10.0.2.15:80" }]);
  });
  it("the guest refuses, or is not there → the host's connection is reset", async () => {
    const { host, take, send, tcpPacket, give, frameOf, udpPacket, segments, clock } = await withForward();
    give([{ data: frameOf(wire.ipv4Datagram(udpPacket(bytes("hello")))), offload: undefined }]); // now its MAC is known
    take();
    const one = accept(host);
    const [syn] = segments();
    send(tcpPacket({ sourcePort: 80, sequence: 0, acknowledgment: (syn!.sequence + 1) >>> 0, flags: RST | ACK }, { to: GATEWAY, port: syn!.sourcePort, from: 80 }));
    expect(one.stream.resets).toBe(1);
    const two = accept(host);
    clock.advance(120_000);
    expect(two.stream.resets).toBe(1);
  });
  it("UDP: each peer is a port of the gateway; what the guest sends there goes back to it", async () => {
    const { host, send, udpPacket, udp, packets, give, frameOf } = await withForward({ protocol: "udp" });
    give([{ data: frameOf(wire.ipv4Datagram(udpPacket(bytes("hello")))), offload: undefined }]);
    const socket = host.bound.get("udp 127.0.0.1:8080")!;
    socket.received(bytes("ping"), { address: "192.0.2.9", port: 99 });
    const arrived = udp(packets()[0]);
    expect(arrived).toMatchObject({ source: GATEWAY, destinationPort: 80, payload: bytes("ping") });
    send(udpPacket(bytes("pong"), { to: GATEWAY, port: arrived.sourcePort, from: 80 }));
    expect(socket.sent.map(({ data, to }) => [text(data), to.port])).toEqual([["pong", 99]]);
  });
  it("somebody else has the port → conflict that names the owner; auto-correct → one from 2200 up", async () => {
    const { host, publish } = await start();
    await host.listen({ address: "127.0.0.1", port: 8080 }, () => {});
    await host.listen({ address: "127.0.0.1", port: 2200 }, () => {});
    const request = PublishRequest.fromPartial({ machine: "web", hostPort: 8080, guestPort: 80 });
    await expect(publish!(request)).rejects.toThrow(/tcp 127\.0\.0\.1:8080 is in use by .*auto-correct/);
    expect((await publish!({ ...request, autoCorrect: true })).forward!.hostPort).toBe(2201);
  });
});
