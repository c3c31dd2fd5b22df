import { NetworkMode } from "@polyvisor/contracts/network";
import type { MacAddress, Ipv4Address } from "@polyvisor/wire";
import type { Lease } from "./dhcp-server.ts";
import type { GatewaySettings } from "./gateway.ts";
import type { NameTable } from "./networks.ts";
import type { NetworkSpec } from "./network-spec.ts";

/** A network's addresses as its gateway needs them; only the modes with a way out have NAT. */
export function gatewaySettings(spec: NetworkSpec, leaseSeconds: number): GatewaySettings {
  const { subnet, gateway, dns, firstGuest: first, lastGuest: last } = spec.addressing!;
  const nat = spec.mode === NetworkMode.NAT || spec.mode === NetworkMode.NAT_NETWORK;
  return { subnet, gateway, dns, mtu: spec.mtu, first, last, leaseSeconds, services: { dhcp: true, dns: true, nat, host: nat } };
}

/** Names as guests ask for them: "web" or "web.internal" (reserved for private use by ICANN, 2024-07-29), in any case. */
export function nameTable(entries: () => Iterable<readonly [name: string, address: Ipv4Address]>): NameTable {
  return (name) => {
    const wanted = name.toLowerCase().replace(/\.$/, "").replace(/\.internal$/, "");
    for (const [each, address] of entries()) if (each === wanted) return address;
    return undefined;
  };
}
export function addressOf(leases: readonly Lease[], mac: MacAddress): Ipv4Address | undefined {
  return leases.find((lease) => lease.mac === mac)?.address;
}
