/** Entropy device (virtio 1.2, 5.4): every buffer is filled with random bytes. One queue, no configuration. */
import { VIRTIO_ID_ENTROPY, writePart, type Chain, type MmioTransport, type VirtioDevice } from "@polyvisor/virtio";

const MAX_BUFFER_BYTES = 64 * 1024;

export class VirtioRng implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_ENTROPY;
  readonly features = 0n;
  readonly queueSizes = [64];
  readonly maxChainBytes = MAX_BUFFER_BYTES;
  readonly config = new Uint8Array(0);
  readonly #random: (byteLength: number) => Uint8Array;
  #transport!: MmioTransport;

  constructor(random: (byteLength: number) => Uint8Array) {
    this.#random = random;
  }

  attach(transport: MmioTransport): void {
    this.#transport = transport;
  }
  start(): void {}
  reset(): void {}

  chains(index: number, chains: Chain[]): void {
    const queue = this.#transport.queue(index);
    const epoch = queue.epoch;
    for (const chain of chains) {
      const bytes = this.#random(chain.writableBytes);
      queue.complete(chain, epoch, writePart(chain, 0, bytes), bytes.length);
    }
  }
}
