import { ContractError } from "@polyvisor/contracts";
import { NetworkMode, type Network, type Port } from "@polyvisor/contracts/network";
import {
  formatIpv4,
  formatMac,
  inSubnet,
  isGroupMac,
  parseIpv4,
  parseMac,
  parseSubnet,
  subnetBroadcast,
  type Ipv4Address,
  type Ipv4Subnet,
  type MacAddress,
} from "@polyvisor/wire";

/** A network as asked for, checked, with what was left out filled in. */
export interface NetworkSpec {
  readonly name: string;
  readonly mode: NetworkMode;
  readonly mtu: number;
  /** Of modes with a gateway; the others carry frames only. */
  readonly addressing: { subnet: Ipv4Subnet; gateway: Ipv4Address; dns: Ipv4Address; firstGuest: Ipv4Address; lastGuest: Ipv4Address } | undefined;
}

/** Exists from the start: VirtualBox's and QEMU's user network. */
export const DEFAULT_NETWORK: Network = {
  name: "nat",
  mode: NetworkMode.NAT,
  subnet: "10.0.2.0/24",
  gateway: "10.0.2.2",
  dns: "10.0.2.3",
  mtu: 1500,
};

const NAME = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;
const BUILT: readonly NetworkMode[] = [NetworkMode.NAT, NetworkMode.INTERNAL];
/** Guests' addresses start here, as in VirtualBox's NAT: .15. */
const FIRST_GUEST = 15;

export function parseNetwork(network: Network | undefined): NetworkSpec {
  const refuse = (what: string) => new ContractError("invalid", `createNetwork ${network?.name ?? ""}: ${what}`);
  if (!network || !NAME.test(network.name)) throw refuse("the name must be 1 to 128 letters, digits, '.', '_', '/', '-'");
  const { name, mode } = network;
  const mtu = network.mtu || 1500;
  // 576: what every IPv4 host must take (RFC 791, 3.1). 65521: the largest that virtio-net's 64 KiB buffers hold with headers.
  if (mtu < 576 || mtu > 65_521) throw refuse(`mtu ${mtu}; give 576 to 65521`);
  if (mode === NetworkMode.UNSPECIFIED || !(mode in MODE_NAMES)) throw refuse(`mode ${mode} is none of this contract`);
  if (!BUILT.includes(mode)) {
    throw new ContractError("unimplemented", `createNetwork ${name}: mode ${MODE_NAMES[mode]} is not built; use NAT or INTERNAL`);
  }
  if (mode === NetworkMode.INTERNAL) {
    if (network.subnet || network.gateway || network.dns) throw refuse("an INTERNAL network has no gateway: leave subnet, gateway and dns empty");
    return { name, mode, mtu, addressing: undefined };
  }
  const subnet = parseSubnet(network.subnet || DEFAULT_NETWORK.subnet);
  if (!subnet || subnet.prefix < 8 || subnet.prefix > 27) {
    throw refuse(`subnet ${JSON.stringify(network.subnet)}; give CIDR such as 10.0.2.0/24, prefix 8 to 27`);
  }
  const inside = (text: string, otherwise: number, what: string): Ipv4Address => {
    const address = text ? parseIpv4(text) : subnet.base + otherwise;
    const usable = address !== undefined && inSubnet(subnet, address) && address !== subnet.base && address !== subnetBroadcast(subnet);
    if (!usable) throw refuse(`${what} ${text} is not a host address of ${formatIpv4(subnet.base)}/${subnet.prefix}`);
    return address;
  };
  const gateway = inside(network.gateway, 2, "gateway");
  const dns = inside(network.dns, 3, "dns");
  if (gateway === dns) throw refuse("gateway and dns are the same address");
  const firstGuest = subnet.base + FIRST_GUEST;
  const lastGuest = Math.min(subnetBroadcast(subnet) - 1, firstGuest + 239);
  for (const address of [gateway, dns]) {
    if (address >= firstGuest && address <= lastGuest) throw refuse(`${formatIpv4(address)} is in the guests' range, .15 and up`);
  }
  return { name, mode, mtu, addressing: { subnet, gateway, dns, firstGuest, lastGuest } };
}

const MODE_NAMES: Readonly<Record<number, string>> = {
  [NetworkMode.NAT]: "NAT",
  [NetworkMode.NAT_NETWORK]: "NAT_NETWORK",
  [NetworkMode.INTERNAL]: "INTERNAL",
  [NetworkMode.HOST_ONLY]: "HOST_ONLY",
  [NetworkMode.BRIDGED]: "BRIDGED",
};

/** The network as the contract shows it. */
export function showNetwork({ name, mode, mtu, addressing }: NetworkSpec): Network {
  if (!addressing) return { name, mode, subnet: "", gateway: "", dns: "", mtu };
  const { subnet, gateway, dns } = addressing;
  return { name, mode, subnet: `${formatIpv4(subnet.base)}/${subnet.prefix}`, gateway: formatIpv4(gateway), dns: formatIpv4(dns), mtu };
}

/** A port as asked for, checked: default network, generated address, link up. */
export function parsePort(port: Port | undefined): { info: Port; mac: MacAddress } {
  const refuse = (what: string) => new ContractError("invalid", `createPort ${port?.id ?? ""}: ${what}`);
  if (!port || !NAME.test(port.id)) throw refuse("the id must be 1 to 128 letters, digits, '.', '_', '/', '-'");
  if (port.machine.length === 0 || port.machine.length > 128) throw refuse("no machine, or a name longer than 128");
  const mac = port.mac ? parseMac(port.mac) : generatedMac(port.id);
  if (mac === undefined || mac === 0 || isGroupMac(mac)) {
    throw refuse(`mac ${JSON.stringify(port.mac)}; give a station's address such as 52:54:00:12:34:56`);
  }
  const { id, machine } = port;
  return { mac, info: { id, machine, network: port.network || DEFAULT_NETWORK.name, mac: formatMac(mac), linkUp: true } };
}

/** 52:54:00 (QEMU's prefix, locally administered) and 24 bits of FNV-1a over the id: the same port gets the same address. */
function generatedMac(id: string): MacAddress {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x0100_0193);
  return 0x525400 * 2 ** 24 + ((hash >>> 0) & 0xff_ffff);
}
