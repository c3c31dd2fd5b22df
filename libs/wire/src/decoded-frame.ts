import { formatIpv4, formatMac, parseIpv4, parseMac, readU16, writeMac, writeU16, writeU32 } from "./address.ts";
import { ARP_OPERATION, parseArp } from "./arp.ts";
import { DHCP_MESSAGE, DHCP_OPTION, dhcpAddressOption, dhcpOption, parseDhcp } from "./dhcp.ts";
import { DNS_PORT } from "./dns.ts";
import { parseDns, withDnsAddress } from "./dns-message.ts";
import { finishChecksum, pseudoHeaderSum, sumWords } from "./checksum.ts";
import { ETHERTYPE, parseEthernet } from "./ethernet.ts";
import { IP_PROTOCOL } from "./ipv4.ts";
import { TCP_FLAG } from "./tcp.ts";

/**
 * A frame's fields under the names that packet filters use, for rules and for people. Layers that a frame does not have
 * are absent; nothing is verified, so a damaged packet shows what it says.
 */
export interface DecodedFrame {
  readonly eth: { readonly src: string; readonly dst: string; readonly type: number; readonly vlan?: number };
  readonly bytes: number;
  readonly arp?: { readonly op: string; readonly sender: string; readonly target: string; readonly sender_mac: string };
  readonly ip?: { readonly version: number; readonly src: string; readonly dst: string; readonly proto: number; readonly ttl: number; readonly fragment: boolean };
  readonly tcp?: { readonly sport: number; readonly dport: number; readonly flags: string; readonly seq: number; readonly ack: number; readonly window: number; readonly payload: Uint8Array };
  readonly udp?: { readonly sport: number; readonly dport: number; readonly payload: Uint8Array };
  readonly icmp?: { readonly type: number; readonly code: number };
  readonly dns?: {
    readonly id: number;
    readonly response: boolean;
    readonly rcode: number;
    readonly name: string;
    readonly type: number;
    readonly answers: readonly { readonly name: string; readonly type: number; readonly ttl: number; readonly address: string }[];
  };
  readonly dhcp?: { readonly type: string; readonly mac: string; readonly address: string; readonly requested: string };
}

interface Layout {
  /** Where the IPv4 header, its payload and its end are. */
  readonly ip: number;
  readonly payload: number;
  readonly end: number;
  readonly protocol: number;
  readonly fragment: boolean;
}

/** The IPv4 packet in a frame; undefined when there is none, or its lengths are wrong. */
function layoutOf(bytes: Uint8Array): Layout | undefined {
  if (bytes.length < 14) return undefined;
  const ip = readU16(bytes, 12) === ETHERTYPE.VLAN ? 18 : 14;
  if (bytes.length < ip + 20 || readU16(bytes, ip - 2) !== ETHERTYPE.IPV4 || bytes[ip]! >> 4 !== 4) return undefined;
  const payload = ip + (bytes[ip]! & 15) * 4;
  const end = Math.min(bytes.length, ip + readU16(bytes, ip + 2));
  if (payload < ip + 20 || payload > end) return undefined;
  return { ip, payload, end, protocol: bytes[ip + 9]!, fragment: (readU16(bytes, ip + 6) & 0x3fff) !== 0 };
}

/** Undefined: too short to be a frame. */
export function decodeFrame(bytes: Uint8Array): DecodedFrame | undefined {
  const ethernet = parseEthernet(bytes);
  if (!ethernet) return undefined;
  const { vlan, etherType } = ethernet;
  const eth = { src: formatMac(ethernet.source), dst: formatMac(ethernet.destination), type: etherType, ...(vlan ? { vlan: vlan.id } : {}) };
  const base = { eth, bytes: bytes.length };
  if (etherType === ETHERTYPE.ARP) {
    const arp = parseArp(ethernet.payload);
    if (!arp) return base;
    const op = arp.operation === ARP_OPERATION.REQUEST ? "request" : arp.operation === ARP_OPERATION.REPLY ? "reply" : String(arp.operation);
    return { ...base, arp: { op, sender: formatIpv4(arp.senderAddress), target: formatIpv4(arp.targetAddress), sender_mac: formatMac(arp.senderMac) } };
  }
  const at = layoutOf(bytes);
  if (!at) return base;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ip = { version: 4, src: formatIpv4(view.getUint32(at.ip + 12)), dst: formatIpv4(view.getUint32(at.ip + 16)), proto: at.protocol, ttl: bytes[at.ip + 8]!, fragment: at.fragment };
  // Only the first fragment has the header of the layer above; the others' bytes mean something else.
  if ((readU16(bytes, at.ip + 6) & 0x1fff) !== 0) return { ...base, ip };
  const room = at.end - at.payload;
  if (at.protocol === IP_PROTOCOL.ICMP && room >= 8) return { ...base, ip, icmp: { type: bytes[at.payload]!, code: bytes[at.payload + 1]! } };
  if (at.protocol === IP_PROTOCOL.TCP && room >= 20) {
    const data = Math.min(at.end, at.payload + Math.max(20, (bytes[at.payload + 12]! >> 4) * 4));
    const flagBits = bytes[at.payload + 13]!;
    const flags = Object.entries(TCP_FLAG).filter(([, bit]) => (flagBits & bit) !== 0).map(([name]) => name.toLowerCase()).join(",");
    const tcp = {
      sport: readU16(bytes, at.payload),
      dport: readU16(bytes, at.payload + 2),
      flags,
      seq: view.getUint32(at.payload + 4),
      ack: view.getUint32(at.payload + 8),
      window: readU16(bytes, at.payload + 14),
      payload: bytes.subarray(data, at.end),
    };
    return { ...base, ip, tcp };
  }
  if (at.protocol === IP_PROTOCOL.UDP && room >= 8) {
    const udp = { sport: readU16(bytes, at.payload), dport: readU16(bytes, at.payload + 2), payload: bytes.subarray(at.payload + 8, at.end) };
    return { ...base, ip, udp, ...aboveUdp(udp) };
  }
  return { ...base, ip };
}

