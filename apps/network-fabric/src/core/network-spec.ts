import { ContractError } from "@polyvisor/contracts";
import { NetworkMode, Network, type Port } from "@polyvisor/contracts/network";
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
import { DEFAULT_STORM_LIMIT } from "./l2-switch.ts";
import { freeSubnet, overlaps, showSubnet } from "./subnet-chooser.ts";
import { MAX_VLAN } from "./vlan.ts";

/** Who has which address on a network that the fabric serves. */
export interface Addressing {
  readonly subnet: Ipv4Subnet;
  /** The gateway of modes that have a way out; in the others, the DHCP server. */
  readonly gateway: Ipv4Address;
  readonly dns: Ipv4Address;
  readonly firstGuest: Ipv4Address;
  readonly lastGuest: Ipv4Address;
}

/** A network as asked for, checked, with what was left out filled in. */
export interface NetworkSpec {
  readonly name: string;
  readonly mode: NetworkMode;
  readonly mtu: number;
  /** Undefined: the network carries frames only. */
  readonly addressing: Addressing | undefined;
  /** The host is a station, with this address. */
  readonly host: Ipv4Address | undefined;
  /** Of the host: what is bridged, or the TAP's name (empty: chosen when it is made). */
  readonly interface: string;
  readonly spoof: "deny" | "allow";
  readonly stormLimit: number;
}

/** Exists from the start: VirtualBox's and QEMU's user network. */
export const DEFAULT_NETWORK: Network = Network.fromPartial({
  name: "nat",
  mode: NetworkMode.NAT,
  subnet: "10.0.2.0/24",
  gateway: "10.0.2.2",
  dns: "10.0.2.3",
  mtu: 1500,
});

const NAME = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;
/** Linux: IFNAMSIZ - 1 characters, no slash, no blank. */
const INTERFACE = /^[A-Za-z0-9][A-Za-z0-9._@:-]{0,14}$/;
/** Guests' addresses start here, as in VirtualBox's NAT: .15. */
const FIRST_GUEST = 15;
/** Where the search for a free subnet begins; NAT's guests never meet, so all NAT networks can have the same. */
const FIRST_SUBNET: Readonly<Record<number, string>> = {
  [NetworkMode.NAT_NETWORK]: "10.0.3.0/24",
  [NetworkMode.HOST_ONLY]: "192.168.56.0/24", // VirtualBox's
};

const MODE_NAMES: Readonly<Record<number, string>> = {
  [NetworkMode.NAT]: "NAT",
  [NetworkMode.NAT_NETWORK]: "NAT_NETWORK",
  [NetworkMode.INTERNAL]: "INTERNAL",
  [NetworkMode.HOST_ONLY]: "HOST_ONLY",
  [NetworkMode.BRIDGED]: "BRIDGED",
};

/** `used`: subnets of the host and of other networks; asked when one has to be chosen, and where the host joins. */
export function parseNetwork(network: Network | undefined, used: () => readonly Ipv4Subnet[]): NetworkSpec {
  const refuse = (what: string) => new ContractError("invalid", `createNetwork ${network?.name ?? ""}: ${what}`);
  if (!network || !NAME.test(network.name)) throw refuse("the name must be 1 to 128 letters, digits, '.', '_', '/', '-'");
  const { name, mode } = network;
  const mtu = network.mtu || 1500;
  // 576: what every IPv4 host must take (RFC 791, 3.1). 65521: the largest that virtio-net's 64 KiB buffers hold with headers.
  if (mtu < 576 || mtu > 65_521) throw refuse(`mtu ${mtu}; give 576 to 65521`);
  if (mode === NetworkMode.UNSPECIFIED || !(mode in MODE_NAMES)) throw refuse(`mode ${mode} is none of this contract`);
  const spoof = network.spoof || (mode === NetworkMode.NAT ? "deny" : "allow");
  if (spoof !== "deny" && spoof !== "allow") throw refuse(`spoof ${JSON.stringify(spoof)}; give "deny" or "allow"`);
  if (network.interface && !INTERFACE.test(network.interface)) throw refuse(`interface ${JSON.stringify(network.interface)} is no name of one`);
  const joins = mode === NetworkMode.HOST_ONLY || network.joinHost;
  const common = { name, mode, mtu, spoof, interface: network.interface, stormLimit: network.stormLimit || DEFAULT_STORM_LIMIT } as const;

  if (network.joinHost && mode !== NetworkMode.NAT_NETWORK && mode !== NetworkMode.HOST_ONLY) throw refuse(`the host cannot join a network of mode ${MODE_NAMES[mode]}; use NAT_NETWORK or HOST_ONLY`);
  if (network.hostAddress && !joins) throw refuse("host_address without join_host");
  if (mode === NetworkMode.BRIDGED) {
    if (network.subnet || network.gateway || network.dns) throw refuse("a BRIDGED network has the addresses of the host's: leave subnet, gateway and dns empty");
    if (!network.interface) throw refuse("say which interface of the host (a bridge, or for example eth0)");
    return { ...common, addressing: undefined, host: undefined };
  }
  if (network.interface && !joins) throw refuse(`interface ${network.interface}: only BRIDGED networks and those that the host joins have one`);
  if (mode === NetworkMode.INTERNAL && !network.subnet) {
    if (network.gateway || network.dns) throw refuse("an INTERNAL network without subnet has no services: leave gateway and dns empty");
    return { ...common, addressing: undefined, host: undefined };
  }
  const chosen = network.subnet || (mode === NetworkMode.NAT ? DEFAULT_NETWORK.subnet : showSubnet(freeSubnet(FIRST_SUBNET[mode]!, used())));
  const subnet = parseSubnet(chosen);
  if (!subnet || subnet.prefix < 8 || subnet.prefix > 27) {
    throw refuse(`subnet ${JSON.stringify(network.subnet)}; give CIDR such as 10.0.2.0/24, prefix 8 to 27`);
  }
  const taken = joins && network.subnet ? used().find((other) => overlaps(other, subnet)) : undefined;
  if (taken) throw new ContractError("conflict", `createNetwork ${name}: subnet ${chosen} overlaps ${showSubnet(taken)}, which the host or another network has; give another or leave it out`);
  const inside = (text: string, otherwise: number, what: string): Ipv4Address => {
    const address = text ? parseIpv4(text) : subnet.base + otherwise;
    const usable = address !== undefined && inSubnet(subnet, address) && address !== subnet.base && address !== subnetBroadcast(subnet);
    if (!usable) throw refuse(`${what} ${text} is not a host address of ${showSubnet(subnet)}`);
    return address;
  };
  const gateway = inside(network.gateway, 2, "gateway");
  const dns = inside(network.dns, 3, "dns");
  const host = joins ? inside(network.hostAddress, 1, "host_address") : undefined;
  if (new Set([gateway, dns, host]).size < 3) throw refuse("gateway, dns and host have to be different addresses");
  const firstGuest = subnet.base + FIRST_GUEST;
  const lastGuest = Math.min(subnetBroadcast(subnet) - 1, firstGuest + 239);
  for (const address of [gateway, dns, host]) {
    if (address !== undefined && address >= firstGuest && address <= lastGuest) throw refuse(`${formatIpv4(address)} is in the guests' range, .15 and up`);
  }
  return { ...common, addressing: { subnet, gateway, dns, firstGuest, lastGuest }, host };
}

