import { ContractError, type Implementation } from "@polyvisor/contracts";
import type { IMAGE } from "@polyvisor/contracts/image";
import { sha256Of } from "@polyvisor/image-spec";
import type { ServiceContext } from "@polyvisor/service-kit";
import type { BlobStore } from "./blob-store.ts";
import { readBlob, writeBlob } from "./blob-streams.ts";
import { serveBlocks } from "./block-stream.ts";
import type { DiskStore } from "./disk-store.ts";
import { contractError, inContract } from "./errors.ts";
import { Distribution } from "./distribution/distribution.ts";
import type { QuotaLimits } from "./distribution/quota.ts";
import type { Storage } from "./files.ts";
import { collectGarbage } from "./garbage.ts";
import type { LazyBlobs, Upstream } from "./lazy-blobs.ts";
import { createStores } from "./stores.ts";

const SERVICE = "image-registry";

export interface ImageLimits {
  readonly maxBlobBytes: number;
  readonly quotas?: QuotaLimits;
  /** None: nothing can be fetched from other registries. */
  readonly upstream?: Upstream;
}

/** The contract over the stores, and the OCI distribution API over the same. */
export class ImageService {
  readonly implementation: Implementation<typeof IMAGE.definition>;
  readonly distribution: Distribution;
  readonly blobs: BlobStore;
  /** URL of the distribution API; the composition root sets it when it is served. */
  url = "";
  readonly #disks: DiskStore;
  readonly storage: Storage;
  readonly #log: ServiceContext["log"];
  readonly #lazy: LazyBlobs;

