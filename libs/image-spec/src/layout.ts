/** OCI image layout (image-layout.md) as one tar: a manifest and everything it names, in one file. */
import { sha256Of } from "./digest.ts";
import type { OciDescriptor } from "./oci.ts";
import { MEDIA_TYPES } from "./oci.ts";

export const LAYOUT_FILE = "oci-layout";
export const LAYOUT_INDEX = "index.json";
export const LAYOUT_VERSION = "1.0.0";

export const layoutBlobPath = (digest: string): string => `blobs/sha256/${sha256Of(digest)}`;

export interface LayoutBlob {
  readonly digest: string;
  readonly size: number;
  read(): AsyncIterable<Uint8Array>;
}

const BLOCK = 512;

/** The file's bytes, in order: small things first, so that a reader knows early what it gets. The same content gives the same file. */
export async function* writeLayout(manifest: OciDescriptor, blobs: readonly LayoutBlob[]): AsyncGenerator<Uint8Array> {
  yield* entry(LAYOUT_FILE, json({ imageLayoutVersion: LAYOUT_VERSION }));
  yield* entry(LAYOUT_INDEX, json({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [manifest] }));
  for (const { digest, size, read } of blobs) {
    yield header(layoutBlobPath(digest), size);
    let bytes = 0;
    for await (const piece of read()) {
      bytes += piece.length;
      yield piece;
    }
    if (bytes !== size) throw new Error(`blob ${digest}: ${bytes} bytes were read, expected ${size}`);
    yield padding(size);
  }
  yield new Uint8Array(2 * BLOCK);
}

function* entry(path: string, data: Uint8Array): Generator<Uint8Array> {
  yield header(path, data.length);
  yield data;
  yield padding(data.length);
}

/** ustar (POSIX.1-1988); sizes from 8 GiB in GNU's base-256, which every tar of today reads. */
function header(path: string, size: number): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const put = (at: number, text: string): void => block.set(new TextEncoder().encode(text), at);
  put(0, path);
  put(100, "0000644\0");
  put(108, "0000000\0");
  put(116, "0000000\0");
  if (size < 0o77777777777) put(124, `${size.toString(8).padStart(11, "0")}\0`);
  else {
    new DataView(block.buffer).setBigUint64(128, BigInt(size));
    block[124] = 0x80;
  }
  put(136, "00000000000\0");
  put(148, "        ");
  put(156, "0");
  put(257, "ustar\u000000");
  put(148, `${block.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `);
  return block;
}

const padding = (size: number): Uint8Array => new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
const json = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
