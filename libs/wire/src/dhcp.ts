import { readMac, readU16, readU32, writeMac, writeU16, writeU32, type Ipv4Address, type MacAddress } from "./address.ts";

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;
/** RFC 2132, 9.6. */
export const DHCP_MESSAGE = { DISCOVER: 1, OFFER: 2, REQUEST: 3, DECLINE: 4, ACK: 5, NAK: 6, RELEASE: 7, INFORM: 8 } as const;
/** Option codes (RFC 2132; the sections in brackets). */
export const DHCP_OPTION = {
  PAD: 0, // 3.1
  SUBNET_MASK: 1, // 3.3
  ROUTER: 3, // 3.5
  DNS_SERVER: 6, // 3.8
  HOST_NAME: 12, // 3.14
  DOMAIN_NAME: 15, // 3.17
  INTERFACE_MTU: 26, // 5.1
  BROADCAST_ADDRESS: 28, // 5.3
  REQUESTED_ADDRESS: 50, // 9.1
  LEASE_TIME: 51, // 9.2
  OVERLOAD: 52, // 9.3
  MESSAGE_TYPE: 53, // 9.6
  SERVER_IDENTIFIER: 54, // 9.7
  PARAMETER_REQUEST_LIST: 55, // 9.8
  MESSAGE: 56, // 9.9
  RENEWAL_TIME: 58, // 9.11
  REBINDING_TIME: 59, // 9.12
  CLIENT_IDENTIFIER: 61, // 9.14
  END: 255, // 3.2
} as const;

const MAGIC_COOKIE = 0x6382_5363; // RFC 2132, 2
const OPTIONS_AT = 240;
/** A BOOTP message has 300 bytes at least (RFC 951, 3: 64 bytes of vendor area); some relays drop shorter ones. */
const MINIMUM_BYTES = 300;

export interface DhcpOption {
  readonly code: number;
  readonly data: Uint8Array;
}
/** A DHCP message (RFC 2131, 2, figure 1) over Ethernet. */
export interface DhcpMessage {
  /** 1 = BOOTREQUEST, 2 = BOOTREPLY. */
  readonly op: number;
  readonly hops: number;
  readonly transactionId: number; // xid
  readonly seconds: number; // secs
  /** The B flag: the client cannot take unicast yet. */
  readonly broadcast: boolean;
  readonly clientAddress: Ipv4Address; // ciaddr
  readonly yourAddress: Ipv4Address; // yiaddr
  readonly serverAddress: Ipv4Address; // siaddr
  readonly relayAddress: Ipv4Address; // giaddr
  readonly clientMac: MacAddress; // chaddr
  readonly serverName: Uint8Array; // sname, 64 bytes
  readonly file: Uint8Array; // 128 bytes
  /** In wire order, unknown ones too; without PAD and END. */
  readonly options: readonly DhcpOption[];
}

/** Undefined: too short, no magic cookie, not over Ethernet, or an option runs over the end. */
export function parseDhcp(bytes: Uint8Array): DhcpMessage | undefined {
  if (bytes.length < OPTIONS_AT || readU32(bytes, 236) !== MAGIC_COOKIE) return undefined;
  if (bytes[1] !== 1 || bytes[2] !== 6) return undefined; // htype, hlen (ARP section of Assigned Numbers)
  const options: DhcpOption[] = [];
  for (let at = OPTIONS_AT; at < bytes.length; ) {
    const code = bytes[at]!;
    if (code === DHCP_OPTION.END) break;
    if (code === DHCP_OPTION.PAD) {
      at++;
      continue;
    }
    const length = bytes[at + 1];
    if (length === undefined || at + 2 + length > bytes.length) return undefined;
    options.push({ code, data: bytes.subarray(at + 2, at + 2 + length) });
    at += 2 + length;
  }
  return {
    op: bytes[0]!,
    hops: bytes[3]!,
    transactionId: readU32(bytes, 4),
    seconds: readU16(bytes, 8),
    broadcast: (bytes[10]! & 0x80) !== 0,
    clientAddress: readU32(bytes, 12),
    yourAddress: readU32(bytes, 16),
    serverAddress: readU32(bytes, 20),
    relayAddress: readU32(bytes, 24),
    clientMac: readMac(bytes, 28),
    serverName: bytes.subarray(44, 108),
    file: bytes.subarray(108, 236),
    options,
  };
}

export function emitDhcp(message: DhcpMessage): Uint8Array {
  const optionBytes = message.options.reduce((sum, option) => sum + 2 + option.data.length, 1);
  const bytes = new Uint8Array(Math.max(MINIMUM_BYTES, OPTIONS_AT + optionBytes));
  bytes.set([message.op, 1, 6, message.hops]);
  writeU32(bytes, 4, message.transactionId);
  writeU16(bytes, 8, message.seconds);
  writeU16(bytes, 10, message.broadcast ? 0x8000 : 0);
  writeU32(bytes, 12, message.clientAddress);
  writeU32(bytes, 16, message.yourAddress);
  writeU32(bytes, 20, message.serverAddress);
  writeU32(bytes, 24, message.relayAddress);
  writeMac(bytes, 28, message.clientMac);
  bytes.set(message.serverName.subarray(0, 64), 44);
  bytes.set(message.file.subarray(0, 128), 108);
  writeU32(bytes, 236, MAGIC_COOKIE);
  let at = OPTIONS_AT;
  for (const { code, data } of message.options) {
    bytes.set([code, data.length], at);
    bytes.set(data, at + 2);
    at += 2 + data.length;
  }
  bytes[at] = DHCP_OPTION.END;
  return bytes;
}

/** The value of an option; one that comes more than once is joined (RFC 3396, 5). */
export function dhcpOption(message: DhcpMessage, code: number): Uint8Array | undefined {
  const found = message.options.filter((option) => option.code === code);
  if (found.length < 2) return found[0]?.data;
  const joined = new Uint8Array(found.reduce((sum, { data }) => sum + data.length, 0));
  let at = 0;
  for (const { data } of found) {
    joined.set(data, at);
    at += data.length;
  }
  return joined;
}
/** The option as an address (or any 32-bit value); undefined when absent or of another length. */
export function dhcpAddressOption(message: DhcpMessage, code: number): number | undefined {
  const data = dhcpOption(message, code);
  return data?.length === 4 ? readU32(data, 0) : undefined;
}
export function dhcpU32(code: number, value: number): DhcpOption {
  const data = new Uint8Array(4);
  writeU32(data, 0, value);
  return { code, data };
}
export function dhcpU16(code: number, value: number): DhcpOption {
  const data = new Uint8Array(2);
  writeU16(data, 0, value);
  return { code, data };
}
export function dhcpU8(code: number, value: number): DhcpOption {
  return { code, data: Uint8Array.of(value) };
}
