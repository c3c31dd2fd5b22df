import { before, distance } from "./sequence.ts";

/** What went out in one piece, [start, end). */
export interface SentRange {
  start: number;
  end: number;
  sentAt: number;
  retransmitted: boolean;
  sacked: boolean;
  lost: boolean;
}
/** What an acknowledgment said. */
export interface Delivery {
  /** Bytes that are newly known to have arrived. */
  bytes: number;
  /** Round trip time of the newest of them, if it can be told. */
  roundTrip: number | undefined;
  /** Something that was sent twice is among them: what came in order waited for it (Karn's algorithm: RFC 6298, 3). */
  ambiguous: boolean;
}

/**
 * The sender's book of what is on the wire: selective acknowledgments (RFC 2018), and loss found by time (RACK: RFC 8985,
 * section 6): what was sent before something that has arrived, and is overdue by the reordering window, is lost.
 */
export class Scoreboard {
  /** In sequence order, without gaps. */
  #ranges: SentRange[] = [];
  #inFlight = 0;
  #lost = 0;
  /** Transmission time and end of the most recently sent range that has arrived (RACK.xmit_ts, RACK.end_seq). */
  #newestSentAt = -Infinity;
  #newestEnd = 0;
  #newestRoundTrip = 0;
  /** The highest end that arrived: something older that comes later was reordered. */
  #highestEnd: number | undefined;
  #reordered = false;
  #sackedBytes = 0;

  /** Bytes on the wire: sent, not arrived, not lost ("pipe": RFC 6675). */
  get inFlight(): number {
    return this.#inFlight;
  }
  get hasLost(): boolean {
    return this.#lost > 0;
  }
  get empty(): boolean {
    return this.#ranges.length === 0;
  }
  get count(): number {
    return this.#ranges.length;
  }
  get oldest(): SentRange | undefined {
    return this.#ranges[0];
  }
  get newest(): SentRange | undefined {
    return this.#ranges.at(-1);
  }

