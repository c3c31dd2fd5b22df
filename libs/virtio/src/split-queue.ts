import { scatterBytes, scatterMerge, scatterSlice } from "@polyvisor/guest-memory";
import { DESCRIPTOR_BYTES, VIRTQ_AVAIL_F_NO_INTERRUPT } from "./constants.ts";
import { ChainBuilder, type Chain } from "./descriptor-chain.ts";
import { dmaRead, dmaWrite, type Dma, type DmaResult, type DmaSegment } from "./dma.ts";

/**
 * The device's side of a split virtqueue (virtio 1.2, 2.7) over DMA that takes a round trip. The driver is not
 * trusted: whatever it writes, this class never throws, moves a bounded number of bytes, and at worst calls
 * `broken`, which makes the device need a reset.
 *
 *   kick ─ read avail + descriptors (1 transfer) ─ read indirect tables (1 more, if any) ─ chains() ─ look again
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

/** Where a queue goes on in another life. */
export interface QueueProgress {
  readonly nextAvail: number;
  readonly nextUsed: number;
  readonly signalledUsed: number;
  /** First descriptors of the chains that the device has taken and not given back, oldest first. */
  readonly heads: readonly number[];
}

/** Bytes for a place in guest memory. */
interface Piece {
  readonly address: bigint;
  readonly bytes: Uint8Array;
}

