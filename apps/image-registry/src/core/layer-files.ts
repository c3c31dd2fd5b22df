import { ContractError } from "@polyvisor/contracts";
import { mapBytes } from "./chunk-map.ts";
import { diskFolder, layerFolder, topFolder, writeDiskRecord, type DiskRecord } from "./disk-record.ts";
import { StorageError, type File, type Storage } from "./files.ts";

/** Layers on disk: layers/<layer>/data and map (see layered-disk.ts). */
export class LayerFiles {
  readonly #storage: Storage;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** An empty layer; answers its name. Garbage until a record names it. */
  async create(bytes: number): Promise<string> {
    const layer = this.#storage.uniqueName();
    const scratch = `tmp/${layer}`;
    try {
      for (const [name, length] of [["data", bytes], ["map", mapBytes(bytes)]] as const) {
        const file = await this.#storage.files.open(`${scratch}/${name}`, "create");
        try {
          await file.truncate(length);
          await file.sync();
        } finally {
          await file.close();
        }
      }
      await this.#storage.files.rename(scratch, layerFolder(layer));
      return layer;
    } catch (error) {
      await this.#storage.files.remove(scratch).catch(() => {});
      throw error;
    }
  }

  async remove(layer: string): Promise<void> {
    const trash = `tmp/${this.#storage.uniqueName()}`;
    await this.#storage.files.rename(layerFolder(layer), trash);
    await this.#storage.files.remove(trash);
  }

  /**
   * A disk of version 1 has its layer's files in its own folder: they move to a layer of their own. The record goes first,
   * so that a death in between finds the rest of the way here.
   */
  async adopt(record: DiskRecord): Promise<DiskRecord> {
    let adopted = record;
    if (record.top === "") {
      adopted = { ...record, top: this.#storage.uniqueName() };
      await writeDiskRecord(this.#storage, adopted);
    }
    const names = await this.#storage.files.list(diskFolder(record.id));
    for (const name of ["data", "map"]) if (names.includes(name)) await this.#storage.files.rename(`${diskFolder(record.id)}/${name}`, `${topFolder(adopted)}/${name}`);
    return adopted;
  }

  /** The writable layer's files. They may be longer than the disk: it was cut, or died while it grew. */
  async open(record: DiskRecord, mode: "read" | "update"): Promise<{ data: File; map: File }> {
    const { data, map } = await this.#openBoth(topFolder(record), record.id, mode);
    if (data.bytes >= record.bytes && map.bytes >= mapBytes(record.bytes)) return { data, map };
    await Promise.allSettled([data.close(), map.close()]);
    throw new ContractError("corrupt", `the disk ${record.id} is damaged: data has ${data.bytes} bytes (expected ${record.bytes}), map ${map.bytes} (expected ${mapBytes(record.bytes)})`);
  }

  openFrozen(id: string, layer: string): Promise<{ data: File; map: File }> {
    return this.#openBoth(layerFolder(layer), id, "read");
  }

  async grow(record: DiskRecord, bytes: number): Promise<void> {
    const { data, map } = await this.open(record, "update");
    try {
      for (const [file, length] of [[data, bytes], [map, mapBytes(bytes)]] as const) {
        if (file.bytes < length) await file.truncate(length);
        await file.sync();
      }
    } finally {
      await Promise.allSettled([data.close(), map.close()]);
    }
  }

  /** What the writable layer takes on the host. */
  async allocatedBytes(record: DiskRecord): Promise<number> {
    const data = await this.#storage.files.open(`${topFolder(record)}/data`, "read");
    try {
      return await data.allocatedBytes();
    } finally {
      await data.close();
    }
  }

  async #openBoth(folder: string, id: string, mode: "read" | "update"): Promise<{ data: File; map: File }> {
    try {
      const data = await this.#storage.files.open(`${folder}/data`, mode);
      try {
        return { data, map: await this.#storage.files.open(`${folder}/map`, mode) };
      } catch (error) {
        await data.close();
        throw error;
      }
    } catch (error) {
      if (!(error instanceof StorageError && error.problem === "not-found")) throw error;
      throw new ContractError("corrupt", `the disk ${id} is damaged: ${folder} lacks a file`, { cause: error });
    }
  }
}
