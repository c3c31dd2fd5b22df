import { readMac, readU16, readU32, writeMac, writeU16, writeU32, type Ipv4Address, type MacAddress } from "./address.ts";

export const ARP_OPERATION = { REQUEST: 1, REPLY: 2 } as const;
const BYTES = 28;

/** ARP for IPv4 over Ethernet (RFC 826, "Packet format"). */
export interface ArpPacket {
  readonly operation: number;
  readonly senderMac: MacAddress;
  readonly senderAddress: Ipv4Address;
  readonly targetMac: MacAddress;
  readonly targetAddress: Ipv4Address;
}

/** Undefined: too short, or not IPv4 over Ethernet. */
export function parseArp(bytes: Uint8Array): ArpPacket | undefined {
  if (bytes.length < BYTES || readU32(bytes, 0) !== 0x0001_0800 || readU16(bytes, 4) !== 0x0604) return undefined;
  return {
    operation: readU16(bytes, 6),
    senderMac: readMac(bytes, 8),
    senderAddress: readU32(bytes, 14),
    targetMac: readMac(bytes, 18),
    targetAddress: readU32(bytes, 24),
  };
}

export function emitArp(packet: ArpPacket): Uint8Array {
  const bytes = new Uint8Array(BYTES);
  writeU32(bytes, 0, 0x0001_0800); // ar$hrd Ethernet, ar$pro IPv4
  writeU16(bytes, 4, 0x0604); // ar$hln, ar$pln
  writeU16(bytes, 6, packet.operation);
  writeMac(bytes, 8, packet.senderMac);
  writeU32(bytes, 14, packet.senderAddress);
  writeMac(bytes, 18, packet.targetMac);
  writeU32(bytes, 24, packet.targetAddress);
  return bytes;
}
