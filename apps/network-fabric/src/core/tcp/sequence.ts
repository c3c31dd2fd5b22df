/** Sequence numbers are compared modulo 2^32 (RFC 9293, 3.4). */

/** How far `to` lies behind `from` in the sequence space; negative when it comes before. */
export function distance(from: number, to: number): number {
  return (to - from) | 0;
}
export function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}
export function add(sequence: number, count: number): number {
  return (sequence + count) >>> 0;
}
