import assert from "node:assert/strict";
import { ContractError, type Channel, type Condition } from "@polyvisor/contracts";
import { NETWORK, NetworkMode, type FrameBatch, type Network, type NetworkPort, type Port } from "@polyvisor/contracts/network";
import type { ConformanceCase, ConformanceEnvironment, ConformanceSuite } from "../suite.ts";

type Suite = ConformanceSuite<typeof NETWORK.definition>;

async function fails(promise: Promise<unknown>, ...conditions: Condition[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof ContractError, `not a ContractError: ${String(error)}`);
    assert.ok(conditions.includes(error.condition), `${error.condition}: ${error.message}`);
    return true;
  });
}

/** A network interface driven by hand. */
class Nic {
  readonly port: Port;
  readonly channel: Channel<FrameBatch, FrameBatch>;
  readonly closed: Promise<ContractError | undefined>;
  /** Credit that the fabric has given and that has not been used. */
  credit = 0;
  linkUp = false;
  received: Uint8Array[] = [];
  readonly #environment: ConformanceEnvironment;
  #changed = () => {};

  constructor(service: NetworkPort, environment: ConformanceEnvironment, port: Port, credit = 64) {
    this.port = port;
    this.#environment = environment;
    this.channel = service.frames();
    this.closed = new Promise((resolve) => this.channel.onClose(resolve));
    this.channel.onMessage((batch) => {
      this.credit += batch.credit;
      this.linkUp = batch.linkUp;
      this.received.push(...batch.frames.map(({ data }) => data));
      this.#changed();
    });
    this.give(credit);
  }
  give(credit: number): void {
    this.channel.send({ machine: this.port.machine, port: this.port.id, frames: [], credit, linkUp: false, takesOffload: false });
  }
  send(...frames: Uint8Array[]): void {
    this.credit -= frames.length;
    const list = frames.map((data) => ({ data, offload: undefined }));
    this.channel.send({ machine: this.port.machine, port: this.port.id, frames: list, credit: 0, linkUp: false, takesOffload: false });
  }
  /** Waits until the predicate holds after some batch. */
  async until(holds: () => boolean, what: string): Promise<void> {
    const promise = new Promise<void>((resolve) => {
      this.#changed = () => {
        if (holds()) resolve();
      };
      this.#changed();
    });
    await this.#environment.within(5000, promise, what);
  }
  async ready(): Promise<this> {
    await this.until(() => this.credit > 0 && this.linkUp, "the fabric's first credit");
    return this;
  }
  async frames(count: number): Promise<Uint8Array[]> {
    await this.until(() => this.received.length >= count, `${count} frames`);
    return this.received.splice(0, count);
  }
}

const BROADCAST = [255, 255, 255, 255, 255, 255];
const macOf = (port: Port): number[] => port.mac.split(":").map((byte) => parseInt(byte, 16));
/** A frame of an EtherType for experiments (IEEE 802, 9.2.3) that says one byte. */
function frame(to: number[], from: number[], byte: number): Uint8Array {
  const bytes = new Uint8Array(60);
  bytes.set([...to, ...from, 0x88, 0xb5, byte]);
  return bytes;
}
const said = (bytes: Uint8Array): number => bytes[14]!;

/** A case on a fresh INTERNAL network with some NICs. */
function onSwitch(
  requirement: string,
  title: string,
  count: number,
  run: (nics: Nic[], service: NetworkPort, environment: ConformanceEnvironment) => Promise<void>,
): ConformanceCase<typeof NETWORK.definition> {
  return {
    requirement,
    title,
    async run(service, environment) {
      const name = environment.unique("net");
      await service.createNetwork({ network: { name, mode: NetworkMode.INTERNAL, subnet: "", gateway: "", dns: "", mtu: 0 } });
      const nics: Nic[] = [];
      for (let i = 0; i < count; i++) nics.push(await openNic(service, environment, name));
      try {
        await run(nics, service, environment);
      } finally {
        for (const { port } of nics) await service.deletePort({ id: port.id });
        await service.deleteNetwork({ name });
      }
    },
  };
}
async function openNic(service: NetworkPort, environment: ConformanceEnvironment, network: string, credit = 64): Promise<Nic> {
  const machine = environment.unique("machine");
  const { port } = await service.createPort({ port: { id: `${machine}/net0`, machine, network, mac: "", linkUp: true } });
  return await new Nic(service, environment, port!, credit).ready();
}

