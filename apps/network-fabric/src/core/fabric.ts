import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import { NetworkMode, type DhcpLease, type FrameBatch, type NETWORK, type Port } from "@polyvisor/contracts/network";
import type { ServiceContext } from "@polyvisor/service-kit";
import { formatIpv4, formatMac } from "@polyvisor/wire";
import type { NetworkFabricConfig } from "../config.ts";
import type { Lease } from "./dhcp-server.ts";
import type { DnsUpstream } from "./dns-forwarder.ts";
import type { HostNetwork } from "./nat/host-network.ts";
import { FramePort } from "./frame-port.ts";
import { InternalNetwork, NatNetwork, type AttachedNetwork, type NetworkSurroundings } from "./networks.ts";
import { DEFAULT_NETWORK, parseNetwork, parsePort, showNetwork } from "./network-spec.ts";

/** The core: networks and ports by name, and the contract's methods over them. */
export class Fabric {
  readonly #config: NetworkFabricConfig;
  readonly #context: ServiceContext;
  readonly #around: NetworkSurroundings;
  readonly #networks = new Map<string, AttachedNetwork>();
  readonly #ports = new Map<string, { port: FramePort; network: AttachedNetwork }>();
  /** How deep `#turn` is nested: ports are flushed when the outermost ends. */
  #depth = 0;
  #after: (() => void)[] = [];

