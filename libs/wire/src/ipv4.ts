import { readU16, readU32, writeU16, writeU32, type Ipv4Address } from "./address.ts";
import { internetChecksum } from "./checksum.ts";

/** Protocol numbers (IANA). */
export const IP_PROTOCOL = { ICMP: 1, TCP: 6, UDP: 17 } as const;
export const IPV4_HEADER_BYTES = 20;
/** Every host must take datagrams of this size (RFC 791, 3.1, Total Length). */
export const IPV4_MINIMUM_MTU = 576;

/** An IPv4 datagram or fragment (RFC 791, 3.1). */
export interface Ipv4Packet {
  /** DSCP and ECN (RFC 2474, RFC 3168). */
  readonly trafficClass: number;
  readonly identification: number;
  /** The three flag bits: reserved 4, DF 2, MF 1. */
  readonly flags: number;
  /** In bytes, a multiple of 8. */
  readonly fragmentOffset: number;
  readonly timeToLive: number;
  readonly protocol: number;
  readonly source: Ipv4Address;
  readonly destination: Ipv4Address;
  /** As on the wire; a multiple of 4 bytes, at most 40. */
  readonly options: Uint8Array;
  readonly payload: Uint8Array;
}
export const IPV4_FLAG = { MORE_FRAGMENTS: 1, DONT_FRAGMENT: 2 } as const;

/** A datagram as a host would make it: TTL 64, DF, no options. */
export function ipv4Datagram(
  fields: Pick<Ipv4Packet, "protocol" | "source" | "destination" | "payload"> & Partial<Ipv4Packet>,
): Ipv4Packet {
  const base = { trafficClass: 0, identification: 0, flags: IPV4_FLAG.DONT_FRAGMENT, fragmentOffset: 0, timeToLive: 64 };
  return { ...base, options: new Uint8Array(0), ...fields };
}
export function isFragment(packet: Ipv4Packet): boolean {
  return packet.fragmentOffset > 0 || (packet.flags & IPV4_FLAG.MORE_FRAGMENTS) !== 0;
}

/** Undefined: not IPv4, cut short, or its header checksum is wrong. Bytes behind Total Length (Ethernet padding) are left out. */
export function parseIpv4Packet(bytes: Uint8Array): Ipv4Packet | undefined {
  if (bytes.length < IPV4_HEADER_BYTES || bytes[0]! >>> 4 !== 4) return undefined;
  const headerBytes = (bytes[0]! & 15) * 4;
  const totalBytes = readU16(bytes, 2);
  if (headerBytes < IPV4_HEADER_BYTES || totalBytes < headerBytes || totalBytes > bytes.length) return undefined;
  if (internetChecksum(bytes.subarray(0, headerBytes)) !== 0) return undefined;
  const fragment = readU16(bytes, 6);
  return {
    trafficClass: bytes[1]!,
    identification: readU16(bytes, 4),
    flags: fragment >>> 13,
    fragmentOffset: (fragment & 0x1fff) * 8,
    timeToLive: bytes[8]!,
    protocol: bytes[9]!,
    source: readU32(bytes, 12),
    destination: readU32(bytes, 16),
    options: bytes.subarray(20, headerBytes),
    payload: bytes.subarray(headerBytes, totalBytes),
  };
}

export function emitIpv4(packet: Ipv4Packet): Uint8Array {
  const headerBytes = IPV4_HEADER_BYTES + packet.options.length;
  const bytes = new Uint8Array(headerBytes + packet.payload.length);
  writeIpv4Header(bytes, 0, packet, packet.payload.length);
  bytes.set(packet.payload, headerBytes);
  return bytes;
}
/** Writes header and options, with their checksum, at a place in a larger buffer. */
export function writeIpv4Header(bytes: Uint8Array, at: number, packet: Omit<Ipv4Packet, "payload">, payloadBytes: number): void {
  const headerBytes = IPV4_HEADER_BYTES + packet.options.length;
  bytes[at] = 0x40 | (headerBytes / 4);
  bytes[at + 1] = packet.trafficClass;
  writeU16(bytes, at + 2, headerBytes + payloadBytes);
  writeU16(bytes, at + 4, packet.identification);
  writeU16(bytes, at + 6, (packet.flags << 13) | (packet.fragmentOffset / 8));
  bytes[at + 8] = packet.timeToLive;
  bytes[at + 9] = packet.protocol;
  writeU16(bytes, at + 10, 0);
  writeU32(bytes, at + 12, packet.source);
  writeU32(bytes, at + 16, packet.destination);
  if (packet.options.length > 0) bytes.set(packet.options, at + 20);
  writeU16(bytes, at + 10, internetChecksum(bytes.subarray(at, at + headerBytes)));
}

/** Cuts a datagram without options to an MTU (RFC 791, 3.2); DF is not looked at. One that fits is answered as it is. */
export function fragmentIpv4(packet: Ipv4Packet, mtu: number): Ipv4Packet[] {
  if (IPV4_HEADER_BYTES + packet.payload.length <= mtu) return [packet];
  const step = Math.floor((mtu - IPV4_HEADER_BYTES) / 8) * 8;
  const out: Ipv4Packet[] = [];
  for (let at = 0; at < packet.payload.length; at += step) {
    const more = at + step < packet.payload.length ? IPV4_FLAG.MORE_FRAGMENTS : 0;
    out.push({ ...packet, flags: more, fragmentOffset: packet.fragmentOffset + at, payload: packet.payload.subarray(at, at + step) });
  }
  return out;
}
