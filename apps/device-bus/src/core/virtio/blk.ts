/**
 * Block device (virtio 1.2, 5.2) on a disk of the image-registry. A request is a header of 16 bytes (type, reserved,
 * sector), data in one direction, and one status byte at the end of what the device writes.
 */
import { giveBytesBack } from "@polyvisor/contracts";
import { gatherBytes } from "@polyvisor/guest-memory";
import {
  readPart,
  soon,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_ID_BLOCK,
  writePart,
  dmaWrite,
  type Chain,
  type Dma,
  type DmaResult,
  type MmioTransport,
  type Soon,
  type VirtioDevice,
} from "@polyvisor/virtio";
import type { BlockResult } from "../block-client.ts";

/** The disk behind the device; {@link BlockClient} in a board. Calls never reject. */
export interface BlockBackend {
  readonly sectors: bigint;
  read(sector: bigint, sectors: number): Soon<BlockResult>;
  write(sector: bigint, data: Uint8Array): Soon<BlockResult>;
  flush(): Soon<BlockResult>;
  discard(sector: bigint, sectors: bigint): Soon<BlockResult>;
  writeZeroes(sector: bigint, sectors: bigint): Soon<BlockResult>;
}

const SECTOR_BYTES = 512;
const HEADER_BYTES = 16;
/** struct virtio_blk_discard_write_zeroes: sector, num_sectors, flags. */
const RANGE_BYTES = 16;
const MAX_RANGES = 16;
const RANGE_FLAG_UNMAP = 1;
/** Blocks plane: one message carries 1 MiB at most. */
const PIECE_BYTES = 1024 * 1024;
/** Data of requests in work at a time; others wait in the ring. 8 MiB = eight of Linux' largest ordinary requests. */
const WORKING_BYTES = 8 * PIECE_BYTES;
const WORKING_REQUESTS = 64;
/** As QEMU's: a queue less header and status. 1 MiB in single pages is then one request. */
const SEG_MAX = 254;

/** struct virtio_blk_config (5.2.4). */
const CONFIG = {
  capacity: 0,
  segMax: 12,
  blkSize: 20,
  maxDiscardSectors: 36,
  maxDiscardSeg: 40,
  discardSectorAlignment: 44,
  maxWriteZeroesSectors: 48,
  maxWriteZeroesSeg: 52,
  writeZeroesMayUnmap: 56,
  byteLength: 60,
} as const;

interface Answer {
  status: number;
  /** Goes to the start of the writable part. */
  data?: Uint8Array;
  /** Bytes there already, written piece by piece. */
  written?: number;
}

/** A request in work; `cost`: what it takes of the working set. */
interface Work {
  readonly chain: Chain;
  readonly cost: number;
}

const OK: Answer = { status: VIRTIO_BLK_S_OK };
const IO_ERROR: Answer = { status: VIRTIO_BLK_S_IOERR };
const UNSUPPORTED: Answer = { status: VIRTIO_BLK_S_UNSUPP };