  constructor(config: NetworkFabricConfig, context: ServiceContext, { dns, host }: { dns: DnsUpstream; host: HostNetwork }) {
    this.#config = config;
    this.#context = context;
    this.#around = {
      clock: context.clock,
      dns,
      dnsTimeoutMs: config.dnsTimeoutMs,
      leaseSeconds: config.leaseSeconds,
      host,
      turn: (run) => this.#turn(run),
      afterTurn: (run) => this.#afterTurn(run),
      leaseGranted: (port, lease) => this.#leaseGranted(port, lease),
    };
    this.#addNetwork(DEFAULT_NETWORK);
  }

  readonly implementation: Implementation<typeof NETWORK.definition> = {
    createNetwork: ({ network }) => ({ network: this.#addNetwork(network) }),
    deleteNetwork: ({ name }) => {
      const network = this.#networks.get(name);
      if (!network) return {}; // already so
      if (name === DEFAULT_NETWORK.name) throw new ContractError("precondition", `deleteNetwork: ${name} is the default network and stays`);
      if (network.ports > 0) {
        throw new ContractError("precondition", `deleteNetwork: ${name} has ${network.ports} ports; delete them first`);
      }
      network.close();
      this.#networks.delete(name);
      return {};
    },
    listNetworks: () => ({ networks: [...this.#networks.values()].map(({ spec }) => showNetwork(spec)) }),
    createPort: ({ port }) => ({ port: this.#addPort(port) }),
    deletePort: ({ id }) => {
      const entry = this.#ports.get(id);
      if (!entry) return {}; // already so
      this.#ports.delete(id);
      entry.network.detach(entry.port);
      entry.port.detach()?.close();
      return {};
    },
    listPorts: ({ machine }) => ({
      ports: [...this.#ports.values()].map(({ port }) => port.info).filter((info) => !machine || info.machine === machine),
    }),
    listLeases: ({ network }) => ({
      leases: [...this.#networks.values()]
        .filter(({ spec }) => !network || spec.name === network)
        .flatMap((entry) => entry.leases().map((lease) => showLease(entry.spec.name, lease))),
    }),
    readNetworkStats: ({ machine }) => ({ counters: this.#counters(machine) }),
    listFlows: ({ machine }) => ({ flows: [...this.#networks.values()].flatMap((network) => network.flows(machine)) }),
    frames: (channel) => this.#serveFrames(channel),
  };

  close(): void {
    for (const { port } of this.#ports.values()) port.detach()?.close();
    for (const network of this.#networks.values()) network.close();
    this.#ports.clear();
    this.#networks.clear();
  }
  describe(): Record<string, string> {
    return { networks: String(this.#networks.size), ports: String(this.#ports.size) };
  }

  #addNetwork(request: Parameters<typeof parseNetwork>[0]) {
    const spec = parseNetwork(request);
    const existing = this.#networks.get(spec.name);
    const shown = showNetwork(spec);
    if (existing) {
      if (sameFields(showNetwork(existing.spec), shown)) return shown;
      throw new ContractError("already-exists", `createNetwork: ${spec.name} exists and differs; delete it first or take another name`);
    }
    if (this.#networks.size >= this.#config.maxNetworks) {
      throw new ContractError("exhausted", `createNetwork: ${this.#networks.size} networks exist; delete one (limit ${this.#config.maxNetworks})`);
    }
    const Kind = spec.mode === NetworkMode.INTERNAL ? InternalNetwork : NatNetwork;
    this.#networks.set(spec.name, new Kind(spec, this.#around));
    return shown;
  }
  #addPort(request: Port | undefined): Port {
    const { info, mac } = parsePort(request);
    const existing = this.#ports.get(info.id);
    if (existing) {
      if (sameFields(existing.port.info, info)) return existing.port.info;
      throw new ContractError("already-exists", `createPort: ${info.id} exists and differs; delete it first`);
    }
    const network = this.#networks.get(info.network);
    if (!network) throw new ContractError("not-found", `createPort ${info.id}: no network ${JSON.stringify(info.network)}; create it first`);
    if (this.#ports.size >= this.#config.maxPorts) {
      throw new ContractError("exhausted", `createPort: ${this.#ports.size} ports exist; delete one (limit ${this.#config.maxPorts})`);
    }
    const port = new FramePort(info, mac, { mtu: network.spec.mtu, queueFrames: this.#config.queueFrames });
    network.attach(port);
    this.#ports.set(info.id, { port, network });
    return info;
  }

  /** One NIC's stream: the first batch says which port it is. */
  #serveFrames(channel: Channel<FrameBatch, FrameBatch>): void {
    let entry: { port: FramePort; network: AttachedNetwork } | undefined;
    channel.onClose(() => entry?.port.close(channel));
    channel.onMessage((batch) => {
      if (channel.closed) return;
      if (!entry) {
        entry = this.#ports.get(batch.port);
        if (!entry || (batch.machine && batch.machine !== entry.port.info.machine)) {
          entry = undefined;
          const what = `frames: machine ${JSON.stringify(batch.machine)} has no port ${JSON.stringify(batch.port)}; create it first`;
          return channel.close(new ContractError("not-found", what));
        }
        const { info } = entry.port;
        entry.port.open(channel)?.close(new ContractError("conflict", `frames: another stream was opened for port ${info.id}`));
        this.#fact(info.machine, "port-attached", { port: info.id, network: info.network, mac: info.mac });
      } else if (batch.port !== entry.port.info.id) {
        const what = `frames: a batch for ${JSON.stringify(batch.port)} on the stream of ${entry.port.info.id}; open one stream per port`;
        return channel.close(new ContractError("invalid", what));
      }
      const { port, network } = entry;
      this.#turn(() => {
        port.hear(batch);
        for (const frame of batch.frames) {
          const accepted = port.accept(frame);
          if (accepted) network.receive(port, accepted);
        }
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
    if (this.#depth === 0) for (const { port } of this.#ports.values()) port.flush();
  }

  #afterTurn(run: () => void): void {
    this.#after.push(run);
    if (this.#depth === 0) this.#turn(() => {});
  }

  #leaseGranted(port: FramePort, lease: Lease): void {
    const { network, machine } = port.info;
    const { mac, address, hostname } = lease;
    this.#fact(machine, "lease-granted", { network, mac: formatMac(mac), address: formatIpv4(address), hostname });
  }
  #counters(machine: string): Map<string, bigint> {
    const out = new Map<string, bigint>();
    for (const { port, network } of this.#ports.values()) {
      if (machine && port.info.machine !== machine) continue;
      const all = { ...port.counters, ...network.counters(port) };
      for (const [name, value] of Object.entries(all)) out.set(`${port.info.id}.${name}`, BigInt(value));
    }
    return out;
  }
  #fact(machine: string, fact: string, data: Record<string, unknown>): void {
    this.#context.events.publish({ machine, service: "network-fabric", fact, data });
  }
}

function showLease(network: string, { mac, address, hostname, expiresAt }: Lease): DhcpLease {
  return { network, mac: formatMac(mac), address: formatIpv4(address), hostname, expiresUnixMs: BigInt(expiresAt) };
}
function sameFields<T extends object>(a: T, b: T): boolean {
  return (Object.keys(a) as (keyof T)[]).every((key) => a[key] === b[key]);
}
