import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import { NetworkMode, type DhcpLease, type FrameBatch, type Impairment, type NETWORK, type Network, type Port } from "@polyvisor/contracts/network";
import type { ServiceContext } from "@polyvisor/service-kit";
import { formatIpv4, formatMac, inSubnet, parseIpv4, type Ipv4Subnet } from "@polyvisor/wire";
import type { NetworkFabricConfig } from "../config.ts";
import { serveCapture } from "./capture.ts";
import { ChannelLine } from "./channel-line.ts";
import type { Lease } from "./dhcp-server.ts";
import type { DnsUpstream } from "./dns-forwarder.ts";
import type { FabricStore } from "./fabric-store.ts";
import { FramePort } from "./frame-port.ts";
import type { HostInterfaces } from "./host-interfaces.ts";
import { Impairments } from "./impairments.ts";
import { Forwards, type ForwardSurroundings, type ForwardTarget } from "./nat/forwards.ts";
import type { HostNetwork } from "./nat/host-network.ts";
import { NatNetwork } from "./nat-network.ts";
import type { AttachedNetwork, NetworkSurroundings } from "./networks.ts";
import { completedFrom, DEFAULT_NETWORK, parseNetwork, parsePort, showNetwork, type NetworkSpec } from "./network-spec.ts";
import type { OpenPeer, PeerLine } from "./peer-lines.ts";
import { SwitchedNetwork } from "./switched-network.ts";

/** What the core needs of the world. */
export interface FabricPeers {
  readonly dns: DnsUpstream;
  /** Sockets, for the NAT. */
  readonly host: HostNetwork;
  readonly interfaces: HostInterfaces;
  readonly openPeer: OpenPeer;
  readonly store: FabricStore;
  /** Who has a port of the host, in words. */
  readonly ownerOf?: ForwardSurroundings["ownerOf"];
}
interface Entry {
  readonly port: FramePort;
  network: AttachedNetwork;
  /** Of ports whose peer does not speak the Frames stream. */
  readonly peer: PeerLine | undefined;
  stream: ChannelLine | undefined;
}

/** How long a port that is plugged into another network has no carrier. */
const RELINK_MS = 200;

/** The core: networks and ports by name, and the contract's methods over them. */
export class Fabric {
  readonly #config: NetworkFabricConfig;
  readonly #context: ServiceContext;
  readonly #peers: FabricPeers;
  readonly #around: NetworkSurroundings;
  readonly #networks = new Map<string, AttachedNetwork>();
  readonly #ports = new Map<string, Entry>();
  readonly #impairments: Impairments;
  readonly #forwards: Forwards;
  /** How deep `#turn` is nested: ports are flushed when the outermost ends. */
  #depth = 0;
  #after: (() => void)[] = [];
  #dirty = new Set<FramePort>();

