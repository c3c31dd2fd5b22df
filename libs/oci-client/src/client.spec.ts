import { createHash } from "node:crypto";
import { MEDIA_TYPES } from "@polyvisor/image-spec";
import { describe, expect, it } from "vitest";
import { OciClient, type OciClientOptions } from "./index.ts";

const ORIGIN = "https://registry.example";
const sha = (data: Uint8Array | string): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
const DATA = new Uint8Array(1000).map((_, i) => i & 0xff);

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

/** A client whose registry is the function; `seen` is what it was asked. */
function clientOf(answer: (request: Seen, count: number) => Response, options: Partial<OciClientOptions> = {}): { client: OciClient; seen: Seen[] } {
  const seen: Seen[] = [];
  const scripted = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const request = { method: init.method ?? "GET", url: String(input), headers: init.headers as Record<string, string>, body: (init.body ?? new Uint8Array(0)) as Uint8Array };
    seen.push(request);
    return answer(request, seen.length);
  };
  const newHash: OciClientOptions["newHash"] = (algorithm) => {
    const hash = createHash(algorithm);
    return { update: (data) => void hash.update(data), hex: () => hash.digest("hex") };
  };
  return { client: new OciClient({ origin: ORIGIN, fetch: scripted, newHash, ...options }), seen };
}

const text = (status: number, body: string | null, headers: Record<string, string> = {}): Response => new Response(body, { status, headers });
async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source) pieces.push(piece);
  return Buffer.concat(pieces);
}
async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}
/** A body that breaks after the bytes. */
const broken = (data: Uint8Array, status: number): Response => {
  let sent = false;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent) controller.error(new Error("socket hang up"));
      else controller.enqueue(data);
      sent = true;
    },
  });
  return new Response(body, { status });
};

describe("authorization", () => {
  it("Bearer challenge → a token for the scope, kept for the next request, credentials only to the realm", async () => {
    const { client, seen } = clientOf(
      ({ url, headers }) => {
        if (url.startsWith("https://auth.example/token")) return text(200, JSON.stringify({ token: "t1", expires_in: 300 }));
        return headers["authorization"] === "Bearer t1"
          ? text(200, JSON.stringify({ name: "web", tags: ["a"] }))
          : text(401, null, { "www-authenticate": 'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:web:pull"' });
      },
      { credentials: { username: "ann", password: "pä:ss" } },
    );
    expect(await all(client.tags("web"))).toEqual(["a"]);
    expect(await all(client.tags("web"))).toEqual(["a"]);
    expect(seen.map(({ url }) => new URL(url).host)).toEqual(["registry.example", "auth.example", "registry.example", "registry.example"]);
    const token = seen[1]!;
    expect(new URL(token.url).search).toBe("?service=registry.example&scope=repository%3Aweb%3Apull");
    expect(Buffer.from(token.headers["authorization"]!.slice(6), "base64").toString()).toBe("ann:pä:ss");
    expect(seen.filter(({ headers }) => headers["authorization"]?.startsWith("Basic"))).toHaveLength(1);
  });
  it("Basic challenge without credentials → an error that says what to do; with wrong ones → refused once, no loop", async () => {
    const refuse = (): Response => text(401, null, { "www-authenticate": 'Basic realm="x"' });
    await expect(clientOf(refuse).client.check()).rejects.toMatchObject({ problem: "unauthorized", message: expect.stringContaining("docker login") });
    const { client, seen } = clientOf(refuse, { credentials: { username: "a", password: "b" } });
    await expect(client.check()).rejects.toMatchObject({ problem: "unauthorized" });
    expect(seen).toHaveLength(2);
  });
  it("a https registry that wants the token from a http realm → refused", async () => {
    const { client } = clientOf(() => text(401, null, { "www-authenticate": 'Bearer realm="http://evil.example/t"' }), { credentials: { username: "a", password: "b" } });
    await expect(client.check()).rejects.toThrow(/not https/);
  });
});

