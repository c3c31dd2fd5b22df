import { ContractError } from "@polyvisor/contracts";
import { readJson, sha256Of, type BlobRef } from "@polyvisor/image-spec";
import { blobPath, type BlobStore } from "./blob-store.ts";
import type { BlobRanges, Span } from "./chunk-source.ts";
import { readSmallFile, StorageError, writeAtomically, type File, type Storage } from "./files.ts";

/** Where a blob that is not here, or not whole, can be read by ranges. */
export interface BlobOrigin {
  /** "https://registry.example:5000" */
  readonly registry: string;
  readonly repository: string;
  readonly bytes: number;
}

/** Other registries; adapters/upstream.ts is the real one. */
export interface Upstream {
  readRange(origin: BlobOrigin, digest: string, offset: number, length: number): Promise<Uint8Array>;
}

/** Of one blob that is fetched as it is needed. */
export interface FetchCounts {
  readonly digest: string;
  readonly origin: BlobOrigin;
  /** Came over the wire since the service started. */
  fetchedBytes: number;
  requests: number;
  /** Are here, of `origin.bytes`. */
  presentBytes: number;
}

const RECORD_LIMIT_BYTES = 4096;
/** A reader that goes on where the last fetch ended gets twice as much each time, up to this. */
const MAX_WINDOW_BYTES = 1024 * 1024;
/** Fetches in order before one counts as such a reader. */
const STREAK = 3;
/** Spans with less between them are one request: a round trip costs more than these bytes. */
const GAP_BYTES = 16 * 1024;
const PARALLEL_FETCHES = 4;

/**
 * Ranges of blobs, from the store or, for a blob with a known origin, from there: what was fetched lies at its place in
 * the sparse file partial/<hex>. No list of what is in it is kept: every range is read with its hash, and a hole, a torn
 * write or damage all fail it, and are fetched (again). A blob that is complete moves into the store.
 */
export class LazyBlobs implements BlobRanges {
  readonly #storage: Storage;
  readonly #blobs: BlobStore;
  readonly #upstream: Upstream | undefined;
  readonly #open = new Map<string, Promise<PartialBlob | undefined>>();

  constructor(parts: { storage: Storage; blobs: BlobStore; upstream: Upstream | undefined }) {
    this.#storage = parts.storage;
    this.#blobs = parts.blobs;
    this.#upstream = parts.upstream;
  }

