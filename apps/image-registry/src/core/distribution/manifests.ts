import { checkTag, INDEX_DEPTH_LIMIT, MANIFEST_LIMIT_BYTES, readManifestView, type ManifestView } from "@polyvisor/image-spec";
import type { BlobStore } from "../blob-store.ts";
import type { Catalogue, CatalogueChange, ManifestRecord } from "./catalogue.ts";
import { DistributionError } from "./distribution-error.ts";
import { isDigest } from "./route.ts";

/** Manifests kept in memory: they are small, asked for all the time, and never change under their digest. */
const CACHE_BYTES = 32 * 1024 * 1024;
/** Layers that registries need not have (image-spec, layer.md, "Non-Distributable Layers"; Docker's foreign layers). */
const ELSEWHERE = /^application\/vnd\.(?:oci\.image\.layer\.nondistributable|docker\.image\.rootfs\.foreign)\b/;

export interface StoredManifest {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

/** Manifests and indexes of repositories: their bytes are blobs, what they are is in the catalogue. */
export class Manifests {
  readonly #catalogue: Catalogue;
  readonly #blobs: BlobStore;
  readonly #now: () => number;
  readonly #cache = new Map<string, Uint8Array>();
  #cachedBytes = 0;

  constructor(catalogue: Catalogue, blobs: BlobStore, now: () => number) {
    this.#catalogue = catalogue;
    this.#blobs = blobs;
    this.#now = now;
  }

  /** What a tag or digest names. */
  find(repository: string, reference: string): ManifestRecord | undefined {
    return isDigest(reference) ? this.#catalogue.manifest(repository, reference) : this.#catalogue.tagged(repository, reference);
  }

  async bytes(record: ManifestRecord): Promise<Uint8Array> {
    const cached = this.#cache.get(record.digest);
    if (cached) return cached;
    const bytes = await this.#blobs.readSmall(record.digest, MANIFEST_LIMIT_BYTES);
    this.#keep(record.digest, bytes);
    return bytes;
  }

  /**
   * Stores a manifest under a tag or its digest. Everything it names must be in the repository. `partial`: it comes from an
   * upstream registry, which has the rest.
   */
  async put(repository: string, reference: string, manifest: StoredManifest, options: { partial?: boolean } = {}): Promise<ManifestRecord> {
    const { digest, bytes } = manifest;
    if (isDigest(reference) && reference !== digest) {
      throw new DistributionError("DIGEST_INVALID", `the manifest's bytes have digest ${digest}, expected ${reference}`);
    }
    const tag = isDigest(reference) ? undefined : tagOrThrow(reference);
    const view = readManifestView(bytes, manifest.mediaType);
    return this.#blobs.hold(digest, async () => {
      await this.#blobs.put(bytes);
      this.#keep(digest, bytes);
      return this.#catalogue.write((to) => {
        const depth = options.partial ? 0 : depthOf(to, repository, view);
        if (!options.partial) refuseMissing(to, repository, view);
        const nowMs = this.#now();
        const record: ManifestRecord = {
          digest, mediaType: view.mediaType, bytes: bytes.length, depth, subject: view.subject?.digest, artifactType: view.artifactType,
          annotations: view.annotations, pushedUnixMs: nowMs,
        };
        to.putManifest(repository, record, [...view.blobs, ...view.manifests].map((each) => each.digest));
        if (tag !== undefined) to.putTag(repository, { tag, digest, taggedUnixMs: nowMs });
        return record;
      });
    });
  }

  /** A digest goes with all its tags; a tag goes alone. */
  delete(repository: string, reference: string): Promise<boolean> {
    return this.#catalogue.write((to) => (isDigest(reference) ? to.deleteManifest(repository, reference) : to.deleteTag(repository, reference)));
  }

  #keep(digest: string, bytes: Uint8Array): void {
    if (this.#cache.has(digest) || bytes.length > CACHE_BYTES / 8) return;
    this.#cache.set(digest, bytes);
    this.#cachedBytes += bytes.length;
    for (const [oldest, its] of this.#cache) {
      if (this.#cachedBytes <= CACHE_BYTES) return;
      this.#cache.delete(oldest);
      this.#cachedBytes -= its.length;
    }
  }
}

export function tagOrThrow(tag: string): string {
  try {
    return checkTag(tag);
  } catch (error) {
    throw new DistributionError("MANIFEST_INVALID", (error as Error).message);
  }
}

/** An index can only be pushed after what it names, so that no cycle can come to be; this bounds how deep clients must walk. */
function depthOf(to: CatalogueChange, repository: string, view: ManifestView): number {
  if (view.kind === "manifest") return 0;
  const depth = 1 + Math.max(0, ...view.manifests.map(({ digest }) => to.read.manifest(repository, digest)?.depth ?? 0));
  if (depth > INDEX_DEPTH_LIMIT) throw new DistributionError("MANIFEST_INVALID", `the index is ${depth} levels deep, expected at most ${INDEX_DEPTH_LIMIT}`);
  return depth;
}

function refuseMissing(to: CatalogueChange, repository: string, view: ManifestView): void {
  const blob = view.blobs.find(({ digest, mediaType, urls }) => to.read.blob(repository, digest) === undefined && !urls?.length && !ELSEWHERE.test(mediaType));
  const missing = blob ?? view.manifests.find(({ digest }) => !to.read.manifest(repository, digest));
  if (!missing) return;
  const what = blob ? "blob" : "manifest";
  throw new DistributionError("MANIFEST_BLOB_UNKNOWN", `the manifest names the ${what} ${missing.digest}, which ${repository} does not have; push it first`, {
    detail: { digest: missing.digest },
  });
}
