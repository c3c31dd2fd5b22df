import { emitTcpOptions, parseTcpOptions, TCP_FLAG, writeU32, type TcpOptions, type TcpSegment } from "@polyvisor/wire";
import { TcpReceiver } from "./receiver.ts";
import { INITIAL_RTO_MS } from "./round-trip.ts";
import type { SendQueue } from "./send-queue.ts";
import { TcpSender } from "./sender.ts";
import { add, before, distance } from "./sequence.ts";

/** RFC 9293, 3.3.2; LISTEN is the table's business. */
export type TcpState =
  | "SYN-SENT"
  | "SYN-RECEIVED"
  | "ESTABLISHED"
  | "FIN-WAIT-1"
  | "FIN-WAIT-2"
  | "CLOSE-WAIT"
  | "CLOSING"
  | "LAST-ACK"
  | "TIME-WAIT"
  | "CLOSED";

/** A segment on its way out; `length` bytes of `queue` from `offset` are its data, to be cut into `segmentSize`. */
export interface OutgoingSegment {
  sequence: number;
  acknowledgment: number;
  flags: number;
  window: number;
  options: Uint8Array;
  queue: SendQueue | undefined;
  offset: number;
  length: number;
  segmentSize: number;
}

/** Who uses a connection: the program's side of it, and the wire below. Nothing here is called from within `write` or `finish`. */
export interface TcpUser {
  transmit(segment: OutgoingSegment): void;
  established(): void;
  /** Data in order: a view of bytes that nobody changes any more. */
  received(data: Uint8Array): void;
  /** The peer will send no more. */
  receivedFin(): void;
  /** Bytes that the user takes now. */
  room(): number;
  /** Data was acknowledged: there may be room to write again. */
  acknowledged(): void;
  /** The peer has reset the connection, or has not answered for too long. `closed` follows. */
  aborted(why: "reset" | "refused" | "timeout"): void;
  /** Over: forget it. */
  closed(): void;
}

export interface TcpLimits {
  /** Largest segment that we can take: the MTU without headers. */
  readonly maximumSegmentSize: number;
  /** Largest piece handed to `transmit` at a time. */
  readonly pieceSize: number;
  /** Bytes that `room` can reach. */
  readonly receiveBuffer: number;
  readonly timeWaitMs: number;
  /** How long less than a segment of data may go unacknowledged, for an answer that takes the acknowledgment along (RFC 9293, 3.8.6.3). */
  readonly acknowledgmentDelayMs: number;
}

/** RFC 9293, 3.7.1: what to assume when the peer does not say. */
const DEFAULT_SEGMENT_SIZE = 536;
/** RFC 7323, 2.3: larger shifts are taken as this. */
const MAXIMUM_SHIFT = 14;
const SYN_RETRIES = 5;
/** An idle peer is asked whether it is there after two hours, and given up after so many unanswered questions (RFC 9293, 3.8.4). */
const KEEPALIVE_MS = 7_200_000;
const KEEPALIVE_INTERVAL_MS = 75_000;
const KEEPALIVE_PROBES = 9;
/** RFC 5961, 7: challenge acknowledgments in a second, per connection. */
const CHALLENGES_PER_SECOND = 10;

const NO_OPTIONS = new Uint8Array(0);

/**
 * One TCP connection's end on the gateway (RFC 9293), facing the guest. It owns no sockets, clocks or frames: segments come
 * in by `segment`, go out by `user.transmit`, and `timer` is to be called at `deadline`.
 */