  /** From now on the blob counts as here. The same again changes nothing; another origin takes the place of the old one. */
  async addOrigin(digest: string, origin: BlobOrigin): Promise<void> {
    sha256Of(digest);
    if (!this.#upstream) throw new ContractError("precondition", "this registry has no way to other registries; pull the image whole");
    if (!/^https?:\/\/[^/\s]+$/.test(origin.registry) || origin.repository === "") {
      throw new ContractError("invalid", `blob origin ${JSON.stringify(origin.registry.slice(0, 80))}: expected "https://HOST[:PORT]" and a repository`);
    }
    if (origin.bytes <= 0) throw new ContractError("invalid", `blob ${digest}: its size must be known`);
    await writeAtomically(this.#storage, originPath(digest), new TextEncoder().encode(JSON.stringify(origin)));
    await (await this.#open.get(digest))?.file.close();
    this.#open.delete(digest);
  }

  /** Blobs with an origin that are not whole here. */
  async list(): Promise<FetchCounts[]> {
    const found: FetchCounts[] = [];
    for (const hex of await this.#storage.files.list("origins")) {
      const partial = await this.#partial(`sha256:${hex}`);
      if (partial) found.push(partial.counts);
    }
    return found;
  }

  async has({ digest, bytes }: BlobRef): Promise<boolean> {
    if ((await this.#blobs.stat(digest)) === bytes) return true;
    return (await this.#origin(digest))?.bytes === bytes;
  }

  async read(blob: BlobRef, offset: number, length: number, verified: (bytes: Uint8Array) => boolean): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const stored = await this.#readStored(blob, offset, bytes);
    if (stored && verified(bytes)) return bytes;
    const partial = await this.#partial(blob.digest);
    if (!partial) throw stored ? damaged(blob, offset, length) : absent(blob);
    await partial.file.read(offset, bytes);
    if (verified(bytes)) return bytes;
    // Twice: what a window brought along was not checked when it came.
    for (let attempt = 0; attempt < 2; attempt++) {
      await this.#fetch(partial, offset, attempt === 0 ? partial.window(offset, length) : length);
      await partial.file.read(offset, bytes);
      if (!verified(bytes)) continue;
      await this.#complete(partial);
      return bytes;
    }
    throw new ContractError("corrupt", `blob ${blob.digest}: bytes ${offset} to ${offset + length} from ${partial.counts.origin.registry} do not have the hash that the index says; push the image there again`);
  }

  /** Brings spans here, several at a time; near ones in one request. Never rejects: whoever reads them hears of it. */
  async prefetch(blob: BlobRef, spans: readonly Span[]): Promise<void> {
    if ((await this.#blobs.stat(blob.digest)) !== undefined) return;
    const partial = await this.#partial(blob.digest);
    if (!partial) return;
    const wanted = merge(spans).filter((span) => !partial.has(span));
    let next = 0;
    const worker = async (): Promise<void> => {
      for (;;) {
        const span = wanted[next++];
        if (!span || partial.failed) return;
        if (!partial.has(span)) await this.#fetch(partial, span.offset, span.length).catch(() => (partial.failed = true));
      }
    };
    partial.failed = false;
    await Promise.all(Array.from({ length: PARALLEL_FETCHES }, worker));
    await this.#complete(partial).catch(() => {});
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#open.values()].map(async (partial) => (await partial)?.file.close()));
    this.#open.clear();
  }

  async #readStored({ digest }: BlobRef, offset: number, target: Uint8Array): Promise<boolean> {
    const file = await this.#blobs.openIfHere(digest);
    if (!file) return false;
    try {
      if (!file.readNow(offset, target)) await file.read(offset, target);
      return true;
    } finally {
      await file.close();
    }
  }

  async #fetch(partial: PartialBlob, offset: number, length: number): Promise<void> {
    const { counts } = partial;
    const bytes = await (this.#upstream as Upstream).readRange(counts.origin, counts.digest, offset, length);
    if (bytes.length !== length) throw new ContractError("unavailable", `blob ${counts.digest}: ${bytes.length} bytes of ${length} came from ${counts.origin.registry}`);
    counts.requests++;
    counts.fetchedBytes += length;
    await partial.file.write(offset, bytes);
    partial.add({ offset, length });
  }

  /** A blob of which every byte is here becomes one of the store's, if it has its digest. */
  async #complete(partial: PartialBlob): Promise<void> {
    const { digest, origin } = partial.counts;
    if (partial.counts.presentBytes < origin.bytes || partial.completing) return;
    partial.completing = true;
    await partial.file.sync();
    const hash = this.#storage.newHash();
    const piece = new Uint8Array(1 << 20);
    for (let at = 0; at < origin.bytes; at += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, origin.bytes - at));
      await partial.file.read(at, part);
      hash.update(part);
    }
    if (hash.hex() !== sha256Of(digest)) return; // each range that was read is right; the rest is checked as it is read
    await this.#storage.files.rename(partialPath(digest), blobPath(digest));
    await this.#storage.files.remove(originPath(digest));
    // Its file stays open: reads may be on their way.
  }

  #partial(digest: string): Promise<PartialBlob | undefined> {
    let opening = this.#open.get(digest);
    if (!opening) {
      opening = this.#openPartial(digest);
      this.#open.set(digest, opening);
      opening.then((partial) => partial ?? this.#open.delete(digest), () => this.#open.delete(digest));
    }
    return opening;
  }

  async #openPartial(digest: string): Promise<PartialBlob | undefined> {
    const origin = this.#upstream && (await this.#origin(digest));
    if (!origin) return undefined;
    const path = partialPath(digest);
    let file: File;
    try {
      file = await this.#storage.files.open(path, "update");
    } catch (error) {
      if (!(error instanceof StorageError && error.problem === "not-found")) throw error;
      file = await this.#storage.files.open(path, "create");
    }
    if (file.bytes !== origin.bytes) await file.truncate(origin.bytes);
    const presentBytes = Math.min(await file.allocatedBytes(), origin.bytes);
    return new PartialBlob(file, { digest, origin, fetchedBytes: 0, requests: 0, presentBytes });
  }

  async #origin(digest: string): Promise<BlobOrigin | undefined> {
    const bytes = await readSmallFile(this.#storage.files, originPath(digest), RECORD_LIMIT_BYTES);
    if (!bytes) return undefined;
    const { registry, repository, bytes: size } = readJson(bytes, "origin") as BlobOrigin;
    if (typeof registry !== "string" || typeof repository !== "string" || !Number.isSafeInteger(size)) {
      throw new ContractError("corrupt", `the origin of blob ${digest} is damaged; pull its image again`);
    }
    return { registry, repository, bytes: size };
  }
}

/** A blob in the making. */
class PartialBlob {
  readonly file: File;
  readonly counts: FetchCounts;
  completing = false;
  failed = false;
  /** Ends of what was fetched, by its start; ascending, apart. */
  #spans: Span[] = [];
  #lastEnd = -1;
  #windowBytes = 0;
  #streak = 0;

  constructor(file: File, counts: FetchCounts) {
    this.file = file;
    this.counts = counts;
  }

  has({ offset, length }: Span): boolean {
    return this.#spans.some((span) => span.offset <= offset && offset + length <= span.offset + span.length);
  }

  add(span: Span): void {
    const before = total(this.#spans);
    this.#spans = merge([...this.#spans, span], 0);
    this.counts.presentBytes = Math.min(this.counts.origin.bytes, this.counts.presentBytes + total(this.#spans) - before);
    if (total(this.#spans) === this.counts.origin.bytes) this.counts.presentBytes = this.counts.origin.bytes;
  }

  /** How much to fetch for a read. */
  window(offset: number, length: number): number {
    this.#streak = offset === this.#lastEnd ? this.#streak + 1 : 0;
    this.#windowBytes = this.#streak >= STREAK ? Math.min(Math.max(this.#windowBytes, length) * 2, MAX_WINDOW_BYTES) : length;
    const bytes = Math.min(Math.max(length, this.#windowBytes), this.counts.origin.bytes - offset);
    this.#lastEnd = offset + bytes;
    return bytes;
  }
}

const originPath = (digest: string): string => `origins/${sha256Of(digest)}`;
const partialPath = (digest: string): string => `partial/${sha256Of(digest)}`;
const total = (spans: readonly Span[]): number => spans.reduce((sum, { length }) => sum + length, 0);

/** Ascending, those that overlap or have at most `gapBytes` between them as one. */
function merge(spans: readonly Span[], gapBytes = GAP_BYTES): Span[] {
  const merged: { offset: number; length: number }[] = [];
  for (const { offset, length } of [...spans].sort((a, b) => a.offset - b.offset)) {
    const last = merged.at(-1);
    if (last && offset <= last.offset + last.length + gapBytes) last.length = Math.max(last.length, offset + length - last.offset);
    else merged.push({ offset, length });
  }
  return merged;
}

const absent = ({ digest }: BlobRef): ContractError => new ContractError("not-found", `there is no blob ${digest}; write it first, or pull its image`);
const damaged = ({ digest }: BlobRef, offset: number, length: number): ContractError =>
  new ContractError("corrupt", `blob ${digest}: bytes ${offset} to ${offset + length} are damaged; write the blob again`);