describe("reading", () => {
  it("bytes that do not have the digest → corrupt, for manifests and blobs", async () => {
    const { client } = clientOf(() => text(200, "{}", { "content-type": MEDIA_TYPES.manifest }));
    await expect(client.manifest("web", sha("else"))).rejects.toMatchObject({ problem: "corrupt" });
    await expect(collect(client.blob("web", { digest: sha("xx"), size: 2 }))).rejects.toMatchObject({ problem: "corrupt" });
    await expect(collect(client.blob("web", { digest: sha("x"), size: 1 }))).rejects.toThrow(/more than the 1 bytes/);
  });
  it("a manifest above the limit → refused without reading it to its end", async () => {
    const endless = new ReadableStream<Uint8Array>({ pull: (controller) => controller.enqueue(new Uint8Array(1 << 20)) });
    await expect(clientOf(() => new Response(endless)).client.manifest("web", "latest")).rejects.toThrow(/which no manifest may/);
  });
  it("connection lost in a blob → goes on with a range where it stopped; a registry that ignores it is skipped over", async () => {
    for (const ranges of [true, false]) {
      const { client, seen } = clientOf(({ headers }, count) => {
        if (count === 1) return broken(DATA.subarray(0, 300), 200);
        if (count === 2) return ranges ? broken(DATA.subarray(300, 450), 206) : broken(DATA.subarray(0, 450), 200);
        expect(headers["range"]).toBe("bytes=450-");
        return ranges ? new Response(DATA.subarray(450), { status: 206 }) : new Response(DATA);
      });
      expect(await collect(client.blob("web", { digest: sha(DATA), size: DATA.length }))).toEqual(Buffer.from(DATA));
      expect(seen).toHaveLength(3);
    }
  });
  it("tags → page after page by Link, relative or absolute", async () => {
    const { client } = clientOf(({ url }) => {
      const last = new URL(url).searchParams.get("last");
      if (last === null) return text(200, '{"tags":["a","b"]}', { link: '</v2/web/tags/list?n=2&last=b>; rel="next"' });
      return last === "b" ? text(200, '{"tags":["c"]}', { link: `<${ORIGIN}/v2/web/tags/list?last=c>; rel=next` }) : text(200, '{"tags":null}');
    });
    expect(await all(client.tags("web", 2))).toEqual(["a", "b", "c"]);
  });
  it("no referrers API → the fallback tag's index, filtered here", async () => {
    const digest = sha("subject");
    const entry = (artifactType: string): object => ({ mediaType: MEDIA_TYPES.manifest, digest: sha(artifactType), size: 2, artifactType });
    const index = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [entry("application/a"), entry("application/b")] });
    const { client } = clientOf(({ url }) =>
      url.endsWith(`/manifests/${digest.replace(":", "-")}`) ? text(200, index, { "content-type": MEDIA_TYPES.index }) : text(404, null),
    );
    expect((await all(client.referrers("web", digest, "application/b"))).map(({ digest: each }) => each)).toEqual([sha("application/b")]);
    expect(await all(client.referrers("web", sha("other")))).toEqual([]);
  });
  it("503 with Retry-After, then 200 → waits and succeeds; 404 is no failure to repeat", async () => {
    const { client, seen } = clientOf((_, count) => (count === 1 ? text(503, null, { "retry-after": "0" }) : text(404, "{}")));
    expect(await client.resolve("web", "x")).toBeUndefined();
    expect(seen).toHaveLength(2);
  });
  it("an error body → its code and message in ours", async () => {
    const { client } = clientOf(() => text(404, '{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}'));
    await expect(client.manifest("web", "x")).rejects.toThrow("read the manifest web:x: https://registry.example answered 404: NAME_UNKNOWN, no such thing");
  });
});