export class TcpConnection {
  state: TcpState;
  readonly #user: TcpUser;
  readonly #limits: TcpLimits;
  /** ISS, IRS (RFC 9293, 3.3.1). */
  readonly #initialSend: number;
  #initialReceive = 0;
  #receiver!: TcpReceiver;
  #sender: TcpSender | undefined;
  /** What both sides have agreed to. */
  #offer: TcpOptions = {};
  #sendShift = 0;
  #receiveShift = 0;
  #timestamps = false;
  /** TS.Recent (RFC 7323, 4.3), and what our clock says more than the injected one. */
  #recentTimestamp = 0;
  readonly #timestampBase: number;
  readonly #timestampOption = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0); // NOP, NOP, kind 8, length 10
  #acknowledgmentDue = false;
  /** When what is due goes out by itself; RCV.NXT as of the last acknowledgment. */
  #acknowledgmentAt = Infinity;
  #lastAcknowledged = 0;
  #finWaiting = false;
  #synRetries = 0;
  #synAt = Infinity;
  #endAt = Infinity;
  #idleAt = Infinity;
  #idleProbes = 0;
  #challengeSecond = 0;
  #challenges = 0;
  readonly #out: OutgoingSegment = { sequence: 0, acknowledgment: 0, flags: 0, window: 0, options: NO_OPTIONS, queue: undefined, offset: 0, length: 0, segmentSize: 0 };

  private constructor(user: TcpUser, limits: TcpLimits, initialSend: number, state: TcpState) {
    this.#user = user;
    this.#limits = limits;
    this.#initialSend = initialSend >>> 0;
    this.#timestampBase = Math.imul(initialSend, 0x9e37_79b1) >>> 0; // not the host's uptime
    this.state = state;
  }

  /** Answers a SYN that was taken earlier. */
  static accept(user: TcpUser, limits: TcpLimits, initialSend: number, syn: TcpSegment, now: number): TcpConnection {
    const connection = new TcpConnection(user, limits, initialSend, "SYN-RECEIVED");
    connection.#agree(syn, parseTcpOptions(syn.options) ?? {});
    connection.#sendSyn(now);
    return connection;
  }
  /** Opens a connection to the guest. */
  static open(user: TcpUser, limits: TcpLimits, initialSend: number, now: number): TcpConnection {
    const connection = new TcpConnection(user, limits, initialSend, "SYN-SENT");
    connection.#sendSyn(now);
    return connection;
  }

