import { sha256Of } from "@polyvisor/image-spec";
import { readSmallFile, writeAtomically, type Storage } from "./files.ts";

/** A boot touches a few thousand chunks; what comes later says nothing about the next start. */
const MAX_CHUNKS = 4096;
/** A disk that was only looked into teaches nothing. */
const MIN_CHUNKS = 16;
const LIMIT_BYTES = MAX_CHUNKS * 4;

/** boots/<hex>: the chunks of a base in the order in which its last boot wanted them, u32, little-endian. */
export class BootOrders {
  readonly #storage: Storage;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** Empty when nothing was learned, or it is damaged: it is only advice. */
  async read(digest: string): Promise<number[]> {
    const bytes = await readSmallFile(this.#storage.files, pathOf(digest), LIMIT_BYTES).catch(() => undefined);
    if (!bytes) return [];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Array.from({ length: bytes.byteLength >> 2 }, (_, i) => view.getUint32(i * 4, true));
  }

  /** Learns from one opening of a disk. */
  recorder(digest: string): { touch(chunk: number): void; save(): Promise<void> } {
    const seen = new Set<number>();
    return {
      touch: (chunk) => void (seen.size < MAX_CHUNKS && seen.add(chunk)),
      save: async () => {
        if (seen.size < MIN_CHUNKS) return;
        const bytes = new DataView(new ArrayBuffer(seen.size * 4));
        [...seen].forEach((chunk, i) => bytes.setUint32(i * 4, chunk, true));
        await writeAtomically(this.#storage, pathOf(digest), new Uint8Array(bytes.buffer));
      },
    };
  }
}

const pathOf = (digest: string): string => `boots/${sha256Of(digest)}`;
