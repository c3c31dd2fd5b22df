import { MEDIA_TYPES, type OciDescriptor } from "@polyvisor/image-spec";
import type { OciClient } from "@polyvisor/oci-client";
import type { BlobStore } from "../blob-store.ts";
import type { Catalogue } from "./catalogue.ts";
import type { Distribution } from "./distribution.ts";
import { DistributionError } from "./distribution-error.ts";
import { json, type DistributionRequest, type DistributionResponse } from "./message.ts";
import { isDigest, type Route } from "./route.ts";

/** What is needed of the registry that is cached. */
export type Upstream = Pick<OciClient, "origin" | "resolve" | "manifest" | "blobSize" | "blob" | "tags" | "referrers">;

export interface PullThroughParts {
  readonly upstream: Upstream;
  /** Repositories whose name begins with this are upstream's, without it; empty: all are. */
  readonly prefix: string;
  readonly distribution: Distribution;
  readonly blobs: BlobStore;
  readonly catalogue: Catalogue;
  readonly now: () => number;
  readonly warn: (message: string, error: unknown) => void;
}

/** A tag is asked for upstream again after so long. */
const TAG_FRESH_MS = 60_000;
const MAX_FRESH = 10_000;
const MAX_LISTED = 10_000;

/**
 * A pull-through cache: what is not here is fetched from upstream, checked, kept, and served at the same time. When upstream
 * cannot be reached, what is here is served. Its repositories take no pushes.
 */
export class PullThrough {
  readonly #parts: PullThroughParts;
  readonly #fresh = new Map<string, number>();
  /** Blobs and manifests on their way: who asks meanwhile waits. */
  readonly #fetching = new Map<string, Promise<unknown>>();

  constructor(parts: PullThroughParts) {
    this.#parts = parts;
  }

