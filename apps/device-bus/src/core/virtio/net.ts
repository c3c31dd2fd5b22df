/**
 * Network device (virtio 1.2, 5.1): queue 0 receives, queue 1 transmits. Each packet has a virtio_net_hdr of 12 bytes
 * in front, which says what is left to do to it: checksums and segmentation go through to whoever is at the other end.
 */
import type { Frame, Offload } from "@polyvisor/contracts/network";
import { gatherBytes } from "@polyvisor/guest-memory";
import {
  readPart,
  VIRTIO_ID_NET,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HEADER_BYTES,
  VIRTIO_NET_S_LINK_UP,
  writePart,
  type Chain,
  type Dma,
  type MmioTransport,
  type VirtioDevice,
} from "@polyvisor/virtio";
import { completeFrame } from "@polyvisor/wire";
import type { FrameClient } from "../frame-client.ts";

const RECEIVE = 0;
const TRANSMIT = 1;
const MIN_FRAME_BYTES = 14; // an Ethernet header
/** Frames that go to the fabric in one message. */
const TRANSMIT_BATCH = 64;
/** A segmented packet has 65,535 bytes of IP at most (5.1.6.3.1), and the link's headers. */
const MAX_PACKET_BYTES = 65_535 + 18 + VIRTIO_NET_HEADER_BYTES;
/** struct virtio_net_config: mac[6], status (16 bits). */
const CONFIG_STATUS = 6;
/** struct virtio_net_hdr (5.1.6), little-endian. */
const HEADER = { flags: 0, gsoType: 1, headerLength: 2, gsoSize: 4, checksumStart: 6, checksumOffset: 8, numBuffers: 10 } as const;
/** With all of these the driver takes frames as they are; with fewer it gets them complete. */
const TAKES_OFFLOAD = VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_MRG_RXBUF;

