/** Console device (virtio 1.2, 5.3), one port: queue 0 brings input to the guest, queue 1 takes its output. */
import {
  readPart,
  VIRTIO_ID_CONSOLE,
  writePart,
  type Chain,
  type Dma,
  type MmioTransport,
  type VirtioDevice,
} from "@polyvisor/virtio";
import type { Console } from "../console.ts";

const RECEIVE = 0;
const TRANSMIT = 1;
const MAX_BUFFER_BYTES = 64 * 1024;

export class VirtioConsole implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_CONSOLE;
  readonly features = 0n;
  readonly queueSizes = [64, 64];
  readonly maxChainBytes = MAX_BUFFER_BYTES;
  /** cols, rows, max_nr_ports, emerg_wr: valid with features that are not offered. */
  readonly config = new Uint8Array(12);
  readonly #console: Console;
  readonly #dma: Dma;
  #transport!: MmioTransport;
  #receiveBuffers: Chain[] = [];
  #receiveEpoch = 0;
  /** Output is taken in the order of the ring: one transfer after the other. */
  #output: Promise<void> = Promise.resolve();

  constructor(console: Console, dma: Dma) {
    this.#console = console;
    this.#dma = dma;
    console.onInput(() => this.#deliver());
  }

  attach(transport: MmioTransport): void {
    this.#transport = transport;
  }
  start(): void {}
  reset(): void {
    this.#receiveBuffers = [];
    this.#output = Promise.resolve(); // a transfer that never ends must not silence the next driver
  }

  kept(queue: number): readonly Chain[] {
    return queue === RECEIVE && this.#receiveEpoch === this.#transport.queue(RECEIVE).epoch ? this.#receiveBuffers : [];
  }
  released(): void {
    this.#deliver();
  }

  chains(index: number, chains: Chain[]): void {
    const { epoch } = this.#transport.queue(index);
    if (index === TRANSMIT) {
      this.#output = this.#output.then(() => this.#transmit(chains, epoch));
      return;
    }
    if (epoch !== this.#receiveEpoch) this.#receiveBuffers = [];
    this.#receiveEpoch = epoch;
    this.#receiveBuffers.push(...chains.filter((chain) => chain.writableBytes > 0));
    this.#deliver();
  }

  async #transmit(chains: Chain[], epoch: number): Promise<void> {
    const queue = this.#transport.queue(TRANSMIT);
    if (epoch !== queue.epoch) return;
    const read = await this.#dma.transfer(chains.flatMap((chain) => readPart(chain, 0, chain.readableBytes)));
    if (epoch !== queue.epoch) return;
    // Unreachable buffers are given back unread: the driver loses its output, nobody else does.
    for (const bytes of read.data) this.#console.write(bytes);
    for (const chain of chains) queue.complete(chain, epoch, [], 0);
  }

  #deliver(): void {
    if (!this.#transport?.running || this.#transport.held) return;
    const queue = this.#transport.queue(RECEIVE);
    if (this.#receiveEpoch !== queue.epoch) this.#receiveBuffers = [];
    while (this.#receiveBuffers.length > 0 && this.#console.inputLength > 0) {
      const chain = this.#receiveBuffers.shift()!;
      const bytes = this.#console.takeInput(chain.writableBytes);
      queue.complete(chain, this.#receiveEpoch, writePart(chain, 0, bytes), bytes.length);
    }
  }
}
