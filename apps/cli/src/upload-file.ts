import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { asContractError, ContractError } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import { CliError } from "./cli-error.ts";

/** Well under gRPC's 4 MiB, large enough to pipeline. */
const CHUNK_BYTES = 256 * 1024;

/** Brings a file into the registry's blob store and answers its digest. A blob that is there already is not sent. */
export async function uploadFile(images: ImagePort, path: string): Promise<string> {
  const size = await stat(path).then(
    (found) => (found.isFile() ? found.size : Promise.reject(new CliError(`${path} is not a file`))),
    (error: NodeJS.ErrnoException) => Promise.reject(new CliError(`cannot read ${path}: ${error.code === "ENOENT" ? "there is no such file" : error.message}`)),
  );
  if (size === 0) throw new CliError(`${path} is empty`);
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  const digest = `sha256:${hash.digest("hex")}`;
  try {
    await images.statBlob({ digest });
    return digest;
  } catch (error) {
    if (asContractError(error).condition !== "not-found") throw error;
  }
  const channel = images.writeBlob();
  const answer = new Promise<void>((resolve, reject) => {
    channel.onMessage(() => resolve());
    channel.onClose((error) => reject(error ?? new ContractError("unavailable", `upload ${path}: the registry ended the stream; try again`)));
  });
  answer.catch(() => {}); // Reported by the await below.
  let drained = (): void => {};
  channel.onDrain(() => drained());
  let first = true;
  for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) {
    if (channel.closed) break;
    const ready = channel.send({ digest: first ? digest : "", size: first ? BigInt(size) : 0n, data: chunk as Buffer, finish: false });
    first = false;
    if (!ready && !channel.closed) await Promise.race([new Promise<void>((resolve) => (drained = resolve)), answer.catch(() => {})]);
  }
  channel.send({ digest: "", size: 0n, data: new Uint8Array(0), finish: true });
  await answer;
  channel.close();
  return digest;
}
