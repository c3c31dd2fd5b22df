import { readU16, readU32, writeU16, writeU32 } from "./address.ts";
import { completeChecksum, finishChecksum, sumWords } from "./checksum.ts";
import { ETHERNET_HEADER_BYTES, ETHERTYPE } from "./ethernet.ts";
import { IP_PROTOCOL } from "./ipv4.ts";
import { TCP_FLAG } from "./tcp.ts";

/** gso_type of virtio_net_hdr (virtio 1.2, 5.1.6): what a frame larger than the MTU is to be cut into. */
export const GSO = { NONE: 0, TCPV4: 1, UDP: 3, TCPV6: 4, UDP_L4: 5, ECN: 0x80 } as const;

/** What is left to be done to a frame (virtio_net_hdr; virtio 1.2, 5.1.6). */
export interface OffloadRequest {
  /** The checksum field at start + offset holds the pseudo header's sum; the rest, from `start` to the end, is to be added. */
  readonly needsChecksum: boolean;
  readonly checksumStart: number;
  readonly checksumOffset: number;
  readonly gsoType: number;
  /** Payload bytes of each segment. */
  readonly gsoSize: number;
  readonly headerLength: number;
}

/**
 * The frame as it goes over a wire: checksum complete, cut to segments. Undefined: the request cannot be carried out (offsets
 * outside the frame, a type that is not TCP). Never writes into `frame`, which others may hold.
 */
export function completeFrame(frame: Uint8Array, request: OffloadRequest | undefined): Uint8Array[] | undefined {
  if (!request || (!request.needsChecksum && request.gsoType === GSO.NONE)) return [frame];
  if (request.gsoType !== GSO.NONE) return segmentTcp(frame, request.gsoSize);
  const copy = frame.slice();
  return completeChecksum(copy, request.checksumStart, request.checksumOffset) ? [copy] : undefined;
}

/** Where the headers of a TCP segment in a frame are; undefined when it is none, or a fragment. */
export function tcpLayout(frame: Uint8Array): { ip: number; tcp: number; payload: number; version: 4 | 6 } | undefined {
  if (frame.length < ETHERNET_HEADER_BYTES + 40) return undefined;
  const ip = readU16(frame, 12) === ETHERTYPE.VLAN ? 18 : 14;
  const etherType = readU16(frame, ip - 2);
  let tcp: number;
  let version: 4 | 6;
  if (etherType === ETHERTYPE.IPV4) {
    if (frame[ip + 9] !== IP_PROTOCOL.TCP || (readU16(frame, ip + 6) & 0x3fff) !== 0) return undefined;
    tcp = ip + (frame[ip]! & 15) * 4;
    version = 4;
  } else if (etherType === ETHERTYPE.IPV6) {
    if (frame[ip + 6] !== IP_PROTOCOL.TCP) return undefined; // extension headers: no driver segments those for us
    tcp = ip + 40;
    version = 6;
  } else return undefined;
  const payload = tcp + (frame[tcp + 12]! >>> 4) * 4;
  return tcp >= ip + 20 && payload >= tcp + 20 && payload <= frame.length ? { ip, tcp, payload, version } : undefined;
}

/**
 * TCP segmentation offload in software (virtio 1.2, 5.1.6.2.1; Linux, Documentation/networking/segmentation-offloads): each
 * segment gets the headers with its own length, identification, sequence number and checksums; FIN and PSH stay with the last
 * one, CWR with the first (RFC 3168, 6.1.2).
 */
function segmentTcp(frame: Uint8Array, size: number): Uint8Array[] | undefined {
  const layout = tcpLayout(frame);
  if (!layout || size === 0) return undefined;
  const { ip, tcp, payload, version } = layout;
  const out: Uint8Array[] = [];
  const sequence = readU32(frame, tcp + 4);
  const identification = readU16(frame, ip + 4);
  // The pseudo header's addresses, and all of the TCP header that does not change from segment to segment.
  const addresses = version === 4 ? sumWords(frame.subarray(ip + 12, ip + 20)) : sumWords(frame.subarray(ip + 8, ip + 40));
  for (let at = payload; at === payload || at < frame.length; at += size) {
    const end = Math.min(at + size, frame.length);
    const segment = new Uint8Array(payload + end - at);
    segment.set(frame.subarray(0, payload));
    segment.set(frame.subarray(at, end), payload);
    if (version === 4) {
      writeU16(segment, ip + 2, segment.length - ip);
      writeU16(segment, ip + 4, (identification + out.length) & 0xffff);
      writeU16(segment, ip + 10, 0);
      writeU16(segment, ip + 10, finishChecksum(sumWords(segment.subarray(ip, tcp))));
    } else writeU16(segment, ip + 4, segment.length - tcp);
    writeU32(segment, tcp + 4, (sequence + at - payload) >>> 0);
    let flags = readU16(segment, tcp + 12);
    if (end < frame.length) flags &= ~(TCP_FLAG.FIN | TCP_FLAG.PSH);
    if (at > payload) flags &= ~TCP_FLAG.CWR;
    writeU16(segment, tcp + 12, flags);
    writeU16(segment, tcp + 16, 0);
    const sum = addresses + IP_PROTOCOL.TCP + segment.length - tcp;
    writeU16(segment, tcp + 16, finishChecksum(sumWords(segment.subarray(tcp), sum)));
    out.push(segment);
  }
  return out;
}
