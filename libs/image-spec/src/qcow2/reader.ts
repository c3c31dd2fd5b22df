import type { DiskSource } from "../chunked-disk-writer.ts";
import { ImageSpecError } from "../image-spec-error.ts";
import { COMPRESSED, OFFSET_MASK, QCOW2_HEADER_LIMIT, READS_ZERO, readQcow2Header, type Qcow2Header } from "./header.ts";

/** Unpacks compressed clusters; answers at most `bytes` bytes, rejects what is no such data. */
export interface Qcow2Codecs {
  /** RFC 1951 without a header, window of 4 KiB; what follows its end is to be ignored. */
  inflateRaw(data: Uint8Array, bytes: number): Promise<Uint8Array>;
  unzstd(data: Uint8Array, bytes: number): Promise<Uint8Array>;
}

/** L2 tables kept: 64 tables of 64 KiB speak of 32 GiB. */
const TABLES_KEPT = 64;

/** A qcow2 file's disk, as bytes by position. Everything in the file is checked before it is followed. */
export class Qcow2Disk implements DiskSource {
  readonly bytes: number;
  readonly #file: DiskSource;
  readonly #header: Qcow2Header;
  readonly #clusterBytes: number;
  readonly #l1: DataView;
  readonly #codecs: Qcow2Codecs;
  readonly #tables = new Map<number, DataView>();

  private constructor(file: DiskSource, header: Qcow2Header, l1: Uint8Array, codecs: Qcow2Codecs) {
    this.#file = file;
    this.#header = header;
    this.#clusterBytes = 2 ** header.clusterBits;
    this.#l1 = new DataView(l1.buffer, l1.byteOffset, l1.byteLength);
    this.#codecs = codecs;
    // A disk has whole sectors here; QEMU's may not.
    this.bytes = Math.ceil(header.size / 512) * 512;
  }

  static async open(file: DiskSource, codecs: Qcow2Codecs): Promise<Qcow2Disk> {
    const head = new Uint8Array(Math.min(QCOW2_HEADER_LIMIT, file.bytes));
    await file.read(0, head);
    const header = readQcow2Header(head, file.bytes);
    const l1 = new Uint8Array(header.l1Entries * 8);
    await file.read(header.l1Offset, l1);
    return new Qcow2Disk(file, header, l1, codecs);
  }

