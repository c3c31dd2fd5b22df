import { ContractError } from "@polyvisor/contracts";
import { isPacked, PACKED, sha256Of, unpackedOf, type OciDescriptor } from "@polyvisor/image-spec";
import type { BlobStore } from "./blob-store.ts";
import type { Zstd } from "./files.ts";

/** Smaller ones are not worth a second form. */
const MIN_BYTES = 256 * 1024;

/**
 * Kernels and initial RAM disks travel as zstd frames: a third of their bytes. Manifests name those; whoever resolves a box
 * gets the plain bytes, which are a blob made of the frame when it is missing. Nothing refers to that blob but pins, so
 * garbage collection takes it when no machine has the box.
 */
export class PackedLayers {
  readonly #blobs: BlobStore;
  readonly #zstd: Zstd;

  constructor(blobs: BlobStore, zstd: Zstd) {
    this.#blobs = blobs;
    this.#zstd = zstd;
  }

  /** A plain layer as a manifest is to name it: packed where that is worth it. Its blob is in the store then. */
  async pack(layer: OciDescriptor): Promise<OciDescriptor> {
    if (layer.size < MIN_BYTES || layer.size > PACKED.limitBytes) return layer;
    const frame = await this.#zstd.compress(await this.#blobs.readSmall(layer.digest, PACKED.limitBytes));
    if (frame.length > layer.size * 0.9) return layer;
    const annotations = { ...layer.annotations, [PACKED.digest]: layer.digest, [PACKED.size]: String(layer.size) };
    return { mediaType: layer.mediaType + PACKED.suffix, digest: await this.#blobs.put(frame), size: frame.length, annotations };
  }

  /** Sees to it that the plain bytes of a layer are in the store; answers their descriptor. Throws "corrupt" for a frame that is not what it says. */
  async unpack(layer: OciDescriptor): Promise<OciDescriptor> {
    if (!isPacked(layer)) return layer;
    const wanted = unpackedOf(layer);
    if ((await this.#blobs.stat(wanted.digest)) === wanted.size) return wanted;
    const frame = await this.#blobs.readSmall(layer.digest, PACKED.limitBytes);
    const wrong = (what: string, cause?: unknown): ContractError =>
      new ContractError("corrupt", `blob ${layer.digest} is no zstd frame of the ${wanted.size} bytes that its manifest says: ${what}; the box was made wrongly`, { cause });
    const bytes = await this.#zstd.decompress(frame, wanted.size).catch((cause: Error) => {
      throw wrong(cause.message, cause);
    });
    const hash = this.#blobs.newHash();
    hash.update(bytes);
    if (bytes.length !== wanted.size || hash.hex() !== sha256Of(wanted.digest)) throw wrong(`${bytes.length} bytes of another digest come out`);
    await this.#blobs.put(bytes);
    return wanted;
  }
}
