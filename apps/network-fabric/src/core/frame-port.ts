import type { Channel } from "@polyvisor/contracts";
import type { Frame, FrameBatch, Port } from "@polyvisor/contracts/network";
import { completeChecksum, ETHERNET_HEADER_BYTES, type MacAddress } from "@polyvisor/wire";

/** Frames that a guest may send ahead of our saying so again. */
export const RECEIVE_CREDIT = 256;
/** Credit that a peer can pile up. */
const MAX_SEND_CREDIT = 65_536;
/** Frames and bytes in one batch at most. */
const BATCH_FRAMES = 64;
const BATCH_BYTES = 256 * 1024;
/** Bytes that wait for a port, beside the configured number of frames. */
const QUEUE_BYTES = 4 * 1024 * 1024;

/** Counters of a port, as the fabric sees it: rx = from the guest, tx = to the guest. */
export function newPortCounters() {
  return {
    rx_frames: 0,
    rx_bytes: 0,
    tx_frames: 0,
    tx_bytes: 0,
    rx_dropped_credit: 0, // sent beyond the credit
    rx_dropped_malformed: 0, // too short, too long, impossible offload
    rx_dropped_gso: 0, // segmentation offload: not built yet
    tx_dropped_queue: 0, // the guest gives no credit and its queue is full
    tx_dropped_link: 0, // nobody has the port's stream open
  };
}

/**
 * The fabric's end of one NIC: a stream with credit in both directions. Each port has its own queue, so a guest that
 * does not take its frames loses its own and nobody else's.
 */
export class FramePort {
  readonly info: Port;
  readonly mac: MacAddress;
  readonly counters = newPortCounters();
  /** The largest frame that the network carries. */
  readonly #maxFrameBytes: number;
  readonly #queueFrames: number;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #channel: Channel<FrameBatch, FrameBatch> | undefined;
  #sendCredit = 0;
  /** What the peer may still send. */
  #receiveCredit = 0;
  /** Taken from the credit, not given back yet. */
  #owedCredit = 0;

  constructor(info: Port, mac: MacAddress, limits: { mtu: number; queueFrames: number }) {
    this.info = info;
    this.mac = mac;
    this.#maxFrameBytes = limits.mtu + ETHERNET_HEADER_BYTES + 4; // and a VLAN tag
    this.#queueFrames = limits.queueFrames;
  }

  /** A stream for this port; it replaces an older one. Says the first credit. */
  open(channel: Channel<FrameBatch, FrameBatch>): Channel<FrameBatch, FrameBatch> | undefined {
    const old = this.#channel;
    this.#channel = channel;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#sendCredit = 0;
    this.#receiveCredit = RECEIVE_CREDIT;
    this.#owedCredit = 0;
    this.#send([], RECEIVE_CREDIT);
    return old;
  }
  close(channel: Channel<FrameBatch, FrameBatch>): void {
    if (this.#channel === channel) this.#channel = undefined;
  }
  detach(): Channel<FrameBatch, FrameBatch> | undefined {
    const channel = this.#channel;
    this.#channel = undefined;
    return channel;
  }
  addCredit(credit: number): void {
    this.#sendCredit = Math.min(this.#sendCredit + credit, MAX_SEND_CREDIT);
  }

  /** A frame from the guest, complete and of legal size; undefined when it has to be dropped. */
  accept(frame: Frame): Uint8Array | undefined {
    if (this.#receiveCredit === 0) {
      this.counters.rx_dropped_credit++;
      return undefined;
    }
    this.#receiveCredit--;
    this.#owedCredit++;
    const { data, offload } = frame;
    if (offload && offload.gsoType !== 0) {
      this.counters.rx_dropped_gso++;
      return undefined;
    }
    if (data.length < ETHERNET_HEADER_BYTES || data.length > this.#maxFrameBytes) {
      this.counters.rx_dropped_malformed++;
      return undefined;
    }
    if (offload?.needsChecksum && !completeChecksum(data, offload.checksumStart, offload.checksumOffset)) {
      this.counters.rx_dropped_malformed++;
      return undefined;
    }
    this.counters.rx_frames++;
    this.counters.rx_bytes += data.length;
    return data;
  }
  /** Queues a frame for the guest; `flush` sends it. */
  deliver(frame: Uint8Array): void {
    if (!this.#channel) this.counters.tx_dropped_link++;
    else if (this.#queue.length >= this.#queueFrames || this.#queuedBytes + frame.length > QUEUE_BYTES) {
      this.counters.tx_dropped_queue++;
    } else {
      this.#queue.push(frame);
      this.#queuedBytes += frame.length;
    }
  }
  /** Sends what credit allows, and gives credit back. */
  flush(): void {
    while (this.#channel && this.#sendCredit > 0 && this.#queue.length > 0) {
      const frames: Frame[] = [];
      let bytes = 0;
      while (frames.length < Math.min(BATCH_FRAMES, this.#sendCredit) && frames.length < this.#queue.length && bytes < BATCH_BYTES) {
        const data = this.#queue[frames.length]!;
        bytes += data.length;
        frames.push({ data, offload: undefined });
      }
      this.#queue.splice(0, frames.length);
      this.#queuedBytes -= bytes;
      this.#sendCredit -= frames.length;
      this.counters.tx_frames += frames.length;
      this.counters.tx_bytes += bytes;
      this.#send(frames, this.#takeOwed());
    }
    // Without frames to send, credit goes back in large pieces: a message of its own costs as much as a batch.
    if (this.#channel && this.#owedCredit >= RECEIVE_CREDIT / 4) this.#send([], this.#takeOwed());
  }

  #takeOwed(): number {
    const owed = this.#owedCredit;
    this.#owedCredit = 0;
    this.#receiveCredit += owed;
    return owed;
  }
  #send(frames: Frame[], credit: number): void {
    const { machine, id, linkUp } = this.info;
    this.#channel?.send({ machine, port: id, frames, credit, linkUp });
  }
}
