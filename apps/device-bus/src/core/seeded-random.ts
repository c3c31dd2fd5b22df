const MASK = (1n << 64n) - 1n;

/** Bytes that look random and are the same in every run, for deterministic boards: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) from 0. */
export function seededBytes(): (byteLength: number) => Uint8Array {
  let state = 0n;
  const next = (): bigint => {
    state = (state + 0x9e37_79b9_7f4a_7c15n) & MASK;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & MASK;
    return z ^ (z >> 31n);
  };
  return (byteLength) => {
    const bytes = new DataView(new ArrayBuffer(Math.ceil(byteLength / 8) * 8));
    for (let at = 0; at < byteLength; at += 8) bytes.setBigUint64(at, next(), true);
    return new Uint8Array(bytes.buffer, 0, byteLength);
  };
}
