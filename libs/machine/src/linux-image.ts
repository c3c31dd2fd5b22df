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

/** MZ and PE headers as in Linux arch/riscv/kernel/efi-header.S: "PE\0\0" is where the word at 60 (`res3`) says. */
const PE_OFFSET = 60;
const PE_MAGIC = 0x0000_4550;
const COFF_BYTES = 24;
const SECTION_BYTES = 40;

/**
 * Bytes that a whole `Image` file has at least, from the EFI section table in its first bytes; undefined when the kernel
 * was built without EFI. `image_size` does not tell: it counts .bss too, which the file does not have.
 */
export function linuxImageFileBytes(head: Uint8Array): number | undefined {
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const pe = head.length >= HEADER_BYTES ? view.getUint32(PE_OFFSET, true) : 0;
  if (pe < HEADER_BYTES || pe + COFF_BYTES > head.length || view.getUint32(pe, true) !== PE_MAGIC) return undefined;
  const sections = view.getUint16(pe + 6, true);
  const table = pe + COFF_BYTES + view.getUint16(pe + 20, true);
  if (table + sections * SECTION_BYTES > head.length) return undefined;
  let end = 0;
  for (let at = table; at < table + sections * SECTION_BYTES; at += SECTION_BYTES) {
    // PE format, section table: SizeOfRawData at 16, PointerToRawData at 20.
    end = Math.max(end, view.getUint32(at + 20, true) + view.getUint32(at + 16, true));
  }
  return end;
}

/** What a file that is neither Image nor ELF is, when its first bytes say that it cannot run as it is. */
export function unbootableKind(head: Uint8Array): string | undefined {
  const starts = (...bytes: number[]) => bytes.every((byte, index) => head[index] === byte);
  if (starts(0x1f, 0x8b, 0x08)) return "gzip data: decompress it (gunzip)"; // RFC 1952, 2.3.1
  if (starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)) return "xz data: decompress it (unxz)";
  if (starts(0x28, 0xb5, 0x2f, 0xfd)) return "Zstandard data: decompress it (unzstd)"; // RFC 8878, 3.1.1
  if (starts(0x4d, 0x5a)) return 'an EFI program without the mark "RSC\\x05" of a RISC-V Image: is the kernel for another machine?';
  if (starts(0xd0, 0x0d, 0xfe, 0xed)) return "a flattened device tree; the board makes its own";
  return undefined;
}

export function isLinuxImage(file: Uint8Array): boolean {
  if (file.length < HEADER_BYTES) return false;
  return new DataView(file.buffer, file.byteOffset, HEADER_BYTES).getUint32(MAGIC2, true) === MAGIC2_VALUE;
}
