import { ContractError } from "@polyvisor/contracts";
import { formatIpv4, parseSubnet, subnetMask, type Ipv4Subnet } from "@polyvisor/wire";

export function showSubnet({ base, prefix }: Ipv4Subnet): string {
  return `${formatIpv4(base)}/${prefix}`;
}
export function overlaps(a: Ipv4Subnet, b: Ipv4Subnet): boolean {
  const mask = subnetMask(Math.min(a.prefix, b.prefix));
  return (a.base & mask) >>> 0 === (b.base & mask) >>> 0;
}

/** The first /24 from `first` on that overlaps none of `used`; 256 are tried, all within one /16. */
export function freeSubnet(first: string, used: readonly Ipv4Subnet[]): Ipv4Subnet {
  const start = parseSubnet(first)!;
  for (let i = 0; i < 256; i++) {
    const base = ((start.base & 0xffff_0000) | (((start.base >>> 8) + i) % 256 << 8)) >>> 0;
    const subnet = { base, prefix: 24 };
    if (!used.some((other) => overlaps(subnet, other))) return subnet;
  }
  throw new ContractError("exhausted", `no free subnet from ${first} on: the host and other networks use them all; say one with subnet`);
}
