import type { Channel } from "@polyvisor/contracts";
import type { Frame, FrameBatch, Port } from "@polyvisor/contracts/network";
import { completeFrame, ETHERNET_HEADER_BYTES, GSO, tcpLayout, type MacAddress } from "@polyvisor/wire";

/** Frames that a guest may send ahead of our saying so again. */
export const RECEIVE_CREDIT = 256;
/** Credit that a peer can pile up. */
const MAX_SEND_CREDIT = 65_536;
/** Frames and bytes in one batch at most. */
const BATCH_FRAMES = 64;
const BATCH_BYTES = 256 * 1024;
/** Bytes that wait for a port, beside the configured number of frames. */
const QUEUE_BYTES = 4 * 1024 * 1024;

/** A frame that is to be segmented: 64 KiB of IP (virtio 1.2, 5.1.6.3.1) and the link's headers. */
const MAX_GSO_FRAME_BYTES = 65_535 + ETHERNET_HEADER_BYTES + 4;

/** Counters of a port, as the fabric sees it: rx = from the guest, tx = to the guest. */
export function newPortCounters() {
  return {
    rx_frames: 0,
    rx_bytes: 0,
    tx_frames: 0,
    tx_bytes: 0,
    rx_dropped_credit: 0, // sent beyond the credit
    rx_dropped_malformed: 0, // too short, too long, impossible offload
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
  #queue: Frame[] = [];
  #queuedBytes = 0;
  #channel: Channel<FrameBatch, FrameBatch> | undefined;
  #sendCredit = 0;
  /** The guest's driver completes checksums and segments itself (NET-6). */
  #takesOffload = false;
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
  /** What a batch from the guest's side says about what it takes. */
  hear({ credit, takesOffload }: FrameBatch): void {
    this.#sendCredit = Math.min(this.#sendCredit + credit, MAX_SEND_CREDIT);
    this.#takesOffload = takesOffload;
  }

  /** A frame from the guest, of legal size, its offload possible; undefined when it has to be dropped. */
  accept(frame: Frame): Frame | undefined {
    if (this.#receiveCredit === 0) {
      this.counters.rx_dropped_credit++;
      return undefined;
    }
    this.#receiveCredit--;
    this.#owedCredit++;
    const { data, offload } = frame;
    const limit = offload && offload.gsoType !== GSO.NONE ? MAX_GSO_FRAME_BYTES : this.#maxFrameBytes;
    if (data.length < ETHERNET_HEADER_BYTES || data.length > limit || !possible(frame)) {
      this.counters.rx_dropped_malformed++;
      return undefined;
    }
    this.counters.rx_frames++;
    this.counters.rx_bytes += data.length;
    return frame;
  }
  /** Queues a frame for the guest; `flush` sends it. */
  deliver(frame: Frame): void {
    if (!this.#channel) return void this.counters.tx_dropped_link++;
    if (this.#takesOffload) return this.#enqueue(frame);
    for (const data of completeFrame(frame.data, frame.offload) ?? []) this.#enqueue({ data, offload: undefined });
  }
  #enqueue(frame: Frame): void {
    if (this.#queue.length >= this.#queueFrames || this.#queuedBytes + frame.data.length > QUEUE_BYTES) {
      this.counters.tx_dropped_queue++;
    } else {
      this.#queue.push(frame);
      this.#queuedBytes += frame.data.length;
    }
  }
  /** Sends what credit allows, and gives credit back. */
  flush(): void {
    while (this.#channel && this.#sendCredit > 0 && this.#queue.length > 0) {
      const frames: Frame[] = [];
      let bytes = 0;
      while (frames.length < Math.min(BATCH_FRAMES, this.#sendCredit) && frames.length < this.#queue.length && bytes < BATCH_BYTES) {
        const frame = this.#queue[frames.length]!;
        bytes += frame.data.length;
        frames.push(frame);
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
    this.#channel?.send({ machine, port: id, frames, credit, linkUp, takesOffload: true });
  }
}

/** Whether the offload that a frame asks for can be carried out. */
function possible({ data, offload }: Frame): boolean {
  if (!offload) return true;
  const { needsChecksum, checksumStart, checksumOffset, gsoType, gsoSize } = offload;
  if (needsChecksum && checksumStart + checksumOffset + 2 > data.length) return false;
  if (gsoType === GSO.NONE) return true;
  const type = gsoType & ~GSO.ECN;
  return gsoSize > 0 && tcpLayout(data)?.version === (type === GSO.TCPV4 ? 4 : type === GSO.TCPV6 ? 6 : 0);
}
