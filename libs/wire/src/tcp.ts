import { readU16, readU32, writeU16, writeU32 } from "./address.ts";
import { internetChecksum, pseudoHeaderSum } from "./checksum.ts";
import { IP_PROTOCOL } from "./ipv4.ts";
import type { Ipv4Pair } from "./udp.ts";

export const TCP_HEADER_BYTES = 20;
/** Control bits (RFC 9293, 3.1; ECE and CWR: RFC 3168). */
export const TCP_FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32, ECE: 64, CWR: 128 } as const;

/** A TCP segment (RFC 9293, 3.1). */
export interface TcpSegment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgment: number;
  /** Control bits, and the 4 reserved ones above them, as on the wire. */
  readonly flags: number;
  readonly window: number;
  readonly urgentPointer: number;
  /** As on the wire, padded to a multiple of 4 bytes, at most 40; see `parseTcpOptions`. */
  readonly options: Uint8Array;
  readonly payload: Uint8Array;
}

/** Undefined: cut short, Data Offset out of range, or the checksum is wrong (not looked at when `verified`). */
export function parseTcp(bytes: Uint8Array, { source, destination }: Ipv4Pair, verified = false): TcpSegment | undefined {
  if (bytes.length < TCP_HEADER_BYTES) return undefined;
  const headerBytes = (bytes[12]! >>> 4) * 4;
  if (headerBytes < TCP_HEADER_BYTES || headerBytes > bytes.length) return undefined;
  if (!verified && internetChecksum(bytes, pseudoHeaderSum(source, destination, IP_PROTOCOL.TCP, bytes.length)) !== 0) return undefined;
  return {
    sourcePort: readU16(bytes, 0),
    destinationPort: readU16(bytes, 2),
    sequence: readU32(bytes, 4),
    acknowledgment: readU32(bytes, 8),
    flags: readU16(bytes, 12) & 0xfff,
    window: readU16(bytes, 14),
    urgentPointer: readU16(bytes, 18),
    options: bytes.subarray(20, headerBytes),
    payload: bytes.subarray(headerBytes),
  };
}

export function emitTcp(segment: TcpSegment, { source, destination }: Ipv4Pair): Uint8Array {
  const bytes = new Uint8Array(TCP_HEADER_BYTES + segment.options.length + segment.payload.length);
  writeTcpHeader(bytes, 0, segment);
  bytes.set(segment.payload, TCP_HEADER_BYTES + segment.options.length);
  const sum = pseudoHeaderSum(source, destination, IP_PROTOCOL.TCP, bytes.length);
  writeU16(bytes, 16, internetChecksum(bytes, sum));
  return bytes;
}
/** Writes header and options at a place in a larger buffer, checksum 0. */
export function writeTcpHeader(bytes: Uint8Array, at: number, segment: Omit<TcpSegment, "payload">): void {
  const headerBytes = TCP_HEADER_BYTES + segment.options.length;
  writeU16(bytes, at, segment.sourcePort);
  writeU16(bytes, at + 2, segment.destinationPort);
  writeU32(bytes, at + 4, segment.sequence);
  writeU32(bytes, at + 8, segment.acknowledgment);
  writeU16(bytes, at + 12, (headerBytes << 10) | segment.flags);
  writeU16(bytes, at + 14, segment.window);
  writeU16(bytes, at + 16, 0);
  writeU16(bytes, at + 18, segment.urgentPointer);
  if (segment.options.length > 0) bytes.set(segment.options, at + TCP_HEADER_BYTES);
}

/** What the options say (RFC 9293, 3.2; window scale and timestamps: RFC 7323; SACK: RFC 2018). */
export interface TcpOptions {
  maximumSegmentSize?: number;
  windowScale?: number;
  sackPermitted?: true;
  sackBlocks?: { left: number; right: number }[];
  timestamps?: { value: number; echo: number };
  /** Kinds that are none of these, kept. */
  unknown?: { kind: number; data: Uint8Array }[];
}

