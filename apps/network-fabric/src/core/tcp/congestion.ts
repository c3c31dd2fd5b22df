/** RFC 6928: ten segments. */
const INITIAL_SEGMENTS = 10;

/** NewReno's window (RFC 5681, with RFC 3465 byte counting), in bytes. Which data is lost, the scoreboard says. */
export class Congestion {
  readonly #segmentSize: number;
  window: number;
  threshold = Infinity;
  #acknowledged = 0;

  constructor(segmentSize: number) {
    this.#segmentSize = segmentSize;
    this.window = INITIAL_SEGMENTS * segmentSize;
  }
  /** New data was acknowledged, outside recovery, while the window was what limited the sender. */
  grow(bytes: number): void {
    if (this.window < this.threshold) {
      this.window += bytes; // slow start; the receiver acknowledges in lumps, and every byte of them has left the wire
      return;
    }
    this.#acknowledged += bytes;
    if (this.#acknowledged < this.window) return;
    this.#acknowledged -= this.window;
    this.window += this.#segmentSize;
  }
  /** Loss was found (RFC 5681, 3.2 equation 4; RFC 6675, 5 step 4.2). */
  enterRecovery(inFlight: number): void {
    this.threshold = Math.max(Math.floor(inFlight / 2), 2 * this.#segmentSize);
    this.window = this.threshold;
    this.#acknowledged = 0;
  }
  /** The retransmission timer went off (RFC 5681, 3.1): a window of one segment. */
  collapse(inFlight: number): void {
    this.threshold = Math.max(Math.floor(inFlight / 2), 2 * this.#segmentSize);
    this.window = this.#segmentSize;
    this.#acknowledged = 0;
  }
}
