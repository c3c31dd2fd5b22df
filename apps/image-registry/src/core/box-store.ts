import { ContractError } from "@polyvisor/contracts";
import { Box, Descriptor, type BoxConfig } from "@polyvisor/contracts/image";
import {
  BOX_CONFIG_TYPE, BOX_LAYER_TYPES, BOX_LAYERS, checkName, DISK_TYPES, checkTag, MANIFEST_LIMIT_BYTES, parseReference, readBoxDefaults, readBoxManifest,
  readJson, sha256Of, writeBoxDefaults, writeBoxManifest, type BoxDefaults, type BoxLayer, type OciDescriptor,
} from "@polyvisor/image-spec";
import type { BlobStore } from "./blob-store.ts";
import type { ChunkSource } from "./chunk-source.ts";
import { decodeName, encodeName, readSmallFile, writeAtomically, type Storage } from "./files.ts";

/** tags/<name>/<tag>: which manifest a tag names. */
interface TagRecord {
  readonly digest: string;
  readonly taggedUnixMs: number;
}

const CREATED = "org.opencontainers.image.created"; // image-spec, annotations.md
/** Dates end here (ECMAScript, "Time Values and Time Range"). */
const MAX_UNIX_MS = 8_640_000_000_000_000n;
const TAG_LIMIT_BYTES = 4096;
/** What `name` without a tag means if it is there; else the tag that was set last. */
const DEFAULT_TAG = "latest";

/** Boxes: manifests are blobs, tags are one small file each, replaced atomically. */
export class BoxStore {
  readonly #storage: Storage;
  readonly #blobs: BlobStore;
  readonly #chunks: ChunkSource;
  readonly #now: () => number;

  constructor(storage: Storage, blobs: BlobStore, chunks: ChunkSource, now: () => number) {
    this.#storage = storage;
    this.#blobs = blobs;
    this.#chunks = chunks;
    this.#now = now;
  }

  /** Stores config and manifest and sets the tag. The same box again changes nothing. */
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
    const digest = await this.#blobs.put(writeBoxManifest({ config, layers, annotations, ...(diskParts ? { diskParts: diskParts.diskParts } : {}) }));
    // A damaged tag is healed by putting its box again.
    const before = await this.#readTag(box.name, tag).catch(() => undefined);
    if (before?.digest === digest) return { digest, changed: false };
    const record: TagRecord = { digest, taggedUnixMs: this.#now() };
    await writeAtomically(this.#storage, tagPath(box.name, tag), new TextEncoder().encode(JSON.stringify(record)));
    return { digest, changed: true };
  }

  async resolve(text: string): Promise<Box> {
    const reference = parseReference(text);
    if (reference.digest !== undefined) return this.#load(reference.name, reference.tag ?? "", { digest: reference.digest, taggedUnixMs: 0 });
    const tags = await this.#tags(reference.name);
    const wanted = reference.tag ?? (tags.has(DEFAULT_TAG) ? DEFAULT_TAG : newest(tags));
    const record = wanted === undefined ? undefined : tags.get(wanted);
    if (wanted === undefined || !record) {
      const known = tags.size > 0 ? `its tags are: ${[...tags.keys()].join(", ")}` : "build it with `hv box build`, or see `hv box ls`";
      throw new ContractError("not-found", `there is no box ${text}; ${known}`);
    }
    return this.#load(reference.name, wanted, record);
  }

  /** Every tag of every box, sorted; damaged ones are left out and reported to `onDamaged`. */
  async list(onDamaged: (name: string, error: unknown) => void): Promise<Box[]> {
    const boxes: Box[] = [];
    for (const component of await this.#storage.files.list("tags")) {
      const name = decodeName(component);
      for (const tagComponent of await this.#storage.files.list(`tags/${component}`)) {
        const tag = decodeName(tagComponent);
        try {
          const record = await this.#readTag(checkName(name), tag);
          if (record) boxes.push(await this.#load(name, tag, record));
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
    const tags = await this.#tags(name);
    if (tag === undefined ? tags.size === 0 : !tags.has(tag)) throw new ContractError("not-found", `there is no box ${text}`);
    await this.#storage.files.remove(tag === undefined ? `tags/${encodeName(name)}` : tagPath(name, tag));
  }

  async #load(name: string, tag: string, record: TagRecord): Promise<Box> {
    const manifest = readBoxManifest(await this.#blobs.readSmall(record.digest, MANIFEST_LIMIT_BYTES));
    const defaults = readBoxDefaults(await this.#blobs.readSmall(manifest.config.digest, MANIFEST_LIMIT_BYTES));
    const created = manifest.annotations[CREATED];
    const layer = (kind: BoxLayer): Descriptor | undefined => {
      const d = manifest.layers[kind];
      return d && { mediaType: d.mediaType, digest: d.digest, size: BigInt(d.size), annotations: new Map(Object.entries(d.annotations ?? {})) };
    };
    return {
      name,
      tag,
      digest: record.digest,
      kernel: layer("kernel"),
      initrd: layer("initrd"),
      disk: layer("disk"),
      firmware: layer("firmware"),
      config: { ...defaults, memoryBytes: BigInt(defaults.memoryBytes), diskBytes: BigInt(defaults.diskBytes) },
      createdUnixMs: BigInt(created === undefined ? record.taggedUnixMs : Date.parse(created) || 0),
    };
  }

  /** The layer's descriptor with its blob's true size; the blob must be here. */
  async #present(kind: BoxLayer, layer: Descriptor): Promise<OciDescriptor> {
    sha256Of(layer.digest, `${kind}.digest`);
    const bytes = await this.#blobs.stat(layer.digest);
    if (bytes === undefined) throw new ContractError("precondition", `putBox: the ${kind}'s blob ${layer.digest} is not in the store; write it first`);
    if (layer.size !== 0n && layer.size !== BigInt(bytes)) throw new ContractError("invalid", `putBox: the ${kind}'s size is given as ${layer.size}, its blob has ${bytes} bytes`);
    const annotations = Object.fromEntries(layer.annotations);
    const mediaType = kind === "disk" && layer.mediaType === DISK_TYPES.index ? DISK_TYPES.index : BOX_LAYER_TYPES[kind];
    return { mediaType, digest: layer.digest, size: bytes, annotations };
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

  async #tags(name: string): Promise<Map<string, TagRecord>> {
    const tags = new Map<string, TagRecord>();
    for (const component of await this.#storage.files.list(`tags/${encodeName(checkName(name))}`)) {
      const tag = decodeName(component);
      const record = await this.#readTag(name, tag);
      if (record) tags.set(tag, record);
    }
    return tags;
  }

  async #readTag(name: string, tag: string): Promise<TagRecord | undefined> {
    const bytes = await readSmallFile(this.#storage.files, tagPath(name, tag), TAG_LIMIT_BYTES);
    if (!bytes) return undefined;
    try {
      const record = readJson(bytes, "tag") as TagRecord;
      sha256Of(record.digest, "tag.digest");
      return record;
    } catch (cause) {
      throw new ContractError("corrupt", `the tag ${name}:${tag} is damaged; put the box again`, { cause });
    }
  }
}

const tagPath = (name: string, tag: string): string => `tags/${encodeName(name)}/${encodeName(tag)}`;

function newest(tags: ReadonlyMap<string, TagRecord>): string | undefined {
  let best: string | undefined;
  for (const [tag, record] of tags) if (best === undefined || record.taggedUnixMs > (tags.get(best) as TagRecord).taggedUnixMs) best = tag;
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
