import { ContractError, type Implementation } from "@polyvisor/contracts";
import type { IMAGE } from "@polyvisor/contracts/image";
import type { ServiceContext } from "@polyvisor/service-kit";
import { readBlob, writeBlob } from "./blob-streams.ts";
import { serveBlocks } from "./block-stream.ts";
import type { DiskStore } from "./disk-store.ts";
import { contractError, inContract } from "./errors.ts";
import type { Storage } from "./files.ts";
import { createStores } from "./stores.ts";

const SERVICE = "image-registry";

/** The contract over the three stores. ResizeDisk, CloneDisk, CommitDisk and CollectGarbage are left out: unimplemented. */
export class ImageService {
  readonly implementation: Implementation<typeof IMAGE.definition>;
  readonly #disks: DiskStore;

  constructor(storage: Storage, limits: { maxBlobBytes: number }, context: ServiceContext) {
    const { events, log, clock } = context;
    const { blobs, boxes, disks } = createStores(storage, { maxBlobBytes: limits.maxBlobBytes, now: () => clock.now() });
    this.#disks = disks;
    const fact = (name: string, data: Record<string, unknown>, machine = "-"): void => events.publish({ machine, service: SERVICE, fact: name, data });
    /** "web/disk0" is machine web's. */
    const machineOfDisk = (id: string): string => (id.includes("/") ? (id.split("/")[0] as string) : "-");

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
      blocks: (channel) =>
        serveBlocks(disks, channel, {
          failed: (disk, operation, error) => log.warn({ disk, operation, error: contractError(operation, error).message }, "block operation failed"),
        }),
    };
  }

  get openDisks(): number {
    return this.#disks.openCount;
  }

  /** Closes every open disk, flushed. */
  close(): Promise<void> {
    return this.#disks.close();
  }
}
