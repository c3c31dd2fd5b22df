import type { Clock } from "@polyvisor/service-kit";
import { DhcpServer, type DhcpNetwork, type Lease } from "./dhcp-server.ts";
import { DnsForwarder, type DnsUpstream } from "./dns-forwarder.ts";
import type { FramePort } from "./frame-port.ts";
import { Gateway } from "./gateway.ts";
import { L2Switch } from "./l2-switch.ts";
import type { NatBackendFactory } from "./nat-backend.ts";
import type { NetworkSpec } from "./network-spec.ts";

/** What ports are attached to. */
export interface AttachedNetwork {
  readonly spec: NetworkSpec;
  readonly ports: number;
  attach(port: FramePort): void;
  detach(port: FramePort): void;
  /** A frame from a port's guest. */
  receive(port: FramePort, frame: Uint8Array): void;
  leases(): Lease[];
  /** Counters of what stands behind one port. */
  counters(port: FramePort): Record<string, number>;
  close(): void;
}

export interface NetworkSurroundings {
  readonly clock: Clock;
  readonly dns: DnsUpstream;
  readonly dnsTimeoutMs: number;
  readonly leaseSeconds: number;
  readonly nat: NatBackendFactory;
  /** Runs what delivers frames outside a port's own message, so that they are sent afterwards. */
  turn(run: () => void): void;
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
  receive(port: FramePort, frame: Uint8Array): void {
    this.#switch.forward(port, frame);
  }
  leases(): Lease[] {
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
  readonly #gateways = new Map<FramePort, { gateway: Gateway; dhcp: DhcpServer; dns: DnsForwarder }>();

  constructor(spec: NetworkSpec, surroundings: NetworkSurroundings) {
    this.spec = spec;
    this.#around = surroundings;
  }
  get ports(): number {
    return this.#gateways.size;
  }
  attach(port: FramePort): void {
    const { clock, dns: upstream, dnsTimeoutMs, leaseSeconds, nat, turn, leaseGranted } = this.#around;
    const { subnet, gateway: router, dns: resolver, firstGuest: first, lastGuest: last } = this.spec.addressing!;
    const network: DhcpNetwork = { subnet, gateway: router, dns: resolver, mtu: this.spec.mtu, first, last, leaseSeconds };
    const dhcp = new DhcpServer(network, () => clock.now(), (lease) => leaseGranted(port, lease));
    const dns = new DnsForwarder(upstream, clock, dnsTimeoutMs);
    const gateway = new Gateway({ network, dhcp, dns, nat }, (frame) => turn(() => port.deliver(frame)));
    this.#gateways.set(port, { gateway, dhcp, dns });
  }
  detach(port: FramePort): void {
    this.#gateways.get(port)?.gateway.close();
    this.#gateways.delete(port);
  }
  receive(port: FramePort, frame: Uint8Array): void {
    this.#gateways.get(port)?.gateway.deliver(frame);
  }
  leases(): Lease[] {
    return [...this.#gateways.values()].flatMap(({ dhcp }) => dhcp.leases());
  }
  counters(port: FramePort): Record<string, number> {
    const behind = this.#gateways.get(port);
    return behind ? { ...behind.gateway.counters, ...behind.dns.counters } : {};
  }
  close(): void {
    for (const { gateway } of this.#gateways.values()) gateway.close();
    this.#gateways.clear();
  }
}
