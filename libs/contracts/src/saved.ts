import { ContractError } from "./errors.ts";

/** A state that a service hands out whole, and takes back: a head that tells what it is and whether it is whole, then a payload. */
export interface SavedFormat {
  /** ASCII. */
  readonly magic: string;
  /** One byte. */
  readonly version: number;
  /** For errors: what refuses a blob. */
  readonly operation: string;
}

/** Magic, version byte, CRC-32 of the payload (4 bytes, little endian), payload. */
export function encodeSaved({ magic, version }: SavedFormat, payload: Uint8Array): Uint8Array {
  const headBytes = magic.length + 5;
  const blob = new Uint8Array(headBytes + payload.length);
  blob.set(new TextEncoder().encode(magic));
  blob[magic.length] = version;
  new DataView(blob.buffer).setUint32(magic.length + 1, crc32(payload), true);
  blob.set(payload, headBytes);
  return blob;
}

/** Throws `corrupt` for what is no such blob or a damaged one, `invalid` for one of another version. */
export function decodeSaved<T>({ magic, version, operation }: SavedFormat, blob: Uint8Array, decode: (payload: Uint8Array) => T): T {
  const corrupt = (what: string) => new ContractError("corrupt", `${operation}: ${what}; take the state again where it was saved, or another copy`);
  const headBytes = magic.length + 5;
  if (blob.length < headBytes || new TextDecoder().decode(blob.subarray(0, magic.length)) !== magic) throw corrupt(`${blob.length} bytes that do not begin with ${magic}`);
  const found = blob[magic.length]!;
  if (found !== version) throw new ContractError("invalid", `${operation}: state of version ${found}; this service reads version ${version}`);
  const payload = blob.subarray(headBytes);
  if (crc32(payload) !== new DataView(blob.buffer, blob.byteOffset).getUint32(magic.length + 1, true)) throw corrupt("the state's checksum does not match its content");
  try {
    return decode(payload);
  } catch (error) {
    throw corrupt(`the state does not parse (${String(error)})`);
  }
}

/** CRC-32 as in zlib (reflected, polynomial 0xedb88320). */
function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb8_8320 & -(crc & 1));
  }
  return ~crc >>> 0;
}
