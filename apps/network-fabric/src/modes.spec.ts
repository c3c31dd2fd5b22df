import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { channelPair, ContractError } from "@polyvisor/contracts";
import { Network, NetworkMode, Port, type Frame, type FrameBatch } from "@polyvisor/contracts/network";
import { manualClock, testContext } from "@polyvisor/testkit";
import * as wire from "@polyvisor/wire";
import { ARP_REQUEST, fromHex, PING_REQUEST, UDHCPC_DISCOVER } from "@polyvisor/wire/golden";
import { afterEach, describe, expect, it } from "vitest";
import type { HostFrames, TapOptions } from "./core/host-interfaces.ts";
import { createService, DEFAULT_CONFIG, type HostInterfaces } from "./index.ts";

const ip = (text: string): number => wire.parseIpv4(text)!;

/** A host whose interfaces are arrays. */
class FakeInterfaces implements HostInterfaces {
  readonly taps: { options: TapOptions; sent: Uint8Array[]; receive: HostFrames; closed: boolean }[] = [];
  used: string[] = [];
  denied = false;
  subnets() {
    return this.used.map((text) => wire.parseSubnet(text)!);
  }
  isBridge(name: string): boolean {
    return name.startsWith("br");
  }
  openTap(options: TapOptions, receive: HostFrames) {
    if (this.denied) throw new ContractError("denied", "needs the capability CAP_NET_ADMIN");
    const tap = { options, receive, sent: [] as Uint8Array[], closed: false };
    this.taps.push(tap);
    return { name: options.name, send: ({ data }: Frame) => (tap.sent.push(data), true), close: () => void (tap.closed = true) };
  }
  openRaw(name: string, receive: HostFrames) {
    return this.openTap({ name, mtu: 1500 }, receive);
  }
}

const directory = mkdtempSync(join(tmpdir(), "pv-modes-"));
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  rmSync(directory, { recursive: true, force: true });
});

async function start(stateDir = "", interfaces = new FakeInterfaces()) {
  const clock = manualClock();
  const service = await createService({ ...DEFAULT_CONFIG, stateDir }, { interfaces, dns: { query: () => new Promise(() => {}) } }, { ...testContext(), clock });
  closers.push(() => service.close());
  const api = service.implementation;
  const create = (fields: Partial<Network>) => api.createNetwork!({ network: Network.fromPartial(fields) }) as { network: Network };
  const open = (id: string, network: string, fields: Partial<Port> = {}) => {
    const { port } = api.createPort!({ port: Port.fromPartial({ id, machine: id.split("/")[0]!, network, ...fields }) }) as { port: Port };
    const [nic, end] = channelPair<FrameBatch, FrameBatch>();
    const got: Uint8Array[] = [];
    nic.onMessage(({ frames }) => void got.push(...frames.map(({ data }) => data)));
    api.frames!(end);
    const say = (frames: Uint8Array[], credit = 0): void =>
      void nic.send({ machine: port.machine, port: id, frames: frames.map((data) => ({ data, offload: undefined })), credit, linkUp: true, takesOffload: false });
    say([], 60_000);
    return { port, mac: wire.parseMac(port.mac)!, got, send: (...frames: Uint8Array[]) => say(frames) };
  };
  return { service, api, clock, interfaces, create, open };
}
function dhcp(type: number, mac: number, options: wire.DhcpOption[] = []): Uint8Array {
  const ethernet = wire.parseEthernet(fromHex(UDHCPC_DISCOVER))!;
  const packet = wire.parseIpv4Packet(ethernet.payload)!;
  const discover = wire.parseDhcp(wire.parseUdp(packet.payload, packet)!.payload)!;
  const rest = discover.options.filter(({ code }) => code !== wire.DHCP_OPTION.MESSAGE_TYPE && code !== wire.DHCP_OPTION.CLIENT_IDENTIFIER);
  const message = { ...discover, clientMac: mac, options: [wire.dhcpU8(wire.DHCP_OPTION.MESSAGE_TYPE, type), ...options, ...rest] };
  const pair = { source: 0, destination: wire.IPV4_BROADCAST };
  const payload = wire.emitUdp({ sourcePort: 68, destinationPort: 67, payload: wire.emitDhcp(message) }, pair);
  return wire.emitEthernet({ destination: wire.MAC_BROADCAST, source: mac, etherType: wire.ETHERTYPE.IPV4, payload: wire.emitIpv4(wire.ipv4Datagram({ ...pair, protocol: 17, payload })) });
}
function offered(frames: Uint8Array[]): wire.DhcpMessage | undefined {
  const ethernet = frames.length > 0 ? wire.parseEthernet(frames.at(-1)!) : undefined;
  const packet = ethernet && wire.parseIpv4Packet(ethernet.payload);
  const udp = packet && wire.parseUdp(packet.payload, packet);
  return udp && wire.parseDhcp(udp.payload);
}
/** The whole exchange; the address that it ends with. */
function lease(nic: { mac: number; got: Uint8Array[]; send: (...frames: Uint8Array[]) => void }, mac = nic.mac): string | undefined {
  nic.got.length = 0;
  nic.send(dhcp(wire.DHCP_MESSAGE.DISCOVER, mac));
  const offer = offered(nic.got);
  if (!offer) return undefined;
  const server = wire.dhcpAddressOption(offer, wire.DHCP_OPTION.SERVER_IDENTIFIER)!;
  nic.send(dhcp(wire.DHCP_MESSAGE.REQUEST, mac, [wire.dhcpU32(wire.DHCP_OPTION.REQUESTED_ADDRESS, offer.yourAddress), wire.dhcpU32(wire.DHCP_OPTION.SERVER_IDENTIFIER, server)]));
  return wire.formatIpv4(offered(nic.got)!.yourAddress);
}

