import { ContractError, messages } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import { ElfError, isElf, isLinuxImage, LinuxImageError, linuxImageFileBytes, readElf, readLinuxImage, unbootableKind } from "@polyvisor/machine";
import type { BlobFile, KernelFormat } from "./boot-plan.ts";

/** The Image header and, behind it, the EFI section table. */
const HEADER_BYTES = 4096n;
/** An ELF file is read whole, for its symbols; a kernel with debug information belongs into an Image. */
const MAX_ELF_BYTES = 128n * 1024n * 1024n;

/** Looks into a kernel: an ELF file, a RISC-V Linux Image, or anything else (raw: loaded as it is). */
export async function inspectKernel(images: ImagePort, file: BlobFile): Promise<KernelFormat> {
  const header = await readBlob(images, file.digest, file.bytes < HEADER_BYTES ? file.bytes : HEADER_BYTES);
  try {
    if (isLinuxImage(header)) {
      const { imageBytes } = readLinuxImage(header);
      const wholeBytes = linuxImageFileBytes(header);
      if (wholeBytes !== undefined && file.bytes < BigInt(wholeBytes)) {
        throw new ContractError("invalid", `kernel Image of ${file.bytes} bytes, its sections need ${wholeBytes}: it is truncated; copy it again`);
      }
      return { kind: "linux-image", memoryBytes: imageBytes };
    }
    if (isElf(header)) return await inspectElf(images, file);
  } catch (error) {
    if (error instanceof ElfError || error instanceof LinuxImageError) throw new ContractError("invalid", error.message, { cause: error });
    throw error;
  }
  const unbootable = unbootableKind(header);
  if (unbootable) throw new ContractError("invalid", `the kernel is ${unbootable}`);
  return { kind: "raw" };
}

/** Where a test program leaves its result; undefined for every other kernel, and for none. */
export async function tohostOf(images: ImagePort, digest: string): Promise<bigint | undefined> {
  if (!digest) return undefined;
  const format = await inspectKernel(images, { digest, bytes: (await images.statBlob({ digest })).bytes });
  return format.kind === "elf" ? format.tohost : undefined;
}

async function inspectElf(images: ImagePort, file: BlobFile): Promise<KernelFormat> {
  if (file.bytes > MAX_ELF_BYTES) {
    throw new ContractError("invalid", `ELF file of ${file.bytes} bytes; at most ${MAX_ELF_BYTES}: strip its debug information`);
  }
  const bytes = await readBlob(images, file.digest, file.bytes);
  const elf = readElf(bytes);
  if (!elf.segments.some(({ physicalAddress: start, memoryBytes }) => elf.entry >= start && elf.entry - start < memoryBytes)) {
    throw new ContractError("invalid", `ELF file: its entry 0x${elf.entry.toString(16)} lies in none of its segments; link it again (ld -e _start)`);
  }
  return {
    kind: "elf",
    entry: elf.entry,
    tohost: elf.symbol("tohost"),
    segments: elf.segments.map(({ physicalAddress, data, memoryBytes }) => ({
      address: physicalAddress,
      fileOffset: BigInt(data.byteOffset - bytes.byteOffset),
      fileBytes: BigInt(data.length),
      memoryBytes,
    })),
  };
}

async function readBlob(images: ImagePort, digest: string, length: bigint): Promise<Uint8Array> {
  const bytes = new Uint8Array(Number(length));
  let filled = 0;
  for await (const { data } of messages(images.readBlob({ digest, offset: 0n, length }))) {
    if (filled + data.length > bytes.length) throw new ContractError("corrupt", `blob ${digest} answers more bytes than it has (${length})`);
    bytes.set(data, filled);
    filled += data.length;
  }
  if (filled < bytes.length) throw new ContractError("corrupt", `blob ${digest} ends after ${filled} of ${length} bytes`);
  return bytes;
}
