import { parseContentRange } from "@polyvisor/image-spec";
import { OciClientError } from "./oci-client-error.ts";
import { pause, type Session } from "./session.ts";

/** A blob's bytes, to be had from any offset: an interrupted push goes on where the registry says it stands. */
export interface BlobSource {
  readonly digest: string;
  readonly size: number;
  open(offset: number): AsyncIterable<Uint8Array> | Promise<AsyncIterable<Uint8Array>>;
}

export interface PushOptions {
  /** Another repository of the same registry that may have the blob (distribution-spec, "Mounting a blob from another repository"). */
  readonly mountFrom?: string;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export type PushOutcome = "present" | "mounted" | "pushed";

/** A chunk: large enough that its round trip vanishes, small enough to send again. */
const CHUNK_BYTES = 8 * 1024 * 1024;
const RESUMES = 6;

/** Pushes one blob: mounted if possible, else in one request if it is small, else in chunks that can be resumed. */
export async function pushBlob(session: Session, name: string, blob: BlobSource, options: PushOptions): Promise<PushOutcome> {
  const what = `push the blob ${blob.digest} to ${name}`;
  const scope = options.mountFrom ? `repository:${name}:pull,push repository:${options.mountFrom}:pull` : `repository:${name}:pull,push`;
  const query = options.mountFrom ? `?mount=${encodeURIComponent(blob.digest)}&from=${encodeURIComponent(options.mountFrom)}` : "";
  const begun = await session.ask({ method: "POST", url: `/v2/${name}/blobs/uploads/${query}`, scope, headers: { "content-length": "0" }, expect: [201, 202], what });
  await begun.body?.cancel();
  if (begun.status === 201) return "mounted";
  const minimum = Number(begun.headers.get("oci-chunk-min-length") ?? 0) || 0;
  const upload = new Upload(session, scope, what, locationOf(begun, session.origin, what));
  try {
    for (let failures = 0; ; ) {
      try {
        await sendFrom(upload, blob, Math.max(CHUNK_BYTES, minimum), options.onProgress);
        return "pushed";
      } catch (error) {
        if (++failures > RESUMES || !(error instanceof OciClientError) || !mayResume(error)) throw error;
        await pause(failures);
        // The session is gone: it may have ended well, and only the answer got lost.
        if (!(await upload.askWhere())) {
          const found = await session.ask({ method: "HEAD", url: `/v2/${name}/blobs/${blob.digest}`, scope, expect: [200, 404], what });
          if (found.status === 404) throw error;
          return "pushed";
        }
      }
    }
  } catch (error) {
    await upload.cancel();
    throw error;
  }
}

const mayResume = ({ problem, status }: OciClientError): boolean => problem === "unavailable" || status === 416;

async function sendFrom(upload: Upload, blob: BlobSource, chunkBytes: number, onProgress: PushOptions["onProgress"]): Promise<void> {
  // Memory stays at one chunk; the last one goes with the closing PUT.
  let chunk = new Uint8Array(Math.min(chunkBytes, Math.max(0, blob.size - upload.offset)));
  let filled = 0;
  const source = upload.offset < blob.size || blob.size === 0 ? await blob.open(upload.offset) : [];
  let position = upload.offset;
  for await (const piece of source) {
    position += piece.length;
    if (position > blob.size) throw new OciClientError("corrupt", `${upload.what}: its source has more than the ${blob.size} bytes that its descriptor says`);
    for (let at = 0; at < piece.length; ) {
      if (filled === chunk.length) {
        await upload.patch(chunk);
        onProgress?.(upload.offset, blob.size);
        chunk = new Uint8Array(Math.min(chunkBytes, blob.size - upload.offset));
        filled = 0;
      }
      const part = piece.subarray(at, at + chunk.length - filled);
      chunk.set(part, filled);
      filled += part.length;
      at += part.length;
    }
  }
  if (upload.offset + filled !== blob.size) throw new OciClientError("corrupt", `${upload.what}: its source ended after ${upload.offset + filled} of ${blob.size} bytes`);
  await upload.finish(blob.digest, chunk.subarray(0, filled));
  onProgress?.(blob.size, blob.size);
}

/** An upload session at the registry (distribution-spec, "Pushing a blob in chunks"). */
class Upload {
  readonly what: string;
  offset = 0;
  readonly #session: Session;
  readonly #scope: string;
  #location: URL;

  constructor(session: Session, scope: string, what: string, location: URL) {
    this.#session = session;
    this.#scope = scope;
    this.what = what;
    this.#location = location;
  }

  async patch(chunk: Uint8Array): Promise<void> {
    const end = this.offset + chunk.length;
    const response = await this.#ask("PATCH", this.#location, chunk, { "content-range": `${this.offset}-${end - 1}` }, [202]);
    this.#location = locationOf(response, this.#session.origin, this.what, this.#location);
    this.offset = end;
  }

  async finish(digest: string, rest: Uint8Array): Promise<void> {
    const url = new URL(this.#location);
    url.searchParams.set("digest", digest);
    const range = this.offset > 0 && rest.length > 0 ? { "content-range": `${this.offset}-${this.offset + rest.length - 1}` } : undefined;
    await this.#ask("PUT", url, rest, range, [201, 204]);
  }

  /** Where the registry stands; what was on its way may have arrived or not. False: it knows no such upload. */
  async askWhere(): Promise<boolean> {
    const response = await this.#session.ask({ method: "GET", url: this.#location, scope: this.#scope, expect: [204, 404], what: `${this.what}: ask how far it is` });
    await response.body?.cancel();
    if (response.status === 404) return false;
    this.#location = locationOf(response, this.#session.origin, this.what, this.#location);
    const range = response.headers.get("range");
    // "0-0" is what an empty session and one with a single byte both look like: begin again, a registry refuses what it has.
    const last = range === null ? 0 : parseContentRange(range).last;
    this.offset = last === 0 ? 0 : last + 1;
    return true;
  }

  async cancel(): Promise<void> {
    await this.#session.ask({ method: "DELETE", url: this.#location, scope: this.#scope, expect: [204, 202, 200, 404, 405], what: this.what, repeatable: false }).catch(() => {});
  }

  async #ask(method: "PATCH" | "PUT", url: URL, body: Uint8Array, range: Record<string, string> | undefined, expect: number[]): Promise<Response> {
    const headers = { "content-type": "application/octet-stream", "content-length": String(body.length), ...range };
    const response = await this.#session.ask({ method, url, scope: this.#scope, headers, body, expect, what: this.what, repeatable: false });
    await response.body?.cancel();
    return response;
  }
}

/** Location of an answer, absolute. `fallback`: what it was before, for registries that do not repeat it. */
function locationOf(response: Response, origin: string, what: string, fallback?: URL): URL {
  const location = response.headers.get("location");
  if (location === null) {
    if (fallback) return fallback;
    throw new OciClientError("protocol", `${what}: the registry ${origin} began an upload without a Location`);
  }
  return new URL(location, response.url || origin);
}
