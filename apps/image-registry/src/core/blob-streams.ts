import { ContractError, takeBytes, type Channel, type Sink } from "@polyvisor/contracts";
import type { BlobChunk, ReadBlobRequest, WriteBlobRequest, WriteBlobResponse } from "@polyvisor/contracts/image";
import { sha256Of } from "@polyvisor/image-spec";
import type { BlobStore, BlobWriter } from "./blob-store.ts";
import { contractError } from "./errors.ts";

/** Below grpc-js's default message limit of 4 MiB, large enough that the per-message cost vanishes. */
const CHUNK_BYTES = 256 * 1024;
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
/** Writers that are not slowed down by their transport are cut off here. */
const MAX_QUEUED_BYTES = 1024 * 1024 * 1024;

/** ReadBlob. A read of the whole blob is verified: a wrong digest closes the stream with "corrupt" instead of its end. */
export async function readBlob(blobs: BlobStore, request: ReadBlobRequest, out: Sink<BlobChunk>): Promise<void> {
  try {
    const file = await blobs.open(request.digest);
    try {
      const offset = Number(request.offset);
      if (offset > file.bytes) throw new ContractError("out-of-range", `read of ${request.digest} from byte ${offset}: it has ${file.bytes}`);
      const end = request.length === 0n ? file.bytes : Math.min(file.bytes, offset + Number(request.length));
      const hash = offset === 0 && end === file.bytes ? blobs.newHash() : undefined;
      for (let at = offset; at < end && !out.closed; at += CHUNK_BYTES) {
        const data = takeBytes(Math.min(CHUNK_BYTES, end - at));
        if (!file.readNow(at, data)) await file.read(at, data);
        hash?.update(data);
        if (!out.send({ data }) && !out.closed) await drained(out);
      }
      if (!out.closed && hash && hash.hex() !== sha256Of(request.digest)) throw await blobs.quarantine(request.digest);
    } finally {
      await file.close();
    }
    out.close();
  } catch (error) {
    out.close(contractError("readBlob", error));
  }
}

export function drained(out: Sink<never>): Promise<void> {
  return new Promise((resolve) => {
    out.onDrain(resolve);
    out.onClose(() => resolve());
  });
}

/** WriteBlob. `onStored` hears of every blob that was written. */
export function writeBlob(
  blobs: BlobStore,
  channel: Channel<WriteBlobResponse, WriteBlobRequest>,
  onStored: (blob: { digest: string; bytes: number }) => void,
): void {
  let writer: BlobWriter | undefined;
  let queuedBytes = 0;
  let ended = false;
  let tail: Promise<void> = Promise.resolve();

  const end = async (error?: unknown): Promise<void> => {
    if (ended) return;
    ended = true;
    await writer?.discard(); // nothing to discard after a commit
    channel.close(error === undefined ? undefined : contractError("writeBlob", error));
  };

  const take = async (message: WriteBlobRequest): Promise<void> => {
    queuedBytes -= message.data.length;
    if (ended) return;
    if (!writer) {
      const present = message.digest === "" ? undefined : await blobs.stat(message.digest);
      if (present !== undefined) return answer({ digest: message.digest, bytes: present });
      writer = await blobs.create({ digest: message.digest, size: Number(message.size) });
    }
    if (message.data.length > MAX_MESSAGE_BYTES) throw new ContractError("invalid", `${message.data.length} bytes in one message: at most ${MAX_MESSAGE_BYTES}`);
    await writer.write(message.data);
    if (!message.finish) return;
    const stored = await writer.commit();
    onStored(stored);
    return answer(stored);
  };

  const answer = async (blob: { digest: string; bytes: number }): Promise<void> => {
    channel.send({ digest: blob.digest, bytes: BigInt(blob.bytes) });
    await end();
  };

  channel.onMessage((message) => {
    if (ended) return;
    queuedBytes += message.data.length;
    if (queuedBytes > MAX_QUEUED_BYTES) void end(new ContractError("exhausted", `more than ${MAX_QUEUED_BYTES} bytes sent ahead of the disk; wait for the transport`));
    else tail = tail.then(() => take(message)).catch(end);
  });
  // The writer went away: what it sent is still taken, in order; a blob without its last message leaves nothing behind.
  channel.onClose(() => (tail = tail.then(() => end())));
}
