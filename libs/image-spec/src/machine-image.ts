/**
 * A whole machine as an OCI artifact: an image manifest whose config describes the machine and whose layers are the files it
 * starts from and its disk, chunked. With its blobs in an OCI layout it is a `.pv` file.
 */
import { BOX_LAYER_TYPES, readBoxDefaults, writeBoxDefaults, type BoxDefaults } from "./box.ts";
import { array, count, object, optional, string } from "./check.ts";
import { DISK_TYPES, DiskIndex, MAX_DISK_LAYERS } from "./chunked-disk.ts";
import { sha256Of } from "./digest.ts";
import { ImageSpecError } from "./image-spec-error.ts";
import { MEDIA_TYPES, readJson, readManifest, type OciDescriptor } from "./oci.ts";

export const MACHINE_ARTIFACT_TYPE = "application/vnd.polyvisor.machine.v1";
export const MACHINE_CONFIG_TYPE = "application/vnd.polyvisor.machine.config.v1+json";

/** Where a suspended machine goes on: states as cpu-emulator and device-bus wrote them, and memory as a chunked image. */
export const STATE_TYPES = {
  harts: "application/vnd.polyvisor.machine.harts.v1",
  board: "application/vnd.polyvisor.machine.board.v1",
  memoryChunks: "application/vnd.polyvisor.machine.memory.chunks.v1+zstd",
  memoryIndex: "application/vnd.polyvisor.machine.memory.index.v1",
} as const;

/** The files that a machine starts from; a disk has {@link MachineImage.diskParts}. */
export type MachineFile = "kernel" | "initrd" | "firmware";
export const MACHINE_FILES: readonly MachineFile[] = ["kernel", "initrd", "firmware"];

/** What the machine is, beside its files. */
export interface MachineDescription {
  readonly name: string;
  readonly createdUnixMs: number;
  /** What its box brought, and its disk's size. */
  readonly defaults: BoxDefaults;
  /** The orchestrator's own words (MachineSpec as JSON), checked by it. */
  readonly spec: Readonly<Record<string, unknown>>;
}

export interface MachineImage {
  readonly config: OciDescriptor;
  readonly files: Readonly<Partial<Record<MachineFile, OciDescriptor>>>;
  /** Bottom first, each layer's chunks before its index; empty: the machine has no disk. */
  readonly diskParts: readonly OciDescriptor[];
  /** Undefined: the machine is not suspended. */
  readonly state?: MachineStateParts | undefined;
}
export interface MachineStateParts {
  readonly harts: OciDescriptor;
  readonly board: OciDescriptor;
  /** One layer of a chunked image: its chunks, then its index. */
  readonly memory: readonly [OciDescriptor, OciDescriptor];
}

export function writeMachineDescription(d: MachineDescription): Uint8Array {
  const defaults = JSON.parse(new TextDecoder().decode(writeBoxDefaults(d.defaults))) as object;
  return json({ version: 1, name: d.name, createdUnixMs: d.createdUnixMs, defaults, spec: d.spec });
}

export function readMachineDescription(bytes: Uint8Array): MachineDescription {
  const d = object(readJson(bytes, "machine config"), "machine config");
  if (d["version"] !== 1) throw new ImageSpecError("machine config.version", "1 (a newer version of the format?)", d["version"]);
  return {
    name: string(d["name"], "machine config.name"),
    createdUnixMs: count(d["createdUnixMs"], "machine config.createdUnixMs"),
    defaults: readBoxDefaults(json(object(d["defaults"], "machine config.defaults"))),
    spec: object(d["spec"], "machine config.spec"),
  };
}

export function writeMachineManifest(image: MachineImage): Uint8Array {
  const plain = ({ digest, size }: OciDescriptor, mediaType: string): object => ({ mediaType, digest, size });
  return json({
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    artifactType: MACHINE_ARTIFACT_TYPE,
    config: plain(image.config, MACHINE_CONFIG_TYPE),
    layers: [
      ...MACHINE_FILES.flatMap((kind) => (image.files[kind] ? [plain(image.files[kind], BOX_LAYER_TYPES[kind])] : [])),
      ...image.diskParts.map((part) => plain(part, part.mediaType)),
      ...(image.state ? stateLayers(image.state).map(([part, mediaType]) => plain(part, mediaType)) : []),
    ],
  });
}

