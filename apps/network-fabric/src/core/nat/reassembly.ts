import type { Clock } from "@polyvisor/service-kit";
import { IPV4_FLAG, isFragment, type Ipv4Packet } from "@polyvisor/wire";

/** Incomplete datagrams of one source, and of all; the oldest makes room. */
const MAXIMUM_PER_SOURCE = 16;
const MAXIMUM_DATAGRAMS = 64;
/** RFC 1122, 3.3.2 has 60 to 120 s, Linux 30 s. */
const TIMEOUT_MS = 30_000;
const MAXIMUM_PAYLOAD = 65_535 - 20;
/** A datagram of 64 KiB in the smallest useful pieces; more are an attack. */
const MAXIMUM_FRAGMENTS = 128;

interface Partial {
  readonly source: number;
  readonly since: number;
  /** In order of offset, without overlap. */
  readonly pieces: Ipv4Packet[];
  /** Payload bytes of the whole, once the last fragment has come. */
  total: number | undefined;
  received: number;
}

/** Joins fragments (RFC 791, 3.2). Overlapping ones are nobody's honest work: the datagram is dropped (as RFC 5722 says for IPv6). */
export class Reassembly {
  readonly counters = { fragments: 0, fragments_dropped: 0, reassembled: 0 };
  readonly #clock: Clock;
  readonly #partial = new Map<string, Partial>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The whole datagram when this fragment completes it. Bytes of fragments are copied. */
  add(packet: Ipv4Packet): Ipv4Packet | undefined {
    if (!isFragment(packet)) return packet;
    this.counters.fragments++;
    this.#expire();
    const key = `${packet.source}-${packet.destination}-${packet.protocol}-${packet.identification}`;
    const partial = this.#partial.get(key) ?? this.#start(key, packet.source);
    if (!this.#insert(partial, packet)) {
      this.counters.fragments_dropped += partial.pieces.length + 1;
      this.#partial.delete(key);
      return undefined;
    }
    if (partial.total === undefined || partial.received < partial.total) return undefined;
    this.#partial.delete(key);
    this.counters.reassembled++;
    const payload = new Uint8Array(partial.total);
    for (const piece of partial.pieces) payload.set(piece.payload, piece.fragmentOffset);
    return { ...partial.pieces[0]!, flags: 0, fragmentOffset: 0, payload };
  }

  #start(key: string, source: number): Partial {
    let ofSource = 0;
    let oldestOfSource: string | undefined;
    for (const [other, partial] of this.#partial) {
      if (partial.source !== source) continue;
      ofSource++;
      oldestOfSource ??= other;
    }
    const victim = ofSource >= MAXIMUM_PER_SOURCE ? oldestOfSource : this.#partial.size >= MAXIMUM_DATAGRAMS ? this.#partial.keys().next().value : undefined;
    if (victim !== undefined) this.#drop(victim);
    const partial: Partial = { source, since: this.#clock.monotonic(), pieces: [], total: undefined, received: 0 };
    this.#partial.set(key, partial);
    return partial;
  }
  /** False: it does not fit to what came before. */
  #insert(partial: Partial, packet: Ipv4Packet): boolean {
    const { fragmentOffset: start, payload, flags } = packet;
    const end = start + payload.length;
    const last = (flags & IPV4_FLAG.MORE_FRAGMENTS) === 0;
    if (end > MAXIMUM_PAYLOAD || payload.length === 0 || (!last && payload.length % 8 !== 0)) return false;
    if (partial.pieces.length >= MAXIMUM_FRAGMENTS) return false;
    const { pieces } = partial;
    let index = pieces.length;
    while (index > 0 && pieces[index - 1]!.fragmentOffset > start) index--;
    const before = pieces[index - 1];
    const after = pieces[index];
    if (before && before.fragmentOffset === start && before.payload.length === payload.length) return true; // the same again
    if (before && before.fragmentOffset + before.payload.length > start) return false;
    if (after && end > after.fragmentOffset) return false;
    if (last ? partial.total !== undefined || after !== undefined : partial.total !== undefined && end > partial.total) return false;
    if (last) partial.total = end;
    pieces.splice(index, 0, { ...packet, options: packet.options.slice(), payload: payload.slice() });
    partial.received += payload.length;
    return true;
  }
  #expire(): void {
    const now = this.#clock.monotonic();
    for (const [key, { since }] of this.#partial) {
      if (now - since < TIMEOUT_MS) break; // oldest first
      this.#drop(key);
    }
  }
  #drop(key: string): void {
    this.counters.fragments_dropped += this.#partial.get(key)!.pieces.length;
    this.#partial.delete(key);
  }
}