  /** Bytes written and not acknowledged yet. */
  get buffered(): number {
    return this.#sender?.buffered ?? 0;
  }
  get worthBuffering(): number {
    return this.#sender?.worthBuffering ?? 0;
  }
  /** Bytes out of order that are held here. */
  get held(): number {
    return this.state === "SYN-SENT" ? 0 : this.#receiver.held;
  }
  get retransmitted(): number {
    return this.#sender?.retransmitted ?? 0;
  }
  get roundTripMs(): number {
    return this.#sender?.roundTrip.smoothed ?? 0;
  }
  /** The sequence number that a new connection on the same ports has to be beyond (RFC 9293, 3.10.7.4, TIME-WAIT; RFC 6191). */
  replaceableBy(syn: TcpSegment): boolean {
    if (this.state !== "TIME-WAIT" || (syn.flags & (TCP_FLAG.SYN | TCP_FLAG.ACK | TCP_FLAG.RST)) !== TCP_FLAG.SYN) return false;
    const timestamps = this.#timestamps ? parseTcpOptions(syn.options)?.timestamps : undefined;
    return before(this.#receiver.next, syn.sequence) || (timestamps !== undefined && before(this.#recentTimestamp, timestamps.value));
  }

  /** Data for the peer. `flush` sends it. The chunk is kept until acknowledged. */
  write(chunk: Uint8Array): void {
    this.#sender?.write(chunk);
  }
  /** No more data for the peer. */
  finish(): void {
    this.#sender?.finish();
    this.#finWaiting = true;
  }
  /** The user has taken data: tells the peer if that lets it go on. */
  roomGrown(now: number): void {
    if (this.#receiving && this.#receiver.worthTelling(this.#user.room(), this.#limits.receiveBuffer)) this.#acknowledge(now);
  }
  /** Ends the connection at once, with a reset. */
  abort(): void {
    if (this.state === "CLOSED") return;
    this.#sendReset();
    this.#close();
  }
  #sendReset(): void {
    if (this.state === "SYN-SENT") this.#send(this.#initialSend, TCP_FLAG.RST, NO_OPTIONS, 0);
    else if (this.state !== "TIME-WAIT") {
      const sequence = this.#sender?.next ?? add(this.#initialSend, 1);
      this.#out.acknowledgment = this.#receiver.next;
      this.#send(sequence, TCP_FLAG.RST | TCP_FLAG.ACK, NO_OPTIONS, 0);
    }
  }
  /** Sends what is due: data, and the acknowledgment if nothing else carried it. */
  flush(now: number): void {
    if (this.state === "CLOSED") return;
    this.#sender?.pump(now);
    this.#followFin(now);
    if (!this.#acknowledgmentDue) return;
    const { next, edge } = this.#receiver;
    const segment = this.#offer.maximumSegmentSize!;
    const mayWait = this.#receiving && distance(this.#lastAcknowledged, next) < segment && distance(next, edge) >= 2 * segment;
    if (mayWait && this.#limits.acknowledgmentDelayMs > 0) this.#acknowledgmentAt = Math.min(this.#acknowledgmentAt, now + this.#limits.acknowledgmentDelayMs);
    else this.#acknowledge(now);
  }

  /** When `timer` wants to be called. */
  get deadline(): number {
    return Math.min(this.#synAt, this.#endAt, this.#idleAt, this.#acknowledgmentAt, this.#sender?.deadline ?? Infinity);
  }
  timer(now: number): void {
    if (this.state === "CLOSED" || now < this.deadline) return;
    if (now >= this.#endAt) return this.#close();
    if (now >= this.#acknowledgmentAt) this.#acknowledge(now);
    if (now >= this.#synAt) {
      if (this.#synRetries++ >= SYN_RETRIES) return this.#dead("timeout");
      return this.#sendSyn(now);
    }
    if (now >= this.#idleAt) {
      if (this.#idleProbes++ >= KEEPALIVE_PROBES) return this.#dead("timeout");
      this.#idleAt = now + KEEPALIVE_INTERVAL_MS;
      this.#probe(now);
    }
    const outcome = this.#sender?.timer(now);
    if (outcome === "dead") return this.#dead("timeout");
    if (outcome === "probe") this.#probe(now);
    this.#followFin(now);
  }

  /** A segment of this connection with a good checksum (RFC 9293, 3.10.7). */
  segment(segment: TcpSegment, now: number): void {
    if (this.state === "CLOSED") return;
    if (this.state === "SYN-SENT") return this.#synSent(segment, now);
    const options = parseTcpOptions(segment.options);
    if (!options) return; // malformed: as if damaged on the way
    const { flags, sequence, payload } = segment;
    const length = payload.length + (flags & TCP_FLAG.SYN ? 1 : 0) + (flags & TCP_FLAG.FIN ? 1 : 0);
    const receiver = this.#receiver;
    // First: protection against wrapped sequence numbers (RFC 7323, 5.3), then the window (RFC 9293, 3.10.7.4).
    const stamp = this.#timestamps ? options.timestamps : undefined;
    const stale = stamp !== undefined && before(stamp.value, this.#recentTimestamp) && !(flags & TCP_FLAG.RST);
    if (stale || !receiver.acceptable(sequence, length)) {
      if (flags & TCP_FLAG.RST) return;
      if (this.state === "SYN-RECEIVED" && flags & TCP_FLAG.SYN && sequence === this.#initialReceive) return; // the SYN again; ours comes again, too
      if (this.state === "TIME-WAIT" && flags & TCP_FLAG.FIN) this.#endAt = now + this.#limits.timeWaitMs;
      // A peer that asks for a window that is closed still tells what it has got.
      if (!stale && flags & TCP_FLAG.ACK && this.#acceptableAcknowledgment(segment) && sequence === receiver.next) this.#acknowledged(segment, options, now);
      this.#acknowledge(now);
      return;
    }
    // Second: reset, only at exactly the next number; elsewhere in the window it is asked for again (RFC 5961, 3.2).
    if (flags & TCP_FLAG.RST) {
      if (sequence !== receiver.next) return this.#challenge(now);
      this.#user.aborted(this.state === "SYN-RECEIVED" ? "refused" : "reset");
      return this.#close();
    }
    // Fourth: a SYN inside a connection (RFC 5961, 4.2).
    if (flags & TCP_FLAG.SYN) return this.#challenge(now);
    if (!(flags & TCP_FLAG.ACK)) return;
    if (stamp && !before(receiver.next, sequence)) this.#recentTimestamp = stamp.value; // RFC 7323, 4.3
    if (this.state === "SYN-RECEIVED") {
      if (segment.acknowledgment !== add(this.#initialSend, 1)) {
        this.#send(segment.acknowledgment, TCP_FLAG.RST, NO_OPTIONS, 0);
        return;
      }
      this.#establish(segment, now);
      if (this.#ended()) return;
    }
    if (!this.#acceptableAcknowledgment(segment)) return this.#challenge(now);
    this.#idleProbes = 0;
    this.#idleAt = now + KEEPALIVE_MS;
    this.#acknowledged(segment, options, now);
    if (this.#ended()) return;
    this.#text(segment, now);
  }
  /** A call to the user or a step to CLOSED may have happened since `state` was looked at. */
  #ended(): boolean {
    return this.state === "CLOSED";
  }

  /** RFC 9293, 3.10.7.3. */
  #synSent(segment: TcpSegment, now: number): void {
    const { flags, acknowledgment } = segment;
    const acknowledges = (flags & TCP_FLAG.ACK) !== 0;
    if (acknowledges && acknowledgment !== add(this.#initialSend, 1)) {
      if (!(flags & TCP_FLAG.RST)) this.#send(acknowledgment, TCP_FLAG.RST, NO_OPTIONS, 0);
      return;
    }
    if (flags & TCP_FLAG.RST) {
      if (!acknowledges) return;
      this.#user.aborted("refused");
      return this.#close();
    }
    const options = parseTcpOptions(segment.options);
    if (!(flags & TCP_FLAG.SYN) || !options) return;
    this.#agree(segment, options);
    if (!acknowledges) {
      this.state = "SYN-RECEIVED"; // both opened at once (figure 7)
      this.#sendSyn(now);
      return;
    }
    this.#establish({ ...segment, sequence: add(segment.sequence, 1) }, now, segment.window);
    this.#acknowledge(now);
  }

  /** Takes what a SYN says; options are ours only if the peer has them, too. */
  #agree(syn: TcpSegment, options: TcpOptions): void {
    this.#initialReceive = syn.sequence;
    this.#timestamps = options.timestamps !== undefined;
    this.#recentTimestamp = options.timestamps?.value ?? 0;
    const { receiveBuffer, maximumSegmentSize } = this.#limits;
    if (options.windowScale !== undefined) {
      this.#sendShift = Math.min(options.windowScale, MAXIMUM_SHIFT);
      this.#receiveShift = shiftFor(receiveBuffer);
    }
    const agreed = Math.min(options.maximumSegmentSize ?? DEFAULT_SEGMENT_SIZE, maximumSegmentSize);
    this.#offer = { maximumSegmentSize: Math.max(agreed, 64), ...(options.sackPermitted ? { sackPermitted: true } : {}) };
    if (options.windowScale !== undefined) this.#offer.windowScale = this.#receiveShift;
    const next = add(syn.sequence, 1);
    this.#lastAcknowledged = next;
    // The window field of a SYN is never scaled (RFC 7323, 2.2).
    const edge = add(next, Math.min(0xffff, receiveBuffer));
    this.#receiver = new TcpReceiver({ next, edge, scale: this.#receiveShift, segmentSize: this.#offer.maximumSegmentSize! });
  }
  #sendSyn(now: number): void {
    const answering = this.state === "SYN-RECEIVED";
    const options: TcpOptions = { maximumSegmentSize: this.#limits.maximumSegmentSize };
    if (!answering || this.#offer.sackPermitted) options.sackPermitted = true;
    if (!answering || this.#timestamps) options.timestamps = { value: this.#timestamp(now), echo: this.#recentTimestamp };
    if (!answering || this.#offer.windowScale !== undefined) options.windowScale = shiftFor(this.#limits.receiveBuffer);
    this.#out.acknowledgment = answering ? this.#receiver.next : 0;
    this.#send(this.#initialSend, TCP_FLAG.SYN | (answering ? TCP_FLAG.ACK : 0), emitTcpOptions(options), Math.min(0xffff, this.#limits.receiveBuffer));
    this.#synAt = now + INITIAL_RTO_MS * 2 ** this.#synRetries;
  }
  /** `synWindow`: the window when a SYN carried it. */
  #establish(segment: TcpSegment, now: number, synWindow?: number): void {
    const overhead = this.#timestamps ? 12 : 0;
    this.#sender = new TcpSender(
      {
        next: add(this.#initialSend, 1),
        window: synWindow ?? segment.window * 2 ** this.#sendShift,
        peerSequence: segment.sequence,
        segmentSize: this.#offer.maximumSegmentSize! - overhead,
        pieceSize: this.#limits.pieceSize - overhead,
        selective: this.#offer.sackPermitted === true,
      },
      (sequence, offset, length, { fin, push }, sentAt) => {
        this.#out.queue = this.#sender!.queue;
        this.#out.offset = offset;
        this.#out.length = length;
        const flags = TCP_FLAG.ACK | (fin ? TCP_FLAG.FIN : 0) | (push && length > 0 ? TCP_FLAG.PSH : 0);
        this.#acknowledge(sentAt, sequence, flags);
        this.#out.queue = undefined;
        this.#out.length = 0;
      },
    );
    this.state = "ESTABLISHED";
    this.#synAt = Infinity;
    this.#idleAt = now + KEEPALIVE_MS;
    if (this.#finWaiting) this.#sender.finish();
    this.#user.established();
  }

  #acceptableAcknowledgment({ acknowledgment }: TcpSegment): boolean {
    const sender = this.#sender;
    if (!sender) return false;
    // Not about data that was never sent, and not older than any window we ever had (RFC 5961, 5.2).
    return !before(sender.next, acknowledgment) && distance(acknowledgment, sender.unacknowledged) < 1 << 30;
  }
  #acknowledged(segment: TcpSegment, options: TcpOptions, now: number): void {
    const sender = this.#sender!;
    const { sequence, acknowledgment, payload, flags } = segment;
    if (before(acknowledgment, sender.unacknowledged)) return; // an old one
    const had = sender.buffered;
    const pure = payload.length === 0 && !(flags & (TCP_FLAG.FIN | TCP_FLAG.SYN));
    sender.acknowledge({ sequence, acknowledgment, window: segment.window * 2 ** this.#sendShift, pure }, options.sackBlocks ?? [], now);
    if (sender.finAcknowledged) this.#finAcknowledged(now);
    if (sender.buffered < had) this.#user.acknowledged();
  }
  #finAcknowledged(now: number): void {
    if (this.state === "FIN-WAIT-1") {
      this.state = "FIN-WAIT-2";
    } else if (this.state === "CLOSING") this.#timeWait(now);
    else if (this.state === "LAST-ACK") this.#close();
  }
  get #receiving(): boolean {
    return this.state === "ESTABLISHED" || this.state === "FIN-WAIT-1" || this.state === "FIN-WAIT-2";
  }
  /** Seventh and eighth: data and FIN. */
  #text({ sequence, payload, flags }: TcpSegment, now: number): void {
    const fin = (flags & TCP_FLAG.FIN) !== 0;
    if (!this.#receiving || (payload.length === 0 && !fin)) return;
    const receiver = this.#receiver;
    const inOrder = sequence === receiver.next && !receiver.outOfOrder;
    receiver.insert(sequence, payload, fin, (data) => this.#user.received(data));
    if (this.#ended()) return;
    if (receiver.finReceived) this.#finReceived(now);
    // What is out of order is answered at once, so that the peer can tell a loss (RFC 5681, 4.2); the rest once per batch.
    if (inOrder) this.#acknowledgmentDue = true;
    else this.#acknowledge(now);
  }
  #finReceived(now: number): void {
    if (this.state === "ESTABLISHED") this.state = "CLOSE-WAIT";
    else if (this.state === "FIN-WAIT-1") this.state = "CLOSING";
    else if (this.state === "FIN-WAIT-2") this.#timeWait(now);
    this.#user.receivedFin();
  }
  #timeWait(now: number): void {
    this.state = "TIME-WAIT";
    this.#sender!.clear();
    this.#receiver.clear();
    this.#endAt = now + this.#limits.timeWaitMs;
    this.#idleAt = Infinity;
  }
  /** Our FIN has gone out: the state follows (figure 5). */
  #followFin(now: number): void {
    if (!this.#sender?.finSent) return;
    if (this.state === "ESTABLISHED") this.state = "FIN-WAIT-1";
    else if (this.state === "CLOSE-WAIT") this.state = "LAST-ACK";
    if (this.#sender.finAcknowledged) this.#finAcknowledged(now);
  }

  /** An acknowledgment; with a queue set in `#out`, data goes with it. */
  #acknowledge(now: number, sequence = this.#sender?.next ?? add(this.#initialSend, 1), flags: number = TCP_FLAG.ACK): void {
    this.#acknowledgmentDue = false;
    this.#acknowledgmentAt = Infinity;
    this.#lastAcknowledged = this.#receiver.next;
    const receiver = this.#receiver;
    let options: Uint8Array = NO_OPTIONS;
    if (this.#offer.sackPermitted && receiver.outOfOrder && this.#out.queue === undefined) {
      const timestamps = this.#timestamps ? { timestamps: { value: this.#timestamp(now), echo: this.#recentTimestamp } } : {};
      options = emitTcpOptions({ ...timestamps, sackBlocks: receiver.blocks() });
    } else if (this.#timestamps) {
      options = this.#timestampOption;
      writeU32(options, 4, this.#timestamp(now));
      writeU32(options, 8, this.#recentTimestamp);
    }
    const window = this.#receiving ? receiver.advertise(this.#user.room()) : Math.min(0xffff, Math.ceil(distance(receiver.next, receiver.edge) / 2 ** this.#receiveShift));
    this.#out.acknowledgment = receiver.next;
    this.#send(sequence, flags, options, Math.max(0, window));
  }
  /** A segment that the peer must answer: outside its window (RFC 9293, 3.8.4 and 3.8.6.1). */
  #probe(now: number): void {
    this.#acknowledge(now, add(this.#sender!.unacknowledged, -1));
  }
  #challenge(now: number): void {
    const second = Math.floor(now / 1000);
    if (second !== this.#challengeSecond) {
      this.#challengeSecond = second;
      this.#challenges = 0;
    }
    if (this.#challenges++ < CHALLENGES_PER_SECOND) this.#acknowledge(now);
  }
  #send(sequence: number, flags: number, options: Uint8Array, window: number): void {
    const out = this.#out;
    out.sequence = sequence;
    out.flags = flags;
    out.options = options;
    out.window = window;
    out.segmentSize = this.#sender?.segmentSize ?? DEFAULT_SEGMENT_SIZE;
    this.#user.transmit(out);
  }
  #timestamp(now: number): number {
    return (this.#timestampBase + Math.floor(now)) >>> 0;
  }
  #dead(why: "timeout"): void {
    this.#sendReset();
    this.#user.aborted(why);
    this.#close();
  }
  #close(): void {
    if (this.state === "CLOSED") return;
    this.state = "CLOSED";
    this.#sender?.clear();
    this.#synAt = this.#endAt = this.#idleAt = this.#acknowledgmentAt = Infinity;
    this.#user.closed();
  }
}

/** The window scale that makes a buffer sayable in 16 bits (RFC 7323, 2.3). */
function shiftFor(bytes: number): number {
  let shift = 0;
  while (shift < MAXIMUM_SHIFT && 0xffff * 2 ** shift < bytes) shift++;
  return shift;
}
