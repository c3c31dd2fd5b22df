import { scatterBytes, scatterMerge, scatterSlice } from "@polyvisor/guest-memory";
import { DESCRIPTOR_BYTES, VIRTQ_AVAIL_F_NO_INTERRUPT } from "./constants.ts";
import { ChainBuilder, type Chain } from "./descriptor-chain.ts";
import { dmaRead, dmaWrite, type Dma, type DmaResult, type DmaSegment } from "./dma.ts";

/**
 * The device's side of a split virtqueue (virtio 1.2, 2.7) over DMA that takes a round trip. The driver is not
 * trusted: whatever it writes, this class never throws, moves a bounded number of bytes, and at worst calls
 * `broken`, which makes the device need a reset.
 *
 *   kick ─ read avail + descriptors (1 transfer) ─ read indirect tables (1 more, if any) ─ chains()
 *   complete ─ write data, used elements, used.idx (1 transfer, in that order) ─ interrupt()
 */
export interface SplitQueueOptions {
  dma: Dma;
  /** QueueNumMax, a power of two, at most 32768 (2.7). */
  maxSize: number;
  /** Bytes of all buffers of one chain; more is refused. */
  maxChainBytes: number;
  /** New requests, in the order of the available ring. */
  chains(chains: Chain[]): void;
  /** Used buffers can be seen by the driver, which wants to know. */
  interrupt(): void;
  /** The driver broke the rules, or memory cannot be reached. */
  broken(reason: string): void;
}

export interface QueueSetup {
  size: number;
  descriptorArea: bigint;
  driverArea: bigint;
  deviceArea: bigint;
  eventIndex: boolean;
}

interface Completion {
  head: number;
  written: number;
  segments: DmaSegment[];
  byteLength: number;
  /** Seen by the driver together with the one before. */
  joined: boolean;
}

/** One completion transfer carries about so much; the next takes the rest. */
const COMPLETION_BYTES = 512 * 1024;
const COMPLETION_SEGMENTS = 1024;

/** The index is 16 bits wide and runs freely (2.7.6). */
const wrap = (index: number) => index & 0xffff;

export class SplitQueue {
  readonly maxSize: number;
  readonly #options: SplitQueueOptions;
  #setup: QueueSetup | undefined;
  /** Changes with every reset; work of an older epoch is abandoned wherever it awaits. */
  #epoch = 0;
  #nextAvail = 0;
  #nextUsed = 0;
  /** used.idx when the driver was last told, or last found not to want it (2.7.7.2). */
  #signalledUsed = 0;
  #availEventWritten = -1;
  #inFlight = 0;
  #scanning = false;
  #scanAgain = false;
  #completions: Completion[] = [];
  #completing = false;
  kicks = 0;
  requests = 0;
  interrupts = 0;

  constructor(options: SplitQueueOptions) {
    this.#options = options;
    this.maxSize = options.maxSize;
  }

  get ready(): boolean {
    return this.#setup !== undefined;
  }

  /** QueueReady = 1. Answers what is wrong with the set-up, or undefined. */
  start(setup: QueueSetup): string | undefined {
    const { size, descriptorArea, driverArea, deviceArea } = setup;
    if (size < 1 || size > this.maxSize || (size & (size - 1)) !== 0) return `queue size ${size}, expected a power of two up to ${this.maxSize}`;
    // Alignment: 2.7, table "Virtqueue Part".
    if (descriptorArea % 16n !== 0n || driverArea % 2n !== 0n || deviceArea % 4n !== 0n) return "a misaligned queue area";
    this.stop();
    this.#setup = setup;
    return undefined;
  }

  /** QueueReady = 0, device reset, or broken: forgets everything that is in flight. */
  stop(): void {
    this.#epoch++;
    this.#setup = undefined;
    this.#nextAvail = this.#nextUsed = this.#signalledUsed = this.#inFlight = 0;
    this.#availEventWritten = -1;
    this.#scanning = this.#scanAgain = this.#completing = false;
    this.#completions = [];
  }

