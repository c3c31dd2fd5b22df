/**
 * Frames of a real Linux (6.x kernel, busybox 1.35 udhcpc and ping) captured on a veth pair: what a guest sends.
 * Hexadecimal, without FCS.
 */

/** DHCPDISCOVER of udhcpc, as broadcast by 52:54:00:12:34:56 with host name "debian". */
export const UDHCPC_DISCOVER =
  "ffffffffffff52540012345608004500014800000000401179a600000000ffffffff004400430134e3cd010106000d3fd0430000000000000000000000000000000000000000" + // Ethernet, IPv4, UDP, BOOTP up to giaddr
  "525400123456" +
  "00".repeat(202) + // rest of chaddr, sname, file
  "638253633501013902024037070103060c0f1c2a0c0664656269616e3c0c7564" +
  "68637020312e33352e303d0701525400123456ff000000000000000000000000";

/** ICMP echo request of ping, 56 bytes of data, 10.0.2.15 → 10.0.2.2. */
export const PING_REQUEST =
  "52550a0002025254001234560800" + // Ethernet
  "45000054dc314000400146670a00020f0a000202" + // IPv4
  "0800f39044d80000dbaae3eb" + // echo request
  "00".repeat(52);

/** A DNS query (A debian.org) to 10.0.2.3 over a NIC with checksum offload: the UDP checksum field holds the pseudo header's sum. */
export const DNS_QUERY_OFFLOADED =
  "52550a0002035254001234560800" +
  "45000038c64d400040115c560a00020f0a000203" +
  "9c40003500241847" + // UDP
  "1234010000010000000000000664656269616e036f72670000010001";

/** The first segment of a connection to 10.0.2.2:80, with checksum offload. */
export const TCP_SYN_OFFLOADED =
  "52550a0002025254001234560800" +
  "4500003c410d40004006e19e0a00020f0a000202" +
  "9c410050b8bf429900000000a002faf0183f0000" +
  "020405b40402080a1f050a9b000000000103030a"; // MSS 1460, SACK permitted, timestamps, NOP, window scale 10

/** Who has 10.0.2.2? Tell 10.0.2.15 (layout: RFC 826). */
export const ARP_REQUEST = "ffffffffffff525400123456080600010800060400015254001234560a00020f0000000000000a000202";

/** Router Solicitation of Linux for its link-local address. */
export const ROUTER_SOLICITATION =
  "33330000000252540012345686dd" +
  "6000000000103afffe80000000000000505400fffe123456ff020000000000000000000000000002" + // IPv6
  "850071b5000000000101525400123456";

/** Neighbour Solicitation of Linux for the address it is about to take (RFC 4862, 5.4.2), with a nonce (RFC 3971, 5.3.2). */
export const NEIGHBOUR_SOLICITATION =
  "3333ff12345652540012345686dd" +
  "6000000000203aff00000000000000000000000000000000ff0200000000000000000001ff123456" + // IPv6, from ::
  "870086a200000000fe80000000000000505400fffe1234560e014ded203ac12f";

export function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
