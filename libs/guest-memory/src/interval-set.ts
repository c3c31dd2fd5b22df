/** A half-open range of guest-physical addresses. */
export interface Interval {
  readonly base: bigint;
  readonly bytes: bigint;
}

/** A set of addresses as sorted ranges that neither touch nor overlap; made once, asked often. */
export class IntervalSet {
  readonly #starts: bigint[] = [];
  readonly #ends: bigint[] = [];

  constructor(intervals: readonly Interval[]) {
    const sorted = intervals.filter((i) => i.bytes > 0n).sort((a, b) => (a.base < b.base ? -1 : a.base > b.base ? 1 : 0));
    for (const { base, bytes } of sorted) {
      const last = this.#ends.length - 1;
      const end = base + bytes;
      if (last >= 0 && base <= this.#ends[last]!) {
        if (end > this.#ends[last]!) this.#ends[last] = end;
      } else {
        this.#starts.push(base);
        this.#ends.push(end);
      }
    }
  }
  /** True when every byte of the range is in the set (an empty range is when its address is). */
  covers(base: bigint, bytes: bigint): boolean {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle]! <= base) low = middle + 1;
      else high = middle;
    }
    return low > 0 && base + bytes <= this.#ends[low - 1]!;
  }
  get intervals(): Interval[] {
    return this.#starts.map((base, i) => ({ base, bytes: this.#ends[i]! - base }));
  }
}
