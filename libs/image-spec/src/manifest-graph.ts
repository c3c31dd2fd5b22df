/**
 * What a manifest or index points at, in OCI's and in Docker's media types: the edges that push, pull and garbage
 * collection walk.
 */
import { array, object, optional } from "./check.ts";
import { ImageSpecError } from "./image-spec-error.ts";
import { MEDIA_TYPES, readDescriptor, readJson, type OciDescriptor } from "./oci.ts";

/** Docker's image manifest version 2, schema 2: the same structure under other names. */
export const DOCKER_MEDIA_TYPES = {
  manifest: "application/vnd.docker.distribution.manifest.v2+json",
  list: "application/vnd.docker.distribution.manifest.list.v2+json",
} as const;

export const MANIFEST_TYPES: readonly string[] = [MEDIA_TYPES.manifest, MEDIA_TYPES.index, DOCKER_MEDIA_TYPES.manifest, DOCKER_MEDIA_TYPES.list];
const INDEX_TYPES: readonly string[] = [MEDIA_TYPES.index, DOCKER_MEDIA_TYPES.list];

/** More entries than any real image has; a list of them fits the size limit, but each costs a look-up. */
export const MANIFEST_ENTRY_LIMIT = 10_000;
/** Index in index in …: real images have 1 or 2 levels. */
export const INDEX_DEPTH_LIMIT = 8;

export interface ManifestView {
  readonly kind: "manifest" | "index";
  readonly mediaType: string;
  /** Config first, then layers, in order. */
  readonly blobs: readonly OciDescriptor[];
  /** Children of an index. */
  readonly manifests: readonly OciDescriptor[];
  readonly subject: OciDescriptor | undefined;
  /** As the referrers API lists it: artifactType, else the config's media type (distribution-spec, "Listing Referrers"). */
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

export function isIndexType(mediaType: string): boolean {
  return INDEX_TYPES.includes(mediaType);
}

/** Reads manifest bytes of the given type (its parameters, such as charset, do not count). `mediaType` empty: as the bytes say. */
export function readManifestView(bytes: Uint8Array, mediaType = ""): ManifestView {
  const m = object(readJson(bytes, "manifest"), "manifest");
  if (m["schemaVersion"] !== 2) throw new ImageSpecError("manifest.schemaVersion", "2", m["schemaVersion"]);
  const said = m["mediaType"] === undefined ? undefined : String(m["mediaType"]);
  const type = mediaType.split(";")[0]!.trim() || said || (m["manifests"] === undefined ? MEDIA_TYPES.manifest : MEDIA_TYPES.index);
  if (!MANIFEST_TYPES.includes(type)) throw new ImageSpecError("manifest media type", MANIFEST_TYPES.join(", "), type);
  if (said !== undefined && said !== type) throw new ImageSpecError("manifest.mediaType", `"${type}", its Content-Type`, said);
  // An index that is also a manifest would mean different things to different readers (CVE-2021-41190).
  const foreign = isIndexType(type) ? ["config", "layers"] : ["manifests"];
  for (const field of foreign) if (m[field] !== undefined) throw new ImageSpecError(`manifest.${field}`, `nothing in a ${type}`, m[field]);
  const list = (field: string): OciDescriptor[] => {
    const entries = array(m[field], `manifest.${field}`);
    if (entries.length > MANIFEST_ENTRY_LIMIT) throw new ImageSpecError(`manifest.${field}`, `at most ${MANIFEST_ENTRY_LIMIT} entries`, entries.length);
    return entries.map((entry, i) => readDescriptor(entry, `manifest.${field}[${i}]`));
  };
  const subject = optional(m["subject"], (value) => readDescriptor(value, "manifest.subject"));
  const annotations = optional(m["annotations"], (value) => object(value, "manifest.annotations") as Record<string, string>);
  const artifactType = typeof m["artifactType"] === "string" && m["artifactType"] !== "" ? m["artifactType"] : undefined;
  const common = { mediaType: type, subject, annotations };
  if (isIndexType(type)) return { ...common, kind: "index", blobs: [], manifests: list("manifests"), artifactType };
  const config = readDescriptor(m["config"], "manifest.config");
  return { ...common, kind: "manifest", blobs: [config, ...list("layers")], manifests: [], artifactType: artifactType ?? config.mediaType };
}