interface Completion {
  head: number;
  written: number;
  segments: DmaSegment[];
  byteLength: number;
  /** Seen by the driver together with the one before. */
  joined: boolean;
  done: (() => void) | undefined;
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
  #completionBytes = 0;
  #completing = false;
  /** The device is being told of new chains. */
  #delivering = false;
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
    this.#completionBytes = 0;
  }

  /** Something is on its way to or from guest memory. */
  get busy(): boolean {
    return this.#scanning || this.#completing || this.#completions.length > 0;
  }
  /** Chains that were taken and not given back. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Of a queue that is not busy; `kept`: the chains in flight. */
  progress(kept: readonly Chain[]): QueueProgress {
    return { nextAvail: this.#nextAvail, nextUsed: this.#nextUsed, signalledUsed: this.#signalledUsed, heads: kept.map(({ head }) => head) };
  }

  /** `start`, where an earlier life of the queue stopped: the device gets its chains once more. The state is not trusted. */
  resume(setup: QueueSetup, { nextAvail, nextUsed, signalledUsed, heads }: QueueProgress): string | undefined {
    const problem = this.start(setup);
    if (problem !== undefined) return problem;
    if (new Set(heads).size !== heads.length || heads.some((head) => head >= setup.size)) {
      this.stop();
      return `${heads.length} chains in flight that a queue of ${setup.size} cannot have`;
    }
    this.#nextAvail = wrap(nextAvail);
    this.#nextUsed = wrap(nextUsed);
    this.#signalledUsed = wrap(signalledUsed);
    if (heads.length > 0) void this.#takeBack(setup, this.#epoch, heads);
    return undefined;
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
   * (2.7.8.2): bytes written, from the start of the writable part. `done`: they are written and needed no more; it is not
   * called when they could not be. A chain of an older epoch is ignored.
   */
  complete(chain: Chain, epoch: number, pieces: readonly Piece[], written: number, done?: () => void): void {
    this.completeTogether([{ chain, pieces, written, done }], epoch);
  }
  /** The same for several chains that the driver must see all at once: a packet in merged buffers (5.1.6.4). */
  completeTogether(list: readonly { chain: Chain; pieces: readonly Piece[]; written: number; done?: (() => void) | undefined }[], epoch: number): void {
    if (epoch !== this.#epoch || !this.#setup) return;
    for (const [index, { chain, pieces, written, done }] of list.entries()) {
      let byteLength = 0;
      const segments = pieces.map(({ address, bytes }) => {
        byteLength += bytes.length;
        return dmaWrite(address, bytes);
      });
      this.#completions.push({ head: chain.head, written, segments, byteLength, joined: index > 0, done });
      this.#completionBytes += byteLength;
    }
    if (!this.#completing && (!this.#delivering || this.#completionBytes >= COMPLETION_BYTES)) void this.#writeCompletions(this.#setup, this.#epoch);
  }

  async #scan(setup: QueueSetup, epoch: number): Promise<void> {
    const { dma } = this.#options;
    this.#scanning = true;
    let first = true;
    do {
      this.#scanAgain = false;
      const segments: DmaSegment[] = [];
      if (setup.eventIndex && this.#availEventWritten !== this.#nextAvail) {
        // Ask to be told of the next buffer, and only then look whether it is there already (2.7.10.1).
        this.#availEventWritten = this.#nextAvail;
        segments.push(dmaWrite(setup.deviceArea + 4n + 8n * BigInt(setup.size), le16(this.#nextAvail)));
      }
      segments.push(dmaRead(setup.driverArea, 4));
      if (first) segments.push(...ringAndTable(setup)); // after the index: what it covers was written before it
      const looking = dma.transfer(segments);
      const looked = looking instanceof Promise ? await looking : looking;
      if (!this.#arrived(looked, epoch, "available or used ring or descriptor table")) return;
      const count = wrap(viewOf(looked.data[0]!).getUint16(2, true) - this.#nextAvail);
      if (count === 0) continue;
      if (count + this.#inFlight > setup.size) {
        return this.#break(`avail.idx is ${count} ahead with ${this.#inFlight} buffers in flight, the queue has ${setup.size}`);
      }
      let [, ring, table] = looked.data;
      if (!first) {
        const reading = dma.transfer(ringAndTable(setup));
        const read = reading instanceof Promise ? await reading : reading;
        if (!this.#arrived(read, epoch, "available ring or descriptor table")) return;
        [ring, table] = read.data;
      }
      first = false;
      const chains = this.#chainsOf(setup, availableHeads(setup, this.#nextAvail, count, viewOf(ring!)), viewOf(table!));
      if (!chains) return;
      const indirect = chains.filter((chain) => chain.indirect);
      if (indirect.length > 0) {
        const reading = dma.transfer(indirect.map(({ indirect: at }) => dmaRead(at!.address, at!.byteLength)));
        const tables = reading instanceof Promise ? await reading : reading;
        if (!this.#arrived(tables, epoch, "indirect table") || !this.#walkIndirect(indirect, tables)) return;
      }
      this.#nextAvail = wrap(this.#nextAvail + count);
      this.#deliver(chains);
      if (epoch !== this.#epoch) return;
      // With event indices the driver may have added more without telling; look once more.
      if (setup.eventIndex) this.#scanAgain = true;
    } while (this.#scanAgain);
    this.#scanning = false;
  }

  /** The chains that begin with these descriptors, without their indirect tables. */
  #chainsOf(setup: QueueSetup, heads: readonly number[], table: DataView): ChainBuilder[] | undefined {
    const chains: ChainBuilder[] = [];
    for (const head of heads) {
      const chain = new ChainBuilder(head, this.#options.maxChainBytes);
      const problem = chain.walk(table, setup.size, head, false);
      if (problem !== undefined) return this.#break(problem);
      chains.push(chain);
    }
    return chains;
  }
  /** False: the queue is broken. */
  #walkIndirect(chains: readonly ChainBuilder[], tables: DmaResult): boolean {
    for (const [index, chain] of chains.entries()) {
      const bytes = tables.data[index]!;
      const problem = chain.walk(viewOf(bytes), bytes.length / DESCRIPTOR_BYTES, 0, true);
      if (problem === undefined) continue;
      this.#break(problem);
      return false;
    }
    return true;
  }

  /** Chains of an earlier life: their descriptors are in the table still, as they have not been given back. */
  async #takeBack(setup: QueueSetup, epoch: number, heads: readonly number[]): Promise<void> {
    const { dma } = this.#options;
    this.#scanning = true;
    const table = await dma.transfer([dmaRead(setup.descriptorArea, DESCRIPTOR_BYTES * setup.size)]);
    if (!this.#arrived(table, epoch, "descriptor table")) return;
    const chains = this.#chainsOf(setup, heads, viewOf(table.data[0]!));
    if (!chains) return;
    const indirect = chains.filter((chain) => chain.indirect);
    if (indirect.length > 0) {
      const tables = await dma.transfer(indirect.map(({ indirect: at }) => dmaRead(at!.address, at!.byteLength)));
      if (!this.#arrived(tables, epoch, "indirect table") || !this.#walkIndirect(indirect, tables)) return;
    }
    this.#deliver(chains);
    if (epoch !== this.#epoch) return;
    await this.#scan(setup, epoch);
  }

  /** Those that are answered before this returns are given back together. */
  #deliver(chains: ChainBuilder[]): void {
    this.#inFlight += chains.length;
    this.requests += chains.length;
    this.#delivering = true;
    this.#options.chains(chains);
    this.#delivering = false;
    if (this.#setup && !this.#completing) void this.#writeCompletions(this.#setup, this.#epoch);
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
      segments.push(dmaWrite(setup.deviceArea + 2n, le16(this.#nextUsed)), this.#readSuppression(setup));
      const writing = this.#options.dma.transfer(segments);
      const written = writing instanceof Promise ? await writing : writing;
      if (!this.#arrived(written, epoch, "a buffer or the used ring")) return;
      for (const { done } of batch) done?.();
      let wanted = this.#interruptWanted(setup, written);
      if (!wanted) {
        // "Not wanted" may be stale: the driver asks again, then looks at used.idx. Look after a fence (2.7.7.2).
        fullFence();
        const looking = this.#options.dma.transfer([this.#readSuppression(setup)]);
        const again = looking instanceof Promise ? await looking : looking;
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
    const batch = this.#completions.splice(0, count);
    for (const completion of batch) this.#completionBytes -= completion.byteLength;
    return batch;
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

/** The next `count` entries of the available ring. */
function availableHeads(setup: QueueSetup, next: number, count: number, ring: DataView): number[] {
  const heads: number[] = [];
  for (let index = 0; index < count; index++) heads.push(ring.getUint16(2 * ((next + index) & (setup.size - 1)), true));
  return heads;
}

function ringAndTable(setup: QueueSetup): DmaSegment[] {
  return [dmaRead(setup.driverArea + 4n, 2 * setup.size), dmaRead(setup.descriptorArea, DESCRIPTOR_BYTES * setup.size)];
}

function le16(value: number): Uint8Array {
  return new Uint8Array([value & 0xff, value >> 8]);
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
