import { ContractError, messages, asContractError, type Channel } from "@polyvisor/contracts";
import { Box, BoxConfig, Descriptor, type ImagePort, type WriteBlobResponse } from "@polyvisor/contracts/image";
import {
  DISK_TYPES, isIndexType, parseRemoteReference, readBoxDefaults, readBoxManifest, readManifestView, type OciDescriptor,
} from "@polyvisor/image-spec";
import type { OciClient } from "@polyvisor/oci-client";
import { nodeOciClient } from "@polyvisor/oci-client/node";
import type { Cli } from "../cli.ts";
import { CliError, UsageError } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { chooseGuest, type PlatformEntry } from "./image-place.ts";

export interface LazyPull {
  readonly digest: string;
  readonly movedBytes: number;
  /** Of chunks that come when a guest touches them. */
  readonly laterBytes: number;
}

/** Brings a box from another registry without the chunks of its disk: those come by range requests as machines touch them. */
export async function pullLazily(cli: Cli, images: ImagePort, reference: string, as: { name: string; tag: string }): Promise<LazyPull> {
  const { origin, name, tag, digest } = parseRemoteReference(reference);
  const client = nodeOciClient(origin);
  let found = await client.manifest(name, digest ?? tag ?? "latest");
  if (isIndexType(found.mediaType)) {
    const entries = readManifestView(found.bytes, found.mediaType).manifests as readonly PlatformEntry[];
    found = await client.manifest(name, chooseGuest(entries, reference).digest);
  }
  const box = readBoxManifest(found.bytes);
  if (!box.diskParts) throw new UsageError(`the disk of ${reference} is not chunked: pull it whole, without --lazy`);
  const defaults = readBoxDefaults(await client.smallBlob(name, box.config));
  let movedBytes = found.bytes.length + box.config.size;
  let laterBytes = 0;
  const { kernel, initrd, firmware } = box.layers;
  for (const blob of [kernel, initrd, firmware, ...box.diskParts]) {
    if (!blob || (await isStored(images, blob))) continue;
    if (blob.mediaType === DISK_TYPES.chunks) {
      if (blob.size > 0) await images.addBlobOrigin({ origin: { digest: blob.digest, bytes: BigInt(blob.size), registry: origin, repository: name, presentBytes: 0n, fetchedBytes: 0n, requests: 0n } });
      laterBytes += blob.size;
      continue;
    }
    await copyBlob(client, name, blob, images);
    movedBytes += blob.size;
    cli.note(`  ${blob.digest.slice(7, 19)} (${formatBytes(blob.size)}) done`);
  }
  const descriptor = (d: OciDescriptor | undefined): Descriptor | undefined => d && Descriptor.fromPartial({ mediaType: d.mediaType, digest: d.digest, size: BigInt(d.size) });
  const created = Date.parse(box.annotations["org.opencontainers.image.created"] ?? "");
  const put = await images.putBox({
    box: Box.fromPartial({
      ...as,
      kernel: descriptor(kernel),
      initrd: descriptor(initrd),
      firmware: descriptor(firmware),
      disk: descriptor(box.layers.disk),
      config: BoxConfig.fromPartial({ ...defaults, memoryBytes: BigInt(defaults.memoryBytes), diskBytes: BigInt(defaults.diskBytes) }),
      createdUnixMs: Number.isNaN(created) ? 0n : BigInt(created),
    }),
  });
  return { digest: put.digest, movedBytes, laterBytes };
}

async function isStored(images: ImagePort, { digest }: OciDescriptor): Promise<boolean> {
  return images.statBlob({ digest }).then(
    () => true,
    (error: unknown) => {
      if (asContractError(error).condition === "not-found") return false;
      throw error;
    },
  );
}

async function copyBlob(client: OciClient, name: string, blob: OciDescriptor, images: ImagePort): Promise<void> {
  const channel = images.writeBlob();
  const answer = (async () => {
    for await (const response of messages(channel as unknown as Channel<never, WriteBlobResponse>)) return response;
    throw new ContractError("unavailable", "the registry ended the stream without an answer");
  })();
  answer.catch(() => {}); // reported by the await below
  let drained = (): void => {};
  channel.onDrain(() => drained());
  try {
    for await (const data of client.blob(name, blob)) {
      if (channel.closed) break;
      const ready = channel.send({ digest: blob.digest, size: BigInt(blob.size), data, finish: false });
      if (!ready && !channel.closed) await Promise.race([new Promise<void>((resolve) => (drained = resolve)), answer.catch(() => {})]);
    }
    if (!channel.closed) channel.send({ digest: "", size: 0n, data: new Uint8Array(0), finish: true });
    await answer;
  } catch (error) {
    throw new CliError(`blob ${blob.digest.slice(7, 19)} of ${name}: ${(error as Error).message}`);
  } finally {
    channel.close();
  }
}
