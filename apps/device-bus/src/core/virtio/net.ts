/**
 * Network device (virtio 1.2, 5.1): queue 0 receives, queue 1 transmits. Each packet has a virtio_net_hdr of 12 bytes
 * in front; no offload is offered, so the header says nothing and one packet takes one buffer.
 */
import { gatherBytes } from "@polyvisor/guest-memory";
import {
  readPart,
  VIRTIO_ID_NET,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_HEADER_BYTES,
  VIRTIO_NET_S_LINK_UP,
  writePart,
  type Chain,
  type Dma,
  type MmioTransport,
  type VirtioDevice,
} from "@polyvisor/virtio";
import type { FrameClient } from "../frame-client.ts";

const RECEIVE = 0;
const TRANSMIT = 1;
const MIN_FRAME_BYTES = 14; // an Ethernet header
/** Frames that go to the fabric in one message. */
const TRANSMIT_BATCH = 64;
/** A driver without offloads sends 1514 bytes, with jumbo frames somewhat more than 9000. */
const MAX_PACKET_BYTES = 64 * 1024 + VIRTIO_NET_HEADER_BYTES;
/** struct virtio_net_config: mac[6], status (16 bits). */
const CONFIG_STATUS = 6;
/** num_buffers is the last field of the header (5.1.6). */
const HEADER_NUM_BUFFERS = 10;

export class VirtioNet implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_NET;
  readonly features = VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS;
  readonly queueSizes = [256, 256];
  readonly maxChainBytes = MAX_PACKET_BYTES;
  readonly config = new Uint8Array(12);
  readonly #frames: FrameClient;
  readonly #dma: Dma;
  #transport!: MmioTransport;
  #receiveBuffers: Chain[] = [];
  #receiveEpoch = 0;
  /** Frames from the network that wait for a buffer; at most the credit we gave. */
  #received: Uint8Array[] = [];
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

  start(): void {}

  reset(): void {
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

  #receive(frames: Uint8Array[]): void {
    if (!this.#transport.running || !this.#transport.queue(RECEIVE).ready) return this.#drop(frames.length);
    this.#received.push(...frames);
    this.#deliver();
  }

  #deliver(): void {
    const queue = this.#transport.queue(RECEIVE);
    let delivered = 0;
    while (this.#received.length > 0 && this.#receiveBuffers.length > 0) {
      const frame = this.#received.shift()!;
      const chain = this.#receiveBuffers[0]!;
      const packet = new Uint8Array(VIRTIO_NET_HEADER_BYTES + frame.length);
      if (packet.length > chain.writableBytes) {
        this.#drop(1);
        continue;
      }
      this.#receiveBuffers.shift();
      packet[HEADER_NUM_BUFFERS] = 1;
      packet.set(frame, VIRTIO_NET_HEADER_BYTES);
      queue.complete(chain, this.#receiveEpoch, writePart(chain, 0, packet), packet.length);
      delivered++;
    }
    if (delivered > 0) this.#frames.consumed(delivered);
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
    while (this.#transmitChains.length > 0 && this.#frames.credit > 0) {
      const chains = this.#transmitChains.splice(0, Math.min(this.#frames.credit, TRANSMIT_BATCH));
      const requests = chains.map((chain) => readPart(chain, 0, chain.readableBytes));
      const read = await this.#dma.transfer(requests.flat());
      if (epoch !== queue.epoch || epoch !== this.#transmitEpoch) return;
      const frames: Uint8Array[] = [];
      let at = 0;
      for (const request of requests) {
        const packet = gatherBytes(read.data.slice(at, at + request.length));
        at += request.length;
        if (packet.length < VIRTIO_NET_HEADER_BYTES + MIN_FRAME_BYTES) this.malformed++;
        else frames.push(packet.subarray(VIRTIO_NET_HEADER_BYTES));
      }
      if (frames.length > 0) this.#frames.send(frames);
      for (const chain of chains) queue.complete(chain, epoch, [], 0);
    }
    this.#transmitting = false;
  }
}
