import { readMac, readU16, readU32, writeMac, writeU16, writeU32, type MacAddress } from "./address.ts";
import { internetChecksum } from "./checksum.ts";
import { emitIpv6, IPV6_MINIMUM_MTU, IPV6_NEXT_HEADER, isMulticastIpv6, pseudoHeaderSum6, readIpv6, writeIpv6, type Ipv6Address, type Ipv6Packet } from "./ipv6.ts";

/** Types (RFC 4443; NDP: RFC 4861, 4). */
export const ICMPV6_TYPE = {
  UNREACHABLE: 1,
  PACKET_TOO_BIG: 2,
  TIME_EXCEEDED: 3,
  PARAMETER_PROBLEM: 4,
  ECHO_REQUEST: 128,
  ECHO_REPLY: 129,
  ROUTER_SOLICITATION: 133,
  ROUTER_ADVERTISEMENT: 134,
  NEIGHBOUR_SOLICITATION: 135,
  NEIGHBOUR_ADVERTISEMENT: 136,
} as const;
/** Codes of UNREACHABLE (RFC 4443, 3.1). */
export const UNREACHABLE6_CODE = { NO_ROUTE: 0, PROHIBITED: 1, ADDRESS: 3, PORT: 4 } as const;
/** Options of NDP (RFC 4861, 4.6; DNS: RFC 8106, 5.1). */
export const NDP_OPTION = { SOURCE_LINK_ADDRESS: 1, TARGET_LINK_ADDRESS: 2, PREFIX: 3, MTU: 5, RDNSS: 25 } as const;
/** NDP is only heard from the same link (RFC 4861, 6.1 and 7.1). */
export const NDP_HOP_LIMIT = 255;

/** Any ICMPv6 message (RFC 4443, 2.1). */
export interface Icmpv6Message {
  readonly type: number;
  readonly code: number;
  /** All behind the checksum. */
  readonly body: Uint8Array;
}
export interface Ipv6Pair {
  readonly source: Ipv6Address;
  readonly destination: Ipv6Address;
}

/** Undefined: too short, or the checksum is wrong. */
export function parseIcmpv6(bytes: Uint8Array, { source, destination }: Ipv6Pair): Icmpv6Message | undefined {
  if (bytes.length < 8) return undefined;
  if (internetChecksum(bytes, pseudoHeaderSum6(source, destination, IPV6_NEXT_HEADER.ICMPV6, bytes.length)) !== 0) return undefined;
  return { type: bytes[0]!, code: bytes[1]!, body: bytes.subarray(4) };
}
export function emitIcmpv6({ type, code, body }: Icmpv6Message, { source, destination }: Ipv6Pair): Uint8Array {
  const bytes = new Uint8Array(4 + body.length);
  bytes[0] = type;
  bytes[1] = code;
  bytes.set(body, 4);
  writeU16(bytes, 2, internetChecksum(bytes, pseudoHeaderSum6(source, destination, IPV6_NEXT_HEADER.ICMPV6, bytes.length)));
  return bytes;
}

export interface NdpOption {
  readonly type: number;
  /** Behind type and length; as long as units of 8 bytes allow. */
  readonly data: Uint8Array;
}
/** Undefined: an option of length 0 or over the end (RFC 4861, 4.6). */
export function parseNdpOptions(bytes: Uint8Array): NdpOption[] | undefined {
  const options: NdpOption[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = (bytes[at + 1] ?? 0) * 8;
    if (length === 0 || at + length > bytes.length) return undefined;
    options.push({ type: bytes[at]!, data: bytes.subarray(at + 2, at + length) });
    at += length;
  }
  return options;
}
export function emitNdpOptions(options: readonly NdpOption[]): Uint8Array {
  const bytes = new Uint8Array(options.reduce((sum, { data }) => sum + ndpOptionBytes(data), 0));
  let at = 0;
  for (const { type, data } of options) {
    bytes.set([type, ndpOptionBytes(data) / 8], at);
    bytes.set(data, at + 2);
    at += ndpOptionBytes(data);
  }
  return bytes;
}
function ndpOptionBytes(data: Uint8Array): number {
  return Math.ceil((2 + data.length) / 8) * 8;
}
export function linkAddressOption(type: number, mac: MacAddress): NdpOption {
  const data = new Uint8Array(6);
  writeMac(data, 0, mac);
  return { type, data };
}
export function linkAddressIn(options: readonly NdpOption[], type: number): MacAddress | undefined {
  const data = options.find((option) => option.type === type)?.data;
  return data?.length === 6 ? readMac(data, 0) : undefined;
}

