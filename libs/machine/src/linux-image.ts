/** The header of a RISC-V Linux `Image` (Linux Documentation/arch/riscv/boot-image-header.rst). All little-endian. */
export interface LinuxImageHeader {
  /** Where the kernel wants to be, from the start of RAM; a multiple of 2 MiB on rv64. */
  textOffset: bigint;
  /** Memory from the load address that the kernel needs, bss included; at least the file's size. */
  imageBytes: bigint;
  littleEndian: boolean;
  version: { major: number; minor: number };
}

export class LinuxImageError extends Error {
  override readonly name = "LinuxImageError";
}

const HEADER_BYTES = 64;
/** Field offsets, in wire order. */
const TEXT_OFFSET = 8;
const IMAGE_SIZE = 16;
const FLAGS = 24;
const VERSION = 32;
const MAGIC2 = 56;
/** "RSC\x05": since header version 0.2; `magic` at 48 is deprecated. */
const MAGIC2_VALUE = 0x0543_5352;
const MAX_IMAGE_BYTES = 1n << 32n;

/** Parses the first 64 bytes of a kernel file. Throws {@link LinuxImageError} with what to do when it is no `Image`. */
export function readLinuxImage(file: Uint8Array): LinuxImageHeader {
  if (file.length < HEADER_BYTES) throw new LinuxImageError(`kernel: ${file.length} bytes, shorter than its header (64)`);
  const view = new DataView(file.buffer, file.byteOffset, HEADER_BYTES);
  const magic = view.getUint32(MAGIC2, true);
  if (magic !== MAGIC2_VALUE) {
    const hint =
      view.getUint16(0) === 0x1f8b
        ? "it is gzip compressed: decompress it (gunzip)"
        : view.getUint32(0) === 0x7f454c46
          ? "it is an ELF file: use arch/riscv/boot/Image"
          : "expected a RISC-V Image";
    throw new LinuxImageError(`kernel: magic 0x${magic.toString(16)} at 0x38, expected "RSC\\x05"; ${hint}`);
  }
  const header: LinuxImageHeader = {
    textOffset: view.getBigUint64(TEXT_OFFSET, true),
    imageBytes: view.getBigUint64(IMAGE_SIZE, true),
    littleEndian: (view.getBigUint64(FLAGS, true) & 1n) === 0n,
    version: { major: view.getUint16(VERSION + 2, true), minor: view.getUint16(VERSION, true) },
  };
  if (!header.littleEndian) throw new LinuxImageError("kernel: big-endian, expected little-endian");
  if (header.imageBytes > MAX_IMAGE_BYTES || header.textOffset > MAX_IMAGE_BYTES)
    throw new LinuxImageError(`kernel: image_size 0x${header.imageBytes.toString(16)}, text_offset 0x${header.textOffset.toString(16)}: too large`);
  return header;
}

export function isLinuxImage(file: Uint8Array): boolean {
  if (file.length < HEADER_BYTES) return false;
  return new DataView(file.buffer, file.byteOffset, HEADER_BYTES).getUint32(MAGIC2, true) === MAGIC2_VALUE;
}
