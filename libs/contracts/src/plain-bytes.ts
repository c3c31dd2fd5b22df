import { youngBuffer } from "./young-buffers.ts";
import { giveBytesBack } from "./byte-pool.ts";

/** Messages that count as {@link youngBuffer}s; smaller ones fill V8's young generation before their memory matters. */
const LARGE_BYTES = 16 * 1024;

/**
 * Messages are decoded from a plain view of what gRPC received, so that their `bytes` fields are Uint8Arrays in every
 * adapter. Subarrays of a Buffer are Buffers, whose `slice` shares memory where Uint8Array's copies.
 */
export function fromPlainBytes<T>(deserialize: (bytes: Buffer) => T): (bytes: Buffer) => T {
  return ({ buffer, byteOffset, length }) => {
    if (length >= LARGE_BYTES) youngBuffer(2 * length); // itself, and the pieces in which it came
    return deserialize(new Uint8Array(buffer, byteOffset, length) as Buffer);
  };
}

/** What an answer carries is needed by nobody here once it is encoded: buffers that came from the pool go back to it. */
export function givingBytesBack<T>(serialize: (message: T) => Buffer): (message: T) => Buffer {
  return (message) => {
    const bytes = serialize(message);
    const { data } = message as { data?: unknown };
    if (data instanceof Uint8Array) giveBytesBack(data);
    else if (Array.isArray(data) && data[0] instanceof Uint8Array) giveBytesBack(data[0]); // views of one buffer
    return bytes;
  };
}
