/** Fields whose change would break the conversation rather than the content. */
const ENVELOPE = new Set(["machine", "id", "hart", "sequence", "credit", "port", "disk"]);

interface Place {
  path: string[];
  bits: number;
}

/** A copy of the message with one bit flipped, chosen by `random`: in its bytes if it has any, else in a number. */
export function corrupt(message: unknown, random: (below: number) => number): unknown {
  const bytes: Place[] = [];
  const numbers: Place[] = [];
  collect(message, [], bytes, numbers);
  const places = bytes.length > 0 ? bytes : numbers;
  const place = places[random(places.length)];
  return place ? flip(message, place.path, random(place.bits)) : message;
}

function collect(value: any, path: string[], bytes: Place[], numbers: Place[]): void {
  if (value instanceof Uint8Array) {
    if (value.length > 0) bytes.push({ path, bits: value.length * 8 });
  } else if (typeof value === "bigint" || (typeof value === "number" && path.at(-1) !== "$case")) {
    numbers.push({ path, bits: 8 });
  } else if (typeof value === "object" && value !== null && !(value instanceof Map)) {
    for (const [name, field] of Object.entries(value)) if (!ENVELOPE.has(name)) collect(field, [...path, name], bytes, numbers);
  }
}

function flip(value: any, path: readonly string[], bit: number): unknown {
  const [name, ...rest] = path;
  if (name !== undefined) {
    const changed = flip(value[name], rest, bit);
    return Array.isArray(value) ? value.with(Number(name), changed) : { ...value, [name]: changed };
  }
  if (typeof value === "bigint") return value ^ (1n << BigInt(bit));
  if (typeof value === "number") return value ^ (1 << bit);
  const copy = (value as Uint8Array).slice();
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

/** xorshift64* (Vigna 2014): the same seed flips the same bits. */
export function seededRandom(seed: bigint): (below: number) => number {
  let state = BigInt.asUintN(64, seed * 0x9e37_79b9_7f4a_7c15n) || 1n;
  return (below) => {
    state ^= state >> 12n;
    state = BigInt.asUintN(64, state ^ (state << 25n));
    state ^= state >> 27n;
    const high = Number(BigInt.asUintN(64, state * 0x2545_f491_4f6c_dd1dn) >> 33n);
    return below > 0 ? high % below : 0;
  };
}
