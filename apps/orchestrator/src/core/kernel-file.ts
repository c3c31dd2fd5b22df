import type { ImagePort } from "@polyvisor/contracts/image";
import { messages } from "@polyvisor/contracts";
import type { BlobFile, KernelFormat } from "./boot-plan.ts";

const HEADER_BYTES = 64n;

/** Looks at a kernel's first bytes: an ELF file, a RISC-V Linux Image, or anything else (raw: loaded as it is). */
export async function inspectKernel(images: ImagePort, file: BlobFile): Promise<KernelFormat> {
  const header = await readBlob(images, file.digest, 0n, file.bytes < HEADER_BYTES ? file.bytes : HEADER_BYTES);
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (header.length === 64 && view.getUint32(56, true) === 0x05435352) return { kind: "linux-image", memoryBytes: view.getBigUint64(16, true) };
  return { kind: "raw" };
}

async function readBlob(images: ImagePort, digest: string, offset: bigint, length: bigint): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const { data } of messages(images.readBlob({ digest, offset, length }))) chunks.push(data);
  return Buffer.concat(chunks);
}
