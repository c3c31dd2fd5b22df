import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { BOX_ARTIFACT_TYPE, isIndexType, readImageConfig, readManifestView, readTar, UnionView, type LayerInput, type ManifestView, type OciDescriptor } from "@polyvisor/image-spec";
import type { FetchedManifest } from "@polyvisor/oci-client";
import { CliError } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { chooseGuest, GUEST_ARCHITECTURE, type ImagePlace, type PlatformEntry } from "./image-place.ts";

export interface ImageLayers {
  readonly manifest: FetchedManifest;
  readonly view: ManifestView;
  readonly union: UnionView;
  readonly layers: readonly { readonly descriptor: OciDescriptor; readonly createdBy: string }[];
}

const LAYER = /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar)(?:[.+](gzip|zstd))?$/;
/** Real layers shrink to a third or a tenth; a bomb to a thousandth. Small ones may be as they like. */
const HARMLESS_BYTES = 1 << 30;
const MAX_RATIO = 300;
const MAX_CONFIG_BYTES = 8 << 20;

/** The manifest of the wanted architecture; an image that exists for others only is shown as the first of them. */
export async function readImageManifest(place: ImagePlace, architecture: string | undefined, note: (line: string) => void): Promise<FetchedManifest> {
  const manifest = await place.source.manifest(place.reference);
  if (!isIndexType(manifest.mediaType)) return manifest;
  const entries = readManifestView(manifest.bytes, manifest.mediaType).manifests as readonly PlatformEntry[];
  if (architecture !== undefined) return place.source.manifest(chooseGuest(entries, place.text, architecture).digest);
  const real = entries.filter(({ platform }) => platform?.os !== "unknown");
  const chosen = real.find(({ platform }) => platform?.architecture === GUEST_ARCHITECTURE) ?? real[0];
  if (!chosen) throw new CliError(`${place.text} is an index of nothing`);
  if (entries.length > 1) note(`${place.text} is an index; this is ${chosen.platform?.os}/${chosen.platform?.architecture} (others: --architecture)`);
  return place.source.manifest(chosen.digest);
}

/** Reads all layers of a container image, names and attributes only. Nothing is unpacked. `harmlessBytes`: what any layer may unpack to. */
export async function readImageLayers(place: ImagePlace, architecture: string | undefined, note: (line: string) => void, harmlessBytes = HARMLESS_BYTES): Promise<ImageLayers> {
  const manifest = await readImageManifest(place, architecture, note);
  const view = readManifestView(manifest.bytes, manifest.mediaType);
  if (view.artifactType === BOX_ARTIFACT_TYPE) throw new CliError(`${place.text} is a box: its disk is made of blocks, not of files; hv image layers ${place.text} shows them, and a machine of it its files`);
  const [config, ...layers] = view.blobs as [OciDescriptor, ...OciDescriptor[]];
  const other = layers.find(({ mediaType }) => !LAYER.test(mediaType));
  if (other) throw new CliError(`${place.text} is no container image: a layer of it is ${other.mediaType}`);
  if (config.size > MAX_CONFIG_BYTES) throw new CliError(`${place.text}: its config has ${formatBytes(config.size)}, at most ${formatBytes(MAX_CONFIG_BYTES)} are read`);
  const configBytes = await collect(place.source.blob(config, 0));
  const { rootfs } = readImageConfig(configBytes);
  const history = (JSON.parse(Buffer.from(configBytes).toString("utf8")) as { history?: { created_by?: unknown; empty_layer?: unknown }[] }).history;
  const commands = (Array.isArray(history) ? history : []).filter((step) => step.empty_layer !== true).map((step) => (typeof step.created_by === "string" ? step.created_by : ""));
  if (rootfs.diff_ids.length !== layers.length) throw new CliError(`${place.text}: its config names ${rootfs.diff_ids.length} layers, its manifest ${layers.length}; the image is damaged`);
  const union = new UnionView();
  for (const [i, descriptor] of layers.entries()) {
    note(`  layer ${i}: ${formatBytes(descriptor.size)}`);
    union.addLayer(await readLayer(place, descriptor, rootfs.diff_ids[i]!, harmlessBytes));
  }
  return { manifest, view, union, layers: layers.map((descriptor, i) => ({ descriptor, createdBy: commands[i] ?? "" })) };
}

async function readLayer(place: ImagePlace, descriptor: OciDescriptor, diffId: string, harmlessBytes: number): Promise<LayerInput[]> {
  const limit = Math.max(harmlessBytes, descriptor.size * MAX_RATIO);
  const whole = createHash("sha256");
  let bytes = 0;
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const piece of decompressed(place.source.blob(descriptor, 0), LAYER.exec(descriptor.mediaType)?.[1])) {
      bytes += piece.length;
      if (bytes > limit) throw new CliError(`layer ${descriptor.digest.slice(0, 19)} of ${formatBytes(descriptor.size)} unpacks to more than ${formatBytes(limit)}: a decompression bomb; it is not read on`);
      whole.update(piece);
      yield piece;
    }
  };
  const entries: LayerInput[] = [];
  for await (const entry of readTar(counted())) {
    const hash = entry.kind === "file" ? createHash("sha256") : undefined;
    if (hash) for await (const piece of entry.pieces()) hash.update(piece);
    const { read: _read, pieces: _pieces, ...header } = entry;
    entries.push(hash ? { ...header, sha256: hash.digest("hex") } : header);
  }
  const got = `sha256:${whole.digest("hex")}`;
  if (diffId.startsWith("sha256:") && got !== diffId) throw new CliError(`layer ${descriptor.digest.slice(0, 19)} unpacks to ${got}, the image's config says ${diffId}; the image is damaged or was made to deceive`);
  return entries;
}

async function* decompressed(source: AsyncIterable<Uint8Array>, how: string | undefined): AsyncGenerator<Uint8Array> {
  if (how === undefined) return yield* source;
  const unpack = how === "gzip" ? createGunzip() : createZstdDecompress();
  const pumping = pipeline(Readable.from(source), unpack).catch((error: Error) => void unpack.destroy(error));
  try {
    for await (const piece of unpack) yield piece as Uint8Array;
    await pumping;
  } catch (error) {
    if (error instanceof Error && /^Z_|^ERR_ZSTD|incorrect|invalid|unexpected end/i.test(`${(error as NodeJS.ErrnoException).code ?? ""} ${error.message}`)) throw new CliError(`a layer's ${how} data is damaged: ${error.message}`);
    throw error;
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source) pieces.push(piece);
  return Buffer.concat(pieces);
}
