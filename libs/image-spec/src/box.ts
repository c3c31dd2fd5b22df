/**
 * A Polyvisor box as an OCI artifact: an image manifest (manifest.md, "Guidelines for Artifact Usage") whose layers
 * are the files a machine starts from and whose config is the machine's defaults.
 */
import { count, object, string } from "./check.ts";
import { DISK_TYPES, MAX_DISK_LAYERS } from "./chunked-disk.ts";
import { sha256Of } from "./digest.ts";
import { ImageSpecError } from "./image-spec-error.ts";
import { MEDIA_TYPES, readJson, readManifest, type OciDescriptor } from "./oci.ts";

export const BOX_ARTIFACT_TYPE = "application/vnd.polyvisor.box.v1";
export const BOX_CONFIG_TYPE = "application/vnd.polyvisor.box.config.v1+json";
/** One layer of each kind at most; the kernel is required. A disk may be chunked instead: see {@link BoxManifest.diskParts}. */
export const BOX_LAYER_TYPES = {
  kernel: "application/vnd.polyvisor.box.kernel.v1",
  initrd: "application/vnd.polyvisor.box.initrd.v1",
  disk: DISK_TYPES.raw,
  firmware: "application/vnd.polyvisor.box.firmware.v1",
} as const;
/** Of these kinds a layer may be one zstd frame (RFC 8878), its type with this behind it, which its annotations say more about. */
export const PACKED = {
  suffix: "+zstd",
  kinds: ["kernel", "initrd"] as readonly string[],
  /** Annotations: of the bytes that come out. */
  digest: "io.polyvisor.unpacked.digest",
  size: "io.polyvisor.unpacked.size",
  /** More come out of none: a reader may have them in memory. */
  limitBytes: 256 * 1024 * 1024,
} as const;
export type BoxLayer = keyof typeof BOX_LAYER_TYPES;
export const BOX_LAYERS = Object.keys(BOX_LAYER_TYPES) as BoxLayer[];

export interface BoxDefaults {
  readonly bootArguments: string;
  readonly memoryBytes: number;
  readonly harts: number;
  readonly diskBytes: number;
  readonly agentConsole: string;
  readonly description: string;
}

export interface BoxManifest {
  readonly config: OciDescriptor;
  readonly layers: Readonly<Partial<Record<BoxLayer, OciDescriptor>>>;
  /**
   * Of a chunked disk: its blobs bottom first, each layer's chunks before its index. The last one is the disk (`layers.disk`
   * too). All are named so that every registry and client moves the whole box.
   */
  readonly diskParts?: readonly OciDescriptor[];
  readonly annotations: Readonly<Record<string, string>>;
}

/** The manifest's bytes; the same box gives the same bytes and so the same digest. */
export function writeBoxManifest(box: BoxManifest): Uint8Array {
  const layers = BOX_LAYERS.flatMap((kind) => {
    const layer = box.layers[kind];
    if (kind === "disk" && box.diskParts?.length) return box.diskParts.map((part) => plain(part, part.mediaType));
    return layer ? [plain(layer, isPacked(layer) ? BOX_LAYER_TYPES[kind] + PACKED.suffix : BOX_LAYER_TYPES[kind])] : [];
  });
  return json({
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    artifactType: BOX_ARTIFACT_TYPE,
    config: plain(box.config, BOX_CONFIG_TYPE),
    layers,
    ...annotations(box.annotations),
  });
}

