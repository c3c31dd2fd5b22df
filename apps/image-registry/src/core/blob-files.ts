import { sha256Of } from "@polyvisor/image-spec";
import { StorageError, type File, type Files } from "./files.ts";

/** Where whole blobs are kept: this directory, or an object store (adapters/s3-blob-files.ts). */
export interface BlobFiles {
  /** StorageError "not-found" when it is not there. */
  open(digest: string): Promise<File>;
  /** Takes a finished, synced scratch file of the local directory in; durable when it resolves. The scratch file is gone then. */
  adopt(scratch: string, digest: string): Promise<void>;
  remove(digest: string): Promise<void>;
  /** Moves damaged bytes out of the way, to `aside`, where they may be looked at. */
  quarantine(digest: string, aside: string): Promise<void>;
  /** Every blob, in any order, with the time it came. */
  list(): AsyncIterable<{ readonly digest: string; readonly bytes: number; readonly changedUnixMs: number }>;
}

/** blobs/sha256/<2 hex>/<64 hex> of a directory. */
export class LocalBlobFiles implements BlobFiles {
  readonly #files: Files;
  constructor(files: Files) {
    this.#files = files;
  }

  open(digest: string): Promise<File> {
    return this.#files.open(blobPath(digest), "read");
  }
  adopt(scratch: string, digest: string): Promise<void> {
    return this.#files.rename(scratch, blobPath(digest));
  }
  remove(digest: string): Promise<void> {
    return this.#files.remove(blobPath(digest));
  }
  async quarantine(digest: string, aside: string): Promise<void> {
    await this.#files.rename(blobPath(digest), aside).catch(() => {});
  }
  async *list(): AsyncGenerator<{ digest: string; bytes: number; changedUnixMs: number }, void> {
    for (const folder of await this.#files.list("blobs/sha256")) {
      for (const name of await this.#files.list(`blobs/sha256/${folder}`)) {
        const digest = `sha256:${name}`;
        try {
          const path = blobPath(digest);
          const facts = await this.#files.stat(path);
          if (facts && path === `blobs/sha256/${folder}/${name}`) yield { digest, ...facts };
        } catch (error) {
          if (error instanceof StorageError) throw error; // else: no blob's name, somebody else's file
        }
      }
    }
  }
}

export function blobPath(digest: string): string {
  const hex = sha256Of(digest);
  return `blobs/sha256/${hex.slice(0, 2)}/${hex}`;
}
