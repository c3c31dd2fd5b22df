/**
 * A whole machine as an OCI artifact: an image manifest whose config describes the machine and whose layers are the files it
 * starts from and its disk, chunked. With its blobs in an OCI layout it is a `.pv` file.
 */
import { BOX_LAYER_TYPES, readBoxDefaults, writeBoxDefaults, type BoxDefaults } from "./box.ts";
import { array, count, object, optional, string } from "./check.ts";
import { DISK_TYPES, MAX_DISK_LAYERS } from "./chunked-disk.ts";
import { sha256Of } from "./digest.ts";
import { ImageSpecError } from "./image-spec-error.ts";
import { MEDIA_TYPES, readJson, readManifest, type OciDescriptor } from "./oci.ts";

export const MACHINE_ARTIFACT_TYPE = "application/vnd.polyvisor.machine.v1";
export const MACHINE_CONFIG_TYPE = "application/vnd.polyvisor.machine.config.v1+json";

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
    ],
  });
}

export function readMachineManifest(bytes: Uint8Array): MachineImage {
  const manifest = readManifest(bytes);
  if (manifest.artifactType !== MACHINE_ARTIFACT_TYPE) throw new ImageSpecError("manifest.artifactType", `"${MACHINE_ARTIFACT_TYPE}" (a Polyvisor machine)`, manifest.artifactType);
  if (manifest.config.mediaType !== MACHINE_CONFIG_TYPE) throw new ImageSpecError("manifest.config.mediaType", `"${MACHINE_CONFIG_TYPE}"`, manifest.config.mediaType);
  const files: Partial<Record<MachineFile, OciDescriptor>> = {};
  const diskParts: OciDescriptor[] = [];
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
    } else {
      throw new ImageSpecError(`${where}.mediaType`, "a kernel, initrd, firmware or part of a chunked disk", descriptor.mediaType);
    }
  }
  if (!files.kernel) throw new ImageSpecError("manifest.layers", `a layer of type ${BOX_LAYER_TYPES.kernel}`, undefined);
  optional(diskParts.at(-1), (top) => {
    if ((top as OciDescriptor).mediaType !== DISK_TYPES.index) throw new ImageSpecError("manifest.layers", `the disk's index (${DISK_TYPES.index}) last`, (top as OciDescriptor).mediaType);
  });
  if (diskParts.length > 2 * MAX_DISK_LAYERS) throw new ImageSpecError("manifest.layers", `at most ${2 * MAX_DISK_LAYERS} for the disk`, diskParts.length);
  return { config: manifest.config, files, diskParts };
}

const json = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
