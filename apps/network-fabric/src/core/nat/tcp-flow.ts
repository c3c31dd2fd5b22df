import type { Clock } from "@polyvisor/service-kit";
import { finishChecksum, GSO, IP_PROTOCOL, TCP_FLAG, TCP_HEADER_BYTES, UNREACHABLE_CODE, writeTcpHeader, writeU16, type Ipv4Packet, type TcpSegment } from "@polyvisor/wire";
import { TcpConnection, type OutgoingSegment, type TcpLimits, type TcpUser } from "../tcp/connection.ts";
import type { GuestPath } from "./guest-path.ts";
import type { HostError, HostFailure, HostStream, HostStreamEvents } from "./host-network.ts";

/** Bytes from the guest that may wait for the host's socket. */
export const RECEIVE_BUFFER_BYTES = 1024 * 1024;
/** Bytes from the host that are held for a guest: at least, and at most when it pays. */
const SEND_BUFFER_MINIMUM = 128 * 1024;
const SEND_BUFFER_MAXIMUM = 4 * 1024 * 1024;
/** RFC 9293, 3.4.2 has MSL = 2 minutes; Linux and everybody else wait 60 s in all. */
const TIME_WAIT_MS = 60_000;
/** Long enough for the answer of a server near by; short beside what Linux waits (40 ms), because a guest's Nagle waits for it. */
const ACKNOWLEDGMENT_DELAY_MS = 2;
/** Largest IP datagram (RFC 791, 3.1). */
const MAXIMUM_DATAGRAM = 65_535;

/** ICMP codes for failures of a connect (RFC 792; RFC 1812, 5.2.7.1). What is not here is answered with a reset. */
const CODE_OF: Readonly<Partial<Record<HostFailure, number>>> = {
  "host-unreachable": UNREACHABLE_CODE.HOST,
  timeout: UNREACHABLE_CODE.HOST,
  "network-unreachable": UNREACHABLE_CODE.NET,
  denied: UNREACHABLE_CODE.ADMINISTRATIVELY,
};

/** What a flow needs of its table. */
export interface TcpFlowOwner {
  readonly clock: Clock;
  /** The host's connect has come to an end. */
  connected(flow: TcpFlow): void;
  /** The flow has something to send when the batch is over. */
  dirty(flow: TcpFlow): void;
  /** Runs what sends frames. */
  turn(run: () => void): void;
  forget(flow: TcpFlow): void;
}
export interface TcpFlowAddresses {
  readonly path: GuestPath;
  readonly guestPort: number;
  readonly remotePort: number;
  readonly initialSequence: number;
}

/**
 * One TCP connection through the NAT: the guest's, which ends here, and the host's, which begins here. Bytes are handed over
 * as fast as the slower side takes them: what waits for the host closes the guest's window, what waits for the guest pauses
 * the host's socket.
 */
export class TcpFlow implements TcpUser, HostStreamEvents {
  readonly addresses: TcpFlowAddresses;
  readonly #owner: TcpFlowOwner;
  readonly openedAt: number;
  lastAt: number;
  bytesFromGuest = 0;
  bytesToGuest = 0;
  /** The guest's packet that opened the flow, until it is answered. */
  #opening: { packet: Ipv4Packet; syn: TcpSegment; refuse: (packet: Ipv4Packet, code: number | "reset") => void } | undefined;
  #connection: TcpConnection | undefined;
  #stream: HostStream | undefined;
  /** From the guest, in this batch of frames: written to the host's socket as one, because a write costs more than a copy. */
  #gather: Uint8Array[] = [];
  #gathered = 0;
  #trafficClass = 0;
  #paused = false;
  #hostEnded = false;
  #guestEnded = false;
  #over = false;
  #cancelTimer: (() => void) | undefined;
  #timerAt = Infinity;
  /** Of the forward that it came through. */
  readonly forward: string;

  constructor(owner: TcpFlowOwner, addresses: TcpFlowAddresses, forward = "") {
    this.#owner = owner;
    this.addresses = addresses;
    this.forward = forward;
    this.openedAt = this.lastAt = owner.clock.monotonic();
  }

