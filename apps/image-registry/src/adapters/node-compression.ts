import { promisify } from "node:util";
import { constants, createZstdDecompress, inflateRaw, type ZlibOptions, zstdCompress, zstdDecompress, type ZstdOptions } from "node:zlib";
import type { Zstd } from "../core/files.ts";

const compress = promisify<Uint8Array, ZstdOptions, Buffer>(zstdCompress);
const decompress = promisify<Uint8Array, ZstdOptions, Buffer>(zstdDecompress);
/** The library's default: levels above gain 2 % on disk images and take twice the time. */
const OPTIONS: ZstdOptions = { params: { [constants.ZSTD_c_compressionLevel]: 3 } };

export const nodeZstd: Zstd = {
  compress: (data) => compress(data, OPTIONS),
  decompress: (frame, maxBytes) => decompress(frame, { maxOutputLength: maxBytes }),
};

const inflate = promisify<Uint8Array, ZlibOptions, Buffer>(inflateRaw);

export const nodeInflateRaw = (data: Uint8Array, maxBytes: number): Promise<Uint8Array> => inflate(data, { maxOutputLength: maxBytes });

/** Streamed, because what follows the frame, to the end of the sector, is no frame. */
export function nodeUnzstdPrefix(data: Uint8Array, maxBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const stream = createZstdDecompress();
    const parts: Buffer[] = [];
    let bytes = 0;
    const finish = (): void => {
      resolve(Buffer.concat(parts).subarray(0, maxBytes));
      stream.destroy();
    };
    stream.on("data", (part: Buffer) => {
      parts.push(part);
      bytes += part.length;
      if (bytes >= maxBytes) finish();
    });
    stream.on("end", finish);
    stream.on("error", reject);
    stream.end(data);
  });
}
