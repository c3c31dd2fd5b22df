import { ContractError } from "@polyvisor/contracts";
import { Box, Descriptor, type BoxConfig } from "@polyvisor/contracts/image";
import {
  BOX_ARTIFACT_TYPE, BOX_CONFIG_TYPE, BOX_LAYER_TYPES, BOX_LAYERS, checkName, checkTag, DISK_TYPES, isPacked, MANIFEST_LIMIT_BYTES, MEDIA_TYPES, PACKED, parseReference,
  readBoxDefaults, readBoxManifest, readManifestView, sha256Of, unpackedOf, writeBoxDefaults, writeBoxManifest, type BoxDefaults, type BoxLayer, type OciDescriptor,
} from "@polyvisor/image-spec";
import type { BlobStore } from "./blob-store.ts";
import type { ChunkSource } from "./chunk-source.ts";
import type { Catalogue, TagRecord } from "./distribution/catalogue.ts";
import type { PackedLayers } from "./packed-layers.ts";

const CREATED = "org.opencontainers.image.created"; // image-spec, annotations.md
/** Dates end here (ECMAScript, "Time Values and Time Range"). */
const MAX_UNIX_MS = 8_640_000_000_000_000n;
const EVERY = 1_000_000;
/** What `name` without a tag means if it is there; else the tag that was set last. */
const DEFAULT_TAG = "latest";

/** Boxes: artifacts in the repository of their name, which any OCI client can pull. */
export class BoxStore {
  readonly #catalogue: Catalogue;
  readonly #blobs: BlobStore;
  readonly #chunks: ChunkSource;
  readonly #packed: PackedLayers;
  readonly #now: () => number;

  constructor({ catalogue, blobs, chunks, packed, now }: { catalogue: Catalogue; blobs: BlobStore; chunks: ChunkSource; packed: PackedLayers; now: () => number }) {
    this.#packed = packed;
    this.#catalogue = catalogue;
    this.#blobs = blobs;
    this.#chunks = chunks;
    this.#now = now;
  }