export const NETWORK_SUITE: Suite = {
  contract: NETWORK,
  cases: [
    {
      requirement: "NET-1",
      title: "the network `nat` exists from the start, as 10.0.2.0/24 with gateway .2 and DNS .3, and stays",
      async run(service) {
        const { networks } = await service.listNetworks({});
        const nat = networks.find(({ name }) => name === "nat");
        assert.deepEqual(
          { ...nat },
          { name: "nat", mode: NetworkMode.NAT, subnet: "10.0.2.0/24", gateway: "10.0.2.2", dns: "10.0.2.3", mtu: 1500 },
        );
        await fails(service.deleteNetwork({ name: "nat" }), "precondition");
      },
    },
    {
      requirement: "NET-1",
      title: "createNetwork again the same → the same; another → already-exists; nonsense → invalid; modes not built → unimplemented",
      async run(service, environment) {
        const name = environment.unique("net");
        const network: Network = { name, mode: NetworkMode.NAT, subnet: "192.168.7.0/24", gateway: "", dns: "", mtu: 0 };
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
        for (const mode of [NetworkMode.NAT_NETWORK, NetworkMode.HOST_ONLY, NetworkMode.BRIDGED]) {
          await fails(service.createNetwork({ network: { ...network, name: other, mode } }), "unimplemented");
        }
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
        const port: Port = { id: `${machine}/net0`, machine, network: "", mac: "52:54:00:12:34:56", linkUp: true };
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
        await service.createNetwork({ network: { name, mode: NetworkMode.INTERNAL, subnet: "", gateway: "", dns: "", mtu: 0 } });
        const machine = environment.unique("machine");
        const create = async (id: string) =>
          (await service.createPort({ port: { id, machine, network: name, mac: "", linkUp: true } })).port!.mac;
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
      const { counters } = await service.readNetworkStats({ machine: slow.port.machine });
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
      const { counters } = await service.readNetworkStats({ machine: a!.port.machine });
      assert.equal(counters.get(`${a!.port.id}.rx_dropped_credit`), BigInt(excess));
    }),
    onSwitch("NET-6", "frames that are none (too short, too long, impossible offload) are dropped and counted", 2, async ([a, b], service) => {
      const from = macOf(a!.port);
      const good = frame(BROADCAST, from, 5);
      const offload = { needsChecksum: true, checksumStart: 60_000, checksumOffset: 16, gsoType: 0, gsoSize: 0, headerLength: 0 };
      const batch = (data: Uint8Array, extra?: typeof offload) => ({ data, offload: extra });
      const frames = [batch(new Uint8Array(0)), batch(new Uint8Array(13)), batch(new Uint8Array(70_000)), batch(good.slice(), offload), batch(good)];
      a!.channel.send({ machine: a!.port.machine, port: a!.port.id, frames, credit: 0, linkUp: false, takesOffload: false });
      assert.deepEqual((await b!.frames(1)).map(said), [5]);
      const { counters } = await service.readNetworkStats({ machine: a!.port.machine });
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
      title: "what is not built answers unimplemented",
      async run(service, environment) {
        const machine = environment.unique("machine");
        await fails(service.publish({ machine, protocol: "tcp", bind: "", hostPort: 1, guestPort: 1, port: "", guestAddress: "", autoCorrect: false }), "unimplemented");
        await fails(service.unpublish({ id: "x" }), "unimplemented");
        const capture = service.capture({ network: "nat", port: "" });
        const end = new Promise<ContractError | undefined>((resolve) => capture.onClose(resolve));
        assert.equal((await environment.within(5000, end, "the end of the stream"))?.condition, "unimplemented");
      },
    },
  ],
};
