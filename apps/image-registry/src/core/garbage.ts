import type { BlobStore } from "./blob-store.ts";
import type { Catalogue, CatalogueChange } from "./distribution/catalogue.ts";
import type { Uploads } from "./distribution/uploads.ts";

export interface GarbageOptions {
  /** Younger things stay: a push may be on its way. Undefined: an hour, and a day for uploads. */
  readonly graceMs: number | undefined;
  /** Manifests that no tag, index or subject leads to are garbage, too. */
  readonly untagged: boolean;
  readonly dryRun: boolean;
}

export interface GarbageParts {
  readonly catalogue: Catalogue;
  readonly blobs: BlobStore;
  readonly uploads: Uploads;
  readonly now: () => number;
  /** Digests that something outside the catalogue needs: the bases of disks. Throws if it cannot tell. */
  readonly roots: () => Promise<Iterable<string>>;
}

export interface GarbageResult {
  bytes: number;
  blobs: number;
  manifests: number;
  uploads: number;
}

const GRACE_MS = 3_600_000;
const UPLOAD_GRACE_MS = 86_400_000;

/**
 * Removes what nobody can reach. Order makes it safe while pushes run: a blob is written, then held until a row of the
 * catalogue names it; rows go in the transaction that finds them needless; a file goes only when no row, no disk and no
 * pin needs it, nobody holds it, and it is older than the grace period. What cannot be told is kept.
 */
export async function collectGarbage(parts: GarbageParts, options: GarbageOptions): Promise<GarbageResult> {
  const { catalogue, blobs, uploads, now } = parts;
  const result: GarbageResult = { bytes: 0, blobs: 0, manifests: 0, uploads: 0 };
  const before = now() - (options.graceMs ?? GRACE_MS);
  const roots = new Set(await parts.roots());
  const sweep = (to: CatalogueChange): void => {
    if (options.untagged) result.manifests = removeUntagged(to, before);
    for (const { repository, digest } of to.read.garbage.looseBlobs(before)) to.deleteBlob(repository, digest);
  };
  if (options.dryRun) {
    const left = await whatWouldBeNeeded(catalogue, sweep);
    for await (const { digest, bytes, changedUnixMs } of blobs.files.list()) {
      if (changedUnixMs > before || roots.has(digest) || left.has(digest)) continue;
      result.blobs++;
      result.bytes += bytes;
    }
    return result;
  }
  result.uploads = await uploads.expire(now() - (options.graceMs ?? UPLOAD_GRACE_MS));
  await catalogue.write(sweep);
  const needed = (digest: string): boolean => roots.has(digest) || catalogue.garbage.needed(digest);
  for await (const { digest, bytes, changedUnixMs } of blobs.files.list()) {
    if (changedUnixMs > before) continue;
    if (!(await blobs.removeGarbage(digest, needed))) continue;
    result.blobs++;
    result.bytes += bytes;
  }
  return result;
}

/** An index that goes frees its children, so this repeats until nothing is found. */
function removeUntagged(to: CatalogueChange, before: number): number {
  for (let removed = 0; ; ) {
    const found = to.read.garbage.untaggedManifests(before);
    if (found.length === 0) return removed;
    for (const { repository, digest } of found) to.deleteManifest(repository, digest);
    removed += found.length;
  }
}

/** Sweeps, looks, and takes it all back: a change that throws leaves nothing. */
async function whatWouldBeNeeded(catalogue: Catalogue, sweep: (to: CatalogueChange) => void): Promise<ReadonlySet<string>> {
  let needed: ReadonlySet<string> = new Set();
  const undo = new Error("dry run");
  await catalogue
    .write((to) => {
      sweep(to);
      needed = to.read.garbage.allNeeded();
      throw undo;
    })
    .catch((error: unknown) => {
      if (error !== undo) throw error;
    });
  return needed;
}
