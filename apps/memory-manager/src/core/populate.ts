import { ContractError, messages } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import type { PopulateRequest } from "@polyvisor/contracts/memory";
import type { Space } from "./space.ts";

/** Inline data in one request; larger things are blobs. */
export const MAX_INLINE_BYTES = 4 * 1024 * 1024;

/** Copies inline bytes or (part of) a blob into a space; answers how many bytes. Nothing is touched unless all fits. */
export async function populate(space: Space, request: PopulateRequest, images: ImagePort): Promise<bigint> {
  const { address, source } = request;
  if (source?.$case === "data") {
    if (source.value.length > MAX_INLINE_BYTES) {
      throw new ContractError("invalid", `populate: ${source.value.length} inline bytes; at most ${MAX_INLINE_BYTES}, use a blob`);
    }
    const offset = space.offsetOf("populate", address, source.value.length);
    await space.accessed("populate", [{ offset, write: true, buffer: source.value }]);
    return BigInt(source.value.length);
  }
  if (source?.$case !== "blobDigest") throw new ContractError("invalid", "populate: no source; give a blob digest or data");

  const digest = source.value;
  const blob = await images.statBlob({ digest });
  const from = request.blobOffset;
  const length = request.length === 0n ? blob.bytes - from : request.length;
  if (length < 0n || from + length > blob.bytes) {
    throw new ContractError(
      "out-of-range",
      `populate: ${length} bytes from ${from} asked of blob ${digest}, which has ${blob.bytes}`,
    );
  }
  const bytes = Number(length);
  const start = space.offsetOf("populate", address, bytes);
  if (bytes === 0) return 0n;
  let at = 0;
  for await (const { data } of messages(images.readBlob({ digest, offset: from, length }))) {
    if (at + data.length > bytes) break; // reported below
    await space.accessed("populate", [{ offset: start + at, write: true, buffer: data }]);
    at += data.length;
  }
  if (at !== bytes) {
    throw new ContractError("corrupt", `populate: the image-registry sent ${at} of ${bytes} bytes of ${digest}, or more than asked`);
  }
  return length;
}
