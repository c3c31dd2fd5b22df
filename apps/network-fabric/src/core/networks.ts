import type { Flow, Frame } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
import type { Lease } from "./dhcp-server.ts";
import type { DnsUpstream } from "./dns-forwarder.ts";
import type { FramePort } from "./frame-port.ts";
import { Gateway, type GatewaySettings } from "./gateway.ts";
import { L2Switch } from "./l2-switch.ts";
import type { HostNetwork } from "./nat/host-network.ts";
import type { NetworkSpec } from "./network-spec.ts";

/** What ports are attached to. */
export interface AttachedNetwork {
  readonly spec: NetworkSpec;
  readonly ports: number;
  attach(port: FramePort): void;
  detach(port: FramePort): void;
  /** A frame from a port's guest. */
  receive(port: FramePort, frame: Frame): void;
  leases(): Lease[];
  /** NAT mappings of a machine's ports; of all when the name is empty. */
  flows(machine: string): Flow[];
  /** Counters of what stands behind one port. */
  counters(port: FramePort): Record<string, number>;
  close(): void;
}

export interface NetworkSurroundings {
  readonly clock: Clock;
  readonly dns: DnsUpstream;
  readonly dnsTimeoutMs: number;
  readonly leaseSeconds: number;
  readonly host: HostNetwork;
  /** Runs what delivers frames outside a port's own message, so that they are sent afterwards. */
  turn(run: () => void): void;
  /** Calls `run` once when the batch of frames that is coming in is over. */
  afterTurn(run: () => void): void;
  leaseGranted(port: FramePort, lease: Lease): void;
}

/** Mode INTERNAL: ports on one switch, and nothing else. */
export class InternalNetwork implements AttachedNetwork {
  readonly spec: NetworkSpec;
  readonly #switch: L2Switch;
  #ports = 0;

  constructor(spec: NetworkSpec, { clock }: NetworkSurroundings) {
    this.spec = spec;
    this.#switch = new L2Switch(() => clock.monotonic());
  }
  get ports(): number {
    return this.#ports;
  }
  attach(port: FramePort): void {
    this.#ports++;
    this.#switch.attach(port);
  }
  detach(port: FramePort): void {
    this.#ports--;
    this.#switch.detach(port);
  }
  receive(port: FramePort, frame: Frame): void {
    this.#switch.forward(port, frame);
  }
  leases(): Lease[] {
    return [];
  }
  flows(): Flow[] {
    return [];
  }
  counters(): Record<string, number> {
    return {};
  }
  close(): void {}
}

/** Mode NAT: each port alone behind a gateway of its own, so guests of different machines never meet. */
export class NatNetwork implements AttachedNetwork {
  readonly spec: NetworkSpec;
  readonly #around: NetworkSurroundings;
  readonly #gateways = new Map<FramePort, Gateway>();

  constructor(spec: NetworkSpec, surroundings: NetworkSurroundings) {
    this.spec = spec;
    this.#around = surroundings;
  }
  get ports(): number {
    return this.#gateways.size;
  }
  attach(port: FramePort): void {
    const { leaseGranted, turn } = this.#around;
    const environment = { ...this.#around, leaseGranted: (lease: Lease) => leaseGranted(port, lease) };
    const settings = gatewaySettings(this.spec, this.#around.leaseSeconds, { dhcp: true, dns: true, nat: true, host: true });
    this.#gateways.set(port, new Gateway(settings, environment, (frame) => turn(() => port.deliver(frame))));
  }
  detach(port: FramePort): void {
    this.#gateways.get(port)?.close();
    this.#gateways.delete(port);
  }
  receive(port: FramePort, frame: Frame): void {
    this.#gateways.get(port)?.deliver(frame);
  }
  leases(): Lease[] {
    return [...this.#gateways.values()].flatMap((gateway) => gateway.leases());
  }
  flows(machine: string): Flow[] {
    const wanted = [...this.#gateways].filter(([port]) => !machine || port.info.machine === machine);
    return wanted.flatMap(([port, gateway]) => gateway.flows(() => port.info.id));
  }
  counters(port: FramePort): Record<string, number> {
    return this.#gateways.get(port)?.counters ?? {};
  }
  close(): void {
    for (const gateway of this.#gateways.values()) gateway.close();
    this.#gateways.clear();
  }
}

/** A network's addresses as its gateway needs them. */
export function gatewaySettings(spec: NetworkSpec, leaseSeconds: number, services: GatewaySettings["services"]): GatewaySettings {
  const { subnet, gateway, dns, firstGuest: first, lastGuest: last } = spec.addressing!;
  return { subnet, gateway, dns, mtu: spec.mtu, first, last, leaseSeconds, services };
}
