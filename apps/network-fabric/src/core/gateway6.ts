import type { Frame } from "@polyvisor/contracts/network";
import {
  emitEthernet, emitIcmpv6, emitIpv6, emitNeighbour, emitRouterAdvertisement, ETHERTYPE, icmpv6Error, ICMPV6_TYPE, interfaceIdentifier, IPV6_NEXT_HEADER,
  ipv6Transport, isLinkLocal, isMulticastIpv6, linkAddressOption, mtuOption, multicastMac, NDP_HOP_LIMIT, NDP_OPTION, NEIGHBOUR_FLAG, parseIcmpv6, parseIpv6Packet,
  parseNdpOptions, parseNeighbour, prefixOption, solicitedNode, UNREACHABLE6_CODE,
  type EthernetFrame, type Icmpv6Message, type Ipv4Address, type Ipv6Address, type Ipv6Packet, type MacAddress,
} from "@polyvisor/wire";

const ALL_NODES: Ipv6Address = 0xff02_0000_0000_0000_0000_0000_0000_0001n;
const ALL_ROUTERS: Ipv6Address = 0xff02_0000_0000_0000_0000_0000_0000_0002n;
const PREFIX_BITS = 64;
/** Prefixes do not expire: nothing is announced unless somebody asks (RFC 4861, 4.6.2). */
const INFINITY_SECONDS = 0xffff_ffff;
const HOP_LIMIT = 64;

/** The prefix of a network: unique local (RFC 4193), with the IPv4 subnet in it, so that it stays the same. */
export function prefixOf(subnetBase: Ipv4Address): Ipv6Address {
  return (0xfd50_5600n << 96n) | (BigInt(subnetBase) << 64n);
}

/**
 * The gateway's IPv6 side: on-link only. It announces a prefix, so that guests have addresses besides their link-local ones, and
 * answers neighbour solicitations and echo requests. It is no router: its lifetime as one is 0 (RFC 4861, 4.2), so guests use IPv4
 * for the world at once; what comes for the world all the same is told "no route".
 */
export class Ipv6Gateway {
  readonly addresses: readonly [linkLocal: Ipv6Address, onLink: Ipv6Address];
  readonly #prefix: Ipv6Address;
  readonly #mac: MacAddress;
  readonly #mtu: number;
  readonly #send: (frame: Frame) => void;

