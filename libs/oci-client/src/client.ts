import {
  checkName, isIndexType, MANIFEST_LIMIT_BYTES, MANIFEST_TYPES, MEDIA_TYPES, parseDigest, parseNextLink, readIndex, readJson, readManifestView, type ManifestView, type OciDescriptor,
} from "@polyvisor/image-spec";
import { OciClientError } from "./oci-client-error.ts";
import { pushBlob, type BlobSource, type PushOptions, type PushOutcome } from "./push-blob.ts";
import { readBytes, Session, type Ask, type SessionOptions } from "./session.ts";

/** An incremental hash of a digest's algorithm; `hex` ends it. */
export interface ClientHash {
  update(data: Uint8Array): void;
  hex(): string;
}

export interface OciClientOptions extends SessionOptions {
  /** Throws for an algorithm that it does not have. */
  readonly newHash: (algorithm: string) => ClientHash;
}

export interface FetchedManifest {
  readonly mediaType: string;
  readonly digest: string;
  readonly bytes: Uint8Array;
}

/** A misbehaving registry must not keep a listing going for ever. */
const MAX_PAGES = 10_000;
/** Connections die in the middle of large blobs: a read goes on from where it stopped so often without progress. */
const READ_RESUMES = 5;

/** A client of one registry (OCI distribution-spec 1.1). Everything that is read is checked against its digest. */
export class OciClient {
  readonly origin: string;
  readonly #session: Session;
  readonly #newHash: OciClientOptions["newHash"];

  constructor(options: OciClientOptions) {
    this.origin = options.origin;
    this.#session = new Session(options);
    this.#newHash = options.newHash;
  }

  /** That there is a registry that speaks the protocol and lets us in. */
  async check(): Promise<void> {
    await this.#session.ask({ method: "GET", url: "/v2/", scope: "", expect: [200], what: "look for an OCI registry" });
  }

  /** What a tag or digest names; undefined when it is not there. */
  async resolve(name: string, reference: string): Promise<OciDescriptor | undefined> {
    const what = `resolve ${name}:${reference}`;
    const response = await this.#pull(name, { method: "HEAD", url: `/v2/${name}/manifests/${reference}`, headers: { accept: MANIFEST_TYPES.join(", ") }, expect: [200, 404], what });
    if (response.status === 404) return undefined;
    const digest = response.headers.get("docker-content-digest");
    const size = Number(response.headers.get("content-length") ?? Number.NaN);
    // Docker-Content-Digest is a MAY: without it the bytes say.
    if (digest === null || !Number.isSafeInteger(size)) {
      const { bytes, ...rest } = await this.manifest(name, reference);
      return { ...rest, size: bytes.length };
    }
    parseDigest(digest, `${what}: Docker-Content-Digest`);
    return { mediaType: typeOf(response), digest, size };
  }

  /** "not-found" when it is not there; "corrupt" when it is not what the digest says. */
  async manifest(name: string, reference: string): Promise<FetchedManifest> {
    const what = `read the manifest ${name}:${reference}`;
    const response = await this.#pull(name, { method: "GET", url: `/v2/${name}/manifests/${reference}`, headers: { accept: MANIFEST_TYPES.join(", ") }, expect: [200], what });
    const { bytes, whole } = await readBytes(response, MANIFEST_LIMIT_BYTES);
    if (!whole) throw new OciClientError("invalid", `${what}: it has more than ${MANIFEST_LIMIT_BYTES} bytes, which no manifest may`);
    const said = reference.includes(":") ? reference : (response.headers.get("docker-content-digest") ?? undefined);
    const digest = this.#digest(bytes, said, what);
    return { mediaType: typeOf(response), digest, bytes };
  }

  /** Size of a blob; undefined when the repository has none of that digest. */
  async blobSize(name: string, digest: string): Promise<number | undefined> {
    const response = await this.#pull(name, { method: "HEAD", url: `/v2/${name}/blobs/${digest}`, expect: [200, 404], what: `look for the blob ${digest} in ${name}` });
    return response.status === 404 ? undefined : Number(response.headers.get("content-length") ?? 0);
  }

  /**
   * A blob's bytes from `offset`, in order. A connection that dies is taken up again where it stopped. From offset 0 the end
   * is checked: an iteration that ends without an error had the right size and digest.
   */
  async *blob(name: string, { digest, size }: Pick<OciDescriptor, "digest" | "size">, offset = 0): AsyncGenerator<Uint8Array, void> {
    const what = `read the blob ${digest} of ${name}`;
    const { algorithm, encoded } = parseDigest(digest);
    const hash = offset === 0 ? this.#newHash(algorithm) : undefined;
    let at = offset;
    for (let failures = 0; at < size || (size === 0 && failures === 0); ) {
      const before = at;
      try {
        for await (const piece of await this.#blobFrom(name, digest, at, what)) {
          at += piece.length;
          if (at > size) throw new OciClientError("corrupt", `${what}: it has more than the ${size} bytes that its descriptor says`);
          hash?.update(piece);
          yield piece;
        }
        if (at < size) throw new Error("the connection ended early");
        if (size === 0) break;
      } catch (error) {
        if (error instanceof OciClientError) throw error;
        failures = at > before ? 1 : failures + 1;
        if (failures > READ_RESUMES) throw new OciClientError("unavailable", `${what}: stopped after ${at} of ${size} bytes`, { cause: error });
      }
    }
    if (hash && hash.hex() !== encoded) throw new OciClientError("corrupt", `${what}: its bytes do not have that digest; the registry's copy is damaged`);
  }

