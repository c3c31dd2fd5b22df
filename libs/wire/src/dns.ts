import { readU16, writeU16 } from "./address.ts";

export const DNS_PORT = 53;
export const DNS_HEADER_BYTES = 12;
/** RCODE (RFC 1035, 4.1.1). */
export const DNS_RCODE = { OK: 0, FORMAT_ERROR: 1, SERVER_FAILURE: 2, NAME_ERROR: 3, NOT_IMPLEMENTED: 4, REFUSED: 5 } as const;
const QR = 0x8000;
const OPCODE_AND_RD = 0x7900;

/** What a forwarder needs to know of a DNS message (RFC 1035, 4.1): the rest it passes on as it is. */
export interface DnsHead {
  readonly id: number;
  readonly response: boolean;
  readonly questions: number;
  /** Where the question section ends. */
  readonly questionsEnd: number;
}

/** Undefined: no whole header and question section. */
export function parseDnsHead(bytes: Uint8Array): DnsHead | undefined {
  if (bytes.length < DNS_HEADER_BYTES) return undefined;
  const questions = readU16(bytes, 4);
  let at = DNS_HEADER_BYTES;
  for (let i = 0; i < questions; i++) {
    for (let label = bytes[at]; label !== 0; label = bytes[at]) {
      if (label === undefined || label > 63) return undefined; // cut short, or compressed, which makes no sense here
      at += 1 + label;
    }
    at += 1 + 4; // root label, QTYPE, QCLASS
    if (at > bytes.length) return undefined;
  }
  return { id: readU16(bytes, 0), response: (bytes[2]! & 0x80) !== 0, questions, questionsEnd: at };
}

/** An answer to a query that says only that there is none: header and question, with this RCODE. */
export function dnsFailure(query: Uint8Array, rcode: number): Uint8Array | undefined {
  const head = parseDnsHead(query);
  if (!head || head.response) return undefined;
  const bytes = query.slice(0, head.questionsEnd);
  writeU16(bytes, 2, QR | (readU16(query, 2) & OPCODE_AND_RD) | 0x80 | rcode); // RA
  bytes.fill(0, 6, 12); // no other sections
  return bytes;
}
