import { ContractError } from "@polyvisor/contracts";
import { Box, BoxConfig, Descriptor, Disk, type ImagePort } from "@polyvisor/contracts/image";
import { MachineSpec } from "@polyvisor/contracts/orchestrator";
import {
  checkMemoryIndex, MACHINE_CONFIG_TYPE, MACHINE_FILES, MAX_INDEX_BYTES, MANIFEST_LIMIT_BYTES, readMachineDescription, readMachineManifest, writeMachineDescription, writeMachineManifest,
  type BoxDefaults, type MachineFile, type MachineStateParts, type OciDescriptor,
} from "@polyvisor/image-spec";
import { readBlobBytes, writeBlobBytes } from "./blob-bytes.ts";
import { diskId, type BlobFile } from "./boot-plan.ts";
import { checkSpec } from "./machine-spec.ts";
import type { MachineDisk } from "./machine-store.ts";
import { fixedNics } from "./nics.ts";
import type { OrchestratorPeers } from "./peers.ts";
import { MAX_STATE_BYTES, type SavedBlob, type SavedState } from "./saved-machine.ts";
import { resolveFiles } from "./start-machine.ts";

/** Packing a disk reads all of it. */
const PACK_TIMEOUT_MS = 30 * 60_000;
const CONFIG_LIMIT_BYTES = 64 * 1024;

/** What is exported: settings and a disk of one moment. */
export interface MachineContent {
  readonly spec: MachineSpec;
  readonly disk: MachineDisk | undefined;
  readonly createdUnixMs: number;
  /** Memory, harts and devices of the same moment; undefined: the machine is not suspended. */
  readonly saved: SavedState | undefined;
}

/** Puts a machine's description, files and disk under one manifest in the image-registry. */
export async function exportMachine(peers: OrchestratorPeers, network: string, { spec: asked, disk, createdUnixMs, saved }: MachineContent): Promise<{ digest: string; bytes: bigint }> {
  // The guest knows its interfaces by their addresses, which else come from the machine's name.
  const spec = saved ? { ...asked, nics: fixedNics(asked, network) } : asked;
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
  const state = saved && statePartsOf(saved);
  const manifest = writeMachineManifest({ config, files, diskParts, state });
  const stateSizes = state ? [state.harts, state.board, ...state.memory].map(({ size }) => size) : [];
  const sizes = [...stateSizes, manifest.length, config.size, ...Object.values(files).map(({ size }) => size), ...diskParts.map(({ size }) => size)];
  return { digest: await writeBlobBytes(peers.images, manifest), bytes: BigInt(sizes.reduce((sum, size) => sum + size, 0)) };
}

export const importedBox = (machine: string): string => `machines/${machine}`;

/** What a manifest describes, as a machine of `name`; its files become a box of its own, its disk is made. */
export async function importMachine(images: ImagePort, digest: string, wantedName: string, checkFree: (name: string) => void): Promise<{ spec: MachineSpec; disk: MachineDisk | undefined; saved: SavedState | undefined }> {
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
  const saved = image.state && (await savedStateOf(images, image.state, defaults.memoryBytes, description.createdUnixMs));
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
  if (!top) return { spec: pinned, disk: undefined, saved };
  const disk = { id: diskId(name), baseDigest: top.digest, baseMediaType: top.mediaType, bytes: BigInt(defaults.diskBytes) };
  try {
    await images.createDisk({ disk: Disk.fromPartial(disk) });
  } catch (error) {
    await removeImportedBox(images, pinned);
    throw error;
  }
  return { spec: pinned, disk, saved };
}

function statePartsOf({ harts, board, memory }: SavedState): MachineStateParts {
  const part = ({ mediaType, digest, bytes }: SavedBlob): OciDescriptor => ({ mediaType, digest, size: bytes });
  const [chunks, index] = memory;
  if (!chunks || !index || memory.length !== 2) throw new ContractError("internal", `export machine: its memory has ${memory.length} parts; one image of two was expected`);
  return { harts: part(harts), board: part(board), memory: [part(chunks), part(index)] };
}

/** What the services will be given is theirs to judge; that it is here, and of a machine of this size, is checked before there is a machine. */
async function savedStateOf(images: ImagePort, { harts, board, memory: [chunks, index] }: MachineStateParts, ramBytes: number, savedUnixMs: number): Promise<SavedState> {
  for (const { digest, size, mediaType } of [harts, board, chunks, index]) {
    const { bytes } = await images.statBlob({ digest });
    if (Number(bytes) !== size) throw new ContractError("invalid", `import machine: ${mediaType} has ${bytes} bytes; its manifest says ${size}`);
  }
  for (const part of [harts, board]) await readBlobBytes(images, part.digest, MAX_STATE_BYTES);
  checkMemoryIndex(await readBlobBytes(images, index.digest, MAX_INDEX_BYTES), { chunks, ramBytes });
  const blob = ({ mediaType, digest, size }: OciDescriptor): SavedBlob => ({ mediaType, digest, bytes: size });
  return { harts: blob(harts), board: blob(board), memory: [blob(chunks), blob(index)], savedUnixMs };
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
