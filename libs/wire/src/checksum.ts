import { readU16, writeU16, type Ipv4Address } from "./address.ts";

/** Adds bytes to a ones' complement sum (RFC 1071, section 1); an odd last byte counts as the high half of a word. */
export function sumWords(bytes: Uint8Array, sum = 0): number {
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!;
  if (even < bytes.length) sum += bytes[even]! << 8;
  return sum;
}
/** Folds a sum to 16 bits and complements it: the Internet checksum. Data that includes a good one gives 0. */
export function finishChecksum(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
  return ~sum & 0xffff;
}
export function internetChecksum(bytes: Uint8Array, sum = 0): number {
  return finishChecksum(sumWords(bytes, sum));
}
/** Sum of the pseudo header that UDP and TCP checksums start with (RFC 768; RFC 9293, 3.1). */
export function pseudoHeaderSum(source: Ipv4Address, destination: Ipv4Address, protocol: number, length: number): number {
  return (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff) + protocol + length;
}
/**
 * Completes a checksum that a driver left to the device (virtio 1.2, 5.1.6.2: VIRTIO_NET_HDR_F_NEEDS_CSUM): the field holds
 * the pseudo header's sum, the device adds everything from `start` on. False when the offsets are not in the frame.
 */
export function completeChecksum(frame: Uint8Array, start: number, offset: number): boolean {
  if (start + offset + 2 > frame.length) return false;
  // Zero means "no checksum" in UDP, so a computed zero is sent as its other form (RFC 768); TCP accepts both.
  writeU16(frame, start + offset, internetChecksum(frame.subarray(start)) || 0xffff);
  return true;
}
/** The 16 bits of a checksum field. */
export const checksumAt = readU16;