  /** The driver says that there may be new buffers. */
  kick(): void {
    this.kicks++;
    if (!this.#setup) return;
    if (this.#scanning) this.#scanAgain = true;
    else void this.#scan(this.#setup, this.#epoch);
  }

  /** A number that tells whether a chain still belongs to this life of the queue. */
  get epoch(): number {
    return this.#epoch;
  }

  /**
   * Gives a chain back. `pieces` are written before the driver can see it; `written` is what the used ring says
   * (2.7.8.2): bytes written, from the start of the writable part. A chain of an older epoch is ignored.
   */
  complete(chain: Chain, epoch: number, pieces: readonly { address: bigint; bytes: Uint8Array }[], written: number): void {
    this.completeTogether([{ chain, pieces, written }], epoch);
  }
  /** The same for several chains that the driver must see all at once: a packet in merged buffers (5.1.6.4). */
  completeTogether(list: readonly { chain: Chain; pieces: readonly { address: bigint; bytes: Uint8Array }[]; written: number }[], epoch: number): void {
    if (epoch !== this.#epoch || !this.#setup) return;
    for (const [index, { chain, pieces, written }] of list.entries()) {
      let byteLength = 0;
      const segments = pieces.map(({ address, bytes }) => {
        byteLength += bytes.length;
        return dmaWrite(address, bytes);
      });
      this.#completions.push({ head: chain.head, written, segments, byteLength, joined: index > 0 });
    }
    if (!this.#completing) void this.#writeCompletions(this.#setup, this.#epoch);
  }

  async #scan(setup: QueueSetup, epoch: number): Promise<void> {
    this.#scanning = true;
    do {
      this.#scanAgain = false;
      if (setup.eventIndex && this.#availEventWritten !== this.#nextAvail) {
        // Ask to be told of the next buffer, and only then look whether it is there already (2.7.10.1).
        this.#availEventWritten = this.#nextAvail;
        const event = new Uint8Array([this.#nextAvail & 0xff, this.#nextAvail >> 8]);
        const asked = await this.#options.dma.transfer([dmaWrite(setup.deviceArea + 4n + 8n * BigInt(setup.size), event)]);
        if (!this.#arrived(asked, epoch, "used ring")) return;
        fullFence();
      }
      const found = await this.#takeAvailable(setup, epoch);
      if (found === undefined) return;
      // With event indices the driver may have added more without telling; look once more.
      if (found > 0 && setup.eventIndex) this.#scanAgain = true;
    } while (this.#scanAgain);
    this.#scanning = false;
  }

  /** Reads and reports what is new. Answers how many chains, or undefined when this life of the queue is over. */
  async #takeAvailable(setup: QueueSetup, epoch: number): Promise<number | undefined> {
    const { dma } = this.#options;
    const { size } = setup;
    // In this order: what avail.idx covers was written before it.
    const read = await dma.transfer([
      dmaRead(setup.driverArea, 4),
      dmaRead(setup.driverArea + 4n, 2 * size),
      dmaRead(setup.descriptorArea, DESCRIPTOR_BYTES * size),
    ]);
    if (!this.#arrived(read, epoch, "available ring or descriptor table")) return undefined;
    const [header, ring, table] = read.data.map(viewOf) as [DataView, DataView, DataView];
    const count = wrap(header.getUint16(2, true) - this.#nextAvail);
    if (count === 0) return 0;
    if (count + this.#inFlight > size)
      return this.#break(`avail.idx is ${count} ahead with ${this.#inFlight} buffers in flight, the queue has ${size}`);

    const chains: ChainBuilder[] = [];
    for (let index = 0; index < count; index++) {
      const head = ring.getUint16(2 * ((this.#nextAvail + index) & (size - 1)), true);
      const chain = new ChainBuilder(head, this.#options.maxChainBytes);
      const problem = chain.walk(table, size, head, false);
      if (problem !== undefined) return this.#break(problem);
      chains.push(chain);
    }
    const indirect = chains.filter((chain) => chain.indirect);
    if (indirect.length > 0) {
      const tables = await dma.transfer(indirect.map(({ indirect: at }) => dmaRead(at!.address, at!.byteLength)));
      if (!this.#arrived(tables, epoch, "indirect table")) return undefined;
      for (const [index, chain] of indirect.entries()) {
        const bytes = tables.data[index]!;
        const problem = chain.walk(viewOf(bytes), bytes.length / DESCRIPTOR_BYTES, 0, true);
        if (problem !== undefined) return this.#break(problem);
      }
    }
    this.#nextAvail = wrap(this.#nextAvail + count);
    this.#inFlight += count;
    this.requests += count;
    this.#options.chains(chains);
    return epoch === this.#epoch ? count : undefined;
  }

  async #writeCompletions(setup: QueueSetup, epoch: number): Promise<void> {
    this.#completing = true;
    while (this.#completions.length > 0) {
      const batch = this.#takeBatch();
      const segments = batch.flatMap((completion) => completion.segments);
      for (const [index, { head, written }] of batch.entries()) {
        const element = new DataView(new ArrayBuffer(8));
        element.setUint32(0, head, true);
        element.setUint32(4, written, true);
        const slot = (this.#nextUsed + index) & (setup.size - 1);
        segments.push(dmaWrite(setup.deviceArea + 4n + 8n * BigInt(slot), new Uint8Array(element.buffer)));
      }
      this.#nextUsed = wrap(this.#nextUsed + batch.length);
      this.#inFlight -= batch.length;
      const index = new Uint8Array([this.#nextUsed & 0xff, this.#nextUsed >> 8]);
      segments.push(dmaWrite(setup.deviceArea + 2n, index), this.#readSuppression(setup));
      const written = await this.#options.dma.transfer(segments);
      if (!this.#arrived(written, epoch, "a buffer or the used ring")) return;
      let wanted = this.#interruptWanted(setup, written);
      if (!wanted) {
        // "Not wanted" may be stale: the driver asks again, then looks at used.idx. Look after a fence (2.7.7.2).
        fullFence();
        const again = await this.#options.dma.transfer([this.#readSuppression(setup)]);
        if (!this.#arrived(again, epoch, "available ring")) return;
        wanted = this.#interruptWanted(setup, again);
      }
      this.#signalledUsed = this.#nextUsed;
      if (wanted) {
        this.interrupts++;
        this.#options.interrupt();
        if (epoch !== this.#epoch) return;
      }
    }
    this.#completing = false;
  }

  #takeBatch(): Completion[] {
    let byteLength = 0;
    let segments = 0;
    let count = 0;
    for (const completion of this.#completions) {
      byteLength += completion.byteLength;
      segments += completion.segments.length + 1;
      if (count > 0 && !completion.joined && (byteLength > COMPLETION_BYTES || segments > COMPLETION_SEGMENTS)) break;
      count++;
    }
    return this.#completions.splice(0, count);
  }

  /** used_event behind the available ring, or its flags. */
  #readSuppression(setup: QueueSetup): DmaSegment {
    return setup.eventIndex
      ? dmaRead(setup.driverArea + 4n + 2n * BigInt(setup.size), 2)
      : dmaRead(setup.driverArea, 2);
  }

  #interruptWanted(setup: QueueSetup, { data }: DmaResult): boolean {
    const value = viewOf(data[data.length - 1]!).getUint16(0, true);
    if (!setup.eventIndex) return (value & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    // vring_need_event of 2.7.10.2, in 16-bit arithmetic.
    return wrap(this.#nextUsed - value - 1) < wrap(this.#nextUsed - this.#signalledUsed);
  }

  #arrived(result: DmaResult, epoch: number, what: string): boolean {
    if (epoch !== this.#epoch) return false;
    if (result.status === "ok") return true;
    this.#break(`${what}: ${result.status === "fault" ? "out of the memory that the device may reach" : "memory is unavailable"}`);
    return false;
  }

  #break(reason: string): undefined {
    this.stop();
    this.#options.broken(reason);
  }
}

/** DMA segments that read bytes `skip .. skip + byteLength` of a chain's readable part. */
export function readPart(chain: Chain, skip: number, byteLength: number): DmaSegment[] {
  return scatterMerge(scatterSlice(chain.readable, skip, byteLength)).map((part) => dmaRead(part.address, part.byteLength));
}

/** Pieces for {@link SplitQueue.complete} that put `bytes` at `skip` of a chain's writable part. */
export function writePart(chain: Chain, skip: number, bytes: Uint8Array): { address: bigint; bytes: Uint8Array }[] {
  return scatterBytes(scatterMerge(scatterSlice(chain.writable, skip, bytes.length)), bytes);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

const fence = typeof SharedArrayBuffer === "undefined" ? undefined : new Int32Array(new SharedArrayBuffer(4));

/**
 * Orders a store to guest memory before a later load from it, when both are plain accesses of this thread to memory
 * that a hart's thread shares. An atomic read-modify-write is a full barrier on every machine that V8 supports.
 */
function fullFence(): void {
  if (fence) Atomics.add(fence, 0, 1);
}
