/** A 48-bit MAC address (IEEE 802, 8.2) as a number: fast to compare and a good Map key. */
export type MacAddress = number;
/** An IPv4 address as an unsigned 32-bit number. */
export type Ipv4Address = number;

export const MAC_BROADCAST: MacAddress = 0xffff_ffff_ffff;
export const IPV4_BROADCAST: Ipv4Address = 0xffff_ffff;

/** The group bit: the least significant bit of the first byte (IEEE 802, 8.2.2). Broadcast is a group too. */
export function isGroupMac(mac: MacAddress): boolean {
  return (Math.floor(mac / 2 ** 40) & 1) === 1;
}
export function formatMac(mac: MacAddress): string {
  return mac.toString(16).padStart(12, "0").replace(/..(?=.)/g, "$&:");
}
/** "52:54:00:12:34:56"; undefined when it is anything else. */
export function parseMac(text: string): MacAddress | undefined {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ? parseInt(text.replaceAll(":", ""), 16) : undefined;
}
export function formatIpv4(address: Ipv4Address): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}
export function parseIpv4(text: string): Ipv4Address | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number);
  if (!parts || parts.some((part) => part > 255)) return undefined;
  return parts.reduce((address, part) => address * 256 + part, 0);
}
/** 224.0.0.0/4 (RFC 5771). */
export function isMulticastIpv4(address: Ipv4Address): boolean {
  return address >>> 28 === 0xe;
}

/** A subnet in CIDR notation (RFC 4632). */
export interface Ipv4Subnet {
  readonly base: Ipv4Address;
  readonly prefix: number;
}
/** "10.0.2.0/24"; undefined when malformed or when bits beyond the prefix are set. */
export function parseSubnet(text: string): Ipv4Subnet | undefined {
  const match = /^([\d.]+)\/(\d{1,2})$/.exec(text);
  const base = match ? parseIpv4(match[1]!) : undefined;
  const prefix = Number(match?.[2]);
  if (base === undefined || prefix > 32 || (base & subnetMask(prefix)) >>> 0 !== base) return undefined;
  return { base, prefix };
}
export function subnetMask(prefix: number): Ipv4Address {
  return prefix === 0 ? 0 : (0xffff_ffff << (32 - prefix)) >>> 0;
}
export function inSubnet(subnet: Ipv4Subnet, address: Ipv4Address): boolean {
  return (address & subnetMask(subnet.prefix)) >>> 0 === subnet.base;
}
/** The highest address: directed broadcast. */
export function subnetBroadcast(subnet: Ipv4Subnet): Ipv4Address {
  return (subnet.base | ~subnetMask(subnet.prefix)) >>> 0;
}

export function readMac(bytes: Uint8Array, at: number): MacAddress {
  return readU16(bytes, at) * 2 ** 32 + readU32(bytes, at + 2);
}
export function writeMac(bytes: Uint8Array, at: number, mac: MacAddress): void {
  writeU16(bytes, at, Math.floor(mac / 2 ** 32));
  writeU32(bytes, at + 2, mac % 2 ** 32);
}
// Network byte order (RFC 1700, "Data Notations").
export function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}
export function readU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}
export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  writeU16(bytes, at, value >>> 16);
  writeU16(bytes, at + 2, value & 0xffff);
}