describe("subnets are chosen so that they overlap nothing", () => {
  it("of the host, and of other networks; none left → exhausted", async () => {
    const { create, interfaces } = await start();
    interfaces.used = ["10.0.3.0/24", "192.168.0.0/16"];
    expect(create({ name: "a", mode: NetworkMode.NAT_NETWORK }).network.subnet).toBe("10.0.4.0/24");
    expect(create({ name: "b", mode: NetworkMode.NAT_NETWORK }).network.subnet).toBe("10.0.5.0/24");
    expect(() => create({ name: "c", mode: NetworkMode.HOST_ONLY })).toThrow(/no free subnet/);
    interfaces.used = [];
    expect(create({ name: "c", mode: NetworkMode.HOST_ONLY }).network).toMatchObject({ subnet: "192.168.56.0/24", hostAddress: "192.168.56.1", joinHost: true });
    expect(() => create({ name: "d", mode: NetworkMode.HOST_ONLY, subnet: "192.168.56.0/25" })).toThrow(/overlaps 192.168.56.0\/24/);
  });
});

describe("the host on a network", () => {
  it("HOST_ONLY: a TAP with its address; frames both ways; DHCP names no router; gone with the network", async () => {
    const { create, open, interfaces, api } = await start();
    create({ name: "h0", mode: NetworkMode.HOST_ONLY });
    const [tap] = interfaces.taps;
    expect(tap!.options).toMatchObject({ name: "pv-h0", address: { address: ip("192.168.56.1"), prefix: 24 } });
    const nic = open("m/net0", "h0");
    expect(lease(nic)).toBe("192.168.56.15");
    const ack = offered(nic.got)!;
    expect(wire.dhcpOption(ack, wire.DHCP_OPTION.ROUTER)).toBeUndefined();
    expect(tap!.sent.length).toBeGreaterThan(0); // the guest's broadcasts
    const hello = fromHex(ARP_REQUEST);
    wire.writeMac(hello, 0, nic.mac);
    nic.got.length = 0;
    tap!.receive([{ data: hello, offload: undefined }, { data: new Uint8Array(3), offload: undefined }]);
    expect(nic.got).toEqual([hello]);
    api.deletePort!({ id: "m/net0" });
    api.deleteNetwork!({ name: "h0" });
    expect(tap!.closed).toBe(true);
  });
  it("BRIDGED: a bridge is joined by a TAP, another interface is used as it is; no privileges → denied, and nothing is left", async () => {
    const { create, interfaces, api } = await start();
    create({ name: "b0", mode: NetworkMode.BRIDGED, interface: "br0" });
    create({ name: "e0", mode: NetworkMode.BRIDGED, interface: "eth0" });
    expect(interfaces.taps.map(({ options }) => [options.name, options.bridge])).toEqual([["pv-b0", "br0"], ["eth0", undefined]]);
    interfaces.denied = true;
    expect(() => create({ name: "h1", mode: NetworkMode.HOST_ONLY })).toThrow(/CAP_NET_ADMIN/);
    expect((api.listNetworks!({}) as { networks: Network[] }).networks.map(({ name }) => name)).toEqual(["nat", "b0", "e0"]);
  });
});

