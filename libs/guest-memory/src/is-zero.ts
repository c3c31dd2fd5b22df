/** Whether all bytes are zero; eight at a time where they are aligned so. */
export function isZeroBytes(bytes: Uint8Array): boolean {
  const head = Math.min(bytes.length, (8 - (bytes.byteOffset % 8)) % 8);
  const words = new BigUint64Array(bytes.buffer, bytes.byteOffset + head, Math.floor((bytes.length - head) / 8));
  for (let index = 0; index < words.length; index++) if (words[index] !== 0n) return false;
  for (let index = 0; index < head; index++) if (bytes[index] !== 0) return false;
  for (let index = head + words.length * 8; index < bytes.length; index++) if (bytes[index] !== 0) return false;
  return true;
}
