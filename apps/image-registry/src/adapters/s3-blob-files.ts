import { AwsClient } from "aws4fetch";
import { ContractError } from "@polyvisor/contracts";
import { blobPath, type BlobFiles } from "../core/blob-files.ts";
import { StorageError, type File, type Files } from "../core/files.ts";

export interface S3Options {
  /** Endpoint, bucket and perhaps a prefix: "https://s3.example/bucket/some/prefix" (path style). */
  readonly url: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string | undefined;
}

/** Parts of a multipart upload: S3 wants at least 5 MiB each and at most 10,000 of them; this lets a blob have 160 GB. */
const PART_BYTES = 16 * 1024 * 1024;
const PARTS_AT_ONCE = 3;

/** Blobs as objects of an S3-compatible store. Uploads are gathered and checked in the local directory first, so an object is whole or not there. */
export class S3BlobFiles implements BlobFiles {
  readonly #client: AwsClient;
  readonly #base: string;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #files: Files;

  private constructor(options: S3Options, files: Files) {
    const url = new URL(options.url);
    const [bucket = "", ...prefix] = url.pathname.split("/").filter((part) => part !== "");
    if (bucket === "") throw new ContractError("invalid", `--s3 is "${options.url}", expected endpoint and bucket, such as https://s3.example/bucket`);
    this.#bucket = `${url.origin}/${bucket}`;
    this.#prefix = prefix.length > 0 ? `${prefix.join("/")}/` : "";
    this.#base = `${this.#bucket}/${this.#prefix}`;
    this.#files = files;
    const { accessKeyId, secretAccessKey, sessionToken, region } = options;
    this.#client = new AwsClient({ accessKeyId, secretAccessKey, service: "s3", region, retries: 4, ...(sessionToken ? { sessionToken } : {}) });
  }

  /** Throws when the bucket cannot be read: better now than at the first push. */
  static async connect(options: S3Options, files: Files): Promise<S3BlobFiles> {
    const store = new S3BlobFiles(options, files);
    const answer = await store.#ask("list the bucket", `${store.#bucket}?list-type=2&max-keys=1&prefix=${encodeURIComponent(`${store.#prefix}none/`)}`, { method: "GET" }, [200]);
    await answer.arrayBuffer();
    return store;
  }

  async open(digest: string): Promise<File> {
    const url = this.#base + blobPath(digest);
    const answer = await this.#ask(`look for ${digest}`, url, { method: "HEAD" }, [200, 404]);
    if (answer.status === 404) throw new StorageError("not-found", `${digest} is not in ${this.#bucket}`);
    const bytes = Number(answer.headers.get("content-length"));
    return new S3File(bytes, async (first, last) => {
      const part = await this.#ask(`read ${digest}`, url, { method: "GET", headers: { range: `bytes=${first}-${last}` } }, [206]);
      return new Uint8Array(await part.arrayBuffer());
    });
  }

  async adopt(scratch: string, digest: string): Promise<void> {
    const file = await this.#files.open(scratch, "read");
    const url = this.#base + blobPath(digest);
    try {
      if (file.bytes <= PART_BYTES) await this.#put(url, await piece(file, 0, file.bytes));
      else await this.#putInParts(url, file);
    } finally {
      await file.close();
    }
    await this.#files.remove(scratch);
  }

  async remove(digest: string): Promise<void> {
    await this.#ask(`remove ${digest}`, this.#base + blobPath(digest), { method: "DELETE" }, [200, 204, 404]);
  }

  async quarantine(digest: string, aside: string): Promise<void> {
    const source = new URL(this.#base + blobPath(digest)).pathname;
    await this.#ask(`copy ${digest}`, this.#base + aside, { method: "PUT", headers: { "x-amz-copy-source": source } }, [200]);
    await this.remove(digest);
  }

  async *list(): AsyncGenerator<{ digest: string; bytes: number; changedUnixMs: number }, void> {
    for (let token: string | undefined = ""; token !== undefined; ) {
      const query = new URLSearchParams({ "list-type": "2", prefix: `${this.#prefix}blobs/sha256/`, ...(token === "" ? {} : { "continuation-token": token }) });
      const answer: Response = await this.#ask("list the bucket", `${this.#bucket}?${query}`, { method: "GET" }, [200]);
      const xml: string = await answer.text();
      for (const [, entry = ""] of xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
        const hex = /\/([0-9a-f]{64})$/.exec(element(entry, "Key") ?? "")?.[1];
        if (hex) yield { digest: `sha256:${hex}`, bytes: Number(element(entry, "Size")), changedUnixMs: Date.parse(element(entry, "LastModified") ?? "") || Date.now() };
      }
      token = element(xml, "IsTruncated") === "true" ? element(xml, "NextContinuationToken") : undefined;
    }
  }

  async #put(url: string, body: Uint8Array<ArrayBuffer>): Promise<Response> {
    return this.#ask("store a blob", url, { method: "PUT", body, headers: { "content-length": String(body.length) } }, [200]);
  }

