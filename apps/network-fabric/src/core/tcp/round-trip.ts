/** RFC 6298, 2.1. */
export const INITIAL_RTO_MS = 1000;
/** RFC 6298, 2.4 asks for 1 s; every kernel in use has less (Linux: 200 ms), and the wire here is one process long. */
export const MINIMUM_RTO_MS = 200;
export const MAXIMUM_RTO_MS = 60_000;
/** How long a receiver may sit on its acknowledgment of a lone segment before a tail loss probe goes out (RFC 8985, 7.2). */
const LONE_ACK_DELAY_MS = 25;

/** Round trip time and what follows from it: retransmission timeout (RFC 6298) and probe timeout (RFC 8985, 7.2). */
export class RoundTrip {
  smoothed = 0;
  minimum = Infinity;
  #variance = 0;
  #backoff = 0;

  /** A measurement of data that was sent once (Karn's algorithm: RFC 6298, 3). */
  sample(ms: number): void {
    this.minimum = Math.min(this.minimum, ms);
    if (this.smoothed === 0) {
      this.smoothed = Math.max(ms, 0.001);
      this.#variance = ms / 2;
    } else {
      this.#variance += (Math.abs(this.smoothed - ms) - this.#variance) / 4;
      this.smoothed += (ms - this.smoothed) / 8;
    }
  }
  get timeout(): number {
    const base = this.smoothed === 0 ? INITIAL_RTO_MS : Math.max(MINIMUM_RTO_MS, this.smoothed + Math.max(1, 4 * this.#variance));
    return Math.min(base * 2 ** this.#backoff, MAXIMUM_RTO_MS);
  }
  probeTimeout(lone: boolean): number {
    if (this.smoothed === 0) return this.timeout;
    return Math.min(2 * this.smoothed + (lone ? LONE_ACK_DELAY_MS : 2), this.timeout);
  }
  /** The timer went off (RFC 6298, 5.5). */
  backOff(): void {
    this.#backoff++;
  }
  /** Something new was acknowledged. */
  progress(): void {
    this.#backoff = 0;
  }
  get backoffs(): number {
    return this.#backoff;
  }
}
