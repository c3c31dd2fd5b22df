import { MANIFEST_LIMIT_BYTES, MEDIA_TYPES, parseByteRange, parseContentRange } from "@polyvisor/image-spec";
import type { BlobStore } from "../blob-store.ts";
import type { Storage } from "../files.ts";
import type { Catalogue, ManifestRecord } from "./catalogue.ts";
import { DistributionError } from "./distribution-error.ts";
import { Manifests } from "./manifests.ts";
import { empty, json, type DistributionRequest, type DistributionResponse } from "./message.ts";
import { Quota, type QuotaLimits } from "./quota.ts";
import { digestOrThrow, isDigest, nameOrThrow, routeOf, type Route } from "./route.ts";
import { outOfOrder, uploadHeaders, Uploads, type Chunk } from "./uploads.ts";

/** Facts of the registry, for the event bus. */
export interface DistributionEvents {
  pushed(fact: { repository: string; reference: string; digest: string; mediaType: string; bytes: number }): void;
  deleted(fact: { repository: string; reference: string }): void;
  stored(fact: { digest: string; bytes: number }): void;
}

export interface DistributionParts {
  readonly storage: Storage;
  readonly blobs: BlobStore;
  readonly quotas: QuotaLimits;
  readonly now: () => number;
  readonly events: DistributionEvents;
}

/** A page of tags or referrers is at most this long, whatever was asked for. */
const PAGE_LIMIT = 1000;
/** A blob that somebody was told of is kept for the grace period; told again soon after, it is not written down again. */
const TOUCH_EVERY_MS = 60_000;
const MAX_TOUCHED = 100_000;

/** The OCI distribution API (distribution-spec 1.1, "Endpoints") over the blob store and the catalogue. */
export class Distribution {
  readonly manifests: Manifests;
  readonly uploads: Uploads;
  readonly #blobs: BlobStore;
  readonly #catalogue: Catalogue;
  readonly #parts: DistributionParts;
  readonly #touched = new Map<string, number>();

