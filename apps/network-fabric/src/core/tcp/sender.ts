import { Congestion } from "./congestion.ts";
import { MAXIMUM_RTO_MS, RoundTrip } from "./round-trip.ts";
import { Scoreboard, type SentRange } from "./scoreboard.ts";
import { SendQueue } from "./send-queue.ts";
import { add, before, distance } from "./sequence.ts";

/** Duplicate acknowledgments that mean loss (RFC 5681, 3.2). */
const DUPLICATE_THRESHOLD = 3;
/** Retransmissions of the same data in a row before the peer counts as dead: more than 100 s (RFC 9293, 3.8.3, R2). */
const MAXIMUM_RETRIES = 12;
/** Records of what is on the wire; a receiver that acknowledges bytes here and there cannot make more. */
const MAXIMUM_RANGES = 4096;

/** Puts a piece of the stream on the wire. `push`: nothing is waiting behind it. */
export type Transmit = (sequence: number, offset: number, length: number, flags: { fin: boolean; push: boolean }, now: number) => void;

/**
 * The sending half of a connection after the handshake: what may go out now, what has to go out again, and when to look
 * next. Loss is found with SACK and RACK-TLP (RFC 6675, RFC 8985), without SACK by duplicate acknowledgments (RFC 6582).
 */
export class TcpSender {
  readonly queue = new SendQueue();
  readonly roundTrip = new RoundTrip();
  readonly #congestion: Congestion;
  readonly #board = new Scoreboard();
  readonly #transmit: Transmit;
  readonly #selective: boolean;
  /** Payload bytes of one segment on the wire, and of the largest piece that is handed down at a time. */
  readonly segmentSize: number;
  readonly #pieceSize: number;
  /** SND.UNA, SND.NXT, SND.WND, SND.WL1, SND.WL2 (RFC 9293, 3.3.1). */
  unacknowledged: number;
  next: number;
  window: number;
  #windowSequence: number;
  #windowAcknowledgment: number;
  #largestWindow: number;
  #finish = false;
  finSent = false;
  finAcknowledged = false;
  /** End of the recovery that is going on (RecoveryPoint: RFC 6675, 5); after a timeout the window grows in it. */
  #recoverUntil: number | undefined;
  #afterTimeout = false;
  /** What made us enter recovery goes out again at once, whatever the window (RFC 6675, 5 step 4.3). */
  #firstOfRecovery = false;
  #duplicates = 0;
  /** Without SACK: bytes that duplicate acknowledgments say have left the wire. */
  #inflation = 0;
  #cwndLimited = false;
  #retryAt = Infinity;
  #reorderAt = Infinity;
  #probeAt = Infinity;
  #persistAt = Infinity;
  #persistBackoff = 0;
  retransmitted = 0;

  constructor(options: { next: number; window: number; peerSequence: number; segmentSize: number; pieceSize: number; selective: boolean }, transmit: Transmit) {
    this.unacknowledged = this.next = options.next;
    this.window = this.#largestWindow = options.window;
    this.#windowSequence = options.peerSequence;
    this.#windowAcknowledgment = options.next;
    this.segmentSize = options.segmentSize;
    this.#pieceSize = Math.max(options.segmentSize, Math.floor(options.pieceSize / options.segmentSize) * options.segmentSize);
    this.#selective = options.selective;
    this.#congestion = new Congestion(options.segmentSize);
    this.#transmit = transmit;
  }

