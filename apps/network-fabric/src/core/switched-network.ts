import { NetworkMode, type Flow, type Frame } from "@polyvisor/contracts/network";
import { ETHERNET_HEADER_BYTES, formatIpv4, parseIpv4, type Ipv4Address, type MacAddress } from "@polyvisor/wire";
import type { Lease } from "./dhcp-server.ts";
import type { FramePort } from "./frame-port.ts";
import { Gateway } from "./gateway.ts";
import type { HostInterface } from "./host-interfaces.ts";
import { L2Switch, type SwitchPort } from "./l2-switch.ts";
import type { ForwardTarget } from "./nat/forwards.ts";
import type { AttachedNetwork, NetworkObserver, NetworkStation, NetworkSurroundings } from "./networks.ts";
import { addressOf, gatewaySettings, nameTable } from "./network-services.ts";
import type { NetworkSpec } from "./network-spec.ts";
import { isSpoofed } from "./spoof-guard.ts";

/**
 * The modes in which ports meet: one switch, and on it, as the mode has it, a gateway with DHCP, DNS and NAT
 * (NAT_NETWORK), the same without a way out (INTERNAL with a subnet, HOST_ONLY), the host itself (HOST_ONLY, NAT_NETWORK
 * with join_host), or the host's own network (BRIDGED).
 */
export class SwitchedNetwork implements AttachedNetwork {
  readonly spec: NetworkSpec;
  readonly ports = new Set<FramePort>();
  readonly observers = new Set<NetworkObserver>();
  readonly #around: NetworkSurroundings;
  readonly #switch: L2Switch;
  readonly #gateway: Gateway | undefined;
  readonly #host: HostStation | undefined;

