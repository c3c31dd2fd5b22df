import type { OciDescriptor } from "@polyvisor/image-spec";
import type { FetchedManifest, OciClient } from "./client.ts";
import type { ImageSource, ImageTarget } from "./copy-image.ts";

/** One repository of a registry, as either end of {@link copyImage}. */
export function repository(client: OciClient, name: string, options: { mountFrom?: string; onProgress?: (digest: string, doneBytes: number, totalBytes: number) => void } = {}): ImageSource & ImageTarget {
  return {
    manifest: (reference) => client.manifest(name, reference),
    blob: (descriptor, offset) => client.blob(name, descriptor, offset),
    pushBlob: ({ digest, size }: OciDescriptor, open) =>
      client.pushBlob(name, { digest, size, open }, {
        ...(options.mountFrom === undefined ? {} : { mountFrom: options.mountFrom }),
        onProgress: (done, total) => options.onProgress?.(digest, done, total),
      }),
    pushManifest: (manifest: FetchedManifest, tag) => client.pushManifest(name, tag, manifest),
  };
}
