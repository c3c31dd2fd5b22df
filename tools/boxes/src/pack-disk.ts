import { createHash } from "node:crypto";
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { promisify } from "node:util";
import { constants, zstdCompress, type ZstdOptions } from "node:zlib";
import { DiskIndex, packDisk } from "@polyvisor/image-spec";
import { writeResult, type BuiltFile } from "./built-box.ts";

const compress = promisify<Uint8Array, ZstdOptions, Buffer>(zstdCompress);
const ZSTD: ZstdOptions = { params: { [constants.ZSTD_c_compressionLevel]: 3 } };

/** A disk as chunked image (libs/image-spec, "Chunked disks"): two blobs. */
export interface PackedDisk {
  readonly index: BuiltFile;
  readonly chunks: BuiltFile;
}

/**
 * Packs a raw disk image, once: `<disk>.index` and `<disk>.chunks` lie beside it afterwards, the index last, so that a
 * build that was killed is not taken for a whole one.
 */
export async function packDiskFile(disk: BuiltFile): Promise<PackedDisk> {
  const paths = { index: `${disk.path}.index`, chunks: `${disk.path}.chunks` };
  if (existsSync(paths.index) && existsSync(paths.chunks)) {
    const bytes = readFileSync(paths.index);
    const { data } = new DiskIndex(bytes, paths.index);
    if (statSync(paths.chunks).size === data.bytes && (await sha256OfFile(paths.chunks)) === data.digest.slice("sha256:".length)) {
      return { index: { path: paths.index, bytes: bytes.length, sha256: sha256(bytes).toString("hex") }, chunks: { path: paths.chunks, bytes: data.bytes, sha256: data.digest.slice("sha256:".length) } };
    }
  }
  await rm(paths.index, { force: true });
  const source = await open(disk.path, "r");
  const part = `${paths.chunks}.part`;
  const target = await open(part, "w");
  try {
    const whole = createHash("sha256");
    let bytes = 0;
    const packed = await packDisk(
      { bytes: disk.bytes, read: async (position, into) => void (await source.read(into, 0, into.length, position)) },
      {
        compress: (chunk) => compress(chunk, ZSTD),
        sha256,
        append: async (data) => {
          whole.update(data);
          bytes += data.length;
          await target.writeFile(data);
        },
        finish: async () => ({ digest: `sha256:${whole.digest("hex")}`, bytes }),
      },
    );
    await target.close();
    await rename(part, paths.chunks);
    return { index: writeResult(paths.index, packed.index), chunks: { path: paths.chunks, bytes, sha256: packed.data.digest.slice("sha256:".length) } };
  } finally {
    await Promise.allSettled([source.close(), target.close(), rm(part, { force: true })]);
  }
}

const sha256 = (data: Uint8Array): Buffer => createHash("sha256").update(data).digest();

async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(piece as Buffer);
  return hash.digest("hex");
}