  /**
   * Stores config and manifest and sets the tag. The same box again changes nothing. A kernel and an initial RAM disk are named packed
   * in the manifest, whichever way they are given.
   */
  async put(box: Box): Promise<{ digest: string; changed: boolean }> {
    checkName(box.name);
    const tag = checkTag(box.tag || DEFAULT_TAG);
    const layers: Partial<Record<BoxLayer, OciDescriptor>> = {};
    for (const kind of BOX_LAYERS) {
      const layer = box[kind];
      if (layer) layers[kind] = await this.#present(kind, layer);
    }
    if (!layers.kernel) throw new ContractError("invalid", `putBox ${box.name}: a box needs a kernel`);
    const defaults = defaultsOf(box);
    const diskParts = layers.disk?.mediaType === DISK_TYPES.index ? await this.#diskParts(layers.disk) : undefined;
    const baseBytes = diskParts ? diskParts.diskBytes : (layers.disk?.size ?? 0);
    if (diskParts && defaults.diskBytes === 0) defaults.diskBytes = baseBytes;
    if (defaults.diskBytes < baseBytes) throw new ContractError("invalid", `putBox ${box.name}: diskBytes is ${defaults.diskBytes}, its base disk has ${baseBytes}`);
    const configBytes = writeBoxDefaults(defaults);
    const config: OciDescriptor = { mediaType: BOX_CONFIG_TYPE, digest: await this.#blobs.put(configBytes), size: configBytes.length };
    const annotations: Record<string, string> = {};
    if (box.createdUnixMs > MAX_UNIX_MS) throw new ContractError("invalid", `putBox ${box.name}: createdUnixMs is ${box.createdUnixMs}, expected milliseconds since 1970`);
    if (box.createdUnixMs > 0n) annotations[CREATED] = new Date(Number(box.createdUnixMs)).toISOString();
    const manifest = writeBoxManifest({ config, layers, annotations, ...(diskParts ? { diskParts: diskParts.diskParts } : {}) });
    const digest = await this.#blobs.put(manifest);
    const { blobs } = readManifestView(manifest);
    const nowMs = this.#now();
    const changed = await this.#catalogue.write((to) => {
      for (const blob of blobs) to.putBlob(box.name, blob.digest, blob.size, nowMs);
      const record = {
        digest, mediaType: MEDIA_TYPES.manifest, bytes: manifest.length, depth: 0, subject: undefined, artifactType: BOX_ARTIFACT_TYPE, annotations, pushedUnixMs: nowMs,
      };
      to.putManifest(box.name, record, blobs.map((blob) => blob.digest));
      if (to.read.tag(box.name, tag)?.digest === digest) return false;
      to.putTag(box.name, { tag, digest, taggedUnixMs: nowMs });
      return true;
    });
    return { digest, changed };
  }

  /** The box, with the plain bytes of its kernel and initial RAM disk in the store. */
  async resolve(text: string): Promise<Box> {
    const reference = parseReference(text);
    if (reference.digest !== undefined) return this.#load(reference.name, reference.tag ?? "", { digest: reference.digest, taggedUnixMs: 0 }, "unpack");
    const tags = this.#tags(reference.name);
    const wanted = reference.tag ?? (tags.has(DEFAULT_TAG) ? DEFAULT_TAG : newest(tags));
    const record = wanted === undefined ? undefined : tags.get(wanted);
    if (wanted === undefined || !record) {
      const known = tags.size > 0 ? `its tags are: ${[...tags.keys()].join(", ")}` : "build it with `hv box build`, or see `hv box ls`";
      throw new ContractError("not-found", `there is no box ${text}; ${known}`);
    }
    return this.#load(reference.name, wanted, record, "unpack");
  }

  /** Every tag of every box, sorted; damaged ones are left out and reported to `onDamaged`. */
  async list(onDamaged: (name: string, error: unknown) => void): Promise<Box[]> {
    const boxes: Box[] = [];
    for (const name of this.#catalogue.repositories("", EVERY)) {
      for (const { tag, ...record } of this.#catalogue.tags(name, "", EVERY)) {
        if (this.#catalogue.manifest(name, record.digest)?.artifactType !== BOX_ARTIFACT_TYPE) continue; // a container image, say
        try {
          boxes.push(await this.#load(name, tag, record));
        } catch (error) {
          onDamaged(`${name}:${tag}`, error);
        }
      }
    }
    return boxes;
  }

  /** Removes one tag, or all of the name's when the reference has none. Blobs stay until garbage is collected. */
  async delete(text: string): Promise<void> {
    const { name, tag, digest } = parseReference(text);
    if (digest !== undefined) throw new ContractError("invalid", `deleteBox ${text}: name a tag, or the name alone for all its tags`);
    const tags = this.#tags(name);
    if (tag === undefined ? tags.size === 0 : !tags.has(tag)) throw new ContractError("not-found", `there is no box ${text}`);
    await this.#catalogue.write((to) => {
      for (const [each, { digest: manifest }] of tags) {
        if (tag !== undefined && each !== tag) continue;
        to.deleteTag(name, each);
        // A box without a tag is nobody's: its manifest goes with the last one, and its blobs are garbage then.
        if (!to.read.tags(name, "", EVERY).some((other) => other.digest === manifest)) to.deleteManifest(name, manifest);
      }
    });
  }

  async #load(name: string, tag: string, record: Tagged, how?: "unpack"): Promise<Box> {
    const manifest = readBoxManifest(await this.#blobs.readSmall(record.digest, MANIFEST_LIMIT_BYTES));
    const defaults = readBoxDefaults(await this.#blobs.readSmall(manifest.config.digest, MANIFEST_LIMIT_BYTES));
    const created = manifest.annotations[CREATED];
    const layer = async (kind: BoxLayer): Promise<Descriptor | undefined> => {
      const named = manifest.layers[kind];
      const d = named && (how ? await this.#packed.unpack(named) : isPacked(named) ? unpackedOf(named) : named);
      return d && { mediaType: d.mediaType, digest: d.digest, size: BigInt(d.size), annotations: new Map(Object.entries(d.annotations ?? {})) };
    };
    return {
      name,
      tag,
      digest: record.digest,
      kernel: await layer("kernel"),
      initrd: await layer("initrd"),
      disk: await layer("disk"),
      firmware: await layer("firmware"),
      config: { ...defaults, memoryBytes: BigInt(defaults.memoryBytes), diskBytes: BigInt(defaults.diskBytes) },
      createdUnixMs: BigInt(created === undefined ? record.taggedUnixMs : Date.parse(created) || 0),
    };
  }

  /** The layer as the manifest names it, with its blob's true size; the blob must be here. */
  async #present(kind: BoxLayer, layer: Descriptor): Promise<OciDescriptor> {
    sha256Of(layer.digest, `${kind}.digest`);
    const bytes = await this.#blobs.stat(layer.digest);
    if (bytes === undefined) throw new ContractError("precondition", `putBox: the ${kind}'s blob ${layer.digest} is not in the store; write it first`);
    if (layer.size !== 0n && layer.size !== BigInt(bytes)) throw new ContractError("invalid", `putBox: the ${kind}'s size is given as ${layer.size}, its blob has ${bytes} bytes`);
    const annotations = Object.fromEntries(layer.annotations);
    const mediaType = kind === "disk" && layer.mediaType === DISK_TYPES.index ? DISK_TYPES.index : BOX_LAYER_TYPES[kind];
    const found: OciDescriptor = { mediaType, digest: layer.digest, size: bytes, annotations };
    if (!PACKED.kinds.includes(kind)) return found;
    if (layer.mediaType !== mediaType + PACKED.suffix) return this.#packed.pack(found);
    const packed = { ...found, mediaType: layer.mediaType };
    await this.#packed.unpack(packed);
    return packed;
  }

  /** What the manifest of a box with a chunked disk names, and the disk's size. */
  async #diskParts(index: OciDescriptor): Promise<{ diskParts: OciDescriptor[]; diskBytes: number }> {
    const stack = await this.#chunks.stack(index.digest);
    const missing = await this.#chunks.missing(stack);
    if (missing) throw new ContractError("precondition", `putBox: blob ${missing.digest} (${missing.bytes} bytes), which the disk's index names, is not in the store; write it first`);
    const parts = await this.#chunks.parts({ digest: index.digest, bytes: index.size });
    const diskParts = parts.map(({ mediaType, digest, bytes }) => ({ mediaType, digest, size: bytes }));
    // The top one with its annotations.
    return { diskParts: [...diskParts.slice(0, -1), index], diskBytes: stack.diskBytes };
  }

  #tags(name: string): Map<string, Tagged> {
    return new Map(this.#catalogue.tags(checkName(name), "", EVERY).map(({ tag, ...record }) => [tag, record]));
  }
}

type Tagged = Pick<TagRecord, "digest" | "taggedUnixMs">;

function newest(tags: ReadonlyMap<string, Tagged>): string | undefined {
  let best: string | undefined;
  for (const [tag, record] of tags) if (best === undefined || record.taggedUnixMs > (tags.get(best) as Tagged).taggedUnixMs) best = tag;
  return best;
}

function defaultsOf(box: Box): { -readonly [K in keyof BoxDefaults]: BoxDefaults[K] } {
  const config: Partial<BoxConfig> = box.config ?? {};
  const number = (field: string, value: bigint): number => {
    if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) throw new ContractError("invalid", `putBox: ${field} is ${value}, expected less than 2^53`);
    return Number(value);
  };
  return {
    bootArguments: config.bootArguments ?? "",
    memoryBytes: number("memoryBytes", config.memoryBytes ?? 0n),
    harts: config.harts ?? 0,
    diskBytes: number("diskBytes", config.diskBytes || (box.disk?.mediaType === DISK_TYPES.index ? 0n : (box.disk?.size ?? 0n))),
    agentConsole: config.agentConsole ?? "",
    description: config.description ?? "",
  };
}
