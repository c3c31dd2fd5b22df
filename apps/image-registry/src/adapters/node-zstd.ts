import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress, type ZstdOptions } from "node:zlib";
import type { Zstd } from "../core/files.ts";

const compress = promisify<Uint8Array, ZstdOptions, Buffer>(zstdCompress);
const decompress = promisify<Uint8Array, ZstdOptions, Buffer>(zstdDecompress);
/** The library's default: levels above gain 2 % on disk images and take twice the time. */
const OPTIONS: ZstdOptions = { params: { [constants.ZSTD_c_compressionLevel]: 3 } };

export const nodeZstd: Zstd = {
  compress: (data) => compress(data, OPTIONS),
  decompress: (frame, maxBytes) => decompress(frame, { maxOutputLength: maxBytes }),
};
