import type { TcpSegment } from "@polyvisor/wire";
import { TCP_FLAG } from "@polyvisor/wire";
import { TcpConnection, type OutgoingSegment, type TcpLimits, type TcpUser } from "../core/tcp/connection.ts";

export const LIMITS: TcpLimits = { maximumSegmentSize: 1460, pieceSize: 65_000, receiveBuffer: 256 * 1024, timeWaitMs: 60_000, acknowledgmentDelayMs: 0 };

/** What a segment on its way out is on the wire: cut to segments, as the NIC would. */
export function onWire(out: OutgoingSegment, ports: { sourcePort: number; destinationPort: number }): TcpSegment[] {
  const payload = new Uint8Array(out.length);
  if (out.length > 0) out.queue!.copy(out.offset, out.length, payload, 0);
  const base = { ...ports, acknowledgment: out.acknowledgment, window: out.window, urgentPointer: 0, options: out.options.slice() };
  if (out.length <= out.segmentSize) return [{ ...base, sequence: out.sequence, flags: out.flags, payload }];
  const segments: TcpSegment[] = [];
  for (let at = 0; at < out.length; at += out.segmentSize) {
    const last = at + out.segmentSize >= out.length;
    const flags = last ? out.flags : out.flags & ~(TCP_FLAG.FIN | TCP_FLAG.PSH);
    segments.push({ ...base, sequence: (out.sequence + at) >>> 0, flags, payload: payload.subarray(at, at + out.segmentSize) });
  }
  return segments;
}

/** One end of a connection and what it has heard. */
export class Endpoint implements TcpUser {
  connection!: TcpConnection;
  readonly got: Uint8Array[] = [];
  readonly heard: string[] = [];
  gotBytes = 0;
  capacity: number = LIMITS.receiveBuffer;
  /** Received and not read. */
  unread = 0;
  reads = true;
  sent: TcpSegment[] = [];
  readonly ports: { sourcePort: number; destinationPort: number };

  constructor(sourcePort: number, destinationPort: number) {
    this.ports = { sourcePort, destinationPort };
  }
  transmit(out: OutgoingSegment): void {
    this.sent.push(...onWire(out, this.ports));
  }
  established(): void {
    this.heard.push("established");
  }
  received(data: Uint8Array): void {
    this.got.push(data.slice());
    this.gotBytes += data.length;
    if (!this.reads) this.unread += data.length;
  }
  receivedFin(): void {
    this.heard.push("fin");
  }
  room(): number {
    return Math.max(0, this.capacity - this.unread);
  }
  acknowledged(): void {}
  aborted(why: string): void {
    this.heard.push(why);
  }
  closed(): void {
    this.heard.push("closed");
  }
}

/** What a link does to each segment: how often it arrives, and how late. */
export type Fate = (segment: TcpSegment) => readonly number[];

/** Two ends over a link, with time that jumps from event to event. */
export class Link {
  readonly a = new Endpoint(1000, 2000);
  readonly b = new Endpoint(2000, 1000);
  now = 0;
  segments = 0;
  readonly #fate: Fate;
  #flying: { at: number; order: number; to: Endpoint; segment: TcpSegment }[] = [];
  #limits: TcpLimits;

  constructor(fate: Fate, { limits = LIMITS, initial = 0xffff_fff0 }: { limits?: TcpLimits; initial?: number } = {}) {
    this.#fate = fate;
    this.#limits = limits;
    this.a.connection = TcpConnection.open(this.a, limits, initial, 0);
    this.#collect();
  }
  /** Runs until nothing happens any more, `done` holds, or the time is over. */
  run(untilMs: number, done: () => boolean = () => false): void {
    for (let steps = 0; steps < 2_000_000 && !done(); steps++) {
      const ends = [this.a, this.b].filter(({ connection }) => connection);
      for (const { connection } of ends) connection.flush(this.now);
      this.#collect();
      const next = Math.min(...this.#flying.map(({ at }) => at), ...ends.map(({ connection }) => connection.deadline));
      if (next === Infinity || next > untilMs) return;
      this.now = Math.max(this.now, next);
      const due = this.#flying.filter(({ at }) => at <= this.now).toSorted((x, y) => x.at - y.at || x.order - y.order);
      this.#flying = this.#flying.filter(({ at }) => at > this.now);
      for (const { to, segment } of due) this.#arrive(to, segment);
      for (const { connection } of ends) connection.timer(this.now);
      this.#collect();
    }
  }
  #arrive(to: Endpoint, segment: TcpSegment): void {
    if (to.connection) to.connection.segment(segment, this.now);
    else if (segment.flags === TCP_FLAG.SYN) to.connection = TcpConnection.accept(to, this.#limits, 7, segment, this.now);
  }
  #collect(): void {
    for (const [from, to] of [
      [this.a, this.b],
      [this.b, this.a],
    ] as const) {
      for (const segment of from.sent.splice(0)) {
        for (const delay of this.#fate(segment)) this.#flying.push({ at: this.now + delay, order: this.segments++, to, segment });
      }
    }
  }
}
