import { Box, BoxConfig, Descriptor, type ImagePort } from "@polyvisor/contracts/image";
import { DISK_TYPES, isIndexType, parseRemoteReference, readBoxDefaults, readBoxManifest, readManifestView, type OciDescriptor } from "@polyvisor/image-spec";
import type { ImageTarget } from "@polyvisor/oci-client";
import { asContractError } from "@polyvisor/contracts";
import type { Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { chooseGuest, GUEST_ARCHITECTURE, type ImagePlace, type PlatformEntry } from "./image-place.ts";

const CREATED = "org.opencontainers.image.created"; // image-spec, annotations.md

/**
 * Makes a box of a registry a box here without its disk's content: kernel, initial RAM disk and the disk's index come at once, chunks
 * when a machine touches them (CONTRACT.md IMG-36). Answers the digest that the reference named.
 */
export async function addBoxLazily(cli: Cli, images: ImagePort, place: ImagePlace, target: ImageTarget, name: string, tag: string): Promise<string> {
  let manifest = await place.source.manifest(place.reference);
  const namedDigest = manifest.digest;
  if (isIndexType(manifest.mediaType)) {
    const children = readManifestView(manifest.bytes, manifest.mediaType).manifests as readonly PlatformEntry[];
    manifest = await place.source.manifest(chooseGuest(children, place.text, GUEST_ARCHITECTURE).digest);
  }
  const { config, layers, annotations } = readBoxManifest(manifest.bytes);
  const { origin, name: repository } = parseRemoteReference(place.text);
  let left = 0;
  for (const blob of readManifestView(manifest.bytes, manifest.mediaType).blobs) {
    if (blob.mediaType === DISK_TYPES.chunks && !(await isHere(images, blob.digest))) {
      await images.addBlobOrigin({ origin: { digest: blob.digest, bytes: BigInt(blob.size), registry: origin, repository, presentBytes: 0n, fetchedBytes: 0n, requests: 0n } });
      left += blob.size;
    } else {
      await target.pushBlob(blob, (offset) => place.source.blob(blob, offset));
    }
  }
  const defaults = readBoxDefaults(await whole(place, config));
  const layer = (d: OciDescriptor | undefined): Descriptor | undefined =>
    d && { mediaType: d.mediaType, digest: d.digest, size: BigInt(d.size), annotations: new Map(Object.entries(d.annotations ?? {})) };
  const created = Date.parse(annotations[CREATED] ?? "");
  const { digest } = await images.putBox({
    box: Box.fromPartial({
      name, tag, kernel: layer(layers.kernel), initrd: layer(layers.initrd), firmware: layer(layers.firmware), disk: layer(layers.disk),
      config: BoxConfig.fromPartial({ ...defaults, memoryBytes: BigInt(defaults.memoryBytes), diskBytes: BigInt(defaults.diskBytes) }),
      createdUnixMs: Number.isNaN(created) ? 0n : BigInt(created),
    }),
  });
  // A manifest that another program wrote may say the same in other words; then it has another name here, and that is no longer the pinned one.
  if (digest !== manifest.digest) {
    await images.deleteBox({ reference: `${name}:${tag}` });
    throw new CliError(`${place.text} cannot be added lazily: its manifest is not in the form that Polyvisor writes; add it whole (without --lazy)`);
  }
  cli.note(`  ${formatBytes(left)} of the disk stay in ${origin} until they are touched`);
  return namedDigest;
}

async function isHere(images: ImagePort, digest: string): Promise<boolean> {
  try {
    await images.statBlob({ digest });
    return true;
  } catch (error) {
    if (asContractError(error).condition !== "not-found") throw error;
    return false;
  }
}

async function whole(place: ImagePlace, descriptor: OciDescriptor): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of place.source.blob(descriptor, 0)) pieces.push(piece);
  return Buffer.concat(pieces);
}