  async handle(request: DistributionRequest, route: Route): Promise<DistributionResponse> {
    const { distribution, prefix } = this.#parts;
    const name = "name" in route && route.name.startsWith(prefix) ? route.name : undefined;
    if (name === undefined) return distribution.handle(request, route);
    const reading = request.method === "GET" || request.method === "HEAD";
    if (!reading && request.method !== "DELETE") {
      throw new DistributionError("UNSUPPORTED", `${name} is a cache of ${this.#parts.upstream.origin} and takes no pushes; push there, or under another name`);
    }
    if (reading && route.kind === "manifest") await this.#freshen(name, route.reference);
    if (reading && route.kind === "tags") return this.#listed(request, route, () => this.#tags(name));
    if (reading && route.kind === "referrers") return this.#listed(request, route, () => this.#referrers(name, route.reference, request.query.get("artifactType") ?? undefined));
    if (reading && route.kind === "blob" && this.#parts.catalogue.blob(name, route.reference) === undefined) return this.#blob(request, name, route);
    return distribution.handle(request, route);
  }

  /** Has the manifest here, as new as upstream's. What goes wrong is no error while an older one is here. */
  async #freshen(name: string, reference: string): Promise<void> {
    const { upstream, distribution, now } = this.#parts;
    const here = distribution.manifests.find(name, reference);
    const key = `${name}:${reference}`;
    if (here && (isDigest(reference) || (this.#fresh.get(key) ?? 0) > now())) return;
    await this.#once(key, async () => {
      const theirs = this.#theirName(name);
      try {
        const found = await upstream.resolve(theirs, reference);
        if (!found) return;
        if (found.digest !== here?.digest) {
          const { mediaType, digest, bytes } = await upstream.manifest(theirs, reference);
          await distribution.manifests.put(name, reference, { mediaType, digest, bytes }, { partial: true });
        }
        if (this.#fresh.size >= MAX_FRESH) this.#fresh.clear();
        this.#fresh.set(key, now() + TAG_FRESH_MS);
      } catch (error) {
        if (!here) throw this.#unavailable(error);
        this.#parts.warn(`${upstream.origin} does not answer; the cached ${key} is served`, error);
      }
    });
  }

  async #blob(request: DistributionRequest, name: string, route: Route & { reference: string }): Promise<DistributionResponse> {
    const { upstream, distribution } = this.#parts;
    const digest = route.reference;
    const key = `${name}@${digest}`;
    if (request.method === "HEAD" || request.headers["range"] !== undefined || this.#fetching.has(key)) {
      if (request.method !== "HEAD") await this.#once(key, () => this.#drain(name, digest));
      else {
        const bytes = await this.#ask(() => upstream.blobSize(this.#theirName(name), digest));
        if (bytes !== undefined) return { status: 200, headers: { "content-type": "application/octet-stream", "docker-content-digest": digest, "accept-ranges": "bytes" }, bytes };
      }
      return distribution.handle(request, route);
    }
    const bytes = await this.#ask(() => upstream.blobSize(this.#theirName(name), digest));
    if (bytes === undefined) return distribution.handle(request, route); // its 404
    const pieces = this.#fetch(name, digest, bytes);
    return { status: 200, headers: { "content-type": "application/octet-stream", "docker-content-digest": digest }, body: { pieces, bytes } };
  }

  /** The blob's bytes from upstream, stored on their way; in the store when the iteration ends. */
  async *#fetch(name: string, digest: string, size: number): AsyncGenerator<Uint8Array, void> {
    const { upstream, blobs, catalogue, now } = this.#parts;
    let done: () => void = () => {};
    const key = `${name}@${digest}`;
    this.#fetching.set(key, new Promise<void>((resolve) => (done = resolve)));
    const writer = await blobs.create({ digest, size });
    // The last piece is held back until all are checked and stored: an answer that ends well was right.
    let last: Uint8Array | undefined;
    try {
      for await (const piece of upstream.blob(this.#theirName(name), { digest, size })) {
        await writer.write(piece);
        if (last) yield last;
        last = piece;
      }
      await blobs.hold(digest, async () => {
        await writer.commit();
        await catalogue.write((to) => to.putBlob(name, digest, size, now()));
      });
    } finally {
      await writer.discard(); // nothing to discard after a commit
      this.#fetching.delete(key);
      done();
    }
    if (last) yield last;
  }

  async #drain(name: string, digest: string): Promise<void> {
    const size = await this.#ask(() => this.#parts.upstream.blobSize(this.#theirName(name), digest));
    if (size === undefined) return;
    for await (const piece of this.#fetch(name, digest, size)) void piece;
  }

  async #listed(request: DistributionRequest, route: Route, ask: () => Promise<DistributionResponse>): Promise<DistributionResponse> {
    try {
      return await ask();
    } catch (error) {
      this.#parts.warn(`${this.#parts.upstream.origin} does not answer; what is cached is listed`, error);
      return this.#parts.distribution.handle(request, route);
    }
  }

  async #tags(name: string): Promise<DistributionResponse> {
    const tags: string[] = [];
    for await (const tag of this.#parts.upstream.tags(this.#theirName(name))) if (tags.push(tag) >= MAX_LISTED) break;
    return json(200, JSON.stringify({ name, tags: tags.sort() }));
  }

  async #referrers(name: string, digest: string, artifactType: string | undefined): Promise<DistributionResponse> {
    const manifests: OciDescriptor[] = [];
    for await (const each of this.#parts.upstream.referrers(this.#theirName(name), digest, artifactType)) if (manifests.push(each) >= MAX_LISTED) break;
    return json(200, JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests }), {
      "content-type": MEDIA_TYPES.index, ...(artifactType === undefined ? {} : { "oci-filters-applied": "artifactType" }),
    });
  }

  #theirName(name: string): string {
    return name.slice(this.#parts.prefix.length);
  }

  async #ask<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw this.#unavailable(error);
    }
  }

  #unavailable(error: unknown): DistributionError {
    return new DistributionError("DENIED", `it is not in the cache, and upstream: ${(error as Error).message}`, { status: 502 });
  }

  async #once(key: string, run: () => Promise<void>): Promise<void> {
    const going = this.#fetching.get(key);
    if (going) return void (await going.catch(() => {}));
    const work = run().finally(() => {
      if (this.#fetching.get(key) === work) this.#fetching.delete(key);
    });
    this.#fetching.set(key, work);
    await work;
  }
}
