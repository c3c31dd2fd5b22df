import { readU16, writeU16 } from "./address.ts";
import { sumWords } from "./checksum.ts";

/** An IPv6 address as a 128-bit number (RFC 4291). */
export type Ipv6Address = bigint;
export const IPV6_HEADER_BYTES = 40;
/** Every link carries packets of this size (RFC 8200, 5). */
export const IPV6_MINIMUM_MTU = 1280;
/** Next Header values (IANA; RFC 8200, 4). */
export const IPV6_NEXT_HEADER = { HOP_BY_HOP: 0, ROUTING: 43, FRAGMENT: 44, ICMPV6: 58, NONE: 59, DESTINATION_OPTIONS: 60 } as const;

/** An IPv6 packet (RFC 8200, 3). Extension headers are part of the payload; see `ipv6Transport`. */
export interface Ipv6Packet {
  readonly trafficClass: number;
  readonly flowLabel: number; // 20 bits
  readonly nextHeader: number;
  readonly hopLimit: number;
  readonly source: Ipv6Address;
  readonly destination: Ipv6Address;
  readonly payload: Uint8Array;
}

/** Undefined: not IPv6 or cut short. Bytes behind Payload Length are left out; jumbograms (length 0) are not read. */
export function parseIpv6Packet(bytes: Uint8Array): Ipv6Packet | undefined {
  if (bytes.length < IPV6_HEADER_BYTES || bytes[0]! >>> 4 !== 6) return undefined;
  const length = readU16(bytes, 4);
  if (IPV6_HEADER_BYTES + length > bytes.length) return undefined;
  return {
    trafficClass: ((bytes[0]! & 15) << 4) | (bytes[1]! >>> 4),
    flowLabel: ((bytes[1]! & 15) << 16) | readU16(bytes, 2),
    nextHeader: bytes[6]!,
    hopLimit: bytes[7]!,
    source: readIpv6(bytes, 8),
    destination: readIpv6(bytes, 24),
    payload: bytes.subarray(IPV6_HEADER_BYTES, IPV6_HEADER_BYTES + length),
  };
}
export function emitIpv6(packet: Ipv6Packet): Uint8Array {
  const bytes = new Uint8Array(IPV6_HEADER_BYTES + packet.payload.length);
  bytes[0] = 0x60 | (packet.trafficClass >>> 4);
  bytes[1] = ((packet.trafficClass & 15) << 4) | (packet.flowLabel >>> 16);
  writeU16(bytes, 2, packet.flowLabel & 0xffff);
  writeU16(bytes, 4, packet.payload.length);
  bytes[6] = packet.nextHeader;
  bytes[7] = packet.hopLimit;
  writeIpv6(bytes, 8, packet.source);
  writeIpv6(bytes, 24, packet.destination);
  bytes.set(packet.payload, IPV6_HEADER_BYTES);
  return bytes;
}

/**
 * What lies behind the extension headers (RFC 8200, 4). Undefined: they are cut short, the packet is a fragment, or there are
 * more than a packet of ours would ever have.
 */
export function ipv6Transport({ nextHeader, payload }: Ipv6Packet): { protocol: number; payload: Uint8Array } | undefined {
  const { HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT } = IPV6_NEXT_HEADER;
  for (let i = 0; i < 8; i++) {
    if (nextHeader !== HOP_BY_HOP && nextHeader !== ROUTING && nextHeader !== DESTINATION_OPTIONS) {
      return nextHeader === FRAGMENT ? undefined : { protocol: nextHeader, payload };
    }
    if (payload.length < 8) return undefined;
    const length = (payload[1]! + 1) * 8;
    if (length > payload.length) return undefined;
    nextHeader = payload[0]!;
    payload = payload.subarray(length);
  }
  return undefined;
}

export function readIpv6(bytes: Uint8Array, at: number): Ipv6Address {
  let address = 0n;
  for (let i = 0; i < 16; i += 2) address = (address << 16n) | BigInt(readU16(bytes, at + i));
  return address;
}
export function writeIpv6(bytes: Uint8Array, at: number, address: Ipv6Address): void {
  for (let i = 14; i >= 0; i -= 2, address >>= 16n) writeU16(bytes, at + i, Number(address & 0xffffn));
}
/** RFC 5952: lower case, the longest run of two or more zero groups as "::". */
export function formatIpv6(address: Ipv6Address): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number((address >> BigInt(112 - 16 * i)) & 0xffffn));
  let best = { at: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > best.length) best = { at: i, length };
  }
  const hex = (list: number[]) => list.map((group) => group.toString(16)).join(":");
  return best.at < 0 ? hex(groups) : `${hex(groups.slice(0, best.at))}::${hex(groups.slice(best.at + best.length))}`;
}
/** Text of RFC 4291, 2.2, also with a dotted quad at the end; undefined when it is none. */
export function parseIpv6(text: string): Ipv6Address | undefined {
  const quad = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  if (quad) {
    const bytes = quad.slice(2).map(Number);
    if (bytes.some((byte) => byte > 255)) return undefined;
    const [a, b, c, d] = bytes as [number, number, number, number];
    text = `${quad[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const groupsOf = (part: string | undefined) => (part ? part.split(":") : []);
  const [head, tail] = [groupsOf(halves[0]), groupsOf(halves[1])];
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...Array.from({ length: halves.length === 2 ? missing : 0 }, () => "0"), ...tail];
  if (groups.some((group) => !/^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  return groups.reduce((address, group) => (address << 16n) | BigInt(parseInt(group, 16)), 0n);
}
/** ff00::/8 (RFC 4291, 2.7). */
export function isMulticastIpv6(address: Ipv6Address): boolean {
  return address >> 120n === 0xffn;
}
/** fe80::/10 (RFC 4291, 2.5.6). */
export function isLinkLocal(address: Ipv6Address): boolean {
  return address >> 118n === 0x3fan;
}
/** The modified EUI-64 identifier of a MAC address, in the low 64 bits (RFC 4291, appendix A). */
export function interfaceIdentifier(mac: number): bigint {
  const value = BigInt(mac);
  return (((value >> 24n) << 40n) | (0xfffen << 24n) | (value & 0xff_ffffn)) ^ (1n << 57n);
}
/** ff02::1:ffXX:XXXX (RFC 4291, 2.7.1): where a neighbour is asked for. */
export function solicitedNode(address: Ipv6Address): Ipv6Address {
  return (0xff02_0000_0000_0000_0000_0001_ff00_0000n) | (address & 0xff_ffffn);
}
/** The Ethernet address of a multicast group (RFC 2464, 7). */
export function multicastMac(group: Ipv6Address): number {
  return 0x3333 * 2 ** 32 + Number(group & 0xffff_ffffn);
}
/** Sum of the pseudo header (RFC 8200, 8.1). */
export function pseudoHeaderSum6(source: Ipv6Address, destination: Ipv6Address, protocol: number, length: number): number {
  const bytes = new Uint8Array(32);
  writeIpv6(bytes, 0, source);
  writeIpv6(bytes, 16, destination);
  return sumWords(bytes) + (length >>> 16) + (length & 0xffff) + protocol;
}