  /** Bytes that nobody has acknowledged. */
  get buffered(): number {
    return this.queue.length;
  }
  /** How much it pays to hold for this peer: twice what may be on the wire. */
  get worthBuffering(): number {
    return 2 * Math.min(this.#congestion.window, Math.max(this.#largestWindow, this.segmentSize));
  }
  get congestionWindow(): number {
    return this.#congestion.window;
  }
  write(chunk: Uint8Array): void {
    if (!this.#finish) this.queue.push(chunk);
  }
  finish(): void {
    this.#finish = true;
  }
  get done(): boolean {
    return this.finAcknowledged;
  }

  /** When `timer` wants to be called. */
  get deadline(): number {
    return Math.min(this.#retryAt, this.#reorderAt, this.#probeAt, this.#persistAt);
  }

  /** An acceptable acknowledgment (RFC 9293, 3.10.7.4, fifth). `pure`: the segment carried nothing else. */
  acknowledge(segment: { sequence: number; acknowledgment: number; window: number; pure: boolean }, blocks: readonly { left: number; right: number }[], now: number): void {
    const { acknowledgment, sequence } = segment;
    const windowBefore = this.window;
    this.#updateWindow(sequence, acknowledgment, segment.window, now);
    const advance = distance(this.unacknowledged, acknowledgment);
    const delivery = this.#board.acknowledge(acknowledgment, this.#selective ? blocks : [], now, this.roundTrip.minimum);
    if (delivery.roundTrip !== undefined && !delivery.ambiguous) this.roundTrip.sample(delivery.roundTrip);
    if (advance > 0) this.#advance(acknowledgment, advance);
    else if (segment.pure && segment.window === windowBefore && !this.#board.empty && acknowledgment === this.unacknowledged) this.#duplicate();
    if (this.#selective) this.#detectLoss(now);
    if (advance > 0 || delivery.bytes > 0) this.#armRetransmission(now);
  }

  #advance(acknowledgment: number, advance: number): void {
    this.unacknowledged = acknowledgment;
    const fin = this.finSent && acknowledgment === this.next;
    this.queue.consume(fin && !this.finAcknowledged ? advance - 1 : advance);
    if (fin) this.finAcknowledged = true;
    this.roundTrip.progress();
    this.#duplicates = 0;
    if (this.#recoverUntil === undefined) {
      if (this.#cwndLimited) this.#congestion.grow(advance);
    } else if (this.#afterTimeout) {
      this.#congestion.grow(advance);
      if (!before(acknowledgment, this.#recoverUntil)) this.#recoverUntil = undefined;
    } else if (!before(acknowledgment, this.#recoverUntil)) {
      this.#recoverUntil = undefined;
      this.#inflation = 0;
    } else if (!this.#selective) {
      // A partial acknowledgment: the next hole is at its front (RFC 6582, 3.2 step 3).
      this.#inflation = Math.max(0, this.#inflation - advance + this.segmentSize);
      this.#board.markFrontLost(this.segmentSize);
    }
    if (this.#board.empty) this.#retryAt = this.#probeAt = this.#reorderAt = Infinity;
    if (this.window > 0) this.#persistAt = Infinity;
  }
  #updateWindow(sequence: number, acknowledgment: number, window: number, now: number): void {
    // Segments that overtook each other must not bring an old window back.
    const newer = before(this.#windowSequence, sequence) || (this.#windowSequence === sequence && !before(acknowledgment, this.#windowAcknowledgment));
    if (!newer) return;
    this.window = window;
    this.#windowSequence = sequence;
    this.#windowAcknowledgment = acknowledgment;
    this.#largestWindow = Math.max(this.#largestWindow, window);
    this.#persistBackoff = 0;
    if (window === 0) this.roundTrip.progress(); // it answers, it only takes nothing: not dead (RFC 9293, 3.8.6.1)
    if (window > 0) this.#persistAt = Infinity;
    else if (this.#persistAt !== Infinity) this.#persistAt = now + this.#persistDelay();
  }
  #duplicate(): void {
    if (this.#selective) return;
    this.#duplicates++;
    this.#inflation += this.segmentSize;
    if (this.#duplicates !== DUPLICATE_THRESHOLD || this.#recoverUntil !== undefined) return;
    this.#enterRecovery();
    this.#board.markFrontLost(this.segmentSize);
  }
  #detectLoss(now: number): void {
    const again = this.#board.detectLoss(now, this.roundTrip.minimum, this.#recoverUntil !== undefined, this.segmentSize);
    this.#reorderAt = again ?? Infinity;
    if (this.#board.hasLost && this.#recoverUntil === undefined) this.#enterRecovery();
  }
  #enterRecovery(): void {
    this.#recoverUntil = this.next;
    this.#firstOfRecovery = true;
    this.#afterTimeout = false;
    this.#congestion.enterRecovery(this.#board.inFlight);
  }

  /** Sends what may be sent: first what was lost, then what is new. */
  pump(now: number): void {
    const board = this.#board;
    const pipe = () => Math.max(0, board.inFlight - this.#inflation);
    while (board.hasLost && (pipe() < this.#congestion.window || board.inFlight === 0 || this.#firstOfRecovery)) {
      this.#resend(board.firstLost(this.#firstOfRecovery ? this.segmentSize : this.#pieceSize)!, now);
      this.#firstOfRecovery = false;
    }
    this.#cwndLimited = false;
    for (;;) {
      const sent = distance(this.unacknowledged, this.next);
      const waiting = this.queue.length - sent;
      if (this.finSent || (waiting <= 0 && !this.#finish)) break;
      const usable = this.window - sent;
      const allowed = this.#congestion.window - pipe();
      if (allowed <= 0 || board.count >= MAXIMUM_RANGES) {
        this.#cwndLimited = true;
        break;
      }
      let length = Math.max(0, Math.min(waiting, usable, this.#pieceSize));
      if (length > allowed) {
        this.#cwndLimited = true;
        length = allowed;
      }
      // Whole segments only, unless it is the rest (sender's silly window avoidance: RFC 9293, 3.8.6.2.1).
      if (length < waiting && length > this.segmentSize) length -= length % this.segmentSize;
      const fin = this.#finish && length === waiting && usable >= 0;
      const silly = length < waiting && length < this.segmentSize && length < this.#largestWindow / 2;
      if ((length <= 0 && !fin) || silly) break;
      this.#sendNew(sent, length, fin, length === waiting, now);
    }
    this.#armPersist(now);
  }
  #sendNew(offset: number, length: number, fin: boolean, push: boolean, now: number): void {
    const start = this.next;
    const wasEmpty = this.#board.empty;
    this.next = add(start, length + (fin ? 1 : 0));
    if (fin) this.finSent = true;
    this.#board.sent(start, this.next, now);
    if (wasEmpty || this.#retryAt === Infinity) this.#armRetransmission(now);
    this.#transmit(start, offset, length, { fin, push }, now);
  }
  #resend(range: SentRange, now: number): void {
    const { start, end } = range;
    this.#board.resent(range, now);
    this.retransmitted++;
    const fin = this.finSent && end === this.next;
    const length = distance(start, end) - (fin ? 1 : 0);
    this.#transmit(start, distance(this.unacknowledged, start), length, { fin, push: true }, now);
  }

  /** Called at `deadline` or later. "dead": the peer has not answered for too long. */
  timer(now: number): "probe" | "dead" | undefined {
    if (now >= this.#reorderAt) {
      this.#reorderAt = Infinity;
      this.#detectLoss(now);
    }
    if (now >= this.#persistAt) {
      this.#persistAt = now + this.#persistDelay();
      if (!this.#overrideSillyWindow(now)) return "probe";
    }
    if (now >= this.#probeAt) this.#tailLossProbe(now);
    else if (now >= this.#retryAt) {
      if (this.roundTrip.backoffs >= MAXIMUM_RETRIES) return "dead";
      this.roundTrip.backOff();
      this.#congestion.collapse(this.#board.inFlight);
      this.#inflation = 0;
      this.#recoverUntil = this.next;
      this.#afterTimeout = true;
      this.#board.markAllLost();
      this.#retryAt = now + this.roundTrip.timeout;
      this.#probeAt = Infinity;
    }
    this.pump(now);
    return undefined;
  }
  /** RFC 8985, 7.3: a segment past the end makes the receiver say what it has, long before the timeout. */
  #tailLossProbe(now: number): void {
    this.#probeAt = Infinity;
    const sent = distance(this.unacknowledged, this.next);
    const length = Math.min(this.queue.length - sent, this.window - sent, this.segmentSize);
    if (length > 0 && !this.finSent) this.#sendNew(sent, length, this.#finish && length === this.queue.length - sent, true, now);
    else {
      const last = this.#board.newest;
      if (last) this.#resend(last, now);
    }
    this.#retryAt = now + this.roundTrip.timeout;
  }
  #armRetransmission(now: number): void {
    if (this.#board.empty) {
      this.#retryAt = this.#probeAt = Infinity;
      return;
    }
    this.#retryAt = now + this.roundTrip.timeout;
    const lone = distance(this.unacknowledged, this.next) <= this.segmentSize;
    this.#probeAt = this.#recoverUntil === undefined && this.#selective ? now + this.roundTrip.probeTimeout(lone) : Infinity;
  }

  /** Data waits, nothing is on the wire that would bring an answer: the window has to be asked for (RFC 9293, 3.8.6.1). */
  #armPersist(now: number): void {
    const waiting = this.queue.length - distance(this.unacknowledged, this.next) > 0 || (this.#finish && !this.finSent);
    if (!waiting || !this.#board.empty) this.#persistAt = Infinity;
    else if (this.#persistAt === Infinity) this.#persistAt = now + this.#persistDelay();
  }
  #persistDelay(): number {
    return Math.min(Math.max(this.roundTrip.timeout, 200) * 2 ** this.#persistBackoff++, MAXIMUM_RTO_MS);
  }
  /** A window that is open but small is used in the end (RFC 9293, 3.8.6.2.1, override timeout). */
  #overrideSillyWindow(now: number): boolean {
    const length = Math.min(this.queue.length, this.window, this.segmentSize);
    if (length <= 0 || !this.#board.empty) return false;
    this.#sendNew(0, length, this.#finish && length === this.queue.length, true, now);
    return true;
  }
  clear(): void {
    this.queue.clear();
    this.#board.clear();
    this.#retryAt = this.#probeAt = this.#reorderAt = this.#persistAt = Infinity;
  }
}
