import { formatIpv4, parseIpv4, readU16, readU32, writeU16, writeU32, type Ipv4Address } from "./address.ts";
import { DNS_HEADER_BYTES } from "./dns.ts";

/** Resource record types (RFC 1035, 3.2.2; RFC 3596). */
export const DNS_TYPE = { A: 1, NS: 2, CNAME: 5, PTR: 12, MX: 15, TXT: 16, AAAA: 28 } as const;
export const DNS_CLASS_IN = 1;
/** Of answers that the fabric makes itself: addresses change when machines come and go. */
const LOCAL_TTL_SECONDS = 5;
const POINTER = 0xc0;
/** A name has at most 255 bytes (RFC 1035, 2.3.4), so never more labels or jumps than that. */
const MAX_NAME_BYTES = 255;

export interface DnsQuestion {
  readonly name: string;
  readonly type: number;
  readonly class: number;
}
export interface DnsRecord extends DnsQuestion {
  readonly ttl: number;
  /** As on the wire; names inside may be compressed, so a record is only good in its own message. */
  readonly data: Uint8Array;
  /** Of A records, dotted. */
  readonly address: string | undefined;
  /** Where the data lies in the message. */
  readonly dataAt: number;
}
export interface DnsMessage {
  readonly id: number;
  readonly flags: number;
  readonly response: boolean;
  readonly rcode: number;
  readonly questions: readonly DnsQuestion[];
  readonly answers: readonly DnsRecord[];
}

/** Questions and answers of a message (RFC 1035, 4.1); undefined for anything malformed in them. */
export function parseDns(bytes: Uint8Array): DnsMessage | undefined {
  if (bytes.length < DNS_HEADER_BYTES) return undefined;
  const flags = readU16(bytes, 2);
  let at = DNS_HEADER_BYTES;
  const questions: DnsQuestion[] = [];
  for (let i = readU16(bytes, 4); i > 0; i--) {
    const name = readName(bytes, at);
    if (!name || name.end + 4 > bytes.length) return undefined;
    questions.push({ name: name.text, type: readU16(bytes, name.end), class: readU16(bytes, name.end + 2) });
    at = name.end + 4;
  }
  const answers: DnsRecord[] = [];
  for (let i = readU16(bytes, 6); i > 0; i--) {
    const name = readName(bytes, at);
    if (!name || name.end + 10 > bytes.length) return undefined;
    const type = readU16(bytes, name.end);
    const dataAt = name.end + 10;
    const length = readU16(bytes, name.end + 8);
    if (dataAt + length > bytes.length) return undefined;
    const address = type === DNS_TYPE.A && length === 4 ? formatIpv4(readU32(bytes, dataAt)) : undefined;
    answers.push({ name: name.text, type, class: readU16(bytes, name.end + 2), ttl: readU32(bytes, name.end + 4), data: bytes.subarray(dataAt, dataAt + length), address, dataAt });
    at = dataAt + length;
  }
  return { id: readU16(bytes, 0), flags, response: (flags & 0x8000) !== 0, rcode: flags & 15, questions, answers };
}

/** A copy of the message in which the address of one A record is another. Undefined: no such record, or no address. */
export function withDnsAddress(bytes: Uint8Array, answer: number, address: string): Uint8Array | undefined {
  const record = parseDns(bytes)?.answers[answer];
  const value = parseIpv4(address);
  if (record?.address === undefined || value === undefined) return undefined;
  const copy = bytes.slice();
  writeU32(copy, record.dataAt, value);
  return copy;
}

/**
 * The answer to a query for the address of a name that `names` knows: its A record; for other types of a known name none,
 * so that nobody asks the world. Undefined: not ours to answer.
 */
export function dnsLocalAnswer(query: Uint8Array, names: (name: string) => Ipv4Address | undefined): Uint8Array | undefined {
  const message = parseDns(query);
  const question = message?.questions[0];
  if (!message || message.response || !question || message.questions.length !== 1 || question.class !== DNS_CLASS_IN) return undefined;
  const address = names(question.name);
  if (address === undefined) return undefined;
  const end = readName(query, DNS_HEADER_BYTES)!.end + 4;
  const found = question.type === DNS_TYPE.A;
  const bytes = new Uint8Array(end + (found ? 16 : 0));
  bytes.set(query.subarray(0, end));
  writeU16(bytes, 2, 0x8480 | (message.flags & 0x7900)); // QR, AA, RA; opcode and RD as asked
  bytes.fill(0, 6, 12);
  if (found) {
    writeU16(bytes, 6, 1);
    writeU16(bytes, end, (POINTER << 8) | DNS_HEADER_BYTES); // the question's name
    writeU16(bytes, end + 2, DNS_TYPE.A);
    writeU16(bytes, end + 4, DNS_CLASS_IN);
    writeU32(bytes, end + 6, LOCAL_TTL_SECONDS);
    writeU16(bytes, end + 10, 4);
    writeU32(bytes, end + 12, address);
  }
  return bytes;
}

/** A name, with compression (4.1.4); pointers may only go back, so that every name ends. */
function readName(bytes: Uint8Array, start: number): { text: string; end: number } | undefined {
  const labels: string[] = [];
  let at = start;
  let end: number | undefined;
  let length = 0;
  for (;;) {
    const label = bytes[at];
    if (label === undefined) return undefined;
    if (label === 0) return { text: labels.join("."), end: end ?? at + 1 };
    if ((label & POINTER) === POINTER) {
      const target = at + 1 < bytes.length ? readU16(bytes, at) & 0x3fff : at;
      if (target >= at) return undefined;
      end ??= at + 2;
      at = target;
      continue;
    }
    if (label > 63 || at + 1 + label > bytes.length) return undefined;
    length += label + 1;
    if (length > MAX_NAME_BYTES) return undefined;
    labels.push(String.fromCharCode(...bytes.subarray(at + 1, at + 1 + label)));
    at += 1 + label;
  }
}