describe("pushing a blob", () => {
  const BIG = new Uint8Array(20 * 1024 * 1024).map((_, i) => (i * 7) & 0xff);
  const blob = { digest: sha(BIG), size: BIG.length, open: async function* (offset: number) {
    for (let at = offset; at < BIG.length; at += 3_000_000) yield BIG.subarray(at, Math.min(BIG.length, at + 3_000_000));
  } };
  /** A registry of one upload that fails as told. */
  function uploads(fail: (request: Seen, received: number) => "before" | "after" | undefined): { client: OciClient; received: () => Uint8Array; seen: Seen[] } {
    let data = new Uint8Array(0);
    let done = false;
    const { client, seen } = clientOf(({ method, url, body, headers }) => {
      const location = { location: `/v2/web/blobs/uploads/1?at=${data.length}` };
      if (method === "HEAD") return new Response(null, { status: done ? 200 : 404 });
      if (method === "POST") return text(202, null, location);
      if (method === "GET") return done ? text(404, null) : text(204, null, { ...location, range: `0-${Math.max(0, data.length - 1)}` });
      const range = /^(\d+)-(\d+)$/.exec(headers["content-range"] ?? `${data.length}-${data.length + body.length - 1}`)!;
      if (Number(range[1]) !== data.length) return text(416, null);
      const when = fail({ method, url, headers, body }, data.length);
      if (when === "before") throw new TypeError("fetch failed");
      data = Buffer.concat([data, body]);
      done ||= method === "PUT";
      if (when === "after") throw new TypeError("fetch failed");
      return method === "PUT" ? text(201, null) : text(202, null, { location: `/v2/web/blobs/uploads/1?at=${data.length}` });
    });
    return { client, received: () => data, seen };
  }

  it("in chunks with Content-Range; each goes to the Location of the one before", async () => {
    const { client, received, seen } = uploads(() => undefined);
    expect(await client.pushBlob("web", blob)).toBe("pushed");
    expect(sha(received())).toBe(blob.digest);
    expect(seen.map(({ method, headers }) => `${method} ${headers["content-range"] ?? ""}`.trim())).toEqual([
      "HEAD", "POST", "PATCH 0-8388607", "PATCH 8388608-16777215", "PUT 16777216-20971519",
    ]);
    expect(seen[3]!.url).toBe(`${ORIGIN}/v2/web/blobs/uploads/1?at=8388608`);
    expect(new URL(seen[4]!.url).searchParams.get("digest")).toBe(blob.digest);
  });
  it.each(["before", "after"] as const)("connection lost %s a chunk arrived → asks where it stands and goes on", async (when) => {
    let left = 2;
    const { client, received } = uploads((_, at) => (at > 0 && left-- > 0 ? when : undefined));
    expect(await client.pushBlob("web", blob)).toBe("pushed");
    expect(sha(received())).toBe(blob.digest);
  });
  it("the last answer is lost, the session is over → the blob is there, so it is pushed", async () => {
    const { client } = uploads(({ method }) => (method === "PUT" ? "after" : undefined));
    expect(await client.pushBlob("web", blob)).toBe("pushed");
  });
  it("mount → 201 sends nothing", async () => {
    const { client, seen } = clientOf(({ method }) => text(method === "POST" ? 201 : 404, null));
    expect(await client.pushBlob("web", blob, { mountFrom: "base" })).toBe("mounted");
    expect(seen[1]!.url).toContain(`?mount=${encodeURIComponent(blob.digest)}&from=base`);
  });
  it("a source that is shorter than its descriptor says → corrupt, and the upload is cancelled", async () => {
    const { client, seen } = clientOf(({ method }) => (method === "POST" ? text(202, null, { location: "/u/1" }) : text(404, null)));
    await expect(client.pushBlob("web", { digest: sha("x"), size: 9, open: async function* () { yield new Uint8Array(3); } })).rejects.toMatchObject({ problem: "corrupt" });
    expect(seen.at(-1)!.method).toBe("DELETE");
  });
});
