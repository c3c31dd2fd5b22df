import { ContractError } from "@polyvisor/contracts";
import { checkTag, MEDIA_TYPES, sha256Of } from "@polyvisor/image-spec";
import type { BlobStore } from "./blob-store.ts";
import type { Catalogue } from "./distribution/catalogue.ts";

const REPOSITORY = "polyvisor/translations";
const ARTIFACT_TYPE = "application/vnd.polyvisor.translation.v1";
/** image-spec, manifest.md, "Guidance for an Empty Descriptor". */
const EMPTY = { mediaType: "application/vnd.oci.empty.v1+json", bytes: new TextEncoder().encode("{}") };

/**
 * Translations of guest code, made ahead of time, by what they are for (a tag). The registry does not know what is in them:
 * whoever made one finds out whether it is still what it was.
 */
export class TranslationStore {
  readonly #catalogue: Catalogue;
  readonly #blobs: BlobStore;
  readonly #now: () => number;
  constructor(catalogue: Catalogue, blobs: BlobStore, now: () => number) {
    this.#catalogue = catalogue;
    this.#blobs = blobs;
    this.#now = now;
  }

  /** Replaces what the key stood for; answers the manifest's digest. */
  async put(key: string, blob: string): Promise<string> {
    const tag = checkTag(key);
    sha256Of(blob, "digest");
    const size = await this.#blobs.stat(blob);
    if (size === undefined) throw new ContractError("precondition", `putTranslation: blob ${blob} is not in the store; write it first`);
    const config = { mediaType: EMPTY.mediaType, digest: await this.#blobs.put(EMPTY.bytes), size: EMPTY.bytes.length };
    const manifest = new TextEncoder().encode(
      JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, artifactType: ARTIFACT_TYPE, config, layers: [{ mediaType: ARTIFACT_TYPE, digest: blob, size }] }),
    );
    const digest = await this.#blobs.put(manifest);
    const nowMs = this.#now();
    await this.#catalogue.write((to) => {
      to.putBlob(REPOSITORY, config.digest, config.size, nowMs);
      to.putBlob(REPOSITORY, blob, size, nowMs);
      to.putManifest(
        REPOSITORY,
        { digest, mediaType: MEDIA_TYPES.manifest, bytes: manifest.length, depth: 0, subject: undefined, artifactType: ARTIFACT_TYPE, annotations: {}, pushedUnixMs: nowMs },
        [config.digest, blob],
      );
      to.putTag(REPOSITORY, { tag, digest, taggedUnixMs: nowMs });
    });
    return digest;
  }

  /** The blob that a key stands for; undefined: none. */
  async find(key: string): Promise<{ digest: string; bytes: number } | undefined> {
    const record = this.#catalogue.tag(REPOSITORY, checkTag(key));
    if (!record) return undefined;
    const manifest: unknown = JSON.parse(new TextDecoder().decode(await this.#blobs.readSmall(record.digest, MOST_MANIFEST_BYTES)));
    const layer = (manifest as { layers?: { digest?: unknown; mediaType?: unknown }[] }).layers?.[0];
    // Anybody may have pushed it.
    if (typeof layer?.digest !== "string" || layer.mediaType !== ARTIFACT_TYPE) return undefined;
    sha256Of(layer.digest, "digest");
    const bytes = await this.#blobs.stat(layer.digest);
    return bytes === undefined ? undefined : { digest: layer.digest, bytes };
  }
}
const MOST_MANIFEST_BYTES = 64 * 1024;
