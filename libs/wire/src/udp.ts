import { readU16, writeU16, type Ipv4Address } from "./address.ts";
import { internetChecksum, pseudoHeaderSum } from "./checksum.ts";
import { IP_PROTOCOL } from "./ipv4.ts";

export const UDP_HEADER_BYTES = 8;

/** A UDP datagram (RFC 768). */
export interface UdpDatagram {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}
/** The addresses a transport checksum covers. */
export interface Ipv4Pair {
  readonly source: Ipv4Address;
  readonly destination: Ipv4Address;
}

/** Undefined: lengths do not agree, or there is a checksum and it is wrong (0 = none was computed). `verified`: whoever sent it vouches for it. */
export function parseUdp(bytes: Uint8Array, { source, destination }: Ipv4Pair, verified = false): UdpDatagram | undefined {
  if (bytes.length < UDP_HEADER_BYTES) return undefined;
  const length = readU16(bytes, 4);
  if (length < UDP_HEADER_BYTES || length > bytes.length) return undefined;
  const datagram = bytes.subarray(0, length);
  const sum = pseudoHeaderSum(source, destination, IP_PROTOCOL.UDP, length);
  if (!verified && readU16(bytes, 6) !== 0 && internetChecksum(datagram, sum) !== 0) return undefined;
  return { sourcePort: readU16(bytes, 0), destinationPort: readU16(bytes, 2), payload: datagram.subarray(8) };
}

export function emitUdp(datagram: UdpDatagram, { source, destination }: Ipv4Pair): Uint8Array {
  const bytes = new Uint8Array(UDP_HEADER_BYTES + datagram.payload.length);
  writeU16(bytes, 0, datagram.sourcePort);
  writeU16(bytes, 2, datagram.destinationPort);
  writeU16(bytes, 4, bytes.length);
  bytes.set(datagram.payload, 8);
  const sum = pseudoHeaderSum(source, destination, IP_PROTOCOL.UDP, bytes.length);
  writeU16(bytes, 6, internetChecksum(bytes, sum) || 0xffff); // "transmitted as all ones" (RFC 768)
  return bytes;
}
