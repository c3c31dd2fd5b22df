import { asContractError } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import type { MachineSpec } from "@polyvisor/contracts/orchestrator";
import { MANIFEST_LIMIT_BYTES, readManifestView } from "@polyvisor/image-spec";
import { readBlobBytes } from "./blob-bytes.ts";

const ownerOf = (machine: string): string => `machine/${machine}`;

/** Keeps the files that a machine starts from, and its box by digest, from the registry's garbage collection. */
export async function pinFiles(images: ImagePort, spec: MachineSpec): Promise<void> {
  const digests = new Set([spec.kernelDigest, spec.initrdDigest, spec.firmware].filter((digest) => digest.startsWith("sha256:")));
  const box = spec.box ? (await images.resolveBox({ reference: spec.box })).box : undefined;
  if (box?.digest) {
    digests.add(box.digest);
    for (const { digest } of readManifestView(await readBlobBytes(images, box.digest, MANIFEST_LIMIT_BYTES)).blobs) digests.add(digest);
    // The bytes that it starts from, where the manifest names them packed.
    for (const file of [box.kernel, box.initrd, box.firmware]) if (file) digests.add(file.digest);
  }
  await setPins(images, ownerOf(spec.name), [...digests]);
}

export async function unpinFiles(images: ImagePort, machine: string): Promise<void> {
  await setPins(images, ownerOf(machine), []);
}

/** Replaces what an owner needs; a registry that collects no garbage needs no pins. */
export async function setPins(images: ImagePort, owner: string, digests: string[]): Promise<void> {
  await images.setPins({ owner, digests }).catch(ignoreUnimplemented);
}

function ignoreUnimplemented(error: unknown): void {
  if (asContractError(error).condition !== "unimplemented") throw error;
}