  constructor(parts: DistributionParts) {
    this.#parts = parts;
    this.#blobs = parts.blobs;
    this.#catalogue = parts.storage.catalogue;
    this.manifests = new Manifests(this.#catalogue, parts.blobs, parts.now);
    const quota = new Quota(parts.quotas, this.#catalogue, parts.now);
    this.uploads = new Uploads({ storage: parts.storage, blobs: parts.blobs, quota, now: parts.now });
  }

  /** Throws what `refusal` (distribution-error.ts) makes an answer of. */
  async handle(request: DistributionRequest, route: Route = routeOf(request.path)): Promise<DistributionResponse> {
    const handlers = this.#handlers(route, request);
    const handler = handlers[request.method === "HEAD" ? "GET" : request.method];
    if (handler) return handler();
    const allow = Object.keys(handlers).flatMap((method) => (method === "GET" ? ["GET", "HEAD"] : [method])).join(", ");
    throw new DistributionError("UNSUPPORTED", `${request.method} is not for ${request.path.slice(0, 200)}; it takes ${allow}`, { headers: { allow } });
  }

  #handlers(route: Route, request: DistributionRequest): Record<string, () => Promise<DistributionResponse>> {
    switch (route.kind) {
      case "base":
        return { GET: async () => json(200, "{}") };
      case "token":
        throw new DistributionError("UNSUPPORTED", "this registry gives no tokens: it does not ask for any", { status: 404 });
      case "catalog":
        return { GET: async () => this.#repositories(request.query) };
      case "tags":
        return { GET: async () => this.#tags(route.name, request.query) };
      case "referrers":
        return { GET: async () => this.#referrers(route.name, route.reference, request.query) };
      case "manifest":
        return {
          GET: () => this.#getManifest(route.name, route.reference, request),
          PUT: () => this.#putManifest(route.name, route.reference, request),
          DELETE: () => this.#deleteManifest(route.name, route.reference),
        };
      case "blob":
        return { GET: () => this.#getBlob(route.name, route.reference, request), DELETE: () => this.#deleteBlob(route.name, route.reference) };
      case "uploads":
        return { POST: () => this.#beginUpload(route.name, request) };
      case "upload":
        return {
          GET: async () => empty(204, uploadHeaders(route.name, route.reference, await this.uploads.status(route.name, route.reference))),
          PATCH: () => this.#patchUpload(route.name, route.reference, request),
          PUT: () => this.#finishUpload(route.name, route.reference, request),
          DELETE: async () => {
            await this.uploads.cancel(route.name, route.reference);
            return empty(204);
          },
        };
    }
  }

  async #getManifest(name: string, reference: string, request: DistributionRequest): Promise<DistributionResponse> {
    if (isDigest(reference)) digestOrThrow(reference);
    const record = this.manifests.find(name, reference);
    if (!record) throw this.#unknown(name, "MANIFEST_UNKNOWN", `${name} has no manifest ${reference.slice(0, 200)}`);
    const headers = { "content-type": record.mediaType, "docker-content-digest": record.digest, etag: `"${record.digest}"` };
    if (request.headers["if-none-match"]?.includes(record.digest)) return empty(304, headers);
    if (request.method === "HEAD") return { status: 200, headers, bytes: record.bytes };
    return { status: 200, headers, body: await this.manifests.bytes(record) };
  }

  async #putManifest(name: string, reference: string, request: DistributionRequest): Promise<DistributionResponse> {
    if (isDigest(reference)) digestOrThrow(reference);
    const bytes = await readAll(request, MANIFEST_LIMIT_BYTES);
    const hash = this.#blobs.newHash();
    hash.update(bytes);
    const digest = `sha256:${hash.hex()}`;
    const record = await this.manifests.put(name, reference, { digest, mediaType: request.headers["content-type"] ?? "", bytes });
    this.#parts.events.pushed({ repository: name, reference, digest, mediaType: record.mediaType, bytes: bytes.length });
    return empty(201, {
      location: `/v2/${name}/manifests/${digest}`,
      "docker-content-digest": digest,
      ...(record.subject === undefined ? {} : { "oci-subject": record.subject }),
    });
  }

  async #deleteManifest(name: string, reference: string): Promise<DistributionResponse> {
    if (isDigest(reference)) digestOrThrow(reference);
    if (!(await this.manifests.delete(name, reference))) throw this.#unknown(name, "MANIFEST_UNKNOWN", `${name} has no manifest ${reference.slice(0, 200)}`);
    this.#parts.events.deleted({ repository: name, reference });
    return empty(202);
  }

  async #getBlob(name: string, digest: string, request: DistributionRequest): Promise<DistributionResponse> {
    const bytes = this.#catalogue.blob(name, digest);
    if (bytes === undefined) throw this.#unknown(name, "BLOB_UNKNOWN", `${name} has no blob ${digest}`);
    this.#touch(name, digest);
    const headers: Record<string, string> = {
      "content-type": "application/octet-stream", "docker-content-digest": digest, etag: `"${digest}"`, "accept-ranges": "bytes", "cache-control": "max-age=31536000, immutable",
    };
    if (request.headers["if-none-match"]?.includes(digest)) return empty(304, headers);
    if (request.method === "HEAD") {
      if ((await this.#blobs.stat(digest)) === undefined) throw this.#lost(name, digest);
      return { status: 200, headers, bytes };
    }
    const range = parseByteRange(request.headers["range"], bytes);
    if (range === "unsatisfiable") {
      throw new DistributionError("SIZE_INVALID", `the blob has ${bytes} bytes; the range lies outside`, { status: 416, headers: { "content-range": `bytes */${bytes}` } });
    }
    const file = await this.#blobs.open(digest).catch((error: unknown) => {
      throw (error as { condition?: string }).condition === "not-found" ? this.#lost(name, digest) : error;
    });
    if (range === "whole") return { status: 200, headers, body: { file, offset: 0, bytes } };
    const part = { file, offset: range.first, bytes: range.last - range.first + 1 };
    return { status: 206, headers: { ...headers, "content-range": `bytes ${range.first}-${range.last}/${bytes}` }, body: part };
  }

  async #deleteBlob(name: string, digest: string): Promise<DistributionResponse> {
    if (!(await this.#catalogue.write((to) => to.deleteBlob(name, digest)))) throw this.#unknown(name, "BLOB_UNKNOWN", `${name} has no blob ${digest}`);
    this.#parts.events.deleted({ repository: name, reference: digest });
    return empty(202);
  }

  async #beginUpload(name: string, request: DistributionRequest): Promise<DistributionResponse> {
    const mount = request.query.get("mount");
    const digest = request.query.get("digest");
    if (mount !== null && (await this.#mount(name, mount, request.query.get("from")))) return this.#created(name, mount);
    if (digest !== null) digestOrThrow(digest);
    const id = await this.uploads.begin(name);
    // "Single POST": the blob comes along. A POST without a body that names a digest goes on with PUT.
    if (digest === null || request.headers["content-length"] === "0") return empty(202, uploadHeaders(name, id, 0));
    try {
      const bytes = await this.uploads.finish(name, id, digest, this.#chunk(name, id, request));
      this.#parts.events.stored({ digest, bytes });
    } catch (error) {
      await this.uploads.cancel(name, id).catch(() => {});
      throw error;
    }
    return this.#created(name, digest);
  }

  /** Whether the blob is in the repository now. One that cannot be mounted is no error: the client uploads it. */
  async #mount(name: string, digest: string, from: string | null): Promise<boolean> {
    digestOrThrow(digest);
    if (from !== null) nameOrThrow(from);
    const source = from ?? this.#catalogue.repositoryOf(digest);
    return this.#blobs.hold(digest, async () => {
      const bytes = source === undefined ? undefined : this.#catalogue.blob(source, digest);
      if (bytes === undefined || (await this.#blobs.stat(digest)) === undefined) return false;
      await this.#catalogue.write((to) => to.putBlob(name, digest, bytes, this.#parts.now()));
      return true;
    });
  }

  async #patchUpload(name: string, id: string, request: DistributionRequest): Promise<DistributionResponse> {
    await this.uploads.status(name, id); // 404 before anything else
    const bytes = await this.uploads.append(name, id, this.#chunk(name, id, request));
    return empty(202, uploadHeaders(name, id, bytes));
  }

  async #finishUpload(name: string, id: string, request: DistributionRequest): Promise<DistributionResponse> {
    const digest = request.query.get("digest");
    if (digest === null) throw new DistributionError("DIGEST_INVALID", "the closing PUT names no digest; add ?digest=sha256:…");
    digestOrThrow(digest);
    await this.uploads.status(name, id);
    const bytes = await this.uploads.finish(name, id, digest, this.#chunk(name, id, request));
    this.#parts.events.stored({ digest, bytes });
    return this.#created(name, digest);
  }

  /** Content-Range and Content-Length, where there are any, must agree. */
  #chunk(name: string, id: string, request: DistributionRequest): Chunk {
    const { "content-range": range, "content-length": length } = request.headers;
    const bytes = length === undefined ? undefined : Number(length);
    const common = { body: request.body, abort: () => request.abort() };
    if (range === undefined) return { ...common, first: undefined, bytes };
    let parsed: { first: number; last: number };
    try {
      parsed = parseContentRange(range);
    } catch (error) {
      throw outOfOrder(name, id, 0, (error as Error).message);
    }
    const said = parsed.last - parsed.first + 1;
    if (bytes !== undefined && bytes !== said) throw new DistributionError("SIZE_INVALID", `Content-Range ${range} has ${said} bytes, Content-Length is ${bytes}`);
    return { ...common, first: parsed.first, bytes: said };
  }

  #created(name: string, digest: string): DistributionResponse {
    return empty(201, { location: `/v2/${name}/blobs/${digest}`, "docker-content-digest": digest });
  }

  #repositories(query: URLSearchParams): DistributionResponse {
    const { limit, last } = page(query);
    const found = limit === 0 ? [] : this.#catalogue.repositories(last, limit + 1);
    const shown = found.slice(0, limit);
    return json(200, JSON.stringify({ repositories: shown }), next("/v2/_catalog", found.length > limit ? { n: String(limit), last: shown.at(-1) } : undefined));
  }

  #tags(name: string, query: URLSearchParams): DistributionResponse {
    if (!this.#catalogue.exists(name)) throw this.#unknown(name, "NAME_UNKNOWN", "");
    const { limit, last } = page(query);
    const found = limit === 0 ? [] : this.#catalogue.tags(name, last, limit + 1).map(({ tag }) => tag);
    const tags = found.slice(0, limit);
    return json(200, JSON.stringify({ name, tags }), next(`/v2/${name}/tags/list`, found.length > limit ? { n: String(limit), last: tags.at(-1) } : undefined));
  }

  #referrers(name: string, subject: string, query: URLSearchParams): DistributionResponse {
    const artifactType = query.get("artifactType");
    const { limit, last } = page(query);
    const found = limit === 0 ? [] : this.#catalogue.referrers(name, subject, last, limit + 1);
    const shown = found.slice(0, limit);
    const manifests = shown.filter((record) => artifactType === null || record.artifactType === artifactType).map(descriptorOf);
    const more = found.length > limit ? { n: String(limit), last: shown.at(-1)?.digest, ...(artifactType === null ? {} : { artifactType }) } : undefined;
    return json(200, JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests }), {
      "content-type": MEDIA_TYPES.index,
      ...(artifactType === null ? {} : { "oci-filters-applied": "artifactType" }),
      ...next(`/v2/${name}/referrers/${subject}`, more),
    });
  }

  /** A client that was told that a blob is there will not send it: it must stay until the manifest comes. */
  #touch(name: string, digest: string): void {
    const key = `${name}@${digest}`;
    const nowMs = this.#parts.now();
    if ((this.#touched.get(key) ?? -Infinity) > nowMs - TOUCH_EVERY_MS) return;
    if (this.#touched.size >= MAX_TOUCHED) this.#touched.clear();
    this.#touched.set(key, nowMs);
    void this.#catalogue.write((to) => to.touchBlob(name, digest, nowMs), "lazy").catch(() => {}); // a full disk: the blob keeps its older time
  }

  #unknown(name: string, code: "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN" | "NAME_UNKNOWN", message: string): DistributionError {
    if (this.#catalogue.exists(name)) return new DistributionError(code, message);
    return new DistributionError("NAME_UNKNOWN", `there is no repository ${name}; it comes to be with its first push`);
  }

  /** The catalogue has it and the store does not: it was damaged and moved aside, or somebody removed the file. */
  #lost(name: string, digest: string): DistributionError {
    return new DistributionError("BLOB_UNKNOWN", `${name} had the blob ${digest}, but its bytes are lost; push it again`);
  }
}