  sent(start: number, end: number, now: number): void {
    this.#ranges.push({ start, end, sentAt: now, retransmitted: false, sacked: false, lost: false });
    this.#inFlight += distance(start, end);
  }
  /** The first lost range, cut to `limit` bytes. */
  firstLost(limit: number): SentRange | undefined {
    if (this.#lost === 0) return undefined;
    const index = this.#ranges.findIndex(({ lost }) => lost);
    const range = this.#ranges[index];
    if (range && distance(range.start, range.end) > limit) this.#split(index, (range.start + limit) >>> 0);
    return range;
  }
  resent(range: SentRange, now: number): void {
    const bytes = distance(range.start, range.end);
    if (range.lost) {
      range.lost = false;
      this.#lost -= bytes;
      this.#inFlight += bytes;
    }
    range.sentAt = now;
    range.retransmitted = true;
  }

  /** Everything before `acknowledged` has arrived, and so have the blocks. */
  acknowledge(acknowledged: number, blocks: readonly { left: number; right: number }[], now: number, minimumRoundTrip: number): Delivery {
    const delivery: Delivery = { bytes: 0, roundTrip: undefined, ambiguous: false };
    let gone = 0;
    for (const range of this.#ranges) {
      if (!before(range.start, acknowledged)) break;
      if (before(acknowledged, range.end)) {
        this.#split(gone, acknowledged); // a part of it
      }
      this.#arrived(range, now, delivery, minimumRoundTrip);
      if (range.sacked) this.#sackedBytes -= distance(range.start, range.end);
      gone++;
    }
    if (gone > 0) this.#ranges.splice(0, gone);
    // In sequence order: what comes below something that has arrived before would count as reordered.
    for (const { left, right } of blocks.length > 1 ? blocks.toSorted((a, b) => distance(b.left, a.left)) : blocks) {
      if (!before(left, right) || before(left, acknowledged)) continue; // also D-SACK (RFC 2883): about old data
      for (let i = 0; i < this.#ranges.length; i++) {
        const range = this.#ranges[i]!;
        if (!before(range.start, right)) break;
        if (!before(left, range.end)) continue;
        if (before(range.start, left)) {
          this.#split(i, left);
          continue;
        }
        if (before(right, range.end)) this.#split(i, right);
        if (range.sacked) continue;
        this.#arrived(range, now, delivery, minimumRoundTrip);
        range.sacked = true;
        this.#sackedBytes += distance(range.start, range.end);
      }
    }
    return delivery;
  }

  /**
   * Marks what is lost by now (RFC 8985, 6.2 step 5). Answers when to look again, if something may become lost by then.
   * `eager`: no room for reordering, as in recovery; so do three segments above a hole (DupThresh).
   */
  detectLoss(now: number, minimumRoundTrip: number, eager: boolean, segmentSize: number): number | undefined {
    if (this.#newestSentAt === -Infinity) return undefined;
    const strict = !this.#reordered && (eager || this.#sackedBytes >= 3 * segmentSize);
    const window = strict ? 0 : Math.max(minimumRoundTrip / 4, this.#reordered ? 1 : 0);
    let again: number | undefined;
    for (const range of this.#ranges) {
      if (range.sacked || range.lost) continue;
      const older = range.sentAt < this.#newestSentAt || (range.sentAt === this.#newestSentAt && before(range.end, this.#newestEnd));
      if (!older) continue;
      const due = range.sentAt + this.#newestRoundTrip + window;
      if (due <= now) this.markLost(range);
      else again = Math.min(again ?? Infinity, due);
    }
    return again;
  }
  markLost(range: SentRange): void {
    if (range.lost || range.sacked) return;
    const bytes = distance(range.start, range.end);
    range.lost = true;
    this.#lost += bytes;
    this.#inFlight -= bytes;
  }
  /** The front of the first range: what duplicate acknowledgments without SACK point at (RFC 6582). */
  markFrontLost(limit: number): void {
    const front = this.#ranges[0];
    if (!front) return;
    if (distance(front.start, front.end) > limit) this.#split(0, (front.start + limit) >>> 0);
    this.markLost(front);
  }
  /** After a timeout nothing that was not acknowledged is trusted to be on its way (RFC 6675, 5.1). */
  markAllLost(): void {
    for (const range of this.#ranges) this.markLost(range);
  }
  clear(): void {
    this.#ranges = [];
    this.#inFlight = this.#lost = this.#sackedBytes = 0;
  }

  #arrived(range: SentRange, now: number, delivery: Delivery, minimumRoundTrip: number): void {
    if (range.sacked) return; // counted when the block came
    const bytes = distance(range.start, range.end);
    if (range.lost) this.#lost -= bytes;
    else this.#inFlight -= bytes;
    range.lost = false;
    delivery.bytes += bytes;
    const roundTrip = now - range.sentAt;
    if (range.retransmitted) {
      delivery.ambiguous = true;
      if (roundTrip < minimumRoundTrip) return; // it was the first transmission that arrived
    } else {
      delivery.roundTrip = delivery.roundTrip === undefined ? roundTrip : Math.min(delivery.roundTrip, roundTrip);
      if (this.#highestEnd !== undefined && before(range.end, this.#highestEnd)) this.#reordered = true;
    }
    if (this.#highestEnd === undefined || before(this.#highestEnd, range.end)) this.#highestEnd = range.end;
    if (range.sentAt > this.#newestSentAt || (range.sentAt === this.#newestSentAt && before(this.#newestEnd, range.end))) {
      this.#newestSentAt = range.sentAt;
      this.#newestEnd = range.end;
      this.#newestRoundTrip = roundTrip;
    }
  }
  #split(index: number, at: number): void {
    const range = this.#ranges[index]!;
    this.#ranges.splice(index + 1, 0, { ...range, start: at });
    range.end = at;
  }
}