  /** Throws when the host does not let us have the interface that the mode needs. */
  constructor(spec: NetworkSpec, around: NetworkSurroundings) {
    this.#around = around;
    this.#switch = new L2Switch(() => around.clock.monotonic(), spec.stormLimit);
    this.#host = this.#joinHost(spec);
    this.spec = this.#host ? { ...spec, interface: spec.mode === NetworkMode.BRIDGED ? spec.interface : this.#host.name } : spec;
    if (this.#host) this.#switch.attach(this.#host);
    if (!spec.addressing) return;
    this.#gateway = new Gateway(
      gatewaySettings(spec, around.leaseSeconds),
      {
        ...around,
        storedLeases: around.storedLeases(spec.name),
        leasesChanged: (leases) => around.leasesChanged(spec.name, leases),
        leaseGranted: (lease) => around.leaseGranted(this.spec, this.#portWith(lease.mac), lease),
        names: nameTable(() => this.#names()),
        isPort: (mac) => this.#portWith(mac) !== undefined,
      },
      (frame) => this.#inject("gateway", this.#gateway!, frame),
    );
    this.#switch.attach(this.#gateway);
  }
  attach(port: FramePort): void {
    this.ports.add(port);
    this.#switch.attach(port);
    if (port.info.address) this.#gateway?.dhcp.reserve(port.mac, parseIpv4(port.info.address)!);
    if (this.spec.spoof === "deny") port.isSpoofed = (frame) => isSpoofed(frame, port.mac, (address) => this.#isOthers(port, address));
  }
  detach(port: FramePort): void {
    this.ports.delete(port);
    this.#switch.detach(port);
    this.#gateway?.dhcp.unreserve(port.mac);
  }
  receive(port: FramePort, frame: Frame): void {
    for (const observe of this.observers) observe(port.info.id, "in", frame);
    this.#switch.forward(port, frame);
  }
  linkChanged(port: FramePort): void {
    this.#switch.forget(port);
  }
  leases(): Lease[] {
    return this.#gateway?.leases() ?? [];
  }
  flows(machine: string): Flow[] {
    const portOf = (address: string): string => {
      const mac = this.leases().find((lease) => formatIpv4(lease.address) === address)?.mac;
      return (mac === undefined ? undefined : this.#portWith(mac))?.info.id ?? "";
    };
    const flows = this.#gateway?.flows(portOf) ?? [];
    return machine ? flows.filter(({ port }) => port.startsWith(`${machine}/`)) : flows;
  }
  forwardTarget(port: FramePort): ForwardTarget | undefined {
    return this.spec.mode === NetworkMode.NAT_NETWORK ? this.#gateway?.forwardTarget(port.info.id, port.info.machine, port.mac) : undefined;
  }
  stations(): NetworkStation[] {
    return this.#switch.stations().map(({ mac, port, vlan, ageMs }) => ({ mac, vlan, ageMs, port: this.#nameOf(port) }));
  }
  totals(): Record<string, number> {
    return { ...this.#switch.counters, addresses: this.#switch.addresses, ...this.#gateway?.counters, ...(this.#host ? { host_dropped: this.#host.dropped } : {}) };
  }
  counters(): Record<string, number> {
    return {};
  }
  close(): void {
    this.#gateway?.close();
    this.#host?.close();
  }

  #joinHost(spec: NetworkSpec): HostStation | undefined {
    const { interfaces } = this.#around;
    const { name, mtu, addressing } = spec;
    const receive = (frames: readonly Frame[]): void => this.#around.turn(() => this.#fromHost(frames));
    if (spec.mode === NetworkMode.BRIDGED) {
      const bridge = interfaces.isBridge(spec.interface);
      return new HostStation(bridge ? interfaces.openTap({ name: tapName(name), mtu, mac: BRIDGE_TAP_MAC + (hash(name) & 0xffff), bridge: spec.interface }, receive) : interfaces.openRaw(spec.interface, receive));
    }
    if (spec.host === undefined || !addressing) return undefined;
    const address = { address: spec.host, prefix: addressing.subnet.prefix };
    return new HostStation(interfaces.openTap({ name: spec.interface || tapName(name), mtu, mac: HOST_MAC + spec.host, address }, receive));
  }
  #fromHost(frames: readonly Frame[]): void {
    for (const frame of frames) if (frame.data.length >= ETHERNET_HEADER_BYTES) this.#inject("host", this.#host!, frame);
  }
  #inject(source: "gateway" | "host", station: SwitchPort, frame: Frame): void {
    for (const observe of this.observers) observe(source, "in", frame);
    this.#around.turn(() => this.#switch.forward(station, frame));
  }
  #portWith(mac: MacAddress): FramePort | undefined {
    for (const port of this.ports) if (port.mac === mac) return port;
    return undefined;
  }
  #nameOf(port: SwitchPort): string {
    if (port === this.#gateway) return "gateway";
    return port === this.#host ? "host" : ([...this.ports].find((each) => each === port)?.info.id ?? "");
  }
  *#names(): Iterable<[string, Ipv4Address]> {
    const { addressing, host } = this.spec;
    const router = this.spec.mode === NetworkMode.NAT_NETWORK ? addressing!.gateway : undefined;
    if (router !== undefined) yield ["gateway", router];
    const ofHost = host ?? router;
    if (ofHost !== undefined) yield ["host", ofHost];
    const leases = this.leases();
    for (const { info, mac } of this.ports) {
      const address = addressOf(leases, mac) ?? (info.address ? parseIpv4(info.address) : undefined);
      if (address !== undefined) yield [info.machine, address];
    }
  }
  /** Of the gateway, the host, or another port. */
  #isOthers(port: FramePort, address: Ipv4Address): boolean {
    const { addressing, host } = this.spec;
    if (address === host || address === addressing?.gateway || address === addressing?.dns) return true;
    const holder = this.#gateway?.dhcp.holder(address);
    if (holder !== undefined) return holder !== port.mac;
    return [...this.ports].some((other) => other !== port && other.info.address !== "" && parseIpv4(other.info.address) === address);
  }
}

/** The host on a switch. */
class HostStation implements SwitchPort {
  dropped = 0;
  readonly #interface: HostInterface;

  constructor(hostInterface: HostInterface) {
    this.#interface = hostInterface;
  }
  get name(): string {
    return this.#interface.name;
  }
  deliver(frame: Frame): void {
    if (!this.#interface.send(frame)) this.dropped++;
  }
  close(): void {
    this.#interface.close();
  }
}

/** 52:56 and the host's IPv4 address: beside the gateway's 52:55. */
const HOST_MAC = 0x5256 * 2 ** 32;
/** A bridge takes the lowest address of its members for its own: ours is higher than any real one, so that it stays what it is. */
const BRIDGE_TAP_MAC = 0xfe54_00fe * 2 ** 16;
/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x0100_0193);
  return value >>> 0;
}

/** "pv-" and as much of the network's name as an interface may have; else numbered by the kernel. */
function tapName(network: string): string {
  return /^[a-z0-9-]{1,12}$/.test(network) ? `pv-${network}` : "pv%d";
}