describe("one guest cannot harm another", () => {
  it("DHCP starvation: invented clients get half of the pool, a machine's own port always gets its address", async () => {
    const { create, open } = await start();
    create({ name: "n", mode: NetworkMode.NAT_NETWORK });
    const bad = open("bad/net0", "n");
    let taken = 0;
    for (let i = 0; i < 400; i++) if (lease(bad, 0x020000000000 + i)) taken++;
    expect(taken).toBe(120);
    expect(lease(open("good/net0", "n"))).toMatch(/^10\.0\.3\.\d+$/);
  });
  it("an ARP flood is cut at the storm limit: the other's queue has room and its unicast goes on", async () => {
    const { create, open, api } = await start();
    create({ name: "n", mode: NetworkMode.INTERNAL, stormLimit: 100 });
    const [bad, victim, peer] = [open("bad/net0", "n"), open("victim/net0", "n"), open("peer/net0", "n")];
    const between = (from: number, to: number): Uint8Array => wire.emitEthernet({ destination: to, source: from, etherType: 0x88b5, payload: new Uint8Array(46) });
    peer.send(between(peer.mac, wire.MAC_BROADCAST));
    victim.got.length = 0;
    const flood = fromHex(ARP_REQUEST);
    wire.writeMac(flood, 6, bad.mac);
    for (let i = 0; i < 200; i++) bad.send(flood);
    expect(victim.got.length).toBe(100);
    victim.send(between(victim.mac, peer.mac));
    peer.send(between(peer.mac, victim.mac));
    expect(victim.got.length).toBe(101);
    const { counters } = api.readNetworkStats!({ machine: "", network: "n" }) as { counters: Map<string, bigint> };
    expect(counters.get("n.dropped_storm")).toBe(100n);
  });
  it("spoof deny on a shared network: another port's MAC, its leased IP, the gateway's → dropped and counted", async () => {
    const { create, open, api } = await start();
    create({ name: "n", mode: NetworkMode.NAT_NETWORK, spoof: "deny" });
    const [bad, good] = [open("bad/net0", "n"), open("good/net0", "n")];
    const address = ip(lease(good)!);
    lease(bad);
    good.got.length = 0;
    const arp = (mac: number, sender: number): Uint8Array => wire.emitEthernet({ destination: wire.MAC_BROADCAST, source: mac, etherType: wire.ETHERTYPE.ARP, payload: wire.emitArp({ operation: 2, senderMac: mac, senderAddress: sender, targetMac: 0, targetAddress: sender }) });
    bad.send(arp(good.mac, address), arp(bad.mac, address), arp(bad.mac, ip("10.0.3.2")));
    expect(good.got).toEqual([]);
    bad.send(arp(bad.mac, ip("10.0.3.200")));
    expect(good.got).toHaveLength(1);
    const { counters } = api.readNetworkStats!({ machine: "bad", network: "" }) as { counters: Map<string, bigint> };
    expect(counters.get("bad/net0.rx_dropped_spoof")).toBe(3n);
  });
  it("whatever a guest sends into any mode: no exception, and nothing malformed comes out to the others", async () => {
    const { create, open } = await start();
    for (const [name, mode] of [["n", NetworkMode.NAT_NETWORK], ["i", NetworkMode.INTERNAL], ["h", NetworkMode.HOST_ONLY]] as const) create({ name, mode, spoof: "deny" });
    const corpus = [ARP_REQUEST, PING_REQUEST, UDHCPC_DISCOVER].map((hex) => fromHex(hex));
    const nics = ["n", "i", "h"].flatMap((name) => [open(`bad${name}/net0`, name), open(`good${name}/net0`, name, { vlan: name === "i" ? 5 : 0 })]);
    const frame = fc.tuple(fc.constantFrom(...corpus), fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 6 }), fc.nat(200)).map(([bytes, changes, cut]) => {
      const copy = bytes.slice(0, Math.max(0, bytes.length - cut));
      for (const [at, value] of changes) if (at < copy.length) copy[at] = value;
      return copy;
    });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 20 }), fc.nat(nics.length - 1), (frames, which) => {
        nics[which]!.send(...frames);
        for (const { got } of nics) for (const out of got.splice(0)) expect(out.length).toBeGreaterThanOrEqual(14);
      }),
      { numRuns: 300 },
    );
  });
});

describe("state that outlives the service", () => {
  it("networks, ports, links and leases are there again; a guest that asks keeps its address", async () => {
    const first = await start(directory);
    first.create({ name: "n", mode: NetworkMode.NAT_NETWORK });
    const [a, b] = [first.open("a/net0", "n"), first.open("b/net0", "n")];
    const addresses = [lease(a), lease(b)];
    first.api.setLink!({ port: "b/net0", up: false });
    await closers.pop()!();
    const second = await start(directory);
    expect((second.api.listNetworks!({}) as { networks: Network[] }).networks.map(({ name }) => name)).toEqual(["nat", "n"]);
    expect((second.api.listPorts!({ machine: "" }) as { ports: Port[] }).ports.map(({ id, linkUp }) => [id, linkUp])).toEqual([["a/net0", true], ["b/net0", false]]);
    const again = second.open("c/net0", "n");
    const third = lease(again);
    expect(addresses).not.toContain(third);
    expect(lease(second.open("a/net0", "n"))).toBe(addresses[0]);
  });
  it("an interface that the host no longer gives: that network is left out, the others come back", async () => {
    const first = await start(directory);
    first.create({ name: "h", mode: NetworkMode.HOST_ONLY });
    first.create({ name: "i", mode: NetworkMode.INTERNAL });
    await closers.pop()!();
    const interfaces = new FakeInterfaces();
    interfaces.denied = true;
    const second = await start(directory, interfaces);
    expect((second.api.listNetworks!({}) as { networks: Network[] }).networks.map(({ name }) => name)).toEqual(["nat", "i"]);
  });
});
