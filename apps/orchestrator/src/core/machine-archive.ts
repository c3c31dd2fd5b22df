import { ContractError } from "@polyvisor/contracts";
import { Box, BoxConfig, Descriptor, Disk, type ImagePort } from "@polyvisor/contracts/image";
import { MachineSpec } from "@polyvisor/contracts/orchestrator";
import {
  MACHINE_CONFIG_TYPE, MACHINE_FILES, MANIFEST_LIMIT_BYTES, readMachineDescription, readMachineManifest, writeMachineDescription, writeMachineManifest,
  type BoxDefaults, type MachineFile, type OciDescriptor,
} from "@polyvisor/image-spec";
import { readBlobBytes, writeBlobBytes } from "./blob-bytes.ts";
import { diskId, type BlobFile } from "./boot-plan.ts";
import { checkSpec } from "./machine-spec.ts";
import type { MachineDisk } from "./machine-store.ts";
import type { OrchestratorPeers } from "./peers.ts";
import { resolveFiles } from "./start-machine.ts";

/** Packing a disk reads all of it. */
const PACK_TIMEOUT_MS = 30 * 60_000;
const CONFIG_LIMIT_BYTES = 64 * 1024;

/** What is exported: settings and a disk of one moment. */
export interface MachineContent {
  readonly spec: MachineSpec;
  readonly disk: MachineDisk | undefined;
  readonly createdUnixMs: number;
}

/** Puts a machine's description, files and disk under one manifest in the image-registry. */
export async function exportMachine(peers: OrchestratorPeers, { spec, disk, createdUnixMs }: MachineContent): Promise<{ digest: string; bytes: bigint }> {
  const { box, kernel, initrd, firmware } = await resolveFiles(peers, spec);
  const image = disk ? (await peers.images.commitDisk({ id: disk.id, rebase: false, flatten: false }, { timeoutMs: PACK_TIMEOUT_MS })).image : undefined;
  const defaults: BoxDefaults = {
    bootArguments: box?.config?.bootArguments ?? "",
    memoryBytes: Number(spec.memoryBytes),
    harts: spec.harts,
    diskBytes: Number(image?.diskBytes ?? 0n),
    agentConsole: box?.config?.agentConsole ?? "",
    description: box?.config?.description ?? "",
  };
  const description = writeMachineDescription({ name: spec.name, createdUnixMs, defaults, spec: MachineSpec.toJSON(withoutFiles(spec)) as Record<string, unknown> });
  const file = (found: BlobFile | undefined): OciDescriptor | undefined => found && { mediaType: "", digest: found.digest, size: Number(found.bytes) };
  const files = Object.fromEntries(Object.entries({ kernel: file(kernel), initrd: file(initrd), firmware: file(firmware) }).filter(([, found]) => found !== undefined)) as Partial<Record<MachineFile, OciDescriptor>>;
  const config = { mediaType: MACHINE_CONFIG_TYPE, digest: await writeBlobBytes(peers.images, description), size: description.length };
  const diskParts = (image?.parts ?? []).map(({ mediaType, digest, size }) => ({ mediaType, digest, size: Number(size) }));
  const manifest = writeMachineManifest({ config, files, diskParts });
  const sizes = [manifest.length, config.size, ...Object.values(files).map(({ size }) => size), ...diskParts.map(({ size }) => size)];
  return { digest: await writeBlobBytes(peers.images, manifest), bytes: BigInt(sizes.reduce((sum, size) => sum + size, 0)) };
}

export const importedBox = (machine: string): string => `machines/${machine}`;

/** What a manifest describes, as a machine of `name`; its files become a box of its own, its disk is made. */
export async function importMachine(images: ImagePort, digest: string, wantedName: string, checkFree: (name: string) => void): Promise<{ spec: MachineSpec; disk: MachineDisk | undefined }> {
  const image = readMachineManifest(await readBlobBytes(images, digest, MANIFEST_LIMIT_BYTES));
  const description = readMachineDescription(await readBlobBytes(images, image.config.digest, CONFIG_LIMIT_BYTES));
  const name = wantedName || description.name;
  const { defaults } = description;
  let asked: MachineSpec;
  try {
    asked = MachineSpec.fromJSON(description.spec);
  } catch (cause) {
    throw new ContractError("invalid", `import machine: its settings are not those of a machine: ${(cause as Error).message}`, { cause });
  }
  // Checked before anything is made of it.
  const spec = checkSpec({ ...withoutFiles(asked), name, box: importedBox(name), harts: defaults.harts, memoryBytes: BigInt(defaults.memoryBytes) });
  checkFree(name);
  const top = image.diskParts.at(-1);
  const descriptor = (file: OciDescriptor | undefined, mediaType = ""): Descriptor | undefined => file && Descriptor.fromPartial({ digest: file.digest, size: BigInt(file.size), mediaType });
  const box = Box.fromPartial({
    name: importedBox(name),
    tag: "imported",
    ...Object.fromEntries(MACHINE_FILES.map((kind) => [kind, descriptor(image.files[kind])])),
    disk: descriptor(top, top?.mediaType),
    config: BoxConfig.fromPartial({ ...defaults, memoryBytes: BigInt(defaults.memoryBytes), diskBytes: BigInt(defaults.diskBytes) }),
  });
  const put = await images.putBox({ box });
  const pinned = { ...spec, box: `${box.name}:${box.tag}@${put.digest}` };
  if (!top) return { spec: pinned, disk: undefined };
  const disk = { id: diskId(name), baseDigest: top.digest, baseMediaType: top.mediaType, bytes: BigInt(defaults.diskBytes) };
  try {
    await images.createDisk({ disk: Disk.fromPartial(disk) });
  } catch (error) {
    await removeImportedBox(images, pinned);
    throw error;
  }
  return { spec: pinned, disk };
}

/** Of a machine that was imported: the box that was made for it. */
export async function removeImportedBox(images: ImagePort, spec: MachineSpec): Promise<void> {
  if (!spec.box.startsWith(`${importedBox(spec.name)}:`)) return;
  await images.deleteBox({ reference: importedBox(spec.name) }).catch((error: unknown) => {
    if (!(error instanceof ContractError && error.condition === "not-found")) throw error;
  });
}

/** Settings without what names files, and without what another host decides. */
function withoutFiles(spec: MachineSpec): MachineSpec {
  const firmware = ["builtin", "none"].includes(spec.firmware) ? spec.firmware : "";
  return { ...spec, box: "", kernelDigest: "", initrdDigest: "", firmware, diskDigest: "", diskMediaType: "", diskBytes: 0n, topology: "", ephemeral: false };
}