function page(query: URLSearchParams): { limit: number; last: string } {
  const n = query.get("n");
  if (n !== null && !/^\d{1,9}$/.test(n)) throw new DistributionError("UNSUPPORTED", `n is "${n.slice(0, 40)}", expected a whole number`, { status: 400 });
  return { limit: Math.min(PAGE_LIMIT, n === null ? PAGE_LIMIT : Number(n)), last: query.get("last") ?? "" };
}

/** Link to the next page (RFC 8288). */
function next(path: string, query: Record<string, string | undefined> | undefined): Record<string, string> {
  return query ? { link: `<${path}?${new URLSearchParams(query as Record<string, string>)}>; rel="next"` } : {};
}

function descriptorOf({ mediaType, digest, bytes, artifactType, annotations }: ManifestRecord): object {
  return { mediaType, digest, size: bytes, ...(artifactType === undefined ? {} : { artifactType }), ...(annotations ? { annotations } : {}) };
}

async function readAll(request: DistributionRequest, limitBytes: number): Promise<Uint8Array> {
  const tooLarge = (): DistributionError => new DistributionError("SIZE_INVALID", `the manifest has more than ${limitBytes} bytes, which this registry does not take`, { status: 413 });
  if (Number(request.headers["content-length"] ?? 0) > limitBytes) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of request.body) {
    length += piece.length;
    if (length > limitBytes) throw tooLarge();
    pieces.push(piece);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
