/**
 * OCI image-spec 1.1: descriptor, manifest, index. Readers check what the specification requires and give back the
 * same object, so that fields they do not know are kept.
 */
import { array, count, mediaType, object, optional, string, stringMap } from "./check.ts";
import { parseDigest } from "./digest.ts";
import { ImageSpecError } from "./image-spec-error.ts";

export const MEDIA_TYPES = {
  manifest: "application/vnd.oci.image.manifest.v1+json",
  index: "application/vnd.oci.image.index.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  /** The two bytes "{}": the config of artifacts that have none (manifest.md, "Guidance for an Empty Descriptor"). */
  empty: "application/vnd.oci.empty.v1+json",
} as const;

/** descriptor.md, "Properties". */
export interface OciDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly urls?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly data?: string;
  readonly artifactType?: string;
}

/** manifest.md, "Image Manifest Property Descriptions". */
export interface OciManifest {
  readonly schemaVersion: 2;
  readonly mediaType?: string;
  readonly artifactType?: string;
  readonly config: OciDescriptor;
  readonly layers: readonly OciDescriptor[];
  readonly subject?: OciDescriptor;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** image-index.md, "Image Index Property Descriptions". */
export interface OciIndex {
  readonly schemaVersion: 2;
  readonly mediaType?: string;
  readonly artifactType?: string;
  readonly manifests: readonly (OciDescriptor & { readonly platform?: OciPlatform })[];
  readonly subject?: OciDescriptor;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface OciPlatform {
  readonly architecture: string;
  readonly os: string;
  readonly variant?: string;
}

/** config.md, "Properties": what a container image says about itself. */
export interface OciImageConfig {
  readonly architecture: string;
  readonly os: string;
  readonly created?: string;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly rootfs: { readonly type: "layers"; readonly diff_ids: readonly string[] };
}

/** distribution-spec, "Pushing manifests": registries may refuse larger ones; ours does. */
export const MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024;

export function readDescriptor(value: unknown, where: string): OciDescriptor {
  const d = object(value, where);
  mediaType(d["mediaType"], `${where}.mediaType`);
  parseDigest(d["digest"], `${where}.digest`);
  count(d["size"], `${where}.size`);
  optional(d["annotations"], (v) => stringMap(v, `${where}.annotations`));
  optional(d["urls"], (v) => array(v, `${where}.urls`).forEach((url, i) => string(url, `${where}.urls[${i}]`)));
  optional(d["data"], (v) => string(v, `${where}.data`));
  optional(d["artifactType"], (v) => mediaType(v, `${where}.artifactType`));
  return value as OciDescriptor;
}

export function readManifest(bytes: Uint8Array): OciManifest {
  const m = envelope(bytes, "manifest", MEDIA_TYPES.manifest);
  readDescriptor(m["config"], "manifest.config");
  array(m["layers"], "manifest.layers").forEach((layer, i) => readDescriptor(layer, `manifest.layers[${i}]`));
  // manifest.md: "artifactType ... MUST be defined when config.mediaType is set to the empty value".
  if ((m["config"] as OciDescriptor).mediaType === MEDIA_TYPES.empty && m["artifactType"] === undefined) {
    throw new ImageSpecError("manifest.artifactType", "a media type, because the config is empty", undefined);
  }
  return m as unknown as OciManifest;
}

export function readIndex(bytes: Uint8Array): OciIndex {
  const index = envelope(bytes, "index", MEDIA_TYPES.index);
  array(index["manifests"], "index.manifests").forEach((manifest, i) => {
    const where = `index.manifests[${i}]`;
    readDescriptor(manifest, where);
    optional((manifest as Record<string, unknown>)["platform"], (value) => {
      const platform = object(value, `${where}.platform`);
      string(platform["architecture"], `${where}.platform.architecture`);
      string(platform["os"], `${where}.platform.os`);
    });
  });
  return index as unknown as OciIndex;
}

export function readImageConfig(bytes: Uint8Array): OciImageConfig {
  const config = object(readJson(bytes, "config"), "config");
  string(config["architecture"], "config.architecture");
  string(config["os"], "config.os");
  const rootfs = object(config["rootfs"], "config.rootfs");
  if (rootfs["type"] !== "layers") throw new ImageSpecError("config.rootfs.type", '"layers"', rootfs["type"]);
  array(rootfs["diff_ids"], "config.rootfs.diff_ids").forEach((id, i) => parseDigest(id, `config.rootfs.diff_ids[${i}]`));
  return config as unknown as OciImageConfig;
}

/** What manifest and index share. */
function envelope(bytes: Uint8Array, what: string, type: string): Record<string, unknown> {
  const value = object(readJson(bytes, what), what);
  if (value["schemaVersion"] !== 2) throw new ImageSpecError(`${what}.schemaVersion`, "2", value["schemaVersion"]);
  if (value["mediaType"] !== undefined && value["mediaType"] !== type) throw new ImageSpecError(`${what}.mediaType`, `"${type}"`, value["mediaType"]);
  optional(value["artifactType"], (v) => mediaType(v, `${what}.artifactType`));
  optional(value["annotations"], (v) => stringMap(v, `${what}.annotations`));
  optional(value["subject"], (v) => readDescriptor(v, `${what}.subject`));
  return value;
}

export function readJson(bytes: Uint8Array, what: string): unknown {
  if (bytes.length > MANIFEST_LIMIT_BYTES) throw new ImageSpecError(what, `at most ${MANIFEST_LIMIT_BYTES} bytes`, bytes.length);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new ImageSpecError(what, "JSON in UTF-8", new TextDecoder("latin1").decode(bytes.subarray(0, 40)));
  }
}
