import { TarError } from "./byte-source.ts";

const BLOCK = 512;

/** The ustar header of a regular file (POSIX.1-1988), owned by root, with time 0: the same file gives the same bytes. */
export function tarFileHeader(path: string, size: number): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const encoder = new TextEncoder();
  const put = (at: number, text: string): void => block.set(encoder.encode(text), at);
  const name = encoder.encode(path);
  if (name.length > 100) throw new TarError(`the name ${path} is longer than the 100 bytes that are written`);
  if (size >= 8 ** 11) throw new TarError(`${path} has ${size} bytes; less than 8 GiB are written`);
  block.set(name, 0);
  put(100, "0000644\0");
  put(108, "0000000\0");
  put(116, "0000000\0");
  put(124, `${size.toString(8).padStart(11, "0")}\0`);
  put(136, "00000000000\0");
  put(156, "0");
  put(257, "ustar\x0000");
  let sum = 8 * 0x20; // the checksum's own field counts as spaces
  for (const byte of block) sum += byte;
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  return block;
}

/** Zeros after a file's content. */
export const tarPadding = (size: number): Uint8Array => new Uint8Array(-size & (BLOCK - 1));
/** Two zero blocks. */
export const tarEnd = (): Uint8Array => new Uint8Array(2 * BLOCK);
