import { readMac, readU16, writeMac, writeU16, type MacAddress } from "./address.ts";

/** EtherType values (IEEE 802 numbers, IANA). */
export const ETHERTYPE = { IPV4: 0x0800, ARP: 0x0806, VLAN: 0x8100, IPV6: 0x86dd } as const;
export const ETHERNET_HEADER_BYTES = 14;

/** An IEEE 802.1Q tag (802.1Q-2018, 9.6). */
export interface VlanTag {
  readonly priority: number; // PCP, 3 bits
  readonly dropEligible: boolean; // DEI
  readonly id: number; // VID, 12 bits
}
/** An Ethernet II frame without its FCS (IEEE 802.3, 3.1.1). */
export interface EthernetFrame {
  readonly destination: MacAddress;
  readonly source: MacAddress;
  /** Of the payload, behind a VLAN tag if there is one. Below 0x600 it is an 802.3 length. */
  readonly etherType: number;
  readonly vlan?: VlanTag | undefined;
  readonly payload: Uint8Array;
}

/** Undefined: too short to be a frame. The payload is a view. */
export function parseEthernet(bytes: Uint8Array): EthernetFrame | undefined {
  if (bytes.length < ETHERNET_HEADER_BYTES) return undefined;
  const destination = readMac(bytes, 0);
  const source = readMac(bytes, 6);
  const etherType = readU16(bytes, 12);
  if (etherType !== ETHERTYPE.VLAN) return { destination, source, etherType, payload: bytes.subarray(14) };
  if (bytes.length < 18) return undefined;
  const tag = readU16(bytes, 14);
  const vlan = { priority: tag >>> 13, dropEligible: (tag & 0x1000) !== 0, id: tag & 0xfff };
  return { destination, source, etherType: readU16(bytes, 16), vlan, payload: bytes.subarray(18) };
}

export function emitEthernet(frame: EthernetFrame): Uint8Array {
  const { vlan } = frame;
  const header = vlan ? 18 : 14;
  const bytes = new Uint8Array(header + frame.payload.length);
  writeMac(bytes, 0, frame.destination);
  writeMac(bytes, 6, frame.source);
  if (vlan) {
    writeU16(bytes, 12, ETHERTYPE.VLAN);
    writeU16(bytes, 14, (vlan.priority << 13) | (vlan.dropEligible ? 0x1000 : 0) | vlan.id);
  }
  writeU16(bytes, header - 2, frame.etherType);
  bytes.set(frame.payload, header);
  return bytes;
}
