import { Archives } from "./archives.ts";
import { BlobStore } from "./blob-store.ts";
import { BoxStore } from "./box-store.ts";
import { ChunkSource } from "./chunk-source.ts";
import { DiskImages } from "./disk-images.ts";
import { DiskStore } from "./disk-store.ts";
import type { Storage } from "./files.ts";
import { PackedLayers } from "./packed-layers.ts";
import { LazyBlobs, type Upstream } from "./lazy-blobs.ts";
import { TranslationStore } from "./translation-store.ts";

export interface Stores {
  readonly blobs: BlobStore;
  readonly boxes: BoxStore;
  readonly chunks: ChunkSource;
  readonly lazy: LazyBlobs;
  readonly disks: DiskStore;
  readonly images: DiskImages;
  readonly archives: Archives;
  readonly translations: TranslationStore;
}

/** The stores of one directory, wired. */
export function createStores(storage: Storage, options: { maxBlobBytes: number; now?: () => number; upstream?: Upstream | undefined }): Stores {
  const blobs = new BlobStore(storage, { maxBytes: options.maxBlobBytes });
  const lazy = new LazyBlobs({ storage, blobs, upstream: options.upstream });
  const chunks = new ChunkSource({ blobs, ranges: lazy, newHash: storage.newHash, zstd: storage.zstd });
  const packed = new PackedLayers(blobs, storage.zstd);
  const now = options.now ?? (() => 0);
  const boxes = new BoxStore({ catalogue: storage.catalogue, blobs, chunks, packed, now });
  const disks = new DiskStore(storage, blobs, chunks);
  const images = new DiskImages({ storage, blobs, chunks, disks });
  return { blobs, chunks, lazy, boxes, disks, images, archives: new Archives(blobs), translations: new TranslationStore(storage.catalogue, blobs, now) };
}