export class VirtioBlk implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_BLOCK;
  readonly features: bigint;
  readonly queueSizes = [256];
  readonly maxChainBytes = 64 * PIECE_BYTES;
  readonly config = new Uint8Array(CONFIG.byteLength);
  readonly #backend: BlockBackend;
  readonly #readOnly: boolean;
  readonly #id: string;
  readonly #dma: Dma;
  readonly #mostRequests: number;
  #transport!: MmioTransport;
  #waiting: Chain[] = [];
  #epoch = 0;
  #workingBytes = 0;
  #workingRequests = 0;
  #starting = false;
  readonly operations = { "block-reads": 0, "block-writes": 0, flushes: 0, discards: 0, "zero-writes": 0, "io-errors": 0 };

  constructor(options: { backend: BlockBackend; readOnly: boolean; id: string; dma: Dma; oneByOne?: boolean }) {
    this.#backend = options.backend;
    this.#readOnly = options.readOnly;
    this.#id = options.id;
    this.#dma = options.dma;
    this.#mostRequests = options.oneByOne ? 1 : WORKING_REQUESTS;
    this.features =
      VIRTIO_BLK_F_SEG_MAX |
      VIRTIO_BLK_F_BLK_SIZE |
      VIRTIO_BLK_F_FLUSH |
      (options.readOnly ? VIRTIO_BLK_F_RO : VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES);
    const config = new DataView(this.config.buffer);
    config.setBigUint64(CONFIG.capacity, options.backend.sectors, true);
    config.setUint32(CONFIG.segMax, SEG_MAX, true);
    config.setUint32(CONFIG.blkSize, SECTOR_BYTES, true);
    config.setUint32(CONFIG.maxDiscardSectors, 0xffff_ffff, true);
    config.setUint32(CONFIG.maxDiscardSeg, MAX_RANGES, true);
    config.setUint32(CONFIG.discardSectorAlignment, 8, true);
    config.setUint32(CONFIG.maxWriteZeroesSectors, 0xffff_ffff, true);
    config.setUint32(CONFIG.maxWriteZeroesSeg, MAX_RANGES, true);
    config.setUint8(CONFIG.writeZeroesMayUnmap, 1);
  }

  attach(transport: MmioTransport): void {
    this.#transport = transport;
  }
  start(): void {}

  reset(): void {
    this.#waiting = [];
  }

  chains(index: number, chains: Chain[]): void {
    const { epoch } = this.#transport.queue(index);
    if (epoch !== this.#epoch) this.#waiting = [];
    this.#epoch = epoch;
    this.#waiting.push(...chains);
    this.#startWaiting();
  }

  /** Starts what fits the working set. A request that is answered at once ends in here again. */
  #startWaiting(): void {
    if (this.#starting) return;
    this.#starting = true;
    for (let group = this.#nextGroup(); group.length > 0; group = this.#nextGroup()) this.#serve(group, this.#epoch);
    this.#starting = false;
  }

  #nextGroup(): Work[] {
    const group: Work[] = [];
    while (this.#waiting.length > 0 && this.#workingRequests < this.#mostRequests) {
      const chain = this.#waiting[0]!;
      const cost = Math.min(chain.readableBytes + chain.writableBytes, PIECE_BYTES + HEADER_BYTES);
      if (this.#workingRequests > 0 && this.#workingBytes + cost > WORKING_BYTES) break;
      this.#waiting.shift();
      this.#workingRequests++;
      this.#workingBytes += cost;
      group.push({ chain, cost });
    }
    return group;
  }

  /** Headers and data to write of all of them come in one transfer. */
  #serve(group: Work[], epoch: number): void {
    const requests = group.map(({ chain }) => readPart(chain, 0, HEADER_BYTES + PIECE_BYTES));
    soon(this.#dma.transfer(requests.flat()), (read) => this.#begin(group, requests.map(({ length }) => length), read, epoch));
  }

  #begin(group: Work[], parts: number[], read: DmaResult, epoch: number): void {
    let at = 0;
    let left = group.length;
    let sound = true;
    for (const [index, { chain, cost }] of group.entries()) {
      const readable = gatherBytes(read.data.slice(at, at + parts[index]!));
      at += parts[index]!;
      const ended = (answer: Answer) => {
        this.#workingRequests--;
        this.#workingBytes -= cost;
        // Who failed may still be at it.
        sound &&= answer.status !== VIRTIO_BLK_S_IOERR;
        if (--left === 0 && sound && read.data.length > 0) giveBytesBack(read.data[0]!);
        this.#complete(chain, epoch, answer);
        this.#startWaiting();
      };
      // Buffers out of reach: the request fails, the ring itself is sound.
      soon(read.status === "ok" ? this.#execute(chain, epoch, readable) : IO_ERROR, ended);
    }
  }

  /** `readable`: the header and the first piece of data. Never rejects. */
  #execute(chain: Chain, epoch: number, readable: Uint8Array): Soon<Answer> {
    if (readable.length < HEADER_BYTES || chain.writableBytes < 1) return IO_ERROR;
    const header = new DataView(readable.buffer, readable.byteOffset, readable.length);
    const sector = header.getBigUint64(8, true);
    switch (header.getUint32(0, true)) {
      case VIRTIO_BLK_T_IN:
        this.operations["block-reads"]++;
        return this.#read(chain, epoch, sector);
      case VIRTIO_BLK_T_OUT:
        this.operations["block-writes"]++;
        return this.#write(chain, epoch, sector, readable.subarray(HEADER_BYTES));
      case VIRTIO_BLK_T_FLUSH:
        this.operations.flushes++;
        return soon(this.#backend.flush(), ({ ok }) => (ok ? OK : IO_ERROR));
      case VIRTIO_BLK_T_GET_ID: {
        const id = new Uint8Array(Math.min(VIRTIO_BLK_ID_BYTES, chain.writableBytes - 1));
        id.set(new TextEncoder().encode(this.#id).subarray(0, id.length));
        return { status: VIRTIO_BLK_S_OK, data: id };
      }
      case VIRTIO_BLK_T_DISCARD:
        this.operations.discards++;
        return this.#ranges(chain, readable.subarray(HEADER_BYTES), 0, (from, count) => this.#backend.discard(from, count));
      case VIRTIO_BLK_T_WRITE_ZEROES:
        this.operations["zero-writes"]++;
        return this.#ranges(chain, readable.subarray(HEADER_BYTES), RANGE_FLAG_UNMAP, (from, count) =>
          this.#backend.writeZeroes(from, count),
        );
      default:
        return UNSUPPORTED;
    }
  }

  #read(chain: Chain, epoch: number, sector: bigint): Soon<Answer> {
    const byteLength = chain.writableBytes - 1;
    if (!this.#inside(sector, byteLength)) return IO_ERROR;
    if (byteLength > PIECE_BYTES) return this.#readPieces(chain, epoch, sector, byteLength);
    return soon(this.#backend.read(sector, byteLength / SECTOR_BYTES), ({ ok, data }) => (ok ? { status: VIRTIO_BLK_S_OK, data } : IO_ERROR));
  }

  async #readPieces(chain: Chain, epoch: number, sector: bigint, byteLength: number): Promise<Answer> {
    for (let done = 0; done < byteLength; done += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, byteLength - done);
      const { ok, data } = await this.#backend.read(sector + BigInt(done / SECTOR_BYTES), length / SECTOR_BYTES);
      if (!ok || epoch !== this.#transport.queue(0).epoch) return IO_ERROR;
      const pieces = writePart(chain, done, data).map(({ address, bytes }) => dmaWrite(address, bytes));
      if ((await this.#dma.transfer(pieces)).status !== "ok") return IO_ERROR;
      giveBytesBack(data);
    }
    return { status: VIRTIO_BLK_S_OK, written: byteLength };
  }

  #write(chain: Chain, epoch: number, sector: bigint, first: Uint8Array): Soon<Answer> {
    const byteLength = chain.readableBytes - HEADER_BYTES;
    if (this.#readOnly || !this.#inside(sector, byteLength)) return IO_ERROR;
    if (byteLength === 0) return OK;
    const written = this.#backend.write(sector, first);
    if (byteLength > PIECE_BYTES) return this.#writePieces(chain, epoch, sector, written);
    return soon(written, ({ ok }) => (ok ? OK : IO_ERROR));
  }

  async #writePieces(chain: Chain, epoch: number, sector: bigint, first: Soon<BlockResult>): Promise<Answer> {
    if (!(await first).ok) return IO_ERROR;
    const byteLength = chain.readableBytes - HEADER_BYTES;
    for (let done = PIECE_BYTES; done < byteLength; done += PIECE_BYTES) {
      const read = await this.#dma.transfer(readPart(chain, HEADER_BYTES + done, Math.min(PIECE_BYTES, byteLength - done)));
      if (read.status !== "ok" || epoch !== this.#transport.queue(0).epoch) return IO_ERROR;
      if (!(await this.#backend.write(sector + BigInt(done / SECTOR_BYTES), gatherBytes(read.data))).ok) return IO_ERROR;
      giveBytesBack(read.data[0]!);
    }
    return OK;
  }

  async #ranges(
    chain: Chain,
    table: Uint8Array,
    allowedFlags: number,
    run: (sector: bigint, sectors: bigint) => Soon<BlockResult>,
  ): Promise<Answer> {
    const byteLength = chain.readableBytes - HEADER_BYTES;
    if (this.#readOnly) return IO_ERROR;
    if (byteLength === 0 || byteLength % RANGE_BYTES !== 0 || byteLength > MAX_RANGES * RANGE_BYTES) return UNSUPPORTED;
    const view = new DataView(table.buffer, table.byteOffset, table.length);
    for (let at = 0; at < byteLength; at += RANGE_BYTES) {
      const sector = view.getBigUint64(at, true);
      const sectors = view.getUint32(at + 8, true);
      if ((view.getUint32(at + 12, true) & ~allowedFlags) !== 0) return UNSUPPORTED;
      if (!this.#inside(sector, sectors * SECTOR_BYTES)) return IO_ERROR;
      if (sectors > 0 && !(await run(sector, BigInt(sectors))).ok) return IO_ERROR;
    }
    return OK;
  }

  #inside(sector: bigint, byteLength: number): boolean {
    return byteLength % SECTOR_BYTES === 0 && sector + BigInt(byteLength / SECTOR_BYTES) <= this.#backend.sectors;
  }

  #complete(chain: Chain, epoch: number, answer: Answer): void {
    if (answer.status === VIRTIO_BLK_S_IOERR) this.operations["io-errors"]++;
    const queue = this.#transport.queue(0);
    if (chain.writableBytes === 0) return queue.complete(chain, epoch, [], 0); // no room for a status
    const pieces = answer.data ? writePart(chain, 0, answer.data) : [];
    pieces.push(...writePart(chain, chain.writableBytes - 1, new Uint8Array([answer.status])));
    const { data } = answer;
    queue.complete(chain, epoch, pieces, (data?.length ?? answer.written ?? 0) + 1, data && (() => giveBytesBack(data)));
  }
}
