import { INDEX_DEPTH_LIMIT, readManifestView, type OciDescriptor } from "@polyvisor/image-spec";
import type { FetchedManifest } from "./client.ts";
import { OciClientError } from "./oci-client-error.ts";

/** Where an image comes from. {@link OciClient} bound to a name is one; an OCI layout or another store may be. */
export interface ImageSource {
  manifest(reference: string): Promise<FetchedManifest>;
  blob(descriptor: OciDescriptor, offset: number): AsyncIterable<Uint8Array>;
}

/** Where an image goes. A blob arrives before the manifest that names it, a child before its index. */
export interface ImageTarget {
  pushBlob(descriptor: OciDescriptor, open: (offset: number) => AsyncIterable<Uint8Array>): Promise<unknown>;
  /** `tag` undefined: by digest. */
  pushManifest(manifest: FetchedManifest, tag: string | undefined): Promise<unknown>;
}

export interface CopyOptions {
  /** Tag at the target; undefined: by digest only. */
  readonly tag: string | undefined;
  /** Which children of an index come along; default: all. An index whose children do not all come cannot be pushed itself. */
  readonly select?: (child: OciDescriptor & { platform?: { architecture: string; os: string } }) => boolean;
  readonly onBlob?: (descriptor: OciDescriptor) => void;
  /** Blobs at once. */
  readonly concurrency?: number;
}

const CONCURRENCY = 4;

/** Copies an image, index and all: what is named comes first, so that the target is whole at every moment. Answers the root. */
export async function copyImage(source: ImageSource, target: ImageTarget, reference: string, options: CopyOptions): Promise<FetchedManifest> {
  const done = new Set<string>();
  const copy = async (ref: string, depth: number, tag: string | undefined): Promise<FetchedManifest> => {
    if (depth > INDEX_DEPTH_LIMIT) throw new OciClientError("invalid", `copy ${reference}: its indexes are nested more than ${INDEX_DEPTH_LIMIT} deep`);
    const manifest = await source.manifest(ref);
    if (done.has(manifest.digest) && tag === undefined) return manifest;
    const view = readManifestView(manifest.bytes, manifest.mediaType);
    for (const child of view.manifests) if (options.select?.(child) ?? true) await copy(child.digest, depth + 1, undefined);
    await forEach(view.blobs.filter(({ digest }) => !done.has(digest)), options.concurrency ?? CONCURRENCY, async (descriptor) => {
      done.add(descriptor.digest);
      options.onBlob?.(descriptor);
      await target.pushBlob(descriptor, (offset) => source.blob(descriptor, offset));
    });
    await target.pushManifest(manifest, tag);
    done.add(manifest.digest);
    return manifest;
  };
  return copy(reference, 0, options.tag);
}

async function forEach<T>(items: readonly T[], concurrency: number, run: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const worker = async (): Promise<void> => {
    for (const item of queue) await run(item);
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, worker));
}
