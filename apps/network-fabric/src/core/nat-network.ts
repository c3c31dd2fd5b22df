import type { Flow, Frame } from "@polyvisor/contracts/network";
import { parseIpv4, type Ipv4Address } from "@polyvisor/wire";
import type { Lease } from "./dhcp-server.ts";
import type { FramePort } from "./frame-port.ts";
import type { AttachedNetwork, NetworkObserver, NetworkStation, NetworkSurroundings } from "./networks.ts";
import { Gateway, gatewayMac } from "./gateway.ts";
import type { ForwardTarget } from "./nat/forwards.ts";
import { addressOf, gatewaySettings, nameTable } from "./network-services.ts";
import type { NetworkSpec } from "./network-spec.ts";
import { isSpoofed } from "./spoof-guard.ts";

/** Mode NAT: each port alone behind a gateway of its own, so guests of different machines never meet. */
export class NatNetwork implements AttachedNetwork {
  readonly spec: NetworkSpec;
  readonly observers = new Set<NetworkObserver>();
  readonly #around: NetworkSurroundings;
  readonly #gateways = new Map<FramePort, Gateway>();

  constructor(spec: NetworkSpec, surroundings: NetworkSurroundings) {
    this.spec = spec;
    this.#around = surroundings;
  }
  get ports(): ReadonlySet<FramePort> {
    return new Set(this.#gateways.keys());
  }
  attach(port: FramePort): void {
    const around = this.#around;
    const { spec } = this;
    const { gateway: router, dns: resolver } = spec.addressing!;
    const scope = `${spec.name}:${port.info.id}`;
    const gateway: Gateway = new Gateway(
      gatewaySettings(spec, around.leaseSeconds),
      {
        ...around,
        storedLeases: around.storedLeases(scope),
        leasesChanged: (leases) => around.leasesChanged(scope, leases),
        leaseGranted: (lease) => around.leaseGranted(spec, port, lease),
        names: nameTable(function* (): Iterable<[string, Ipv4Address]> {
          yield ["gateway", router];
          yield ["host", router];
          const own = addressOf(gateway.leases(), port.mac);
          if (own !== undefined) yield [port.info.machine, own];
        }),
      },
      (frame) => {
        for (const observe of this.observers) observe(port.info.id, "out", frame);
        around.turn(() => port.deliver(frame));
      },
    );
    if (port.info.address) gateway.dhcp.reserve(port.mac, parseIpv4(port.info.address)!);
    if (spec.spoof === "deny") port.isSpoofed = (frame) => isSpoofed(frame, port.mac, (address) => address === router || address === resolver);
    this.#gateways.set(port, gateway);
  }
  detach(port: FramePort): void {
    this.#gateways.get(port)?.close();
    this.#gateways.delete(port);
  }
  receive(port: FramePort, frame: Frame): void {
    for (const observe of this.observers) observe(port.info.id, "in", frame);
    this.#gateways.get(port)?.deliver(frame);
  }
  linkChanged(): void {}
  leases(): Lease[] {
    return [...this.#gateways.values()].flatMap((gateway) => gateway.leases());
  }
  flows(machine: string): Flow[] {
    const wanted = [...this.#gateways].filter(([port]) => !machine || port.info.machine === machine);
    return wanted.flatMap(([port, gateway]) => gateway.flows(() => port.info.id));
  }
  forwardTarget(port: FramePort): ForwardTarget | undefined {
    return this.#gateways.get(port)?.forwardTarget(port.info.id, port.info.machine, port.mac);
  }
  stations(): NetworkStation[] {
    const mac = gatewayMac(this.spec.addressing!.gateway);
    return [...this.#gateways.keys()].flatMap((port) => [
      { mac: port.mac, port: port.info.id, vlan: 0, ageMs: 0 },
      { mac, port: "gateway", vlan: 0, ageMs: 0 },
    ]);
  }
  totals(): Record<string, number> {
    return {};
  }
  counters(port: FramePort): Record<string, number> {
    return this.#gateways.get(port)?.counters ?? {};
  }
  close(): void {
    for (const gateway of this.#gateways.values()) gateway.close();
    this.#gateways.clear();
  }
}