  /** Multipart upload: the object appears with the last call, or not at all. */
  async #putInParts(url: string, file: File): Promise<void> {
    const begun = await (await this.#ask("begin a multipart upload", `${url}?uploads`, { method: "POST" }, [200])).text();
    const id = encodeURIComponent(element(begun, "UploadId") ?? "");
    try {
      const count = Math.ceil(file.bytes / PART_BYTES);
      const tags = Array.from({ length: count }, () => "");
      const parts = Array.from({ length: count }, (_, i) => i).values();
      const work = async (): Promise<void> => {
        for (const i of parts) {
          const at = i * PART_BYTES;
          const body = await piece(file, at, Math.min(PART_BYTES, file.bytes - at));
          const answer = await this.#put(`${url}?partNumber=${i + 1}&uploadId=${id}`, body);
          tags[i] = answer.headers.get("etag") ?? "";
        }
      };
      await Promise.all(Array.from({ length: PARTS_AT_ONCE }, work));
      const list = tags.map((tag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${tag}</ETag></Part>`).join("");
      const end = await this.#ask("end a multipart upload", `${url}?uploadId=${id}`, { method: "POST", body: `<CompleteMultipartUpload>${list}</CompleteMultipartUpload>` }, [200]);
      // This call may fail after its status has been sent (S3 API, CompleteMultipartUpload).
      const said = await end.text();
      if (said.includes("<Error>")) throw new StorageError("io", `end a multipart upload: ${element(said, "Code") ?? ""} ${element(said, "Message") ?? ""}`);
    } catch (error) {
      await this.#ask("abort a multipart upload", `${url}?uploadId=${id}`, { method: "DELETE" }, [204, 404]).catch(() => {});
      throw error;
    }
  }

  async #ask(what: string, url: string, init: RequestInit, expect: readonly number[]): Promise<Response> {
    let answer: Response;
    try {
      answer = await this.#client.fetch(url, init);
    } catch (cause) {
      const reason = (cause as { cause?: { code?: string } }).cause?.code ?? (cause as Error).message;
      throw new StorageError("io", `${what}: ${this.#bucket} cannot be reached (${reason})`, { cause });
    }
    if (expect.includes(answer.status)) return answer;
    const said = (await answer.text()).slice(0, 2000);
    const code = element(said, "Code") ?? "";
    const problem = answer.status === 507 || /QuotaExceeded|StorageFull/i.test(code) ? "no-space" : "io";
    throw new StorageError(problem, `${what}: ${this.#bucket} answered ${answer.status} ${code} ${element(said, "Message") ?? ""}`.trimEnd());
  }
}

async function piece(file: File, at: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const data = new Uint8Array(bytes);
  await file.read(at, data);
  return data;
}

/** Text of the first element of that name; S3's answers have no attributes on those that we read. */
function element(xml: string, name: string): string | undefined {
  const text = new RegExp(`<${name}>(.*?)</${name}>`, "s").exec(xml)?.[1];
  return text?.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&apos;", "'").replaceAll("&amp;", "&");
}

/** An object, read by ranges. */
class S3File implements File {
  readonly bytes: number;
  readonly #get: (first: number, last: number) => Promise<Uint8Array>;

  constructor(bytes: number, get: (first: number, last: number) => Promise<Uint8Array>) {
    this.bytes = bytes;
    this.#get = get;
  }

  async read(position: number, target: Uint8Array): Promise<void> {
    const end = Math.min(this.bytes, position + target.length);
    if (end > position) {
      const part = await this.#get(position, end - 1);
      if (part.length !== end - position) throw new StorageError("io", `a range of ${end - position} bytes came with ${part.length}`);
      target.set(part);
    }
    target.fill(0, Math.max(0, end - position));
  }
  async allocatedBytes(): Promise<number> {
    return this.bytes;
  }
  async sync(): Promise<void> {}
  async close(): Promise<void> {}
  readNow(): boolean {
    return false;
  }
  writeNow(): boolean {
    return false;
  }
  syncNow(): boolean {
    return true;
  }
  async write(): Promise<void> {
    throw new StorageError("io", "an object does not change");
  }
  async writeAll(): Promise<void> {
    await this.write();
  }
  async truncate(): Promise<void> {
    await this.write();
  }
}
