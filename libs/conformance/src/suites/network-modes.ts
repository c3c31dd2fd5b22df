import assert from "node:assert/strict";
import { ContractError } from "@polyvisor/contracts";
import { CaptureRequest, Impairment, Network, NetworkMode, Port, type NETWORK } from "@polyvisor/contracts/network";
import type { ConformanceCase } from "../suite.ts";
import { BROADCAST, fails, frame, macOf, Nic, onSwitch, openNic, said } from "./network-nic.ts";

const impair = (fields: Partial<Impairment>) => ({ impairment: Impairment.fromPartial(fields) });

/** An ARP request for 10.x.y.last by a host without an address (RFC 5227, 2.1.1: a probe). */
function arpProbe(from: number[], target: readonly number[]): Uint8Array {
  return Uint8Array.of(...BROADCAST, ...from, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, ...from, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...target);
}

/** What a network does beyond carrying frames: modes, links, VLANs, bad lines, captures. */
export const NETWORK_MODE_CASES: readonly ConformanceCase<typeof NETWORK.definition>[] = [
  {
    requirement: "NET-10",
    title: "NAT_NETWORK: a subnet of its own is chosen; one gateway answers both ports, and the ports meet",
    async run(service, environment) {
      const name = environment.unique("net");
      const { network } = await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.NAT_NETWORK }) });
      const others = (await service.listNetworks({})).networks.filter((each) => each.name !== name);
      assert.ok(!others.some(({ subnet }) => subnet === network!.subnet), `${network!.subnet} is another's`);
      assert.deepEqual((await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.NAT_NETWORK }) })).network, network);
      const [a, b] = [await openNic(service, environment, name), await openNic(service, environment, name)];
      for (const nic of [a, b]) {
        nic.send(arpProbe(macOf(nic.port), network!.gateway.split(".").map(Number)));
        await nic.until(() => nic.received.some((bytes) => bytes[21] === 2), "the gateway's ARP reply");
      }
      a.received = [];
      b.send(frame(macOf(a.port), macOf(b.port), 7));
      await a.until(() => a.received.some((bytes) => said(bytes) === 7), "the other port's frame");
      const inspected = await service.inspectNetwork({ name });
      assert.deepEqual(inspected.ports.map(({ id }) => id).toSorted(), [a.port.id, b.port.id].toSorted());
      assert.ok(inspected.stations.some(({ mac, port }) => mac === a.port.mac && port === a.port.id));
      for (const { port } of [a, b]) await service.deletePort({ id: port.id });
      await service.deleteNetwork({ name });
    },
  },
  {
    requirement: "NET-10",
    title: "what a mode cannot have is invalid: a subnet when bridged, joining an internal network, nonsense policies",
    async run(service, environment) {
      const name = environment.unique("net");
      const bad: Partial<Network>[] = [
        { mode: NetworkMode.BRIDGED, interface: "eth0", subnet: "10.9.0.0/24" },
        { mode: NetworkMode.INTERNAL, joinHost: true },
        { mode: NetworkMode.INTERNAL, interface: "eth0" },
        { mode: NetworkMode.INTERNAL, gateway: "10.9.0.2" },
        { mode: NetworkMode.NAT_NETWORK, hostAddress: "10.9.0.1" },
        { mode: NetworkMode.NAT, spoof: "maybe" },
        { mode: NetworkMode.BRIDGED, interface: "a/b" },
      ];
      for (const fields of bad) await fails(service.createNetwork({ network: Network.fromPartial({ name, ...fields }) }), "invalid");
      await fails(service.inspectNetwork({ name }), "not-found");
    },
  },
  {
    requirement: "NET-11",
    title: "a port's own address: outside the subnet, the gateway's or another port's → refused",
    async run(service, environment) {
      const name = environment.unique("net");
      const { network } = await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.NAT_NETWORK }) });
      const prefix = network!.subnet.replace(/0\/24$/, "");
      const machine = environment.unique("machine");
      const port = (id: string, address: string) => ({ port: Port.fromPartial({ id: `${machine}/${id}`, machine, network: name, address }) });
      await service.createPort(port("net0", `${prefix}50`));
      await fails(service.createPort(port("net1", `${prefix}50`)), "conflict");
      await fails(service.createPort(port("net1", network!.gateway)), "invalid");
      await fails(service.createPort(port("net1", "172.31.255.1")), "invalid");
      await fails(service.createPort(port("net1", "x")), "invalid");
      await service.deletePort({ id: `${machine}/net0` });
      await service.deleteNetwork({ name });
    },
  },
  onSwitch("NET-12", "a pulled cable: link_up goes down on the stream, nothing passes either way; plugged in again → it does", 2, async ([a, b], service) => {
    const { port } = await service.setLink({ port: b!.port.id, up: false });
    assert.equal(port!.linkUp, false);
    await b!.until(() => !b!.linkUp, "link down");
    a!.send(frame(BROADCAST, macOf(a!.port), 1));
    b!.send(frame(BROADCAST, macOf(b!.port), 2));
    await service.setLink({ port: b!.port.id, up: true });
    await b!.until(() => b!.linkUp, "link up");
    a!.send(frame(BROADCAST, macOf(a!.port), 3));
    assert.deepEqual((await b!.frames(1)).map(said), [3]);
    b!.send(frame(BROADCAST, macOf(b!.port), 4));
    assert.deepEqual((await a!.frames(1)).map(said), [4]);
    await fails(service.setLink({ port: "none/net0", up: true }), "not-found");
  }),
  onSwitch("NET-12", "movePort: the link goes down and up, and the port meets those of the other network", 2, async ([a, b], service, environment) => {
    const name = environment.unique("net");
    await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.INTERNAL }) });
    const c = await openNic(service, environment, name);
    await service.movePort({ port: b!.port.id, network: name });
    await b!.until(() => b!.linkUp, "the link in the other network");
    c.send(frame(BROADCAST, macOf(c.port), 5));
    assert.deepEqual((await b!.frames(1)).map(said), [5]);
    a!.send(frame(BROADCAST, macOf(a!.port), 6));
    b!.send(frame(BROADCAST, macOf(b!.port), 7));
    assert.deepEqual((await c.frames(1)).map(said), [7]);
    assert.equal(a!.received.length + b!.received.length, 0);
    for (const { port } of [b!, c]) await service.deletePort({ id: port.id });
    await service.deleteNetwork({ name });
  }),
  {
    requirement: "NET-13",
    title: "VLANs: access ports of one VLAN meet untagged, a trunk carries the tag, others hear nothing",
    async run(service, environment) {
      const name = environment.unique("net");
      await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.INTERNAL }) });
      const open = async (fields: Partial<Port>): Promise<Nic> => {
        const machine = environment.unique("machine");
        const { port } = await service.createPort({ port: Port.fromPartial({ id: `${machine}/net0`, machine, network: name, ...fields }) });
        return new Nic(service, environment, port!).ready();
      };
      const [red, red2, blue, trunk] = [await open({ vlan: 10 }), await open({ vlan: 10 }), await open({ vlan: 20 }), await open({ trunk: [10, 20] })];
      red.send(frame(BROADCAST, macOf(red.port), 1));
      assert.deepEqual((await red2.frames(1)).map(said), [1]);
      const [tagged] = await trunk.frames(1);
      assert.deepEqual([...tagged!.subarray(12, 18)], [0x81, 0, 0, 10, 0x88, 0xb5]);
      blue.send(frame(BROADCAST, macOf(blue.port), 2));
      assert.equal((await trunk.frames(1))[0]![15], 20);
      assert.equal(blue.received.length + red.received.length, 0);
      await fails(service.createPort({ port: Port.fromPartial({ id: "x/net0", machine: "x", network: name, vlan: 4095 }) }), "invalid");
      for (const { port } of [red, red2, blue, trunk]) await service.deletePort({ id: port.id });
      await service.deleteNetwork({ name });
    },
  },
  onSwitch("NET-14", "impairments: loss 1 loses all, duplicate 1 doubles, corrupt 1 flips one bit; none again → a good line", 2, async ([a, b], service) => {
    const port = b!.port.id;
    const say = (byte: number) => a!.send(frame(BROADCAST, macOf(a!.port), byte));
    await service.setImpairment(impair({ port, loss: 1 }));
    say(1);
    await service.setImpairment(impair({ port, duplicate: 1 }));
    say(2);
    assert.deepEqual((await b!.frames(2)).map(said), [2, 2]);
    await service.setImpairment(impair({ port, corrupt: 1, seed: 3n }));
    say(3);
    const [bad] = await b!.frames(1);
    const bits = frame(BROADCAST, macOf(a!.port), 3).reduce((sum, byte, i) => sum + (byte ^ bad![i]!).toString(2).replaceAll("0", "").length, 0);
    assert.equal(bits, 1);
    const { impairments } = await service.listImpairments({});
    assert.equal(impairments.find((each) => each.port === port)?.counters.get("corrupted"), 1n);
    await service.setImpairment(impair({ port }));
    say(4);
    assert.deepEqual((await b!.frames(1)).map(said), [4]);
    await fails(service.setImpairment(impair({ port, loss: 2 })), "invalid");
    await fails(service.setImpairment(impair({ loss: 0.5 })), "invalid");
    await fails(service.setImpairment(impair({ port: "none/net0", loss: 0.5 })), "not-found");
  }),
  onSwitch("NET-15", "capture of a network: pcapng with the ports' names, each frame once; of nothing → not-found", 2, async ([a, b], service, environment) => {
    const chunks: Uint8Array[] = [];
    const channel = service.capture(CaptureRequest.fromPartial({ network: a!.port.network }));
    channel.onMessage(({ pcapng }) => void chunks.push(pcapng));
    const text = () => Buffer.concat(chunks).toString("latin1");
    const has = async (what: string) => {
      for (const deadline = Date.now() + 5000; !text().includes(what); ) {
        assert.ok(Date.now() < deadline, `the capture has no ${JSON.stringify(what)}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    await has(b!.port.id);
    const marked = frame(BROADCAST, macOf(a!.port), 1);
    marked.set(new TextEncoder().encode("find me"), 20);
    a!.send(marked);
    await has("find me");
    assert.equal(text().split("find me").length, 2);
    assert.equal(Buffer.concat(chunks).readUInt32LE(0), 0x0a0d0d0a); // section header block
    channel.close();
    const none = service.capture(CaptureRequest.fromPartial({ network: environment.unique("net") }));
    const end = new Promise<ContractError | undefined>((resolve) => none.onClose(resolve));
    assert.equal((await environment.within(5000, end, "the end of the stream"))?.condition, "not-found");
  }),
  {
    requirement: "NET-16",
    title: "spoofing on NAT: a frame with another MAC address, or that claims the gateway's IP, is dropped and counted",
    async run(service, environment) {
      const nic = await openNic(service, environment, "nat");
      const mac = macOf(nic.port);
      const gateway = [10, 0, 2, 2];
      const probe = arpProbe(mac, gateway);
      const stolenMac = arpProbe([2, 0, 0, 0, 0, 1], gateway);
      const stolenIp = probe.slice();
      stolenIp.set(gateway, 28);
      nic.send(stolenMac, stolenIp, probe);
      assert.equal((await nic.frames(1))[0]![21], 2);
      const { counters } = await service.readNetworkStats({ machine: nic.port.machine, network: "" });
      assert.equal(counters.get(`${nic.port.id}.rx_dropped_spoof`), 2n);
      await service.deletePort({ id: nic.port.id });
    },
  },
  {
    requirement: "NET-17",
    title: "a rate limit holds frames back without losing them, and the credit with them",
    async run(service, environment) {
      const name = environment.unique("net");
      await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.INTERNAL, stormLimit: 1_000_000 }) });
      const machine = environment.unique("machine");
      const { port } = await service.createPort({ port: Port.fromPartial({ id: `${machine}/net0`, machine, network: name, rateLimit: 200_000n }) });
      const slow = await new Nic(service, environment, port!).ready();
      const other = await openNic(service, environment, name, 1000);
      const big = new Uint8Array(1500);
      big.set(frame(BROADCAST, macOf(slow.port), 1));
      const total = 100; // 150 kB: 64 kB at once, the rest in 0.4 s
      for (let sent = 0; sent < total; sent++) {
        await slow.until(() => slow.credit > 0, "credit");
        slow.send(big);
      }
      const before = (await service.readNetworkStats({ machine: other.port.machine, network: "" })).counters.get(`${other.port.id}.tx_frames`)!;
      assert.ok(before < BigInt(total), "the limit lets everything pass at once");
      assert.equal((await other.frames(total)).length, total);
      for (const { port: each } of [slow, other]) await service.deletePort({ id: each.id });
      await service.deleteNetwork({ name });
    },
  },
];