  async read(position: number, target: Uint8Array): Promise<void> {
    const end = Math.min(position + target.length, this.#header.size);
    for (let at = position; at < end; ) {
      const cluster = Math.floor(at / this.#clusterBytes);
      const start = cluster * this.#clusterBytes;
      const stop = Math.min(end, start + this.#clusterBytes);
      await this.#readCluster(cluster, at - start, target.subarray(at - position, stop - position));
      at = stop;
    }
  }

  /**
   * Pieces of `pieceBytes` that may hold something, ascending. Refuses a file that maps more than it holds: such a
   * small file could otherwise stand for terabytes.
   */
  async *occupied(pieceBytes: number): AsyncGenerator<number> {
    let last = -1;
    let plainBytes = 0;
    let compressedClusters = 0;
    const clusters = Math.ceil(this.#header.size / this.#clusterBytes);
    const perTable = this.#clusterBytes / 8;
    for (let cluster = 0; cluster < clusters; cluster++) {
      if (this.#l2Offset(cluster) === undefined) {
        cluster = (Math.floor(cluster / perTable) + 1) * perTable - 1;
        continue;
      }
      const entry = await this.#entry(cluster);
      if (isHole(entry)) continue;
      if ((entry & COMPRESSED) === 0n) plainBytes += this.#clusterBytes;
      else compressedClusters++;
      // A compressed cluster takes at least a few bytes: a megabyte of them is 64 K clusters at most.
      if (plainBytes > this.#file.bytes || compressedClusters * 16 > this.#file.bytes) {
        throw new ImageSpecError("qcow2: L2 tables", `clusters that fit the file's ${this.#file.bytes} bytes, each used once`, `more by cluster ${cluster}`);
      }
      const first = Math.floor((cluster * this.#clusterBytes) / pieceBytes);
      const final = Math.floor((Math.min((cluster + 1) * this.#clusterBytes, this.bytes) - 1) / pieceBytes);
      for (let piece = Math.max(first, last + 1); piece <= final; piece++) yield (last = piece);
    }
  }

  async #readCluster(cluster: number, from: number, target: Uint8Array): Promise<void> {
    const entry = this.#l2Offset(cluster) === undefined ? 0n : await this.#entry(cluster);
    if (isHole(entry)) return void target.fill(0);
    if ((entry & COMPRESSED) !== 0n) return this.#readCompressed(cluster, entry, from, target);
    const offset = Number(entry & OFFSET_MASK);
    if (offset % this.#clusterBytes !== 0 || offset >= this.#file.bytes) {
      throw new ImageSpecError(`qcow2: cluster ${cluster}`, `an offset that is a cluster of the file's ${this.#file.bytes} bytes`, offset);
    }
    await this.#file.read(offset + from, target);
  }

  /** "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8) bits of host offset, above them sectors beyond the first. */
  async #readCompressed(cluster: number, entry: bigint, from: number, target: Uint8Array): Promise<void> {
    const x = BigInt(62 - (this.#header.clusterBits - 8));
    const offset = Number(entry & ((1n << x) - 1n));
    const sectors = Number((entry & (COMPRESSED - 1n)) >> x) + 1;
    const bytes = Math.min(sectors * 512 - (offset % 512), this.#file.bytes - offset);
    if (bytes <= 0) throw new ImageSpecError(`qcow2: compressed cluster ${cluster}`, `data inside the file's ${this.#file.bytes} bytes`, offset);
    const data = new Uint8Array(bytes);
    await this.#file.read(offset, data);
    const unpack = this.#header.compression === "zstd" ? this.#codecs.unzstd : this.#codecs.inflateRaw;
    const content = await unpack(data, this.#clusterBytes).catch((cause: unknown) => {
      throw new ImageSpecError(`qcow2: compressed cluster ${cluster}`, `${this.#header.compression} data`, (cause as Error).message);
    });
    if (content.length !== this.#clusterBytes) throw new ImageSpecError(`qcow2: compressed cluster ${cluster}`, `${this.#clusterBytes} bytes`, content.length);
    target.set(content.subarray(from, from + target.length));
  }

  /** Undefined: the table is not there, its clusters are zero. */
  #l2Offset(cluster: number): number | undefined {
    const index = Math.floor(cluster / (this.#clusterBytes / 8));
    const offset = Number(this.#l1.getBigUint64(index * 8) & OFFSET_MASK);
    if (offset === 0) return undefined;
    if (offset % this.#clusterBytes !== 0 || offset + this.#clusterBytes > this.#file.bytes) {
      throw new ImageSpecError(`qcow2: L1 entry ${index}`, `a cluster of the file's ${this.#file.bytes} bytes`, offset);
    }
    return offset;
  }

  async #entry(cluster: number): Promise<bigint> {
    const offset = this.#l2Offset(cluster) as number;
    let table = this.#tables.get(offset);
    if (!table) {
      const bytes = new Uint8Array(this.#clusterBytes);
      await this.#file.read(offset, bytes);
      table = new DataView(bytes.buffer);
      const oldest = this.#tables.size >= TABLES_KEPT ? this.#tables.keys().next().value : undefined;
      if (oldest !== undefined) this.#tables.delete(oldest);
      this.#tables.set(offset, table);
    }
    return table.getBigUint64((cluster % (this.#clusterBytes / 8)) * 8);
  }
}

/** Version 2 never sets the zero flag: its bit is reserved, and 0. */
function isHole(entry: bigint): boolean {
  return (entry & COMPRESSED) === 0n && ((entry & READS_ZERO) !== 0n || (entry & OFFSET_MASK) === 0n);
}
