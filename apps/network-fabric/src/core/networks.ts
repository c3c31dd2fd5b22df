import type { Flow, Frame } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
import type { Ipv4Address } from "@polyvisor/wire";
import type { Lease } from "./dhcp-server.ts";
import type { DnsUpstream } from "./dns-forwarder.ts";
import type { FramePort } from "./frame-port.ts";
import type { HostInterfaces } from "./host-interfaces.ts";
import type { ForwardTarget } from "./nat/forwards.ts";
import type { HostNetwork } from "./nat/host-network.ts";
import type { NetworkSpec } from "./network-spec.ts";

export interface NetworkStation {
  readonly mac: number;
  /** A port's id, "gateway" or "host". */
  readonly port: string;
  readonly vlan: number;
  readonly ageMs: number;
}
/** Sees each frame of a network once, where it enters: at a port (by id), from the "gateway" or the "host". */
export type NetworkObserver = (source: string, direction: "in" | "out", frame: Frame) => void;

/** What ports are attached to. */
export interface AttachedNetwork {
  readonly spec: NetworkSpec;
  readonly ports: ReadonlySet<FramePort>;
  readonly observers: Set<NetworkObserver>;
  attach(port: FramePort): void;
  detach(port: FramePort): void;
  /** A frame from a port's guest. */
  receive(port: FramePort, frame: Frame): void;
  /** The port's cable was pulled or plugged in. */
  linkChanged(port: FramePort): void;
  leases(): Lease[];
  /** NAT mappings of a machine's ports; of all when the name is empty. */
  flows(machine: string): Flow[];
  /** How forwards reach a port's guest; undefined: this mode has none. */
  forwardTarget(port: FramePort): ForwardTarget | undefined;
  stations(): NetworkStation[];
  /** Counters of the network itself. */
  totals(): Record<string, number>;
  /** Counters of what stands behind one port. */
  counters(port: FramePort): Record<string, number>;
  close(): void;
}

export interface NetworkSurroundings {
  readonly clock: Clock;
  readonly dns: DnsUpstream;
  readonly dnsTimeoutMs: number;
  readonly leaseSeconds: number;
  /** Sockets, for the NAT. */
  readonly host: HostNetwork;
  readonly interfaces: HostInterfaces;
  /** Runs what delivers frames outside a port's own message, so that they are sent afterwards. */
  turn(run: () => void): void;
  /** Calls `run` once when the batch of frames that is coming in is over. */
  afterTurn(run: () => void): void;
  /** A lease of the network is new or has changed. `port` is undefined when nobody's port has the address. */
  leaseGranted(spec: NetworkSpec, port: FramePort | undefined, lease: Lease): void;
  /** The leases of a network (or of one port of a NAT network) are others than before: to be stored. */
  leasesChanged(scope: string, leases: readonly Lease[]): void;
  /** As they were stored. */
  storedLeases(scope: string): readonly Lease[];
}

/** Machines' names on one network → addresses. */
export type NameTable = (name: string) => Ipv4Address | undefined;
