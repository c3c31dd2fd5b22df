import { readU32, writeU16, writeU32 } from "./address.ts";
import { internetChecksum } from "./checksum.ts";
import { IPV4_MINIMUM_MTU, IP_PROTOCOL, emitIpv4, isFragment, type Ipv4Packet } from "./ipv4.ts";

/** Types and codes (RFC 792; code 13: RFC 1812, 5.2.7.1). */
export const ICMP_TYPE = { ECHO_REPLY: 0, UNREACHABLE: 3, ECHO_REQUEST: 8, TIME_EXCEEDED: 11 } as const;
export const UNREACHABLE_CODE = { NET: 0, HOST: 1, PROTOCOL: 2, PORT: 3, FRAGMENTATION_NEEDED: 4, ADMINISTRATIVELY: 13 } as const;

/** Any ICMP message (RFC 792). */
export interface IcmpMessage {
  readonly type: number;
  readonly code: number;
  /** Bytes 4..7; identifier and sequence number of an echo. */
  readonly rest: number;
  readonly payload: Uint8Array;
}

/** Undefined: too short, or the checksum is wrong. */
export function parseIcmp(bytes: Uint8Array): IcmpMessage | undefined {
  if (bytes.length < 8 || internetChecksum(bytes) !== 0) return undefined;
  return { type: bytes[0]!, code: bytes[1]!, rest: readU32(bytes, 4), payload: bytes.subarray(8) };
}

export function emitIcmp(message: IcmpMessage): Uint8Array {
  const bytes = new Uint8Array(8 + message.payload.length);
  bytes[0] = message.type;
  bytes[1] = message.code;
  writeU32(bytes, 4, message.rest);
  bytes.set(message.payload, 8);
  writeU16(bytes, 2, internetChecksum(bytes));
  return bytes;
}

/**
 * "Destination unreachable" about a packet: it carries the packet's header and as much of its data as 576 bytes hold
 * (RFC 1812, 4.3.2.3). Undefined where RFC 1122, 3.2.2 forbids an error: about ICMP errors, and fragments other than the first.
 */
export function unreachable(about: Ipv4Packet, code: number): IcmpMessage | undefined {
  return icmpErrorAbout(about, ICMP_TYPE.UNREACHABLE, code);
}
/** "Time exceeded in transit": the packet's last hop was here. */
export function timeExceeded(about: Ipv4Packet): IcmpMessage | undefined {
  return icmpErrorAbout(about, ICMP_TYPE.TIME_EXCEEDED, 0);
}
/** An error of any type about a packet, as {@link unreachable} says. */
export function icmpErrorAbout(about: Ipv4Packet, type: number, code: number): IcmpMessage | undefined {
  if (about.fragmentOffset > 0) return undefined;
  if (about.protocol === IP_PROTOCOL.ICMP) {
    if (about.payload[0] !== ICMP_TYPE.ECHO_REQUEST || isFragment(about)) return undefined;
  }
  const room = IPV4_MINIMUM_MTU - 20 - 8;
  return { type, code, rest: 0, payload: emitIpv4(about).subarray(0, room) };
}