export function readMachineManifest(bytes: Uint8Array): MachineImage {
  const manifest = readManifest(bytes);
  if (manifest.artifactType !== MACHINE_ARTIFACT_TYPE) throw new ImageSpecError("manifest.artifactType", `"${MACHINE_ARTIFACT_TYPE}" (a Polyvisor machine)`, manifest.artifactType);
  if (manifest.config.mediaType !== MACHINE_CONFIG_TYPE) throw new ImageSpecError("manifest.config.mediaType", `"${MACHINE_CONFIG_TYPE}"`, manifest.config.mediaType);
  const files: Partial<Record<MachineFile, OciDescriptor>> = {};
  const diskParts: OciDescriptor[] = [];
  const state: OciDescriptor[] = [];
  for (const [i, layer] of array(manifest.layers, "manifest.layers").entries()) {
    const descriptor = layer as OciDescriptor;
    const where = `manifest.layers[${i}]`;
    sha256Of(descriptor.digest, `${where}.digest`);
    const kind = MACHINE_FILES.find((each) => BOX_LAYER_TYPES[each] === descriptor.mediaType);
    if (kind) {
      if (files[kind]) throw new ImageSpecError(where, `at most one ${kind}`, descriptor.digest);
      files[kind] = descriptor;
    } else if (descriptor.mediaType === DISK_TYPES.chunks || descriptor.mediaType === DISK_TYPES.index) {
      diskParts.push(descriptor);
    } else if (STATE_ORDER.includes(descriptor.mediaType)) {
      state.push(descriptor);
    } else {
      throw new ImageSpecError(`${where}.mediaType`, "a kernel, initrd, firmware, part of a chunked disk or of a state (written by a newer version?)", descriptor.mediaType);
    }
  }
  if (!files.kernel) throw new ImageSpecError("manifest.layers", `a layer of type ${BOX_LAYER_TYPES.kernel}`, undefined);
  optional(diskParts.at(-1), (top) => {
    if ((top as OciDescriptor).mediaType !== DISK_TYPES.index) throw new ImageSpecError("manifest.layers", `the disk's index (${DISK_TYPES.index}) last`, (top as OciDescriptor).mediaType);
  });
  if (diskParts.length > 2 * MAX_DISK_LAYERS) throw new ImageSpecError("manifest.layers", `at most ${2 * MAX_DISK_LAYERS} for the disk`, diskParts.length);
  return { config: manifest.config, files, diskParts, state: stateOf(state) };
}

const STATE_ORDER: readonly string[] = [STATE_TYPES.harts, STATE_TYPES.board, STATE_TYPES.memoryChunks, STATE_TYPES.memoryIndex];
const stateLayers = ({ harts, board, memory }: MachineStateParts): [OciDescriptor, string][] => [harts, board, ...memory].map((part, i) => [part, STATE_ORDER[i]!]);

/** All of a state, or none. */
function stateOf(layers: readonly OciDescriptor[]): MachineStateParts | undefined {
  if (layers.length === 0) return undefined;
  const types = layers.map(({ mediaType }) => mediaType);
  if (types.join() !== STATE_ORDER.join()) throw new ImageSpecError("manifest.layers", `a state of harts, board, memory's chunks and its index, in this order`, types.join(", "));
  const [harts, board, chunks, index] = layers as [OciDescriptor, OciDescriptor, OciDescriptor, OciDescriptor];
  return { harts, board, memory: [chunks, index] };
}

/** A memory's index that fits a machine: of one layer, of these chunks, and exactly as large as its RAM. */
export function checkMemoryIndex(bytes: Uint8Array, { chunks, ramBytes }: { chunks: OciDescriptor; ramBytes: number }): void {
  const { diskBytes, data, parent } = new DiskIndex(bytes);
  if (diskBytes !== ramBytes) throw new ImageSpecError("memory index: bytes", `${ramBytes}, the machine's RAM`, diskBytes);
  if (parent) throw new ImageSpecError("memory index: parent", "none", parent.digest);
  if (data.digest !== chunks.digest || data.bytes !== chunks.size) throw new ImageSpecError("memory index: chunks", `${chunks.digest} of ${chunks.size} bytes`, data.digest);
}

const json = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
