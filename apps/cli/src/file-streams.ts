import { createReadStream } from "node:fs";
import { open, rename, rm, stat } from "node:fs/promises";
import { ContractError, messages, type Channel } from "@polyvisor/contracts";
import type { DiskImage, ImagePort, ImportImageRequest } from "@polyvisor/contracts/image";
import { CliError } from "./cli-error.ts";

/** Well under gRPC's 4 MiB, large enough to pipeline. */
const PIECE_BYTES = 256 * 1024;

export async function sizeOf(path: string): Promise<number> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new CliError(`cannot read ${path}: ${error.code === "ENOENT" ? "there is no such file" : error.message}`);
  });
  if (!found.isFile()) throw new CliError(`${path} is not a file`);
  if (found.size === 0) throw new CliError(`${path} is empty`);
  return found.size;
}

/** Sends a file down a stream that answers once; `message` makes a message of each piece. */
async function sendFile<Request, Response>(channel: Channel<Request, Response>, path: string, message: (data: Uint8Array, finish: boolean) => Request): Promise<Response> {
  const answer = new Promise<Response>((resolve, reject) => {
    channel.onMessage(resolve);
    channel.onClose((error) => reject(error ?? new ContractError("unavailable", `send ${path}: the registry ended the stream; try again`)));
  });
  answer.catch(() => {}); // reported by the await below
  let drained = (): void => {};
  channel.onDrain(() => drained());
  for await (const data of createReadStream(path, { highWaterMark: PIECE_BYTES })) {
    if (channel.closed) break;
    if (!channel.send(message(data as Buffer, false)) && !channel.closed) await Promise.race([new Promise<void>((resolve) => (drained = resolve)), answer.catch(() => {})]);
  }
  if (!channel.closed) channel.send(message(new Uint8Array(0), true));
  try {
    return await answer;
  } finally {
    channel.close();
  }
}

/** A disk file of another program as a chunked image of the registry. */
export async function importImage(images: ImagePort, path: string, format: string): Promise<DiskImage> {
  const size = BigInt(await sizeOf(path));
  const { image } = await sendFile(images.importImage(), path, (data, finish) => ({ format, size, data, finish, zeros: 0n }) satisfies ImportImageRequest);
  return image!;
}

/** A `.pv` file, or any OCI layout in a tar, into the registry; answers its manifest's digest. */
export async function importArchive(images: ImagePort, path: string): Promise<{ digest: string; artifactType: string }> {
  await sizeOf(path);
  return sendFile(images.importArchive(), path, (data, finish) => ({ data, finish }));
}

/** Writes a stream to a file, which appears whole or not at all. Runs of zeros become holes. */
export async function saveStream(stream: Channel<never, { data: Uint8Array; zeros?: bigint }>, path: string): Promise<number> {
  const part = `${path}.part-${process.pid}`;
  const file = await open(part, "w").catch((error: NodeJS.ErrnoException) => {
    throw new CliError(`cannot write ${path}: ${error.message}`);
  });
  try {
    let bytes = 0;
    for await (const { data, zeros } of messages(stream)) {
      if (data.length > 0) await file.write(data, 0, data.length, bytes);
      bytes += data.length + Number(zeros ?? 0n);
    }
    await file.truncate(bytes);
    await file.sync();
    await file.close();
    await rename(part, path);
    return bytes;
  } catch (error) {
    await file.close().catch(() => {});
    await rm(part, { force: true });
    throw error;
  }
}