/** Neighbour Solicitation and Advertisement (RFC 4861, 4.3 and 4.4). */
export interface NeighbourMessage {
  /** R, S, O in the top bits of an advertisement; 0 in a solicitation. */
  readonly flags: number;
  readonly target: Ipv6Address;
  readonly options: readonly NdpOption[];
}
export const NEIGHBOUR_FLAG = { ROUTER: 0x8000_0000, SOLICITED: 0x4000_0000, OVERRIDE: 0x2000_0000 } as const;
export function parseNeighbour({ body }: Icmpv6Message): NeighbourMessage | undefined {
  if (body.length < 20) return undefined;
  const options = parseNdpOptions(body.subarray(20));
  return options && { flags: readU32(body, 0), target: readIpv6(body, 4), options };
}
export function emitNeighbour({ flags, target, options }: NeighbourMessage): Uint8Array {
  const tail = emitNdpOptions(options);
  const body = new Uint8Array(20 + tail.length);
  writeU32(body, 0, flags);
  writeIpv6(body, 4, target);
  body.set(tail, 20);
  return body;
}

/** Router Advertisement (RFC 4861, 4.2). */
export interface RouterAdvertisement {
  readonly hopLimit: number;
  /** M and O (managed, other configuration by DHCPv6), and reserved bits. */
  readonly flags: number;
  readonly lifetimeSeconds: number;
  readonly reachableMs: number;
  readonly retransmitMs: number;
  readonly options: readonly NdpOption[];
}
export function parseRouterAdvertisement({ body }: Icmpv6Message): RouterAdvertisement | undefined {
  if (body.length < 12) return undefined;
  const options = parseNdpOptions(body.subarray(12));
  if (!options) return undefined;
  return { hopLimit: body[0]!, flags: body[1]!, lifetimeSeconds: readU16(body, 2), reachableMs: readU32(body, 4), retransmitMs: readU32(body, 8), options };
}
export function emitRouterAdvertisement(message: RouterAdvertisement): Uint8Array {
  const tail = emitNdpOptions(message.options);
  const body = new Uint8Array(12 + tail.length);
  body[0] = message.hopLimit;
  body[1] = message.flags;
  writeU16(body, 2, message.lifetimeSeconds);
  writeU32(body, 4, message.reachableMs);
  writeU32(body, 8, message.retransmitMs);
  body.set(tail, 12);
  return body;
}
/** Prefix Information (RFC 4861, 4.6.2): on-link, and hosts make their own address in it (RFC 4862, 5.5.3). */
export function prefixOption(prefix: Ipv6Address, length: number, seconds: number): NdpOption {
  const data = new Uint8Array(30);
  data[0] = length;
  data[1] = 0xc0; // L and A
  writeU32(data, 2, seconds);
  writeU32(data, 6, seconds);
  writeIpv6(data, 14, prefix);
  return { type: NDP_OPTION.PREFIX, data };
}
export function mtuOption(mtu: number): NdpOption {
  const data = new Uint8Array(6);
  writeU32(data, 2, mtu);
  return { type: NDP_OPTION.MTU, data };
}

/** An error about a packet, with as much of it as the minimum MTU holds; undefined where RFC 4443, 2.4(e) forbids one. */
export function icmpv6Error(about: Ipv6Packet, type: number, code: number): Icmpv6Message | undefined {
  if (isMulticastIpv6(about.destination) || isMulticastIpv6(about.source) || about.source === 0n) return undefined;
  if (about.nextHeader === IPV6_NEXT_HEADER.ICMPV6 && (about.payload[0] ?? 0) < 128) return undefined; // about an error
  const quoted = emitIpv6(about).subarray(0, IPV6_MINIMUM_MTU - 48);
  const body = new Uint8Array(4 + quoted.length);
  body.set(quoted, 4);
  return { type, code, body };
}
