import type { Frame } from "@polyvisor/contracts/network";
import { ETHERTYPE, ICMPV6_TYPE, IPV6_NEXT_HEADER, ipv6Transport, parseIpv6Packet, readMac, readU16, readU32, type Ipv4Address, type MacAddress } from "@polyvisor/wire";

const HEADER = 14;
/** 0.0.0.0: of hosts that have no address yet (RFC 2131, 4.1; RFC 5227, 2.1.1). */
const UNSPECIFIED = 0;

/**
 * Whether a frame says that it comes from somebody else: another MAC address than the port's, or an IPv4 address that is
 * another's, in the IP header or in what ARP claims; or that it is a router (RFC 6105). `isOthers` knows whose an address is.
 */
export function isSpoofed({ data: frame }: Frame, mac: MacAddress, isOthers: (address: Ipv4Address) => boolean): boolean {
  if (readMac(frame, 6) !== mac) return true;
  let at = HEADER;
  let etherType = readU16(frame, 12);
  if (etherType === ETHERTYPE.VLAN && frame.length >= HEADER + 4) {
    etherType = readU16(frame, 16);
    at += 4;
  }
  if (etherType === ETHERTYPE.IPV4) {
    if (frame.length < at + 20) return false; // no header, nothing claimed
    const source = readU32(frame, at + 12);
    return source !== UNSPECIFIED && isOthers(source);
  }
  if (etherType === ETHERTYPE.ARP) {
    if (frame.length < at + 28) return false;
    const source = readU32(frame, at + 14);
    return readMac(frame, at + 8) !== mac || (source !== UNSPECIFIED && isOthers(source));
  }
  return etherType === ETHERTYPE.IPV6 && isRouterAdvertisement(frame.subarray(at));
}
function isRouterAdvertisement(bytes: Uint8Array): boolean {
  const packet = parseIpv6Packet(bytes);
  const transport = packet && ipv6Transport(packet);
  return transport?.protocol === IPV6_NEXT_HEADER.ICMPV6 && transport.payload[0] === ICMPV6_TYPE.ROUTER_ADVERTISEMENT;
}