  constructor(storage: Storage, limits: ImageLimits, context: ServiceContext) {
    const { events, log, clock } = context;
    const { blobs, boxes, disks, images, lazy, archives, translations } = createStores(storage, { maxBlobBytes: limits.maxBlobBytes, now: () => clock.now(), upstream: limits.upstream });
    this.#lazy = lazy;
    this.#disks = disks;
    this.blobs = blobs;
    this.storage = storage;
    this.#log = log;
    const fact = (name: string, data: Record<string, unknown>, machine = "-"): void => events.publish({ machine, service: SERVICE, fact: name, data });
    /** "web/disk0" is machine web's. */
    const machineOfDisk = (id: string): string => (id.includes("/") ? (id.split("/")[0] as string) : "-");
    this.distribution = new Distribution({
      storage,
      blobs,
      quotas: limits.quotas ?? { totalBytes: 0, repositoryBytes: 0 },
      now: () => clock.now(),
      events: {
        pushed: (data) => fact("manifest-pushed", { ...data }),
        deleted: (data) => fact("content-deleted", { ...data }),
        stored: (data) => fact("blob-stored", { ...data }),
      },
    });
    const { catalogue } = storage;

    this.implementation = {
      statBlob: ({ digest }) =>
        inContract("statBlob", async () => {
          const bytes = await blobs.stat(digest);
          if (bytes === undefined) throw new ContractError("not-found", `there is no blob ${digest}`);
          return { bytes: BigInt(bytes) };
        }),
      readBlob: (request, out) => void readBlob(blobs, request, out),
      writeBlob: (channel) => writeBlob(blobs, channel, ({ digest, bytes }) => fact("blob-stored", { digest, bytes })),
      putBox: ({ box }) =>
        inContract("putBox", async () => {
          if (!box) throw new ContractError("invalid", "putBox: no box in the request");
          const { digest, changed } = await boxes.put(box);
          if (changed) fact("box-tagged", { name: box.name, tag: box.tag, digest });
          return { digest };
        }),
      putTranslation: ({ key, digest }) =>
        inContract("putTranslation", async () => {
          const manifest = await translations.put(key, digest);
          fact("translation-stored", { key, digest });
          return { digest: manifest };
        }),
      findTranslation: ({ key }) =>
        inContract("findTranslation", async () => {
          const found = await translations.find(key);
          return { digest: found?.digest ?? "", bytes: BigInt(found?.bytes ?? 0) };
        }),
      resolveBox: ({ reference }) => inContract("resolveBox", async () => ({ box: await boxes.resolve(reference) })),
      listBoxes: () =>
        inContract("listBoxes", async () => ({
          boxes: await boxes.list((name, error) => log.warn({ box: name, error: contractError("listBoxes", error).message }, "box is damaged and not listed")),
        })),
      deleteBox: ({ reference }) =>
        inContract("deleteBox", async () => {
          await boxes.delete(reference);
          fact("box-untagged", { reference });
          return {};
        }),
      createDisk: ({ disk }) =>
        inContract("createDisk", async () => {
          if (!disk) throw new ContractError("invalid", "createDisk: no disk in the request");
          const made = await disks.create(disk);
          if (made.created) fact("disk-created", { id: disk.id, bytes: Number(disk.bytes), baseDigest: disk.baseDigest }, machineOfDisk(disk.id));
          return { disk: made.disk };
        }),
      deleteDisk: ({ id }) =>
        inContract("deleteDisk", async () => {
          await disks.delete(id);
          fact("disk-deleted", { id }, machineOfDisk(id));
          return {};
        }),
      listDisks: () =>
        inContract("listDisks", async () => ({
          disks: await disks.list((id, error) => log.warn({ disk: id, error: contractError("listDisks", error).message }, "disk is damaged and not listed")),
        })),
      collectGarbage: ({ graceMs, untagged, dryRun }) =>
        inContract("collectGarbage", async () => {
          const parts = { catalogue, blobs, uploads: this.distribution.uploads, now: () => clock.now(), roots: () => disks.blobsInUse() };
          const found = await collectGarbage(parts, { graceMs: graceMs === undefined ? undefined : Number(graceMs), untagged, dryRun });
          if (!dryRun) fact("garbage-collected", { ...found });
          return { bytes: BigInt(found.bytes), blobs: BigInt(found.blobs), manifests: BigInt(found.manifests), uploads: BigInt(found.uploads) };
        }),
      describeRegistry: () =>
        inContract("describeRegistry", async () => ({
          url: this.url,
          blobBytes: BigInt(catalogue.usedBytes()),
          repositories: catalogue.usage().map(({ name, tags, bytes }) => ({ name, tags: BigInt(tags), bytes: BigInt(bytes) })),
          uploads: BigInt(catalogue.garbage.uploads().length),
          storage: storage.description,
        })),
      setPins: ({ owner, digests }) =>
        inContract("setPins", async () => {
          if (owner === "" || owner.length > 300) throw new ContractError("invalid", `setPins: the owner's name has ${owner.length} characters, expected 1 to 300`);
          for (const digest of digests) sha256Of(digest, "setPins: digest");
          await catalogue.write((to) => to.setPins(owner, digests));
          return {};
        }),
      resizeDisk: ({ id, bytes, mayShrink }) =>
        inContract("resizeDisk", async () => {
          await disks.resize(id, bytes, mayShrink);
          fact("disk-resized", { id, bytes: Number(bytes) }, machineOfDisk(id));
          return {};
        }),
      cloneDisk: ({ id, newId }) =>
        inContract("cloneDisk", async () => {
          const disk = await disks.clone(id, newId);
          fact("disk-cloned", { id: newId, from: id }, machineOfDisk(newId));
          return { disk };
        }),
      commitDisk: ({ id, rebase, flatten }) =>
        inContract("commitDisk", async () => {
          const image = await images.commit(id, { rebase, flatten });
          fact("disk-committed", { id, digest: image.digest, addedBytes: Number(image.addedBytes) }, machineOfDisk(id));
          return { digest: image.digest, image };
        }),
      diffDisk: ({ id }, out) => void images.diff(id, out),
      exportDisk: ({ id, format }, out) => void images.export(id, format, out),
      importImage: (channel) => images.import(channel),
      exportArchive: ({ digest }, out) => void archives.export(digest, out),
      importArchive: (channel) => archives.import(channel),
      addBlobOrigin: ({ origin }) =>
        inContract("addBlobOrigin", async () => {
          if (!origin) throw new ContractError("invalid", "addBlobOrigin: no origin in the request");
          const { digest, registry, repository, bytes } = origin;
          await lazy.addOrigin(digest, { registry, repository, bytes: Number(bytes) });
          return {};
        }),
      listBlobOrigins: () =>
        inContract("listBlobOrigins", async () => ({
          origins: (await lazy.list()).map(({ digest, origin, presentBytes, fetchedBytes, requests }) => ({
            digest,
            bytes: BigInt(origin.bytes),
            registry: origin.registry,
            repository: origin.repository,
            presentBytes: BigInt(presentBytes),
            fetchedBytes: BigInt(fetchedBytes),
            requests: BigInt(requests),
          })),
        })),
      blocks: (channel) =>
        serveBlocks(disks, channel, {
          failed: (disk, operation, error) => log.warn({ disk, operation, error: contractError(operation, error).message }, "block operation failed"),
        }),
    };
  }

  get openDisks(): number {
    return this.#disks.openCount;
  }

  /** Removes what a death in the middle of a change left. That it cannot, now, is no reason not to serve. */
  async recover(): Promise<void> {
    await this.#disks.sweep().catch((error: unknown) => this.#log.warn({ error: contractError("sweep", error).message }, "leftover layers stay until the next start"));
  }

  /** Closes every open disk, flushed. */
  async close(): Promise<void> {
    await this.distribution.uploads.close();
    await this.#disks.close();
    await this.#lazy.close();
    this.storage.catalogue.close();
  }
}