/** The network as the contract shows it. */
export function showNetwork(spec: NetworkSpec): Network {
  const { name, mode, mtu, addressing, host, spoof, stormLimit } = spec;
  return {
    name,
    mode,
    mtu,
    subnet: addressing ? showSubnet(addressing.subnet) : "",
    gateway: addressing ? formatIpv4(addressing.gateway) : "",
    dns: addressing ? formatIpv4(addressing.dns) : "",
    joinHost: host !== undefined,
    hostAddress: host === undefined ? "" : formatIpv4(host),
    interface: spec.interface,
    spoof,
    stormLimit,
  };
}

/** The request with what it leaves open taken from the network that exists: asking again is not asking for another one. */
export function completedFrom(existing: Network, asked: Network): Network {
  return {
    ...asked,
    subnet: asked.subnet || existing.subnet,
    gateway: asked.gateway || existing.gateway,
    dns: asked.dns || existing.dns,
    mtu: asked.mtu || existing.mtu,
    joinHost: asked.joinHost || (existing.mode === NetworkMode.HOST_ONLY && asked.mode === existing.mode),
    hostAddress: asked.hostAddress || (asked.joinHost || asked.mode === NetworkMode.HOST_ONLY ? existing.hostAddress : ""),
    interface: asked.interface || (asked.mode === existing.mode ? existing.interface : ""),
    spoof: asked.spoof || existing.spoof,
    stormLimit: asked.stormLimit || existing.stormLimit,
  };
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
  for (const vlan of [port.vlan, ...port.trunk]) if (vlan > MAX_VLAN) throw refuse(`VLAN ${vlan}; give 1 to ${MAX_VLAN}`);
  if (port.trunk.includes(0)) throw refuse("VLAN 0 in a trunk; give 1 to 4094");
  if (port.address && parseIpv4(port.address) === undefined) throw refuse(`address ${JSON.stringify(port.address)}; give IPv4 such as 10.0.3.20`);
  if (port.peer && !/^(qemu-stream:\/.+|qemu-dgram:\d+:\d+|tap:.+)$/.test(port.peer)) {
    throw refuse(`peer ${JSON.stringify(port.peer)}; give qemu-stream:/PATH, qemu-dgram:LOCAL_PORT:REMOTE_PORT or tap:NAME`);
  }
  const trunk = [...new Set(port.trunk)].toSorted((a, b) => a - b);
  return { mac, info: { ...port, network: port.network || DEFAULT_NETWORK.name, mac: formatMac(mac), trunk, linkUp: true } };
}

/** 52:54:00 (QEMU's prefix, locally administered) and 24 bits of FNV-1a over the id: the same port gets the same address. */
function generatedMac(id: string): MacAddress {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x0100_0193);
  return 0x525400 * 2 ** 24 + ((hash >>> 0) & 0xff_ffff);
}
