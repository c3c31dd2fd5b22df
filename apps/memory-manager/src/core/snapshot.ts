import { ContractError, messages, type Channel } from "@polyvisor/contracts";
import { Disk, type ImagePort, type ImportImageRequest, type ImportImageResponse } from "@polyvisor/contracts/image";
import type { SnapshotSpaceResponse } from "@polyvisor/contracts/memory";
import { isZeroBytes, PAGE_BYTES } from "@polyvisor/guest-memory";
import type { Space } from "./space.ts";

const PIECE_BYTES = 1024 * 1024;
/** Media type of a chunked image's index (libs/image-spec). */
const INDEX_TYPE = "application/vnd.polyvisor.disk.index.v1";

/**
 * RAM of this moment as a chunked image of the image-registry: pages that are zero move nowhere, chunks are compressed and kept
 * once. What coherent holders have is read where it is; whoever asks has stopped harts and devices.
 */
export async function snapshotSpace(space: Space, images: ImagePort): Promise<SnapshotSpaceResponse> {
  const { machine, bytes } = space.spec;
  const channel = images.importImage();
  const answer = answerOf(channel as unknown as Channel<never, ImportImageResponse>);
  answer.catch(() => {}); // reported where it is waited for
  let dataBytes = 0;
  let zeros = 0n;
  try {
    for (let at = 0; at < bytes && !channel.closed; at += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, bytes - at);
      const finish = at + length === bytes;
      const size = BigInt(bytes);
      const buffer = space.mayHoldData(at, length) ? new Uint8Array(length) : undefined;
      if (buffer) await space.accessed("snapshotSpace", [{ offset: at, write: false, buffer }]);
      if (!buffer || isZeroBytes(buffer)) {
        zeros += BigInt(length);
        if (finish) await send(channel, { format: "raw", size, data: NOTHING, finish, zeros });
        continue;
      }
      for (let page = 0; page < length; page += PAGE_BYTES) if (!isZeroBytes(buffer.subarray(page, page + PAGE_BYTES))) dataBytes += PAGE_BYTES;
      if (zeros > 0n) await send(channel, { format: "raw", size, data: NOTHING, finish: false, zeros });
      zeros = 0n;
      await send(channel, { format: "raw", size, data: buffer, finish, zeros: 0n });
    }
    const { image } = await answer;
    if (!image) throw new ContractError("unavailable", `snapshotSpace ${machine}: the image-registry ended the stream without an image`);
    const parts = image.parts.map(({ mediaType, digest, size }) => ({ mediaType, digest, size }));
    return { digest: image.digest, parts, dataBytes: BigInt(dataBytes) };
  } finally {
    channel.close();
  }
}

/**
 * Fills a space that has only zeros from such an image. It has exactly the size of RAM, or nothing is written; a chunk that is
 * missing or damaged fails the call, and the space is undefined.
 */
export async function restoreSpace(space: Space, digest: string, images: ImagePort): Promise<void> {
  const { machine, bytes } = space.spec;
  // The registry reads chunked images as disks: this one is there as long as the call.
  const id = `${machine.replaceAll(/[^A-Za-z0-9._-]/g, "-")}/memory`;
  await images.deleteDisk({ id }).catch(() => {}); // of a call that was cut short
  await images.createDisk({ disk: Disk.fromPartial({ id, baseDigest: digest, baseMediaType: INDEX_TYPE, bytes: BigInt(bytes) }) }).catch((error: unknown) => {
    throw error instanceof ContractError ? new ContractError(error.condition, `restoreSpace ${machine}: the image of ${digest} is none of ${bytes} bytes of RAM: ${error.message}`, { cause: error }) : error;
  });
  try {
    let at = 0;
    for await (const { data, zeros } of messages(images.exportDisk({ id, format: "raw" }))) {
      if (at + data.length + Number(zeros) > bytes) throw new ContractError("invalid", `restoreSpace ${machine}: the image has more than ${bytes} bytes, the size of RAM`);
      if (data.length > 0) await space.accessed("restoreSpace", [{ offset: at, write: true, buffer: data }]);
      at += data.length + Number(zeros);
    }
    if (at !== bytes) throw new ContractError("corrupt", `restoreSpace ${machine}: the image-registry sent ${at} of ${bytes} bytes`);
  } finally {
    await images.deleteDisk({ id }).catch(() => {});
  }
}

const NOTHING = new Uint8Array(0);

async function answerOf(channel: Channel<never, ImportImageResponse>): Promise<ImportImageResponse> {
  for await (const answer of messages(channel)) return answer;
  return { image: undefined };
}

/** Not faster than the stream takes it. */
async function send(channel: Channel<ImportImageRequest, ImportImageResponse>, message: ImportImageRequest): Promise<void> {
  if (channel.send(message) || channel.closed) return;
  await new Promise<void>((resolve) => {
    channel.onDrain(resolve);
    channel.onClose(() => resolve());
  });
}