/** Undefined: an option's length is wrong. */
export function parseTcpOptions(bytes: Uint8Array): TcpOptions | undefined {
  const options: TcpOptions = {};
  // What all but the first segments of a connection carry: NOP, NOP, timestamps (RFC 7323, appendix A).
  if (bytes.length === 12 && readU32(bytes, 0) === 0x0101_080a) return { timestamps: { value: readU32(bytes, 4), echo: readU32(bytes, 8) } };
  for (let at = 0; at < bytes.length; ) {
    const kind = bytes[at]!;
    if (kind === 0) break; // End of Option List
    if (kind === 1) {
      at++; // No-Operation
      continue;
    }
    const length = bytes[at + 1];
    if (length === undefined || length < 2 || at + length > bytes.length) return undefined;
    const data = bytes.subarray(at + 2, at + length);
    if (kind === 2 && length === 4) options.maximumSegmentSize = readU16(data, 0);
    else if (kind === 3 && length === 3) options.windowScale = data[0]!;
    else if (kind === 4 && length === 2) options.sackPermitted = true;
    else if (kind === 5 && length % 8 === 2) {
      options.sackBlocks = [];
      for (let i = 0; i < data.length; i += 8) options.sackBlocks.push({ left: readU32(data, i), right: readU32(data, i + 4) });
    } else if (kind === 8 && length === 10) options.timestamps = { value: readU32(data, 0), echo: readU32(data, 4) };
    else if (kind === 2 || kind === 3 || kind === 4 || kind === 5 || kind === 8) return undefined;
    else (options.unknown ??= []).push({ kind, data });
    at += length;
  }
  return options;
}

/** The bytes of options, padded with End of Option List. */
export function emitTcpOptions(options: TcpOptions): Uint8Array {
  const out: number[] = [];
  const u16 = (value: number) => [(value >>> 8) & 255, value & 255];
  const u32 = (value: number) => [...u16(value >>> 16), ...u16(value)];
  if (options.maximumSegmentSize !== undefined) out.push(2, 4, ...u16(options.maximumSegmentSize));
  if (options.windowScale !== undefined) out.push(3, 3, options.windowScale);
  if (options.sackPermitted) out.push(4, 2);
  if (options.sackBlocks) {
    out.push(5, 2 + 8 * options.sackBlocks.length);
    for (const { left, right } of options.sackBlocks) out.push(...u32(left), ...u32(right));
  }
  if (options.timestamps) out.push(8, 10, ...u32(options.timestamps.value), ...u32(options.timestamps.echo));
  for (const { kind, data } of options.unknown ?? []) out.push(kind, 2 + data.length, ...data);
  while (out.length % 4 !== 0) out.push(0);
  return Uint8Array.from(out);
}

/**
 * The reset that answers a segment to a port where nobody listens (RFC 9293, 3.10.7.1). Undefined when the segment is
 * itself a reset.
 */
export function resetFor(segment: TcpSegment): TcpSegment | undefined {
  const { flags, sequence, acknowledgment, payload } = segment;
  if (flags & TCP_FLAG.RST) return undefined;
  const length = payload.length + (flags & TCP_FLAG.SYN ? 1 : 0) + (flags & TCP_FLAG.FIN ? 1 : 0);
  const acknowledges = (flags & TCP_FLAG.ACK) !== 0;
  return {
    sourcePort: segment.destinationPort,
    destinationPort: segment.sourcePort,
    sequence: acknowledges ? acknowledgment : 0,
    acknowledgment: acknowledges ? 0 : (sequence + length) >>> 0,
    flags: acknowledges ? TCP_FLAG.RST : TCP_FLAG.RST | TCP_FLAG.ACK,
    window: 0,
    urgentPointer: 0,
    options: new Uint8Array(0),
    payload: new Uint8Array(0),
  };
}