  constructor(config: NetworkFabricConfig, context: ServiceContext, peers: FabricPeers) {
    this.#config = config;
    this.#context = context;
    this.#peers = peers;
    this.#around = {
      clock: context.clock,
      dns: peers.dns,
      dnsTimeoutMs: config.dnsTimeoutMs,
      leaseSeconds: config.leaseSeconds,
      host: peers.host,
      interfaces: peers.interfaces,
      turn: (run) => this.#turn(run),
      afterTurn: (run) => this.#afterTurn(run),
      leaseGranted: (spec, port, lease) => this.#leaseGranted(spec, port, lease),
      leasesChanged: (scope, leases) => peers.store.saveLeases(scope, leases),
      storedLeases: (scope) => peers.store.leases(scope),
    };
    this.#impairments = new Impairments();
    this.#forwards = new Forwards({
      host: peers.host,
      ...(peers.ownerOf ? { ownerOf: peers.ownerOf } : {}),
      target: (machine, port) => this.#forwardTarget(machine, port),
      save: (forward) => peers.store.saveForward(forward),
      remove: (id) => peers.store.removeForward(id),
    });
    this.#addNetwork(DEFAULT_NETWORK);
    this.#restore();
  }

  readonly implementation: Implementation<typeof NETWORK.definition> = {
    createNetwork: ({ network }) => ({ network: this.#addNetwork(network) }),
    deleteNetwork: ({ name }) => {
      const network = this.#networks.get(name);
      if (!network) return {}; // already so
      if (name === DEFAULT_NETWORK.name) throw new ContractError("precondition", `deleteNetwork: ${name} is the default network and stays`);
      if (network.ports.size > 0) {
        const owners = [...network.ports].slice(0, 3).map(({ info }) => info.id);
        throw new ContractError("precondition", `deleteNetwork: ports are on ${name} (${owners.join(", ")}${network.ports.size > 3 ? ", ..." : ""}); move or delete them first`);
      }
      network.close();
      this.#networks.delete(name);
      this.#peers.store.removeNetwork(name);
      this.#peers.store.saveLeases(name, []);
      return {};
    },
    listNetworks: () => ({ networks: [...this.#networks.values()].map(({ spec }) => showNetwork(spec)) }),
    inspectNetwork: ({ name }) => this.#inspect(this.#findNetwork("inspectNetwork", name)),
    createPort: ({ port }) => ({ port: this.#addPort(port) }),
    deletePort: ({ id }) => {
      this.#removePort(id);
      return {};
    },
    listPorts: ({ machine }) => ({
      ports: [...this.#ports.values()].map(({ port }) => port.info).filter((info) => !machine || info.machine === machine),
    }),
    setLink: ({ port: id, up }) => {
      const { port, network } = this.#findPort("setLink", id);
      this.#turn(() => {
        port.setLink(up);
        if (!up) network.linkChanged(port);
      });
      this.#peers.store.savePort(port.info);
      this.#fact(port.info.machine, up ? "link-up" : "link-down", { port: id, network: port.info.network });
      return { port: port.info };
    },
    movePort: ({ port, network }) => ({ port: this.#movePort(port, network) }),
    setImpairment: ({ impairment }) => ({ impairment: this.#impair(impairment) }),
    listImpairments: () => ({ impairments: this.#impairments.list([...this.#ports.values()].map(({ port }) => port)) }),
    listLeases: ({ network }) => ({
      leases: [...this.#networks.values()]
        .filter(({ spec }) => !network || spec.name === network)
        .flatMap((entry) => entry.leases().map((lease) => showLease(entry.spec.name, lease))),
    }),
    readNetworkStats: ({ machine, network }) => ({ counters: this.#counters(machine, network) }),
    publish: async (request) => {
      const forward = await this.#forwards.publish(request);
      this.#fact(forward.machine, "port-published", { id: forward.id, port: forward.port, guestPort: forward.guestPort });
      return { id: forward.id, forward };
    },
    unpublish: ({ id }) => {
      this.#forwards.unpublish(id);
      return {};
    },
    listForwards: ({ machine }) => ({ forwards: this.#forwards.list(machine) }),
    listFlows: ({ machine }) => ({ natFlows: [...this.#networks.values()].flatMap((network) => network.flows(machine)) }),
    frames: (channel) => this.#serveFrames(channel),
    capture: (request, out) => serveCapture(request, out, {
      clock: this.#context.clock,
      network: (name) => this.#findNetwork("capture", name),
      port: (id) => this.#findPort("capture", id).port,
    }),
  };

  close(): void {
    this.#forwards.close();
    for (const { port, peer, stream } of this.#ports.values()) {
      stream?.close();
      peer?.close();
      port.close();
    }
    for (const network of this.#networks.values()) network.close();
    this.#ports.clear();
    this.#networks.clear();
    this.#peers.store.close();
  }
  describe(): Record<string, string> {
    return { networks: String(this.#networks.size), ports: String(this.#ports.size) };
  }

  #findNetwork(what: string, name: string): AttachedNetwork {
    const network = this.#networks.get(name);
    if (!network) throw new ContractError("not-found", `${what}: no network ${JSON.stringify(name)}; there are ${[...this.#networks.keys()].join(", ")}`);
    return network;
  }
  #findPort(what: string, id: string): Entry {
    const entry = this.#ports.get(id);
    if (!entry) throw new ContractError("not-found", `${what}: no port ${JSON.stringify(id)}; ports are named MACHINE/net0, and exist while their machine runs`);
    return entry;
  }

  #addNetwork(request: Network | undefined): Network {
    const existing = request && this.#networks.get(request.name);
    if (existing) {
      const present = showNetwork(existing.spec);
      if (sameFields(present, completedFrom(present, request))) return present;
      throw new ContractError("already-exists", `createNetwork: ${request.name} exists and differs; delete it first or take another name`);
    }
    const spec = parseNetwork(request, () => this.#usedSubnets());
    if (this.#networks.size >= this.#config.maxNetworks) {
      throw new ContractError("exhausted", `createNetwork: ${this.#networks.size} networks exist; delete one (limit ${this.#config.maxNetworks})`);
    }
    const Kind = spec.mode === NetworkMode.NAT ? NatNetwork : SwitchedNetwork;
    const network = new Kind(spec, this.#around);
    this.#networks.set(spec.name, network);
    const shown = showNetwork(network.spec);
    if (spec.name !== DEFAULT_NETWORK.name) this.#peers.store.saveNetwork(shown);
    return shown;
  }
  #usedSubnets(): Ipv4Subnet[] {
    const own = [...this.#networks.values()].flatMap(({ spec }) => (spec.addressing ? [spec.addressing.subnet] : []));
    return [...own, ...this.#peers.interfaces.subnets()];
  }
  #addPort(request: Port | undefined): Port {
    const { info, mac } = parsePort(request);
    const existing = this.#ports.get(info.id);
    if (existing) {
      if (sameFields({ ...existing.port.info, linkUp: true }, info)) return existing.port.info;
      throw new ContractError("already-exists", `createPort: ${info.id} exists and differs; delete it first`);
    }
    const network = this.#networks.get(info.network);
    if (!network) throw new ContractError("not-found", `createPort ${info.id}: no network ${JSON.stringify(info.network)}; create it first`);
    if (this.#ports.size >= this.#config.maxPorts) {
      throw new ContractError("exhausted", `createPort: ${this.#ports.size} ports exist; delete one (limit ${this.#config.maxPorts})`);
    }
    this.#checkAddress(info, network);
    const port = new FramePort(info, mac, { mtu: network.spec.mtu, queueFrames: this.#config.queueFrames }, {
      clock: this.#context.clock,
      turn: (run) => this.#turn(run),
      dirty: (dirty) => void this.#dirty.add(dirty),
      receive: (from, frame) => this.#ports.get(from.info.id)?.network.receive(from, frame),
    });
    const peer = info.peer ? this.#peers.openPeer(port, network.spec.mtu, (run) => this.#turn(run)) : undefined;
    network.attach(port);
    this.#ports.set(info.id, { port, network, peer, stream: undefined });
    this.#impairments.apply(port);
    this.#peers.store.savePort(info);
    return info;
  }
  #checkAddress(info: Port, { spec, ports }: AttachedNetwork): void {
    const address = info.address ? parseIpv4(info.address) : undefined;
    if (address === undefined || !spec.addressing) return;
    const { subnet, gateway, dns } = spec.addressing;
    const refuse = (what: string) => new ContractError("invalid", `createPort ${info.id}: address ${info.address} ${what}`);
    if (!inSubnet(subnet, address)) throw refuse(`is not in ${spec.name}'s subnet ${showNetwork(spec).subnet}`);
    if (address === gateway || address === dns || address === spec.host) throw refuse(`is the network's own (gateway ${formatIpv4(gateway)}, DNS ${formatIpv4(dns)})`);
    const owner = spec.mode === NetworkMode.NAT ? undefined : [...ports].find((port) => port.info.address === info.address);
    if (owner) throw new ContractError("conflict", `createPort ${info.id}: address ${info.address} is kept for ${owner.info.id}`);
  }
  #removePort(id: string): void {
    const entry = this.#ports.get(id);
    if (!entry) return; // already so
    this.#ports.delete(id);
    this.#detach(entry);
    entry.stream?.close();
    entry.peer?.close();
    entry.port.close();
    this.#dirty.delete(entry.port);
    this.#peers.store.removePort(id);
    this.#forwards.portRemoved(id);
  }
  /** The named port of a machine, or its first one in a mode with NAT. */
  #forwardTarget(machine: string, id: string): ForwardTarget | undefined {
    for (const { port, network } of this.#ports.values()) {
      if (port.info.machine !== machine || (id !== "" && port.info.id !== id)) continue;
      const target = network.forwardTarget(port);
      if (target) return target;
    }
    return undefined;
  }
  #movePort(id: string, to: string): Port {
    const entry = this.#findPort("movePort", id);
    const { port } = entry;
    const network = this.#findNetwork("movePort", to);
    if (network === entry.network) return port.info;
    this.#checkAddress(port.info, network);
    const up = port.info.linkUp;
    this.#turn(() => {
      port.setLink(false);
      this.#detach(entry);
      entry.network = network;
      port.moved(network.spec.name, network.spec.mtu);
      network.attach(port);
      this.#impairments.apply(port);
    });
    // A guest that sees the carrier go and come asks for an address anew; both in one batch it would not notice.
    if (up) this.#context.clock.after(RELINK_MS, () => this.#ports.get(id)?.port === port && this.#turn(() => port.setLink(true)));
    this.#peers.store.savePort({ ...port.info, linkUp: up });
    this.#fact(port.info.machine, "port-moved", { port: id, network: to });
    return port.info;
  }
  #detach({ port, network }: Entry): void {
    network.detach(port);
    port.isSpoofed = undefined;
    if (network.spec.mode === NetworkMode.NAT) this.#peers.store.saveLeases(`${network.spec.name}:${port.info.id}`, []);
  }
  /** Networks and ports of an earlier life. What the host no longer lets us have is left out, with a line in the log. */
  #restore(): void {
    const attempt = (what: string, run: () => void): void => {
      try {
        run();
      } catch (error) {
        this.#context.log.warn({ err: error }, `${what} could not be restored`);
      }
    };
    for (const network of this.#peers.store.networks()) attempt(`network ${network.name}`, () => this.#addNetwork(network));
    for (const port of this.#peers.store.ports()) {
      attempt(`port ${port.id}`, () => {
        this.#addPort(port);
        if (!port.linkUp) this.#ports.get(port.id)!.port.setLink(false);
      });
    }
    this.#forwards.restore(this.#peers.store.forwards()).catch((error: unknown) => this.#context.log.error({ err: error }, "forwards could not be restored"));
  }

  #impair(impairment: Impairment | undefined): Impairment {
    const ports = [...this.#ports.values()].map(({ port }) => port);
    if (impairment?.port) this.#findPort("setImpairment", impairment.port);
    if (impairment?.network) this.#findNetwork("setImpairment", impairment.network);
    return this.#impairments.set(impairment, ports);
  }

  /** One NIC's stream: the first batch says which port it is. */
  #serveFrames(channel: Channel<FrameBatch, FrameBatch>): void {
    let entry: Entry | undefined;
    let line: ChannelLine | undefined;
    channel.onClose(() => {
      if (!entry || !line) return;
      entry.port.disconnect(line);
      if (entry.stream === line) entry.stream = undefined;
    });
    channel.onMessage((batch) => {
      if (channel.closed) return;
      if (!line) {
        const found = this.#ports.get(batch.port);
        if (!found || (batch.machine && batch.machine !== found.port.info.machine)) {
          const what = `frames: machine ${JSON.stringify(batch.machine)} has no port ${JSON.stringify(batch.port)}; create it first`;
          return channel.close(new ContractError("not-found", what));
        }
        const { info } = found.port;
        if (found.peer) return channel.close(new ContractError("conflict", `frames: port ${info.id} belongs to its peer ${info.peer}`));
        entry = found;
        found.stream?.close(new ContractError("conflict", `frames: another stream was opened for port ${info.id}`));
        found.stream = line = new ChannelLine(found.port, channel);
        this.#fact(info.machine, "port-attached", { port: info.id, network: info.network, mac: info.mac });
      } else if (batch.port !== entry!.port.info.id) {
        const what = `frames: a batch for ${JSON.stringify(batch.port)} on the stream of ${entry!.port.info.id}; open one stream per port`;
        return channel.close(new ContractError("invalid", what));
      }
      const { port } = entry!;
      this.#turn(() => {
        this.#dirty.add(port);
        line!.receive(batch);
      });
    });
  }
  /** Runs something that delivers frames, then sends each port what has gathered, as one batch. */
  #turn(run: () => void): void {
    this.#depth++;
    try {
      run();
      // What follows from a whole batch, once: acknowledgments, writes to sockets.
      while (this.#depth === 1 && this.#after.length > 0) for (const each of this.#after.splice(0)) each();
    } finally {
      this.#depth--;
    }
    if (this.#depth > 0) return;
    while (this.#dirty.size > 0) {
      const ports = this.#dirty;
      this.#dirty = new Set();
      for (const port of ports) port.flush();
    }
  }

  #afterTurn(run: () => void): void {
    this.#after.push(run);
    if (this.#depth === 0) this.#turn(() => {});
  }

  #inspect(network: AttachedNetwork) {
    return {
      network: showNetwork(network.spec),
      ports: [...network.ports].map(({ info }) => info),
      leases: network.leases().map((lease) => showLease(network.spec.name, lease)),
      stations: network.stations().map(({ mac, port, vlan, ageMs }) => ({ mac: formatMac(mac), port, vlan, ageSeconds: Math.floor(ageMs / 1000) })),
      counters: bigints(network.totals()),
    };
  }
  #leaseGranted({ name }: NetworkSpec, port: FramePort | undefined, { mac, address, hostname }: Lease): void {
    this.#fact(port?.info.machine ?? "", "lease-granted", { network: name, mac: formatMac(mac), address: formatIpv4(address), hostname });
  }
  #counters(machine: string, only: string): Map<string, bigint> {
    const out = new Map<string, bigint>();
    for (const { port, network } of this.#ports.values()) {
      if ((machine && port.info.machine !== machine) || (only && network.spec.name !== only)) continue;
      for (const [name, value] of bigints({ ...port.counters, ...network.counters(port) })) out.set(`${port.info.id}.${name}`, value);
    }
    if (only) for (const [name, value] of bigints(this.#findNetwork("readNetworkStats", only).totals())) out.set(`${only}.${name}`, value);
    return out;
  }
  #fact(machine: string, fact: string, data: Record<string, unknown>): void {
    this.#context.events.publish({ machine, service: "network-fabric", fact, data });
  }
}

function bigints(counters: Record<string, number>): Map<string, bigint> {
  return new Map(Object.entries(counters).map(([name, value]) => [name, BigInt(value)]));
}
function showLease(network: string, { mac, address, hostname, expiresAt }: Lease): DhcpLease {
  return { network, mac: formatMac(mac), address: formatIpv4(address), hostname, expiresUnixMs: BigInt(expiresAt) };
}
function sameFields<T extends object>(a: T, b: T): boolean {
  return (Object.keys(a) as (keyof T)[]).every((key) => a[key] === b[key] || (Array.isArray(a[key]) && JSON.stringify(a[key]) === JSON.stringify(b[key])));
}