function aboveUdp({ sport, dport, payload }: { sport: number; dport: number; payload: Uint8Array }): Partial<DecodedFrame> {
  if (sport === DNS_PORT || dport === DNS_PORT) {
    const dns = parseDns(payload);
    const [question] = dns?.questions ?? [];
    if (!dns || !question) return {};
    const answers = dns.answers.map(({ name, type, ttl, address }) => ({ name, type, ttl, address: address ?? "" }));
    return { dns: { id: dns.id, response: dns.response, rcode: dns.rcode, name: question.name, type: question.type, answers } };
  }
  if (dport === 67 || dport === 68) {
    const message = parseDhcp(payload);
    if (!message) return {};
    const code = dhcpOption(message, DHCP_OPTION.MESSAGE_TYPE)?.[0];
    const type = Object.entries(DHCP_MESSAGE).find(([, value]) => value === code)?.[0]?.toLowerCase() ?? "";
    const requested = dhcpAddressOption(message, DHCP_OPTION.REQUESTED_ADDRESS);
    return { dhcp: { type, mac: formatMac(message.clientMac), address: formatIpv4(message.yourAddress), requested: requested === undefined ? "" : formatIpv4(requested) } };
  }
  return {};
}

/** Fields that {@link withFrameField} can set, for messages. */
export const SETTABLE_FIELDS = ["eth.src", "eth.dst", "ip.src", "ip.dst", "ip.ttl", "tcp.sport", "tcp.dport", "tcp.window", "udp.sport", "udp.dport", "dns.answers[N].address"] as const;

/**
 * A copy of the frame with one field of {@link DecodedFrame} replaced and the checksums right again. The frame is whole (no
 * offload left to do). Undefined: this frame has no such field, it cannot be set, or the value does not fit.
 */
export function withFrameField(frame: Uint8Array, path: readonly string[], value: string | number): Uint8Array | undefined {
  const [layer, field, ...rest] = path;
  if (layer === "dns" && field === "answers" && rest[1] === "address") return withDnsAnswer(frame, Number(rest[0]), String(value));
  if (rest.length > 0) return undefined;
  const bytes = frame.slice();
  if (layer === "eth") {
    const mac = typeof value === "string" ? parseMac(value) : undefined;
    if (mac === undefined || (field !== "src" && field !== "dst") || bytes.length < 14) return undefined;
    writeMac(bytes, field === "dst" ? 0 : 6, mac);
    return bytes;
  }
  const at = layoutOf(bytes);
  if (!at) return undefined;
  if (layer === "ip" && (field === "src" || field === "dst")) {
    const address = typeof value === "string" ? parseIpv4(value) : undefined;
    if (address === undefined) return undefined;
    writeU32(bytes, at.ip + (field === "src" ? 12 : 16), address);
  } else if (layer === "ip" && field === "ttl" && isUnsigned(value, 8)) bytes[at.ip + 8] = value;
  else if (isUnsigned(value, 16) && !at.fragment && isLayer(layer, at)) {
    const offset = { sport: 0, dport: 2, window: layer === "tcp" ? 14 : undefined }[field as "sport" | "dport" | "window"];
    if (offset === undefined) return undefined;
    writeU16(bytes, at.payload + offset, value);
  } else return undefined;
  return withChecksums(bytes, at);
}

function isUnsigned(value: string | number, bits: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 2 ** bits;
}
function isLayer(layer: string | undefined, { protocol, payload, end }: Layout): boolean {
  return (layer === "tcp" && protocol === IP_PROTOCOL.TCP && end - payload >= 20) || (layer === "udp" && protocol === IP_PROTOCOL.UDP && end - payload >= 8);
}
function withDnsAnswer(frame: Uint8Array, answer: number, address: string): Uint8Array | undefined {
  const at = layoutOf(frame);
  if (!at || at.fragment || !isLayer("udp", at)) return undefined;
  const message = withDnsAddress(frame.subarray(at.payload + 8, at.end), answer, address);
  if (!message) return undefined;
  const bytes = frame.slice();
  bytes.set(message, at.payload + 8);
  return withChecksums(bytes, at);
}
/** Computes the IPv4 header's checksum and that of TCP or UDP anew; a UDP datagram without one stays without (RFC 768). */
function withChecksums(bytes: Uint8Array, { ip, payload, end, protocol, fragment }: Layout): Uint8Array {
  writeU16(bytes, ip + 10, 0);
  writeU16(bytes, ip + 10, finishChecksum(sumWords(bytes.subarray(ip, payload))));
  const field = protocol === IP_PROTOCOL.TCP ? payload + 16 : protocol === IP_PROTOCOL.UDP ? payload + 6 : undefined;
  if (field === undefined || fragment || field + 2 > end) return bytes;
  if (protocol === IP_PROTOCOL.UDP && readU16(bytes, field) === 0) return bytes;
  writeU16(bytes, field, 0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [source, destination] = [view.getUint32(ip + 12), view.getUint32(ip + 16)];
  const sum = finishChecksum(sumWords(bytes.subarray(payload, end), pseudoHeaderSum(source, destination, protocol, end - payload)));
  writeU16(bytes, field, protocol === IP_PROTOCOL.UDP && sum === 0 ? 0xffff : sum);
  return bytes;
}
