import { open } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import { ContractError, messages } from "@polyvisor/contracts";
import { Box, Descriptor, type ImagePort } from "@polyvisor/contracts/image";
import { BOX_LAYER_TYPES, DISK_TYPES, PACKED } from "@polyvisor/image-spec";
import type { BuiltBox, BuiltFile } from "./built-box.ts";
import { packDiskFile } from "./pack-disk.ts";

const PIECE_BYTES = 1024 * 1024;
/** One object for all holes: what is queued for the registry then takes no memory. */
const ZEROS = new Uint8Array(PIECE_BYTES);

/** Stores a built box's files (those that the registry lacks) and its manifest. Answers the box as it was put. */
export async function publishBox(images: ImagePort, built: BuiltBox): Promise<Box> {
  const store = async (file: BuiltFile | undefined): Promise<Descriptor | undefined> => {
    if (!file) return undefined;
    const digest = `sha256:${file.sha256}`;
    if (!(await isStored(images, digest))) await writeFile(images, file, digest);
    return Descriptor.fromPartial({ digest, size: BigInt(file.bytes) });
  };
  /** Chunked, so that a machine reads what it touches and other hosts fetch no more than that. */
  const storeDisk = async (disk: BuiltFile | undefined): Promise<Descriptor | undefined> => {
    if (!disk) return undefined;
    const { index, chunks } = await packDiskFile(disk);
    await store(chunks);
    return { ...(await store(index))!, mediaType: DISK_TYPES.index };
  };
  /** As its frame where the build has made one; the registry makes the plain bytes of it. */
  const storePacked = async (kind: "kernel" | "initrd", file: BuiltFile | undefined): Promise<Descriptor | undefined> => {
    if (!file?.packed) return store(file);
    const annotations = new Map([[PACKED.digest, `sha256:${file.sha256}`], [PACKED.size, String(file.bytes)]]);
    return { ...(await store(file.packed))!, mediaType: BOX_LAYER_TYPES[kind] + PACKED.suffix, annotations };
  };
  const box = Box.fromPartial({
    name: built.name,
    tag: built.tag,
    kernel: await storePacked("kernel", built.kernel),
    initrd: await storePacked("initrd", built.initrd),
    disk: await storeDisk(built.disk),
    config: built.config,
  });
  const { digest } = await images.putBox({ box });
  return { ...box, digest };
}

async function isStored(images: ImagePort, digest: string): Promise<boolean> {
  try {
    await images.statBlob({ digest });
    return true;
  } catch (error) {
    if (error instanceof ContractError && error.condition === "not-found") return false;
    throw error;
  }
}

async function writeFile(images: ImagePort, file: BuiltFile, digest: string): Promise<void> {
  const source = await open(file.path, "r");
  const channel = images.writeBlob();
  const answer = (async () => {
    for await (const response of messages(channel as never)) return response;
    throw new ContractError("unavailable", `publish ${file.path}: the image registry ended the stream without an answer`);
  })();
  answer.catch(() => {}); // awaited below; the loop notices the closed channel
  let drained = (): void => {};
  channel.onDrain(() => drained());
  channel.onClose(() => drained());
  try {
    let at = 0;
    do {
      const piece = Buffer.alloc(Math.min(PIECE_BYTES, file.bytes - at));
      const { bytesRead } = await source.read(piece, 0, piece.length, at);
      if (bytesRead !== piece.length) throw new ContractError("invalid", `${file.path} is shorter than the ${file.bytes} bytes it was built with; build the box again`);
      at += piece.length;
      const data = piece.length === PIECE_BYTES && piece.equals(ZEROS) ? ZEROS : piece;
      const ready = channel.send({ digest, size: BigInt(file.bytes), data, finish: at === file.bytes });
      if (!ready && !channel.closed) await new Promise<void>((resolve) => (drained = resolve));
      else await nextTurn();
    } while (at < file.bytes && !channel.closed);
    await answer;
  } finally {
    await source.close();
    channel.close();
  }
}