export function readBoxManifest(bytes: Uint8Array): BoxManifest {
  const manifest = readManifest(bytes);
  if (manifest.artifactType !== BOX_ARTIFACT_TYPE) throw new ImageSpecError("manifest.artifactType", `"${BOX_ARTIFACT_TYPE}" (a Polyvisor box)`, manifest.artifactType);
  if (manifest.config.mediaType !== BOX_CONFIG_TYPE) throw new ImageSpecError("manifest.config.mediaType", `"${BOX_CONFIG_TYPE}"`, manifest.config.mediaType);
  sha256Of(manifest.config.digest, "manifest.config.digest");
  const layers: Partial<Record<BoxLayer, OciDescriptor>> = {};
  const diskParts: OciDescriptor[] = [];
  for (const [i, layer] of manifest.layers.entries()) {
    if (layer.mediaType === DISK_TYPES.chunks || layer.mediaType === DISK_TYPES.index) {
      sha256Of(layer.digest, `manifest.layers[${i}].digest`);
      diskParts.push(layer);
      continue;
    }
    const kind = BOX_LAYERS.find((k) => BOX_LAYER_TYPES[k] === layer.mediaType || (PACKED.kinds.includes(k) && BOX_LAYER_TYPES[k] + PACKED.suffix === layer.mediaType));
    // A kind that a later version adds may change what the box means: refuse instead of starting half of it.
    if (!kind) throw new ImageSpecError(`manifest.layers[${i}].mediaType`, `one of ${Object.values(BOX_LAYER_TYPES).join(", ")}`, layer.mediaType);
    if (layers[kind]) throw new ImageSpecError(`manifest.layers[${i}]`, `at most one ${kind}`, layer.digest);
    sha256Of(layer.digest, `manifest.layers[${i}].digest`);
    if (isPacked(layer)) unpackedOf(layer, `manifest.layers[${i}]`);
    layers[kind] = layer;
  }
  if (!layers.kernel) throw new ImageSpecError("manifest.layers", `a layer of type ${BOX_LAYER_TYPES.kernel}`, undefined);
  const top = diskParts.at(-1);
  if (top) {
    if (layers.disk) throw new ImageSpecError("manifest.layers", "a disk that is raw or chunked, not both", top.digest);
    if (top.mediaType !== DISK_TYPES.index) throw new ImageSpecError("manifest.layers", `the disk's index (${DISK_TYPES.index}) after its chunks`, top.mediaType);
    if (diskParts.length > 2 * MAX_DISK_LAYERS) throw new ImageSpecError("manifest.layers", `at most ${2 * MAX_DISK_LAYERS} for its disk`, diskParts.length);
    layers.disk = top;
  }
  return { config: manifest.config, layers, ...(top ? { diskParts } : {}), annotations: manifest.annotations ?? {} };
}

export const isPacked = ({ mediaType }: Pick<OciDescriptor, "mediaType">): boolean => mediaType.startsWith("application/vnd.polyvisor.box.") && mediaType.endsWith(PACKED.suffix);

/** The layer that a packed one unpacks to: its plain type, digest and size. Throws ImageSpecError for annotations that do not say it. */
export function unpackedOf(layer: OciDescriptor, where = "layer"): OciDescriptor {
  const { [PACKED.digest]: digest = "", [PACKED.size]: size = "", ...annotations } = layer.annotations ?? {};
  sha256Of(digest, `${where}.annotations["${PACKED.digest}"]`);
  if (!/^[1-9]\d{0,9}$/.test(size) || Number(size) > PACKED.limitBytes) throw new ImageSpecError(`${where}.annotations["${PACKED.size}"]`, `1 to ${PACKED.limitBytes}`, size);
  return { mediaType: layer.mediaType.slice(0, -PACKED.suffix.length), digest, size: Number(size), annotations };
}

export function writeBoxDefaults(d: BoxDefaults): Uint8Array {
  const { bootArguments, memoryBytes, harts, diskBytes, agentConsole, description } = d;
  return json({ bootArguments, memoryBytes, harts, diskBytes, agentConsole, description });
}

export function readBoxDefaults(bytes: Uint8Array): BoxDefaults {
  const d = object(readJson(bytes, "box config"), "box config");
  const text = (field: string): string => (d[field] === undefined ? "" : string(d[field], `box config.${field}`));
  const number = (field: string): number => (d[field] === undefined ? 0 : count(d[field], `box config.${field}`));
  return {
    bootArguments: text("bootArguments"),
    memoryBytes: number("memoryBytes"),
    harts: number("harts"),
    diskBytes: number("diskBytes"),
    agentConsole: text("agentConsole"),
    description: text("description"),
  };
}

const plain = (d: OciDescriptor, mediaType: string): object => ({ mediaType, digest: d.digest, size: d.size, ...annotations(d.annotations ?? {}) });

function annotations(all: Readonly<Record<string, string>>): object {
  const keys = Object.keys(all).sort();
  return keys.length > 0 ? { annotations: Object.fromEntries(keys.map((key) => [key, all[key]])) } : {};
}

const json = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