  /** Some bytes of a blob, not checked: the caller knows what they must hash to. A registry without ranges is refused, not read whole. */
  async range(name: string, digest: string, offset: number, length: number): Promise<Uint8Array> {
    const what = `read bytes ${offset} to ${offset + length} of the blob ${digest} of ${name}`;
    parseDigest(digest);
    const headers = { range: `bytes=${offset}-${offset + length - 1}` };
    const response = await this.#pull(name, { method: "GET", url: `/v2/${name}/blobs/${digest}`, headers, expect: [200, 206], what });
    const whole = response.status === 200;
    if (whole && (offset > 0 || Number(response.headers.get("content-length") ?? Number.NaN) !== length)) {
      await response.body?.cancel();
      throw new OciClientError("protocol", `${what}: the registry sent the whole blob; it does not do range requests (RFC 9110, 14.2), so pull the image whole`);
    }
    const { bytes } = await readBytes(response, length);
    if (bytes.length !== length) throw new OciClientError("unavailable", `${what}: only ${bytes.length} bytes came`);
    return bytes;
  }

  async #blobFrom(name: string, digest: string, at: number, what: string): Promise<AsyncIterable<Uint8Array>> {
    const range: Record<string, string> = at > 0 ? { range: `bytes=${at}-` } : {};
    const response = await this.#pull(name, { method: "GET", url: `/v2/${name}/blobs/${digest}`, headers: range, expect: [200, 206], what });
    const body: AsyncIterable<Uint8Array> = response.body ?? nothing();
    return at > 0 && response.status === 200 ? skip(body, at) : body; // ranges are a SHOULD
  }

  /** Whole small blob (a config), checked. */
  async smallBlob(name: string, descriptor: Pick<OciDescriptor, "digest" | "size">, limitBytes = MANIFEST_LIMIT_BYTES): Promise<Uint8Array> {
    if (descriptor.size > limitBytes) throw new OciClientError("invalid", `the blob ${descriptor.digest} of ${name} has ${descriptor.size} bytes, expected at most ${limitBytes}`);
    const bytes = new Uint8Array(descriptor.size);
    let at = 0;
    for await (const piece of this.blob(name, descriptor)) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  /** Nothing is sent when the repository has the blob. An interrupted push resumes. */
  async pushBlob(name: string, blob: BlobSource, options: PushOptions = {}): Promise<PushOutcome> {
    checkName(name);
    if ((await this.blobSize(name, blob.digest)) !== undefined) return "present";
    return pushBlob(this.#session, name, blob, options);
  }

  /** `reference` undefined: by digest, untagged. The blobs it names must be there. */
  async pushManifest(name: string, reference: string | undefined, manifest: { mediaType: string; bytes: Uint8Array }): Promise<{ digest: string; subject: boolean }> {
    const { mediaType, bytes } = manifest;
    const digest = this.#digest(bytes, undefined, "push a manifest");
    const what = `push the manifest ${name}:${reference ?? digest}`;
    const response = await this.#push(name, { method: "PUT", url: `/v2/${name}/manifests/${reference ?? digest}`, headers: { "content-type": mediaType }, body: bytes, expect: [201], what });
    const said = response.headers.get("docker-content-digest");
    if (said !== null && said !== digest) throw new OciClientError("corrupt", `${what}: the registry stored ${said}, sent was ${digest}`);
    await response.body?.cancel();
    const listed = response.headers.get("oci-subject") !== null;
    const view = readManifestView(bytes, mediaType);
    if (view.subject && !listed) await this.#listReferrer(name, view, { digest, size: bytes.length });
    return { digest, subject: listed };
  }

  /** What a registry without the referrers API leaves to its clients (distribution-spec, "Pushing a manifest with a subject field"). */
  async #listReferrer(name: string, { subject, mediaType, artifactType, annotations }: ManifestView, pushed: { digest: string; size: number }): Promise<void> {
    const others = (await this.#fallbackReferrers(name, subject!.digest)).filter(({ digest }) => digest !== pushed.digest);
    const entry = { mediaType, ...pushed, ...(artifactType === undefined ? {} : { artifactType }), ...(annotations ? { annotations } : {}) };
    const index = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [...others, entry] }));
    await this.pushManifest(name, referrersTag(subject!.digest), { mediaType: MEDIA_TYPES.index, bytes: index });
  }

  /** Tags in the registry's order, page by page. */
  async *tags(name: string, pageSize = 100): AsyncGenerator<string, void> {
    let url: string | undefined = `/v2/${name}/tags/list?n=${pageSize}`;
    for (let page = 0; url !== undefined; page++) {
      if (page === MAX_PAGES) throw new OciClientError("protocol", `list the tags of ${name}: ${this.origin} has no last page`);
      const response: Response = await this.#pull(name, { method: "GET", url, expect: [200], what: `list the tags of ${name}` });
      const { tags } = (await this.#json(response, `tags of ${name}`)) as { tags?: string[] | null };
      yield* tags ?? [];
      url = this.#next(response, url);
    }
  }

  /** Manifests whose subject is that digest; by the fallback tag where the registry has no such API (distribution-spec, "Unavailable Referrers API"). */
  async *referrers(name: string, digest: string, artifactType?: string): AsyncGenerator<OciDescriptor, void> {
    const wanted = ({ artifactType: type }: OciDescriptor): boolean => artifactType === undefined || type === artifactType;
    let url: string | undefined = `/v2/${name}/referrers/${digest}${artifactType === undefined ? "" : `?artifactType=${encodeURIComponent(artifactType)}`}`;
    for (let page = 0; url !== undefined; page++) {
      if (page === MAX_PAGES) throw new OciClientError("protocol", `list the referrers of ${digest}: ${this.origin} has no last page`);
      const response: Response = await this.#pull(name, { method: "GET", url, expect: [200, 404], what: `list the referrers of ${digest}` });
      if (response.status === 404) {
        yield* (await this.#fallbackReferrers(name, digest)).filter(wanted);
        return;
      }
      const { bytes } = await readBytes(response, MANIFEST_LIMIT_BYTES);
      yield* readIndex(bytes).manifests.filter(wanted); // filtering is a MAY of the registry's
      url = this.#next(response, url);
    }
  }

  async #fallbackReferrers(name: string, digest: string): Promise<readonly OciDescriptor[]> {
    try {
      const { bytes, mediaType } = await this.manifest(name, referrersTag(digest));
      return isIndexType(mediaType) ? readIndex(bytes).manifests : [];
    } catch (error) {
      if (error instanceof OciClientError && error.problem === "not-found") return [];
      throw error;
    }
  }

  /** Removes a manifest (by digest) or a tag. False: it was not there. */
  async deleteManifest(name: string, reference: string): Promise<boolean> {
    const response = await this.#session.ask({
      method: "DELETE", url: `/v2/${name}/manifests/${reference}`, scope: `repository:${name}:pull,push,delete`, expect: [202, 200, 404], what: `delete ${name}:${reference}`,
    });
    return response.status !== 404;
  }

  #pull(name: string, ask: Omit<Ask, "scope">): Promise<Response> {
    checkName(name);
    return this.#session.ask({ ...ask, scope: `repository:${name}:pull` });
  }
  #push(name: string, ask: Omit<Ask, "scope">): Promise<Response> {
    checkName(name);
    return this.#session.ask({ ...ask, scope: `repository:${name}:pull,push` });
  }

  /** The digest of the bytes, which must be `wanted` where that is given. */
  #digest(bytes: Uint8Array, wanted: string | undefined, what: string): string {
    const algorithm = wanted === undefined ? "sha256" : parseDigest(wanted).algorithm;
    const hash = this.#newHash(algorithm);
    hash.update(bytes);
    const digest = `${algorithm}:${hash.hex()}`;
    if (wanted !== undefined && wanted !== digest) throw new OciClientError("corrupt", `${what}: its bytes have digest ${digest}, expected ${wanted}`);
    return digest;
  }

  async #json(response: Response, what: string): Promise<unknown> {
    const { bytes, whole } = await readBytes(response, MANIFEST_LIMIT_BYTES);
    if (!whole) throw new OciClientError("protocol", `${what}: the answer has more than ${MANIFEST_LIMIT_BYTES} bytes`);
    return readJson(bytes, what);
  }

  #next(response: Response, current: string): string | undefined {
    const next = parseNextLink(response.headers.get("link"));
    return next === undefined ? undefined : new URL(next, new URL(current, this.origin)).href;
  }
}

/** distribution-spec, "Referrers Tag Schema". */
function referrersTag(digest: string): string {
  const { algorithm, encoded } = parseDigest(digest);
  return `${algorithm.slice(0, 32)}-${encoded.slice(0, 64)}`.replaceAll(/[^A-Za-z0-9._-]/g, "-");
}

const typeOf = (response: Response): string => (response.headers.get("content-type") ?? MEDIA_TYPES.manifest).split(";")[0]!.trim();

async function* nothing(): AsyncGenerator<Uint8Array, void> {}

async function* skip(body: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array, void> {
  let left = bytes;
  for await (const piece of body) {
    if (piece.length > left) yield piece.subarray(left);
    left = Math.max(0, left - piece.length);
  }
}