  get state(): string {
    return this.#connection?.state ?? (this.#over ? "CLOSED" : "CONNECTING");
  }
  get stream(): HostStream | undefined {
    return this.#stream;
  }
  get retransmitted(): number {
    return this.#connection?.retransmitted ?? 0;
  }
  /** Bytes of memory that it holds. */
  get held(): number {
    return (this.#connection?.buffered ?? 0) + (this.#connection?.held ?? 0) + this.#gathered + (this.#stream?.pending ?? 0);
  }

  /** The guest's SYN: nothing is said to it before the host's connect has come to an end. */
  connect(opening: { packet: Ipv4Packet; syn: TcpSegment; refuse: (packet: Ipv4Packet, code: number | "reset") => void }, connect: (events: HostStreamEvents) => HostStream, trafficClass: number): void {
    this.#opening = opening;
    this.#stream = connect(this);
    this.#mark(trafficClass);
  }
  /** A connection that came to a forwarded port: the guest is asked. */
  offer(stream: HostStream): void {
    this.#stream = stream;
    this.#paused = true;
    this.#connection = TcpConnection.open(this, this.#limits(), this.addresses.initialSequence, this.#now());
    this.#arm();
  }
  /** A segment from the guest. */
  segment(segment: TcpSegment, trafficClass: number): void {
    this.lastAt = this.#now();
    this.#mark(trafficClass);
    if (this.#connection) {
      this.#connection.segment(segment, this.lastAt);
      this.#owner.dirty(this);
    } else if (segment.flags & TCP_FLAG.RST) this.drop(); // it does not want to connect any more
  }
  /** Programs choose their class before they connect, or later. */
  #mark(trafficClass: number): void {
    if (trafficClass === this.#trafficClass) return;
    this.#trafficClass = trafficClass;
    this.#stream?.mark(trafficClass);
  }
  /** Whether a SYN may open a new connection in this one's place. */
  replaceableBy(syn: TcpSegment): boolean {
    return this.#connection?.replaceableBy(syn) ?? false;
  }
  /** The batch is over: writes what was gathered, sends what is due. */
  settle(): void {
    const wrote = this.#gathered > 0;
    this.#writeGathered();
    this.#connection?.flush(this.#now());
    // An answer within the batch (to what was out of order) may have said that there is no room: now there is.
    if (wrote) this.#connection?.roomGrown(this.#now());
    this.#arm();
  }
  /** Ends both sides, with resets. */
  drop(): void {
    if (this.#over) return;
    this.#connection?.abort();
    this.closed();
  }

  // The guest's side.

  transmit(out: OutgoingSegment): void {
    const { path, guestPort, remotePort } = this.addresses;
    const transportBytes = TCP_HEADER_BYTES + out.options.length + out.length;
    const frame = path.open(IP_PROTOCOL.TCP, transportBytes);
    const at = path.headerBytes;
    writeTcpHeader(frame, at, { ...out, sourcePort: remotePort, destinationPort: guestPort, urgentPointer: 0 });
    const payload = at + TCP_HEADER_BYTES + out.options.length;
    if (out.length > 0) {
      out.queue!.copy(out.offset, out.length, frame, payload);
      this.bytesToGuest += out.length;
    }
    // The checksum is left to whoever has to see it (NET-6): the field holds the pseudo header's sum.
    writeU16(frame, at + 16, ~finishChecksum(path.pseudoHeader(IP_PROTOCOL.TCP, transportBytes)) & 0xffff);
    const large = out.length > out.segmentSize;
    path.send(frame, {
      needsChecksum: true,
      checksumStart: at,
      checksumOffset: 16,
      gsoType: large ? (path.ipHeaderBytes === 20 ? GSO.TCPV4 : GSO.TCPV6) : GSO.NONE,
      gsoSize: large ? out.segmentSize : 0,
      headerLength: large ? payload : 0,
    });
  }
  established(): void {
    if (this.#paused) this.#resume();
  }
  received(data: Uint8Array): void {
    this.bytesFromGuest += data.length;
    this.#gather.push(data);
    this.#gathered += data.length;
  }
  receivedFin(): void {
    this.#guestEnded = true;
    this.#writeGathered();
    this.#stream?.end();
  }
  room(): number {
    return Math.max(0, RECEIVE_BUFFER_BYTES - this.#gathered - (this.#stream?.pending ?? 0));
  }
  acknowledged(): void {
    if (this.#paused && this.#connection!.buffered < this.#bufferLimit / 2) this.#resume();
  }
  aborted(): void {
    this.#stream?.reset();
    this.#stream = undefined;
  }
  closed(): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelTimer?.();
    // After a clean end the host's socket closes by itself when it has sent everything.
    if (!this.#guestEnded || !this.#hostEnded) this.#stream?.reset();
    this.#gather = [];
    this.#owner.forget(this);
  }

  // The host's side.

  connected(): void {
    const opening = this.#opening;
    if (!opening || this.#over) return;
    this.#opening = undefined;
    // A server that speaks first may do so before the guest's handshake is over; `established` resumes.
    this.#paused = true;
    this.#stream?.pause();
    this.#owner.connected(this);
    this.#owner.turn(() => {
      this.#connection = TcpConnection.accept(this, this.#limits(), this.addresses.initialSequence, opening.syn, this.#now());
    });
    this.#arm();
  }
  data(chunk: Uint8Array): void {
    if (this.#over) return;
    const connection = this.#connection!;
    this.lastAt = this.#now();
    connection.write(chunk);
    if (connection.buffered > this.#bufferLimit && !this.#paused) {
      this.#paused = true;
      this.#stream!.pause();
    }
    this.#flush();
  }
  ended(): void {
    if (this.#over) return;
    this.#hostEnded = true;
    this.#connection?.finish();
    this.#flush();
  }
  drained(): void {
    if (this.#over || !this.#connection) return;
    this.#owner.turn(() => this.#connection!.roomGrown(this.#now()));
  }
  finished(error?: HostError): void {
    if (this.#over) return;
    this.lastAt = this.#now();
    if (this.#opening) {
      const { packet, refuse } = this.#opening;
      this.#stream = undefined;
      this.#owner.turn(() => refuse(packet, CODE_OF[error?.failure ?? "other"] ?? "reset"));
      this.closed();
    } else if (error) {
      this.#stream = undefined;
      this.#owner.turn(() => this.#connection?.abort()); // calls `closed`
    } // Otherwise both directions have ended; what the guest has not acknowledged goes on without the host.
  }

  get #bufferLimit(): number {
    return Math.min(Math.max(this.#connection!.worthBuffering, SEND_BUFFER_MINIMUM), SEND_BUFFER_MAXIMUM);
  }
  #limits(): TcpLimits {
    const { mtu, ipHeaderBytes } = this.addresses.path;
    return {
      maximumSegmentSize: mtu - ipHeaderBytes - TCP_HEADER_BYTES,
      pieceSize: MAXIMUM_DATAGRAM - 40 - TCP_HEADER_BYTES,
      receiveBuffer: RECEIVE_BUFFER_BYTES,
      timeWaitMs: TIME_WAIT_MS,
      acknowledgmentDelayMs: ACKNOWLEDGMENT_DELAY_MS,
    };
  }
  #resume(): void {
    this.#paused = false;
    this.#stream?.resume();
  }
  #writeGathered(): void {
    if (this.#gathered === 0) return;
    const pieces = this.#gather;
    this.#stream?.write(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, this.#gathered));
    this.#gather = [];
    this.#gathered = 0;
  }
  #flush(): void {
    this.#owner.turn(() => this.#connection?.flush(this.#now()));
    this.#arm();
  }
  /** One timer at a time: a deadline that moves away costs nothing until the old one has passed. */
  #arm(): void {
    if (this.#over) return;
    const deadline = this.#connection?.deadline ?? Infinity;
    if (deadline >= this.#timerAt || deadline === Infinity) return;
    this.#cancelTimer?.();
    this.#timerAt = deadline;
    this.#cancelTimer = this.#owner.clock.after(Math.max(0, deadline - this.#now()), () => {
      this.#timerAt = Infinity;
      this.#cancelTimer = undefined;
      this.#owner.turn(() => this.#connection?.timer(this.#now()));
      this.#arm();
    });
  }
  #now(): number {
    return this.#owner.clock.monotonic();
  }
}
