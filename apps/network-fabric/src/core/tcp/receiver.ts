import { add, before, distance } from "./sequence.ts";

interface Piece {
  readonly sequence: number;
  readonly data: Uint8Array;
}
/** Pieces kept out of order; more are dropped, and come again. */
const MAXIMUM_PIECES = 512;
/** SACK blocks that fit beside timestamps (RFC 2018, 3). */
const MAXIMUM_BLOCKS = 3;

/** The receiving half of a connection: puts segments in order, and says how much may come (RFC 9293, 3.8.6.2.2). */
export class TcpReceiver {
  /** RCV.NXT: everything before it has been handed on. */
  next: number;
  /** Right edge of the window that was advertised last. It never moves left. */
  edge: number;
  readonly #scale: number;
  readonly #segmentSize: number;
  #pieces: Piece[] = [];
  #pieceBytes = 0;
  /** Sequence number of the peer's FIN, once seen. */
  #fin: number | undefined;
  finReceived = false;
  /** Where the newest piece went: its block is reported first (RFC 2018, 4). */
  #newest = 0;

  constructor(options: { next: number; edge: number; scale: number; segmentSize: number }) {
    this.next = options.next;
    this.edge = options.edge;
    this.#scale = options.scale;
    this.#segmentSize = options.segmentSize;
  }

  get outOfOrder(): boolean {
    return this.#pieces.length > 0;
  }
  /** Bytes that are held and not handed on. */
  get held(): number {
    return this.#pieceBytes;
  }

  /** RFC 9293, 3.10.7.4, table 6: does any of the segment lie in the window? */
  acceptable(sequence: number, length: number): boolean {
    const window = distance(this.next, this.edge);
    const from = distance(this.next, sequence);
    if (length === 0) return window === 0 ? from === 0 : from >= 0 && from < window;
    if (window === 0) return false;
    const last = from + length - 1;
    return (from >= 0 && from < window) || (last >= 0 && last < window);
  }

  /** Data of an acceptable segment. Hands on what is in order now, as views. */
  insert(sequence: number, data: Uint8Array, fin: boolean, deliver: (data: Uint8Array) => void): void {
    if (fin) {
      const at = add(sequence, data.length);
      if (!before(at, this.next) && distance(this.next, at) <= distance(this.next, this.edge)) this.#fin = at;
    }
    const overlap = distance(sequence, this.next);
    if (overlap > 0) {
      data = data.subarray(overlap);
      sequence = this.next;
    }
    const room = distance(sequence, this.edge) + 2 ** this.#scale - 1; // what rounding up let the peer send
    if (data.length > room) data = data.subarray(0, Math.max(0, room));
    if (this.#fin !== undefined && distance(sequence, this.#fin) < data.length) data = data.subarray(0, Math.max(0, distance(sequence, this.#fin)));
    if (data.length > 0) {
      if (sequence === this.next) this.#handOn(data, deliver);
      else this.#keep(sequence, data);
    }
    if (this.#pieces.length > 0) this.#join(deliver);
    if (this.#fin === this.next && !this.finReceived) {
      this.finReceived = true;
      this.next = add(this.next, 1);
    }
  }
  #handOn(data: Uint8Array, deliver: (data: Uint8Array) => void): void {
    this.next = add(this.next, data.length);
    deliver(data);
  }
  /** Keeps a piece; what overlaps pieces that are there already is left out, the rest copied out of the frame. */
  #keep(sequence: number, data: Uint8Array): void {
    let index = 0;
    while (data.length > 0) {
      const piece = this.#pieces[index];
      if (!piece || !before(piece.sequence, add(sequence, data.length))) break; // lies wholly before the piece
      const pieceEnd = add(piece.sequence, piece.data.length);
      if (before(sequence, pieceEnd)) {
        const ahead = distance(sequence, piece.sequence);
        if (ahead > 0) index += this.#place(index, sequence, data.subarray(0, ahead));
        const skip = distance(sequence, pieceEnd);
        data = data.subarray(Math.min(skip, data.length));
        sequence = pieceEnd;
      }
      index++;
    }
    if (data.length > 0) this.#place(index, sequence, data);
  }
  #place(index: number, sequence: number, data: Uint8Array): 0 | 1 {
    if (this.#pieces.length >= MAXIMUM_PIECES) return 0;
    this.#pieces.splice(index, 0, { sequence, data: data.slice() });
    this.#pieceBytes += data.length;
    this.#newest = sequence;
    return 1;
  }
  #join(deliver: (data: Uint8Array) => void): void {
    let used = 0;
    for (const { sequence, data } of this.#pieces) {
      if (before(this.next, sequence)) break;
      used++;
      this.#pieceBytes -= data.length;
      const overlap = distance(sequence, this.next);
      if (overlap < data.length) this.#handOn(data.subarray(overlap), deliver);
    }
    if (used > 0) this.#pieces.splice(0, used);
  }

  /** What has arrived beyond `next`, the block with the newest piece first (RFC 2018, 4). */
  blocks(): { left: number; right: number }[] {
    const blocks: { left: number; right: number }[] = [];
    for (const { sequence, data } of this.#pieces) {
      const last = blocks.at(-1);
      const right = add(sequence, data.length);
      if (last && last.right === sequence) last.right = right;
      else blocks.push({ left: sequence, right });
    }
    const holdsNewest = ({ left, right }: { left: number; right: number }) => !before(this.#newest, left) && before(this.#newest, right);
    return [...blocks.filter(holdsNewest), ...blocks.filter((block) => !holdsNewest(block))].slice(0, MAXIMUM_BLOCKS);
  }

  /** The window field to send now, with so much room for data. Moves the edge. */
  advertise(room: number): number {
    const promised = distance(this.next, this.edge);
    const unit = 2 ** this.#scale;
    let window = Math.max(promised, room);
    // Small steps to the right are not worth a segment of their own, nor the silly segments they would bring.
    if (window - promised < Math.min(this.#segmentSize, room / 2)) window = promised;
    const grown = Math.min(0xffff, Math.floor(window / unit)) * unit;
    // A window that stays is rounded up in the field but not here, or it would creep to the right with each acknowledgment.
    if (grown <= promised) return Math.min(0xffff, Math.ceil(promised / unit));
    this.edge = add(this.next, grown);
    return grown / unit;
  }
  /** Would telling the peer of this much room let it go on? */
  worthTelling(room: number, full: number): boolean {
    const promised = distance(this.next, this.edge);
    room = Math.min(room, 0xffff * 2 ** this.#scale);
    return room - promised >= Math.max(this.#segmentSize, Math.min(full / 2, 256 * 1024)) || (promised < this.#segmentSize && room >= Math.min(full / 2, 2 * this.#segmentSize));
  }
  clear(): void {
    this.#pieces = [];
    this.#pieceBytes = 0;
  }
}
