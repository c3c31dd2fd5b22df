import { ContractError, messages, type Channel } from "@polyvisor/contracts";
import type { ImagePort, WriteBlobResponse } from "@polyvisor/contracts/image";

/** A small blob of the image-registry, whole. */
export async function readBlobBytes(images: ImagePort, digest: string, limitBytes: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const { data } of messages(images.readBlob({ digest, offset: 0n, length: 0n }))) {
    length += data.length;
    if (length > limitBytes) throw new ContractError("invalid", `blob ${digest} has more than ${limitBytes} bytes`);
    pieces.push(data);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** Stores a small blob; answers its digest. */
export async function writeBlobBytes(images: ImagePort, data: Uint8Array): Promise<string> {
  const channel = images.writeBlob();
  channel.send({ digest: "", size: BigInt(data.length), data, finish: true });
  for await (const { digest } of messages(channel as unknown as Channel<never, WriteBlobResponse>)) return digest;
  throw new ContractError("unavailable", "the image-registry ended the stream without an answer");
}
