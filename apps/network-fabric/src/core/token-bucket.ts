/** A rate limit with bursts (RFC 2697, 3, one bucket): `take` is allowed while tokens are left. */
export class TokenBucket {
  readonly perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #filledAt: number;

  /** Begins full. `now` in milliseconds, monotonic. */
  constructor(perSecond: number, burst: number, now: number) {
    this.perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#filledAt = now;
  }
  /** Takes `cost` if any token is left: one item may overdraw, so that none is too large to ever pass. */
  take(cost: number, now: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#filledAt) * this.perSecond) / 1000);
    this.#filledAt = now;
    if (this.#tokens <= 0) return false;
    this.#tokens -= cost;
    return true;
  }
  /** Milliseconds until `take` succeeds again. */
  get waitMs(): number {
    return this.#tokens > 0 ? 0 : (-this.#tokens * 1000) / this.perSecond + 0.01;
  }
}
