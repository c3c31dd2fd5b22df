import { isIndexType, readBoxManifest, readManifestView } from "@polyvisor/image-spec";
import { copyImage, type FetchedManifest, type ImageTarget } from "@polyvisor/oci-client";
import type { Cli } from "../cli.ts";
import { formatBytes, formatDuration } from "../format/quantity.ts";
import { chooseGuest, GUEST_ARCHITECTURE, type ImagePlace, type PlatformEntry } from "./image-place.ts";

/** One line for each blob, and for each quarter of a large one. */
export class TransferProgress {
  readonly #cli: Cli;
  readonly #names = new Map<string, string>();
  readonly #shown = new Map<string, number>();
  movedBytes = 0;

  constructor(cli: Cli) {
    this.#cli = cli;
  }

  name(manifest: FetchedManifest): void {
    for (const { digest, mediaType, size } of readManifestView(manifest.bytes, manifest.mediaType).blobs) this.#names.set(digest, `${shortType(mediaType)} ${digest.slice(7, 19)} (${formatBytes(size)})`);
  }

  readonly onProgress = (digest: string, done: number, total: number): void => {
    const before = this.#shown.get(digest) ?? -1;
    const quarter = total === 0 ? 4 : Math.floor((4 * done) / total);
    if (quarter === before) return;
    this.#shown.set(digest, quarter);
    const name = this.#names.get(digest) ?? digest.slice(0, 19);
    if (quarter < 4) this.#cli.note(`  ${name} ${quarter * 25} %`);
    else {
      this.movedBytes += total;
      this.#cli.note(`  ${name} done`);
    }
  };
}

/** "application/vnd.polyvisor.disk.chunks.v1+zstd" → "disk.chunks" */
export const shortType = (mediaType: string): string => mediaType.replace(/^application\/vnd\.(polyvisor|oci|docker)\.(box\.|distribution\.)?/, "").replace(/\.v\d.*$/, "");

export interface TransferOptions {
  readonly tag: string | undefined;
  /** "all": an index comes whole; else the manifest of that architecture is taken out of one. */
  readonly architecture?: string;
  /** Refuse what is not a Polyvisor box. */
  readonly boxOnly?: boolean;
}

export interface Transferred {
  /** What was copied; its digest is the image's here. */
  readonly manifest: FetchedManifest;
  /** What the reference named: the same, or the index that it was taken out of. */
  readonly namedDigest: string;
}

/** Copies an image from anywhere to anywhere. Blobs that are there already are not sent; what was interrupted goes on. */
export async function transfer(cli: Cli, place: ImagePlace, target: ImageTarget, progress: TransferProgress, options: TransferOptions): Promise<Transferred> {
  const start = Date.now();
  let manifest = await place.source.manifest(place.reference);
  const namedDigest = manifest.digest;
  const architecture = options.architecture ?? GUEST_ARCHITECTURE;
  if (isIndexType(manifest.mediaType) && architecture !== "all") {
    const children = readManifestView(manifest.bytes, manifest.mediaType).manifests as readonly PlatformEntry[];
    manifest = await place.source.manifest(chooseGuest(children, place.text, architecture).digest);
  }
  if (options.boxOnly) readBoxManifest(manifest.bytes);
  if (!isIndexType(manifest.mediaType)) progress.name(manifest);
  await copyImage(place.source, target, manifest.digest, { tag: options.tag });
  cli.note(`  ${formatBytes(progress.movedBytes)} moved in ${formatDuration(Date.now() - start)}`);
  return { manifest, namedDigest };
}
