/** One piece of guest memory in a scatter/gather list, as in a virtqueue's descriptor chain. */
export interface ScatterSegment {
  readonly address: bigint;
  readonly byteLength: number;
}

/** Bytes in all segments. */
export function scatterLength(segments: readonly ScatterSegment[]): number {
  let total = 0;
  for (const segment of segments) total += segment.byteLength;
  return total;
}

/** The segments that hold the bytes `skip .. skip + byteLength` of a list; shorter when the list ends before. */
export function scatterSlice(segments: readonly ScatterSegment[], skip: number, byteLength: number): ScatterSegment[] {
  const out: ScatterSegment[] = [];
  let left = byteLength;
  for (const segment of segments) {
    if (left === 0) break;
    if (skip >= segment.byteLength) {
      skip -= segment.byteLength;
      continue;
    }
    const length = Math.min(segment.byteLength - skip, left);
    out.push({ address: segment.address + BigInt(skip), byteLength: length });
    left -= length;
    skip = 0;
  }
  return out;
}

/** Neighbours in memory become one segment: fewer DMA parts. */
export function scatterMerge(segments: readonly ScatterSegment[]): ScatterSegment[] {
  const out: ScatterSegment[] = [];
  for (const segment of segments) {
    const last = out[out.length - 1];
    if (segment.byteLength === 0) continue;
    if (last && last.address + BigInt(last.byteLength) === segment.address) {
      out[out.length - 1] = { address: last.address, byteLength: last.byteLength + segment.byteLength };
    } else out.push(segment);
  }
  return out;
}

/** Cuts `bytes` to the segments in order (views, not copies): what a device writes where. */
export function scatterBytes(
  segments: readonly ScatterSegment[],
  bytes: Uint8Array,
): { address: bigint; bytes: Uint8Array }[] {
  const out: { address: bigint; bytes: Uint8Array }[] = [];
  let at = 0;
  for (const { address, byteLength } of segments) {
    const piece = bytes.subarray(at, at + byteLength);
    if (piece.length === 0) break;
    out.push({ address, bytes: piece });
    at += piece.length;
  }
  return out;
}

/** Joins pieces read from a scatter list. Pieces that lie behind each other already are answered as they are, not copied. */
export function gatherBytes(pieces: readonly Uint8Array[]): Uint8Array {
  const first = pieces[0];
  if (!first) return new Uint8Array(0);
  let total = 0;
  let adjacent = true;
  for (const piece of pieces) {
    adjacent &&= piece.buffer === first.buffer && piece.byteOffset === first.byteOffset + total;
    total += piece.length;
  }
  if (adjacent) return new Uint8Array(first.buffer, first.byteOffset, total);
  const out = new Uint8Array(total);
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
