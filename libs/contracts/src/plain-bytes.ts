/**
 * Messages are decoded from a plain view of what gRPC received, so that their `bytes` fields are Uint8Arrays in every
 * adapter. Subarrays of a Buffer are Buffers, whose `slice` shares memory where Uint8Array's copies.
 */
export function fromPlainBytes<T>(deserialize: (bytes: Buffer) => T): (bytes: Buffer) => T {
  return ({ buffer, byteOffset, length }) => deserialize(new Uint8Array(buffer, byteOffset, length) as Buffer);
}