export class VirtioNet implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_NET;
  readonly features =
    VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | TAKES_OFFLOAD;
  readonly queueSizes = [256, 256];
  readonly maxChainBytes = MAX_PACKET_BYTES;
  readonly config = new Uint8Array(12);
  readonly #frames: FrameClient;
  readonly #dma: Dma;
  #transport!: MmioTransport;
  #receiveBuffers: Chain[] = [];
  #receiveEpoch = 0;
  /** Frames from the network that wait for a buffer; at most the credit we gave. */
  #received: Frame[] = [];
  /** What was negotiated (5.1.3). */
  #takesOffload = false;
  #merges = false;
  #transmitChains: Chain[] = [];
  #transmitEpoch = 0;
  #transmitting = false;
  dropped = 0;
  malformed = 0;

  /** `mac` has six bytes. */
  constructor(mac: Uint8Array, frames: FrameClient, dma: Dma) {
    this.config.set(mac.subarray(0, 6));
    this.#frames = frames;
    this.#dma = dma;
  }

  attach(transport: MmioTransport): void {
    this.#transport = transport;
    this.#frames.listen({
      received: (frames) => this.#receive(frames),
      writable: () => void this.#transmit(),
      linkChanged: (up) => {
        this.config[CONFIG_STATUS] = up ? VIRTIO_NET_S_LINK_UP : 0;
        transport.configChanged();
      },
    });
  }

  start(features: bigint): void {
    this.#takesOffload = (features & TAKES_OFFLOAD) === TAKES_OFFLOAD;
    this.#merges = (features & VIRTIO_NET_F_MRG_RXBUF) !== 0n;
    this.#frames.setTakesOffload(this.#takesOffload);
  }

  kept(queue: number): readonly Chain[] {
    if (queue === RECEIVE) return this.#receiveEpoch === this.#transport.queue(RECEIVE).epoch ? this.#receiveBuffers : [];
    return this.#transmitEpoch === this.#transport.queue(TRANSMIT).epoch ? this.#transmitChains : [];
  }
  released(): void {
    this.#deliver();
    void this.#transmit();
  }

  reset(): void {
    this.#takesOffload = this.#merges = false;
    this.#frames.setTakesOffload(false);
    this.#receiveBuffers = [];
    this.#transmitChains = [];
    this.#transmitting = false;
    this.#drop(this.#received.splice(0).length);
  }

  chains(index: number, chains: Chain[]): void {
    const { epoch } = this.#transport.queue(index);
    if (index === RECEIVE) {
      if (epoch !== this.#receiveEpoch) this.#receiveBuffers = [];
      this.#receiveEpoch = epoch;
      this.#receiveBuffers.push(...chains);
      this.#deliver();
    } else {
      if (epoch !== this.#transmitEpoch) {
        this.#transmitChains = [];
        this.#transmitting = false;
      }
      this.#transmitEpoch = epoch;
      this.#transmitChains.push(...chains);
      void this.#transmit();
    }
  }

  #receive(frames: Frame[]): void {
    if (!this.#transport.running || !this.#transport.queue(RECEIVE).ready) return this.#drop(frames.length);
    for (const frame of frames) {
      // What was on its way while the driver changed its mind.
      const whole = this.#takesOffload ? [frame.data] : completeFrame(frame.data, frame.offload);
      if (whole?.length === 1) this.#received.push(this.#takesOffload ? frame : { data: whole[0]!, offload: undefined });
      else this.#drop(1);
    }
    this.#deliver();
  }

  #deliver(): void {
    if (this.#transport.held) return;
    let delivered = 0;
    while (this.#received.length > 0) {
      const { data, offload } = this.#received[0]!;
      const byteLength = VIRTIO_NET_HEADER_BYTES + data.length;
      const buffers = this.#buffersFor(byteLength);
      if (buffers === "none") break;
      this.#received.shift();
      if (buffers === "too small") {
        this.#drop(1);
        continue;
      }
      const packet = new Uint8Array(byteLength);
      writeHeader(packet, offload, buffers.length);
      packet.set(data, VIRTIO_NET_HEADER_BYTES);
      let at = 0;
      const parts = buffers.map((chain) => {
        const part = packet.subarray(at, at + chain.writableBytes);
        at += part.length;
        return { chain, pieces: writePart(chain, 0, part), written: part.length };
      });
      this.#transport.queue(RECEIVE).completeTogether(parts, this.#receiveEpoch);
      delivered++;
    }
    if (delivered > 0) this.#frames.consumed(delivered);
  }
  /** Takes buffers that hold a packet: one, or as many as it takes if they may be merged (5.1.6.4). */
  #buffersFor(byteLength: number): Chain[] | "none" | "too small" {
    const buffers = this.#receiveBuffers;
    if (!this.#merges) {
      if (buffers.length === 0) return "none";
      return buffers[0]!.writableBytes < byteLength ? "too small" : buffers.splice(0, 1);
    }
    let room = 0;
    for (let count = 1; count <= buffers.length; count++) {
      room += buffers[count - 1]!.writableBytes;
      if (room >= byteLength) return buffers.splice(0, count);
    }
    // The whole ring would not hold it: it never will.
    return buffers.length >= this.queueSizes[RECEIVE]! ? "too small" : "none";
  }

  #drop(frames: number): void {
    if (frames === 0) return;
    this.dropped += frames;
    this.#frames.consumed(frames);
  }

  /** Without credit the guest's packets stay in its ring: its queue fills, as with a slow wire. */
  async #transmit(): Promise<void> {
    if (this.#transmitting) return;
    const queue = this.#transport.queue(TRANSMIT);
    const epoch = this.#transmitEpoch;
    this.#transmitting = true;
    while (this.#transmitChains.length > 0 && this.#frames.credit > 0 && !this.#transport.held) {
      const chains = this.#transmitChains.splice(0, Math.min(this.#frames.credit, TRANSMIT_BATCH));
      const requests = chains.map((chain) => readPart(chain, 0, chain.readableBytes));
      const read = await this.#dma.transfer(requests.flat());
      if (epoch !== queue.epoch || epoch !== this.#transmitEpoch) return;
      const frames: Frame[] = [];
      let at = 0;
      for (const request of requests) {
        const packet = gatherBytes(read.data.slice(at, at + request.length));
        at += request.length;
        if (packet.length < VIRTIO_NET_HEADER_BYTES + MIN_FRAME_BYTES) this.malformed++;
        else frames.push({ data: packet.subarray(VIRTIO_NET_HEADER_BYTES), offload: readHeader(packet) });
      }
      if (frames.length > 0) this.#frames.send(frames);
      for (const chain of chains) queue.complete(chain, epoch, [], 0);
    }
    this.#transmitting = false;
  }
}

function writeHeader(packet: Uint8Array, offload: Offload | undefined, buffers: number): void {
  const view = new DataView(packet.buffer, packet.byteOffset, VIRTIO_NET_HEADER_BYTES);
  view.setUint16(HEADER.numBuffers, buffers, true);
  if (!offload) return;
  view.setUint8(HEADER.flags, offload.needsChecksum ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
  view.setUint8(HEADER.gsoType, offload.gsoType);
  view.setUint16(HEADER.headerLength, offload.headerLength, true);
  view.setUint16(HEADER.gsoSize, offload.gsoSize, true);
  view.setUint16(HEADER.checksumStart, offload.checksumStart, true);
  view.setUint16(HEADER.checksumOffset, offload.checksumOffset, true);
}
/** Undefined: the frame is complete. */
function readHeader(packet: Uint8Array): Offload | undefined {
  const needsChecksum = (packet[HEADER.flags]! & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
  const gsoType = packet[HEADER.gsoType]!;
  if (!needsChecksum && gsoType === 0) return undefined;
  const view = new DataView(packet.buffer, packet.byteOffset, VIRTIO_NET_HEADER_BYTES);
  return {
    needsChecksum,
    gsoType,
    headerLength: view.getUint16(HEADER.headerLength, true),
    gsoSize: view.getUint16(HEADER.gsoSize, true),
    checksumStart: view.getUint16(HEADER.checksumStart, true),
    checksumOffset: view.getUint16(HEADER.checksumOffset, true),
  };
}