  constructor({ mac, subnetBase, mtu }: { mac: MacAddress; subnetBase: Ipv4Address; mtu: number }, send: (frame: Frame) => void) {
    this.#prefix = prefixOf(subnetBase);
    this.addresses = [(0xfe80n << 112n) | interfaceIdentifier(mac), this.#prefix | 2n];
    this.#mac = mac;
    this.#mtu = mtu;
    this.#send = send;
  }

  /** A frame with EtherType IPv6. False: not for us, or malformed. */
  handle(frame: EthernetFrame): boolean {
    const packet = parseIpv6Packet(frame.payload);
    if (!packet || isMulticastIpv6(packet.source)) return false;
    const ours = this.addresses.includes(packet.destination);
    const group = packet.destination === ALL_NODES || packet.destination === ALL_ROUTERS || this.addresses.some((address) => solicitedNode(address) === packet.destination);
    if (!ours && !group && frame.destination !== this.#mac) return false;
    const transport = ipv6Transport(packet);
    if (transport?.protocol === IPV6_NEXT_HEADER.ICMPV6) {
      const message = parseIcmpv6(transport.payload, packet);
      if (!message) return false;
      if (ours || group) return this.#icmp(packet, message, frame.source);
    }
    if (group) return false;
    if (ours) this.#error(packet, UNREACHABLE6_CODE.PORT, frame.source); // services of the host are reached by IPv4
    else if (packet.hopLimit <= 1) this.#reply(packet.source, frame.source, icmpv6Error(packet, ICMPV6_TYPE.TIME_EXCEEDED, 0));
    else if (!isLinkLocal(packet.destination) && packet.destination >> 64n !== this.#prefix >> 64n) this.#error(packet, UNREACHABLE6_CODE.NO_ROUTE, frame.source);
    return true;
  }

  #icmp(packet: Ipv6Packet, message: Icmpv6Message, from: MacAddress): boolean {
    switch (message.type) {
      case ICMPV6_TYPE.ECHO_REQUEST:
        if (packet.source === 0n) return false;
        this.#reply(packet.source, from, { type: ICMPV6_TYPE.ECHO_REPLY, code: 0, body: message.body }, isMulticastIpv6(packet.destination) ? undefined : packet.destination);
        return true;
      case ICMPV6_TYPE.ROUTER_SOLICITATION:
        if (packet.hopLimit !== NDP_HOP_LIMIT || message.code !== 0 || !parseNdpOptions(message.body.subarray(4))) return false;
        this.#advertise(packet.source, from);
        return true;
      case ICMPV6_TYPE.NEIGHBOUR_SOLICITATION:
        return packet.hopLimit === NDP_HOP_LIMIT && message.code === 0 && this.#neighbour(packet, message, from);
      default:
        return false;
    }
  }
  /** To whoever asked; to everybody when it has no address yet. */
  #advertise(to: Ipv6Address, mac: MacAddress): void {
    const body = emitRouterAdvertisement({
      hopLimit: HOP_LIMIT, flags: 0, lifetimeSeconds: 0, reachableMs: 0, retransmitMs: 0,
      options: [linkAddressOption(NDP_OPTION.SOURCE_LINK_ADDRESS, this.#mac), mtuOption(this.#mtu), prefixOption(this.#prefix, PREFIX_BITS, INFINITY_SECONDS)],
    });
    this.#ndp(to, mac, { type: ICMPV6_TYPE.ROUTER_ADVERTISEMENT, code: 0, body }, this.addresses[0]);
  }
  /** Also for those who look whether an address is taken (RFC 4862, 5.4.3): their source is unspecified. */
  #neighbour(packet: Ipv6Packet, message: Icmpv6Message, from: MacAddress): boolean {
    const solicitation = parseNeighbour(message);
    if (!solicitation || !this.addresses.includes(solicitation.target)) return false;
    const flags = (NEIGHBOUR_FLAG.OVERRIDE | (packet.source === 0n ? 0 : NEIGHBOUR_FLAG.SOLICITED)) >>> 0;
    const body = emitNeighbour({ flags, target: solicitation.target, options: [linkAddressOption(NDP_OPTION.TARGET_LINK_ADDRESS, this.#mac)] });
    this.#ndp(packet.source, from, { type: ICMPV6_TYPE.NEIGHBOUR_ADVERTISEMENT, code: 0, body }, solicitation.target);
    return true;
  }
  #ndp(to: Ipv6Address, mac: MacAddress, message: Icmpv6Message, source: Ipv6Address): void {
    if (to === 0n) this.#emit(ALL_NODES, multicastMac(ALL_NODES), message, source, NDP_HOP_LIMIT);
    else this.#emit(to, mac, message, source, NDP_HOP_LIMIT);
  }
  #error(about: Ipv6Packet, code: number, mac: MacAddress): void {
    this.#reply(about.source, mac, icmpv6Error(about, ICMPV6_TYPE.UNREACHABLE, code), this.addresses.includes(about.destination) ? about.destination : undefined);
  }
  #reply(to: Ipv6Address, mac: MacAddress, message: Icmpv6Message | undefined, source = this.addresses[isLinkLocal(to) ? 0 : 1]): void {
    if (message) this.#emit(to, mac, message, source, HOP_LIMIT);
  }
  #emit(destination: Ipv6Address, mac: MacAddress, message: Icmpv6Message, source: Ipv6Address, hopLimit: number): void {
    const payload = emitIcmpv6(message, { source, destination });
    if (payload.length > this.#mtu) return; // a reply to fragments, which are not joined here
    const packet = emitIpv6({ trafficClass: 0, flowLabel: 0, nextHeader: IPV6_NEXT_HEADER.ICMPV6, hopLimit, source, destination, payload });
    this.#send({ data: emitEthernet({ destination: mac, source: this.#mac, etherType: ETHERTYPE.IPV6, payload: packet }), offload: undefined });
  }
}
