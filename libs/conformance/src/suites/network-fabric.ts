import assert from "node:assert/strict";
import { NETWORK, Network, NetworkMode, Port, PublishRequest } from "@polyvisor/contracts/network";
import type { ConformanceSuite } from "../suite.ts";
import { BROADCAST, fails, frame, macOf, Nic, onSwitch, openNic, said } from "./network-nic.ts";
import { NETWORK_MODE_CASES } from "./network-modes.ts";

type Suite = ConformanceSuite<typeof NETWORK.definition>;

export const NETWORK_SUITE: Suite = {
  contract: NETWORK,
  cases: [
    {
      requirement: "NET-1",
      title: "the network `nat` exists from the start, as 10.0.2.0/24 with gateway .2 and DNS .3, and stays",
      async run(service) {
        const { networks } = await service.listNetworks({});
        const nat = networks.find(({ name }) => name === "nat");
        const expected = { name: "nat", mode: NetworkMode.NAT, subnet: "10.0.2.0/24", gateway: "10.0.2.2", dns: "10.0.2.3", mtu: 1500, spoof: "deny" };
        assert.partialDeepStrictEqual({ ...nat }, expected);
        await fails(service.deleteNetwork({ name: "nat" }), "precondition");
      },
    },
    {
      requirement: "NET-1",
      title: "createNetwork again the same → the same; another → already-exists; nonsense → invalid",
      async run(service, environment) {
        const name = environment.unique("net");
        const network = Network.fromPartial({ name, mode: NetworkMode.NAT, subnet: "192.168.7.0/24" });
        const { network: made } = await service.createNetwork({ network });
        assert.equal(made!.gateway, "192.168.7.2");
        assert.deepEqual((await service.createNetwork({ network })).network, made);
        await fails(service.createNetwork({ network: { ...network, mtu: 9000 } }), "already-exists");
        const other = environment.unique("net");
        const bad: Partial<Network>[] = [
          { name: "" },
          { name: "a b" },
          { mode: NetworkMode.UNSPECIFIED },
          { subnet: "192.168.7.1/24" },
          { subnet: "192.168.7.0/30" },
          { subnet: "x" },
          { gateway: "10.0.0.1" },
          { gateway: "192.168.7.3", dns: "192.168.7.3" },
          { mtu: 20 },
        ];
        for (const fields of bad) await fails(service.createNetwork({ network: { ...network, name: other, ...fields } }), "invalid");
        await fails(service.createNetwork({ network: undefined }), "invalid");
        await fails(service.createNetwork({ network: Network.fromPartial({ name: other, mode: NetworkMode.BRIDGED }) }), "invalid"); // no interface
        await service.deleteNetwork({ name });
        await service.deleteNetwork({ name });
        assert.ok(!(await service.listNetworks({})).networks.some((n) => n.name === name));
      },
    },
    {
      requirement: "NET-2",
      title: "createPort again the same → the same port; another → already-exists; no network → not-found; a group address → invalid",
      async run(service, environment) {
        const machine = environment.unique("machine");
        const port = Port.fromPartial({ id: `${machine}/net0`, machine, mac: "52:54:00:12:34:56", linkUp: true });
        const { port: made } = await service.createPort({ port });
        assert.deepEqual({ ...made }, { ...port, network: "nat" });
        assert.deepEqual((await service.createPort({ port })).port, made);
        await fails(service.createPort({ port: { ...port, mac: "52:54:00:12:34:57" } }), "already-exists");
        const other = { ...port, id: `${machine}/net1` };
        await fails(service.createPort({ port: { ...other, network: "none-such" } }), "not-found");
        for (const mac of ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54"]) {
          await fails(service.createPort({ port: { ...other, mac } }), "invalid");
        }
        await fails(service.createPort({ port: { ...other, id: "" } }), "invalid");
        await fails(service.createPort({ port: undefined }), "invalid");
        assert.deepEqual((await service.listPorts({ machine })).ports.map(({ id }) => id), [port.id]);
        await service.deletePort({ id: port.id });
        await service.deletePort({ id: port.id });
        assert.deepEqual((await service.listPorts({ machine })).ports, []);
      },
    },
    {
      requirement: "NET-2",
      title: "ports without a mac get one of their own, the same each time; a network with ports cannot be deleted",
      async run(service, environment) {
        const name = environment.unique("net");
        await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.INTERNAL }) });
        const machine = environment.unique("machine");
        const create = async (id: string) =>
          (await service.createPort({ port: Port.fromPartial({ id, machine, network: name, mac: "", linkUp: true }) })).port!.mac;
        const [a, b] = [await create(`${machine}/net0`), await create(`${machine}/net1`)];
        assert.notEqual(a, b);
        assert.equal(await create(`${machine}/net0`), a);
        await fails(service.deleteNetwork({ name }), "precondition");
        for (const id of [`${machine}/net0`, `${machine}/net1`]) await service.deletePort({ id });
        await service.deleteNetwork({ name });
      },
    },
    {
      requirement: "NET-3",
      title: "a stream for an unknown port, or another machine's → it ends with not-found; another port later → invalid",
      async run(service, environment) {
        const nic = await openNic(service, environment, "nat");
        const ghost = new Nic(service, environment, { ...nic.port, id: `${nic.port.id}x` });
        assert.equal((await environment.within(5000, ghost.closed, "the end of the stream"))?.condition, "not-found");
        const thief = new Nic(service, environment, { ...nic.port, machine: environment.unique("thief") });
        assert.equal((await environment.within(5000, thief.closed, "the end of the stream"))?.condition, "not-found");
        nic.channel.send({ machine: nic.port.machine, port: "other", frames: [], credit: 0, linkUp: false, takesOffload: false });
        assert.equal((await environment.within(5000, nic.closed, "the end of the stream"))?.condition, "invalid");
        await service.deletePort({ id: nic.port.id });
      },
    },
    {
      requirement: "NET-3",
      title: "a second stream for a port → it takes over and the first ends with conflict; deletePort ends it",
      async run(service, environment) {
        const first = await openNic(service, environment, "nat");
        const second = await new Nic(service, environment, first.port).ready();
        assert.equal((await environment.within(5000, first.closed, "the end of the first stream"))?.condition, "conflict");
        await service.deletePort({ id: first.port.id });
        await environment.within(5000, second.closed, "the end of the second stream");
      },
    },
    onSwitch("NET-4", "broadcast reaches every other port, not its sender; frames keep their order", 3, async ([a, b, c]) => {
      a!.send(frame(BROADCAST, macOf(a!.port), 1), frame(BROADCAST, macOf(a!.port), 2));
      a!.send(frame(BROADCAST, macOf(a!.port), 3));
      for (const nic of [b!, c!]) assert.deepEqual((await nic.frames(3)).map(said), [1, 2, 3]);
      b!.send(frame(BROADCAST, macOf(b!.port), 4));
      assert.deepEqual((await a!.frames(1)).map(said), [4]);
    }),
    onSwitch("NET-4", "a frame to an address that was heard goes to its port alone", 3, async ([a, b, c]) => {
      b!.send(frame(BROADCAST, macOf(b!.port), 1));
      await a!.frames(1);
      await c!.frames(1);
      a!.send(frame(macOf(b!.port), macOf(a!.port), 2));
      assert.deepEqual((await b!.frames(1)).map(said), [2]);
      a!.send(frame(BROADCAST, macOf(a!.port), 3));
      assert.deepEqual((await c!.frames(1)).map(said), [3]); // and not 2 before it
    }),
    onSwitch("NET-5", "a port that gives no credit loses only its own frames, and gets what was queued when it does", 2, async ([a, b], service, environment) => {
      const slow = await openNic(service, environment, b!.port.network, 0);
      const total = 3000;
      for (let sent = 0; sent < total; ) {
        await a!.until(() => a!.credit > 0, "credit");
        const count = Math.min(a!.credit, 50, total - sent);
        a!.send(...Array.from({ length: count }, () => frame(BROADCAST, macOf(a!.port), 9)));
        sent += count;
        await b!.frames(count); // the fast port gets all of them
        b!.give(count);
      }
      assert.equal(slow.received.length, 0);
      slow.give(10);
      assert.equal((await slow.frames(10)).length, 10);
      const { counters } = await service.readNetworkStats({ machine: slow.port.machine, network: "" });
      assert.ok(counters.get(`${slow.port.id}.tx_dropped_queue`)! > 0n);
      assert.equal(slow.received.length, 0);
      await service.deletePort({ id: slow.port.id });
    }),
    onSwitch("NET-5", "frames beyond the credit are dropped and counted; the stream lives on", 2, async ([a, b], service) => {
      const given = a!.credit;
      const excess = 20;
      a!.send(...Array.from({ length: given + excess }, () => frame(macOf(a!.port), macOf(a!.port), 0)));
      await a!.until(() => a!.credit > 0, "credit given back");
      a!.send(frame(BROADCAST, macOf(a!.port), 1));
      assert.deepEqual((await b!.frames(1)).map(said), [1]);
      const { counters } = await service.readNetworkStats({ machine: a!.port.machine, network: "" });
      assert.equal(counters.get(`${a!.port.id}.rx_dropped_credit`), BigInt(excess));
    }),
    onSwitch("NET-6", "frames that are none (too short, too long, impossible offload) are dropped and counted", 2, async ([a, b], service) => {
      const from = macOf(a!.port);
      const good = frame(BROADCAST, from, 5);
      const offload = { needsChecksum: true, checksumStart: 60_000, checksumOffset: 16, gsoType: 0, gsoSize: 0, headerLength: 0 };
      const batch = (data: Uint8Array, extra?: typeof offload) => ({ data, offload: extra });
      const frames = [batch(new Uint8Array(1)), batch(new Uint8Array(13)), batch(new Uint8Array(70_000)), batch(good.slice(), offload), batch(good)];
      a!.channel.send({ machine: a!.port.machine, port: a!.port.id, frames, credit: 0, linkUp: false, takesOffload: false });
      assert.deepEqual((await b!.frames(1)).map(said), [5]);
      const { counters } = await service.readNetworkStats({ machine: a!.port.machine, network: "" });
      assert.equal(counters.get(`${a!.port.id}.rx_dropped_malformed`), 4n);
      assert.equal(counters.get(`${a!.port.id}.rx_frames`), 1n);
    }),
    onSwitch("NET-6", "a checksum that the driver left open is complete when the frame arrives", 2, async ([a, b]) => {
      const data = frame(BROADCAST, macOf(a!.port), 0);
      data.set([0x12, 0x34], 20); // covered from 20 on; the field at 24
      const offload = { needsChecksum: true, checksumStart: 20, checksumOffset: 4, gsoType: 0, gsoSize: 0, headerLength: 0 };
      a!.channel.send({ machine: a!.port.machine, port: a!.port.id, frames: [{ data, offload }], credit: 0, linkUp: false, takesOffload: false });
      const [arrived] = await b!.frames(1);
      assert.deepEqual([arrived![24], arrived![25]], [0xed, 0xcb]); // ~0x1234
    }),
    onSwitch("NET-6", "a frame to be segmented → whole segments for a port that takes no offload, the frame itself for one that does", 3, async ([a, b, c]) => {
      const hello = [{ data: frame(BROADCAST, macOf(c!.port), 1), offload: undefined }];
      c!.channel.send({ machine: c!.port.machine, port: c!.port.id, frames: hello, credit: 0, linkUp: false, takesOffload: true });
      await b!.frames(1); // streams have no common order: now the fabric has heard it
      const data = new Uint8Array(54 + 2500).fill(7);
      data.set([...BROADCAST, ...macOf(a!.port), 8, 0]);
      data.set([0x45, 0, ...[(2540 >> 8) & 255, 2540 & 255], 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
      data.set([0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0], 34);
      const offload = { needsChecksum: true, checksumStart: 34, checksumOffset: 16, gsoType: 1, gsoSize: 1000, headerLength: 54 };
      a!.channel.send({ machine: a!.port.machine, port: a!.port.id, frames: [{ data, offload }], credit: 0, linkUp: false, takesOffload: false });
      const segments = await b!.frames(3);
      assert.deepEqual(segments.map((segment) => segment.length), [1054, 1054, 554]);
      assert.deepEqual(segments.map((segment) => (segment[40]! << 8) | segment[41]!), [0, 1000, 2000]);
      assert.deepEqual((await c!.frames(1)).map((frame) => frame.length), [2554]);
    }),
    {
      requirement: "NET-7",
      title: "NAT: the gateway answers ARP for itself and the DNS server, and ports never hear each other",
      async run(service, environment) {
        const [a, b] = [await openNic(service, environment, "nat"), await openNic(service, environment, "nat")];
        const who = (last: number): Uint8Array => {
          const mac = macOf(a.port);
          return Uint8Array.of(...BROADCAST, ...mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, ...mac, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, last);
        };
        a.send(who(9), who(2), who(3));
        const replies = await a.frames(2);
        assert.deepEqual(replies.map((reply) => [reply[21], ...reply.subarray(28, 32)]), [[2, 10, 0, 2, 2], [2, 10, 0, 2, 3]]);
        assert.equal(b.received.length, 0);
        for (const { port } of [a, b]) await service.deletePort({ id: port.id });
      },
    },
    {
      requirement: "NET-9",
      title: "a port of the host is forwarded, shown, refused to others with its owner's name, corrected on request, and given back",
      async run(service, environment) {
        const nic = await openNic(service, environment, "nat");
        const other = await openNic(service, environment, "nat");
        const { machine, id: port } = nic.port;
        const { forward } = await service.publish(PublishRequest.fromPartial({ machine, guestPort: 80 }));
        assert.ok(forward!.hostPort > 0);
        assert.partialDeepStrictEqual({ ...forward! }, { machine, port, protocol: "tcp", bind: "127.0.0.1", guestPort: 80, problem: "" });
        const { id, hostPort } = forward!;
        const again = PublishRequest.fromPartial({ machine, guestPort: 80, hostPort });
        assert.equal((await service.publish(again)).id, id);
        const rival = PublishRequest.fromPartial({ machine: other.port.machine, guestPort: 8080, hostPort });
        await assert.rejects(service.publish(rival), (error: Error) => {
          assert.ok(error.message.includes(machine), error.message);
          return true;
        });
        await fails(service.publish(rival), "conflict");
        const { forward: corrected } = await service.publish({ ...rival, autoCorrect: true });
        assert.notEqual(corrected!.hostPort, hostPort);
        assert.deepEqual((await service.listForwards({ machine })).forwards.map((each) => each.id), [id]);
        await service.unpublish({ id });
        await service.unpublish({ id });
        assert.deepEqual((await service.listForwards({ machine })).forwards, []);
        assert.equal((await service.publish(rival)).forward!.hostPort, hostPort); // free again
        for (const each of [nic, other]) await service.deletePort({ id: each.port.id });
        assert.deepEqual((await service.listForwards({ machine: other.port.machine })).forwards, []); // gone with the port
      },
    },
    {
      requirement: "NET-9",
      title: "nonsense → invalid; a machine without a port behind a NAT → not-found",
      async run(service, environment) {
        const { port } = await openNic(service, environment, "nat");
        const { machine } = port;
        const bad = [{ guestPort: 0 }, { guestPort: 70_000 }, { hostPort: 70_000 }, { protocol: "sctp" }, { bind: "localhost" }, { guestAddress: "x" }, { machine: "" }];
        for (const fields of bad) await fails(service.publish(PublishRequest.fromPartial({ machine, guestPort: 80, ...fields })), "invalid");
        await fails(service.publish(PublishRequest.fromPartial({ machine: "nobody", guestPort: 80 })), "not-found");
        await service.deletePort({ id: port.id });
      },
    },
    ...NETWORK_MODE_CASES,
  ],
};
