/**
 * QEMU's disk image format, version 2 and 3 (QEMU, docs/interop/qcow2.txt). Big-endian. Only what a disk that stands alone
 * needs: no backing file, no encryption, no external data file, no extended L2 entries.
 */
import { ImageSpecError } from "../image-spec-error.ts";

export const QCOW2_MAGIC = 0x514649fb; // "QFI\xfb"
export const QCOW2_HEADER_BYTES = 104;
/** Where everything that {@link readQcow2Header} looks at lies. */
export const QCOW2_HEADER_LIMIT = 4096;

/** L1 and L2 entries: bits 9 to 55 are an offset. */
export const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
/** Exactly one reference: the cluster may be written in place. */
export const COPIED = 1n << 63n;
/** L2: the descriptor is that of compressed data. */
export const COMPRESSED = 1n << 62n;
/** L2, version 3: the cluster reads as zero. */
export const READS_ZERO = 1n;

const INCOMPATIBLE = { dirty: 1n << 0n, corrupt: 1n << 1n, dataFile: 1n << 2n, compression: 1n << 3n, extendedL2: 1n << 4n } as const;

/** QEMU's own limit (block/qcow2.h, QCOW_MAX_L1_SIZE). */
const MAX_L1_BYTES = 32 * 1024 * 1024;
const MAX_DISK_BYTES = 16 * 2 ** 40;

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** Of the disk. */
  readonly size: number;
  readonly l1Offset: number;
  readonly l1Entries: number;
  readonly compression: "deflate" | "zstd";
}

/** Reads a header of a file of `fileBytes` bytes and refuses what would lead a reader astray, or what this reader cannot do. */
export function readQcow2Header(bytes: Uint8Array, fileBytes: number): Qcow2Header {
  const refuse = (what: string, expected: string, got: unknown): never => {
    throw new ImageSpecError(`qcow2: ${what}`, expected, got);
  };
  if (bytes.length < 72) refuse("file", "at least 72 bytes", bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== QCOW2_MAGIC) refuse("magic", '"QFI\\xfb" (is it another format? name it)', `0x${view.getUint32(0).toString(16)}`);
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) return refuse("version", "2 or 3", version);
  if (view.getBigUint64(8) !== 0n || view.getUint32(16) !== 0) {
    refuse("backing file", "none (make the file stand alone first: qemu-img convert -O qcow2 OLD NEW)", "one");
  }
  const clusterBits = view.getUint32(20);
  if (clusterBits < 9 || clusterBits > 21) refuse("cluster_bits", "9 to 21", clusterBits);
  const clusterBytes = 2 ** clusterBits;
  const size = view.getBigUint64(24);
  if (size === 0n || size > BigInt(MAX_DISK_BYTES)) refuse("size", `1 to ${MAX_DISK_BYTES} bytes`, size);
  if (view.getUint32(32) !== 0) refuse("crypt_method", "0: encrypted disks are not supported", view.getUint32(32));
  const l1Entries = view.getUint32(36);
  const needed = Math.ceil(Number(size) / (clusterBytes * (clusterBytes / 8)));
  if (l1Entries < needed || l1Entries * 8 > MAX_L1_BYTES) refuse("l1_size", `${needed} to ${MAX_L1_BYTES / 8}`, l1Entries);
  const l1Offset = view.getBigUint64(40);
  if (l1Offset % BigInt(clusterBytes) !== 0n || l1Offset === 0n || l1Offset + BigInt(l1Entries * 8) > BigInt(fileBytes)) {
    refuse("l1_table_offset", `a cluster of the file's ${fileBytes} bytes`, l1Offset);
  }
  let compression: Qcow2Header["compression"] = "deflate";
  if (version === 3) {
    if (bytes.length < QCOW2_HEADER_BYTES) refuse("header", `${QCOW2_HEADER_BYTES} bytes`, bytes.length);
    const incompatible = view.getBigUint64(72);
    if ((incompatible & INCOMPATIBLE.corrupt) !== 0n) refuse("incompatible_features", "not marked corrupt (qemu-img check -r all FILE)", incompatible);
    if ((incompatible & ~(INCOMPATIBLE.dirty | INCOMPATIBLE.compression)) !== 0n) {
      refuse("incompatible_features", "none but dirty and compression type (convert it: qemu-img convert -O qcow2 OLD NEW)", `0x${incompatible.toString(16)}`);
    }
    const headerLength = view.getUint32(100);
    if (headerLength < QCOW2_HEADER_BYTES || headerLength > clusterBytes || headerLength % 8 !== 0) refuse("header_length", `${QCOW2_HEADER_BYTES} to ${clusterBytes}`, headerLength);
    if ((incompatible & INCOMPATIBLE.compression) !== 0n) {
      const type = headerLength > 104 && bytes.length > 104 ? view.getUint8(104) : 0;
      if (type !== 0 && type !== 1) refuse("compression_type", "0 (deflate) or 1 (zstd)", type);
      compression = type === 1 ? "zstd" : "deflate";
    }
  }
  return { version, clusterBits, size: Number(size), l1Offset: Number(l1Offset), l1Entries, compression };
}
