import { createHash } from "node:crypto";
import { readdirSync, statSync, truncateSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { MEDIA_TYPES, INDEX_DEPTH_LIMIT } from "@polyvisor/image-spec";
import { Box } from "@polyvisor/contracts/image";
import { testContext } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { listenHttp } from "./adapters/http-listener.ts";
import { startRegistry, type TestRegistry } from "./testing/registry.ts";

const sha = (data: Uint8Array | string): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);
const noise = (length: number, seed = 1): Uint8Array<ArrayBuffer> => new Uint8Array(length).map((_, i) => (i * 31 + (i >> 7) * seed) & 0xff);
const OCTETS = { "content-type": "application/octet-stream" };

async function begin({ url }: TestRegistry, name = "web"): Promise<string> {
  const response = await fetch(`${url}/v2/${name}/blobs/uploads/`, { method: "POST" });
  expect(response.status).toBe(202);
  return url + response.headers.get("location")!;
}
const push = (registry: TestRegistry, data: Uint8Array, name = "web") =>
  registry.client.pushBlob(name, { digest: sha(data), size: data.length, open: async function* (offset) { yield data.subarray(offset); } });
async function pushManifest(registry: TestRegistry, tag: string | undefined, content: object, name = "web"): Promise<string> {
  const bytes = text(JSON.stringify(content));
  return (await registry.client.pushManifest(name, tag, { mediaType: (content as { mediaType: string }).mediaType, bytes })).digest;
}
const manifestOf = (config: Uint8Array, layers: Uint8Array[], extra: object = {}): { mediaType: string } => ({
  schemaVersion: 2, mediaType: MEDIA_TYPES.manifest,
  config: { mediaType: MEDIA_TYPES.config, digest: sha(config), size: config.length },
  layers: layers.map((each) => ({ mediaType: "application/x", digest: sha(each), size: each.length })), ...extra,
} as { mediaType: string });
const filesIn = (root: string, folder: string): string[] => {
  try {
    return readdirSync(join(root, folder), { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name));
  } catch {
    return [];
  }
};
const status = async (input: string, init?: RequestInit): Promise<number> => {
  const response = await fetch(input, init);
  await response.arrayBuffer();
  return response.status;
};
/** Sends raw bytes and reads what comes until the server closes or `untilMs` passes. */
function raw(url: string, bytes: string, then: (socket: ReturnType<typeof connect>) => void = () => {}): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    let seen = "";
    const socket = connect(Number(port), hostname, () => {
      socket.write(bytes);
      then(socket);
    });
    socket.on("data", (piece) => (seen += piece));
    socket.on("error", () => {});
    socket.on("close", () => resolve(seen));
  });
}

describe("uploads", () => {
  it("a service that restarts in the middle of an upload → it goes on where it was, and is checked as a whole", async () => {
    await using registry = await startRegistry();
    const data = noise(300_000);
    const location = await begin(registry);
    const first = await fetch(location, { method: "PATCH", headers: { ...OCTETS, "content-range": "0-199999" }, body: data.subarray(0, 200_000) });
    expect(first.headers.get("range")).toBe("0-199999");
    await using again = await registry.restart();
    const path = new URL(location).pathname;
    const where = await fetch(again.url + path);
    expect([where.status, where.headers.get("range")]).toEqual([204, "0-199999"]);
    const end = await fetch(`${again.url}${path}?digest=${sha(data)}`, { method: "PUT", headers: { ...OCTETS, "content-range": "200000-299999" }, body: data.subarray(200_000) });
    expect(end.status).toBe(201);
    expect(Buffer.from(await (await fetch(`${again.url}/v2/web/blobs/${sha(data)}`)).arrayBuffer()).equals(data)).toBe(true);
    expect(filesIn(again.root, "uploads")).toEqual([]);
  });

  it("a connection that dies in a chunk → what arrived is kept, the rest is sent from there", async () => {
    await using registry = await startRegistry();
    const data = noise(100_000);
    const location = await begin(registry);
    const { pathname, host } = new URL(location);
    const head = `PATCH ${pathname} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/octet-stream\r\nContent-Range: 0-99999\r\nContent-Length: 100000\r\n\r\n`;
    const sent = raw(registry.url, head, (socket) => socket.write(data.subarray(0, 60_000), () => setTimeout(() => socket.destroy(), 100)));
    await sent;
    let range = "0-0";
    while (range !== "0-59999") range = (await fetch(location)).headers.get("range")!;
    expect(await status(`${location}?digest=${sha(data)}`, { method: "PUT", headers: { ...OCTETS, "content-range": "60000-99999" }, body: data.subarray(60_000) })).toBe(201);
  });

  it("a client that comes back while its old connection hangs → takes the upload over; the old one ends", async () => {
    await using registry = await startRegistry();
    const data = noise(100_000);
    const location = await begin(registry);
    const { pathname, host } = new URL(location);
    const hanging = raw(registry.url, `PATCH ${pathname} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 100000\r\n\r\n`, (socket) => socket.write(data.subarray(0, 40_000)));
    while ((await fetch(location)).headers.get("range") !== "0-39999") await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await status(`${location}?digest=${sha(data)}`, { method: "PUT", headers: { ...OCTETS, "content-range": "40000-99999" }, body: data.subarray(40_000) })).toBe(201);
    await hanging;
  });

  it("a wrong digest, a too long chunk, a cancelled upload → no file stays", async () => {
    await using registry = await startRegistry();
    expect(await status(`${await begin(registry)}?digest=${sha("else")}`, { method: "PUT", headers: OCTETS, body: noise(5000) })).toBe(400);
    const location = await begin(registry);
    expect(await status(location, { method: "PATCH", headers: { ...OCTETS, "content-range": "0-9" }, body: noise(5000) })).toBe(400);
    expect(await status(location, { method: "DELETE" })).toBe(204);
    expect(filesIn(registry.root, "uploads")).toEqual([]);
    expect(filesIn(registry.root, "blobs")).toEqual([]);
  });

  it("32 clients at once with the same and with different blobs → all stored, each whole", { timeout: 60_000 }, async () => {
    await using registry = await startRegistry();
    const common = noise(400_000);
    await Promise.all(
      Array.from({ length: 32 }, async (_, i) => {
        const own = noise(50_000 + i, i + 2);
        await push(registry, common, `r${i % 4}/web`);
        await push(registry, own, `r${i % 4}/web`);
        await pushManifest(registry, `t${i}`, manifestOf(own, [common]), `r${i % 4}/web`);
      }),
    );
    for (let i = 0; i < 32; i++) {
      const { bytes } = await registry.client.manifest(`r${i % 4}/web`, `t${i}`);
      const { config } = JSON.parse(new TextDecoder().decode(bytes)) as { config: { digest: string; size: number } };
      await registry.client.smallBlob(`r${i % 4}/web`, config);
    }
    expect(filesIn(registry.root, "blobs")).toHaveLength(1 + 32 + 32);
    expect(filesIn(registry.root, "uploads")).toEqual([]);
  });

  it("a blob above the limit, a push above a quota → 413, 403 that says what to do; nothing stays", async () => {
    await using registry = await startRegistry({ maxBlobBytes: 100_000, repositoryQuotaBytes: 150_000, quotaBytes: 220_000 });
    expect(await status(`${await begin(registry)}?digest=${sha(noise(100_001))}`, { method: "PUT", headers: OCTETS, body: noise(100_001) })).toBe(413);
    await push(registry, noise(90_000, 5), "a");
    await expect(push(registry, noise(90_000, 6), "a")).rejects.toMatchObject({ problem: "denied", message: expect.stringContaining("hv registry gc") });
    await push(registry, noise(90_000, 7), "b");
    await expect(push(registry, noise(90_000, 8), "c")).rejects.toMatchObject({ problem: "denied" });
    expect(filesIn(registry.root, "blobs")).toHaveLength(2);
  });
});

describe("bad input over HTTP", () => {
  it.each([
    "/v2/../../etc/passwd/blobs/sha256:abc", "/v2/%2e%2e/%2e%2e/tags/list", "/v2/a/blobs/uploads/..%2f..%2fcatalogue.sqlite", "/v2/a%00b/tags/list", "/v2/%ff/tags/list", "/v2/a/blobs/sha256:..%2f..%2fx",
  ])("GET %s → 4xx, no file", async (path) => {
    await using registry = await startRegistry();
    const answer = await raw(registry.url, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(answer).toMatch(/"errors":/);
  });
  it("huge headers → 431, rubbish → 400, each with a body that says so; the service goes on", async () => {
    await using registry = await startRegistry();
    expect(await raw(registry.url, `GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(100_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 [\s\S]*"errors":/);
    expect(await raw(registry.url, "\x16\x03\x01 rubbish\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 [\s\S]*"errors":/);
    expect(await status(`${registry.url}/v2/`)).toBe(200);
  });
  it("a head that drips in, a body that stops → cut off, while a slow body that moves is served; nothing hangs", async () => {
    const received: number[] = [];
    const listener = await listenHttp({
      address: "127.0.0.1:0", tlsCert: "", tlsKey: "", log: testContext().log, timeouts: { headMs: 400, idleMs: 1_500 },
      handle: async ({ body }) => {
        let bytes = 0;
        for await (const piece of body) bytes += piece.length;
        received.push(bytes);
        return { status: 200, headers: {}, bytes: 0 };
      },
    });
    const drip = (socket: ReturnType<typeof connect>, text: string, everyMs: number): void => {
      let at = 0;
      const timer = setInterval(() => (socket.destroyed || at === text.length ? clearInterval(timer) : socket.write(text[at++]!)), everyMs);
    };
    try {
      expect(await raw(listener.url, "GET /v2/ HTTP/1.1\r\nX: ", (socket) => drip(socket, "y".repeat(1000), 50))).toMatch(/^HTTP\/1\.1 408 /);
      await raw(listener.url, "PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12");
      expect(received).toEqual([]);
      const slow = "PUT /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 20\r\n\r\n";
      expect(await raw(listener.url, slow, (socket) => drip(socket, "x".repeat(20), 100))).toMatch(/^HTTP\/1\.1 200 /);
      expect(received).toEqual([20]);
    } finally {
      await listener.close();
    }
  });
  it("a manifest without end, in a chunked body → 413 after 4 MiB", async () => {
    await using registry = await startRegistry();
    const piece = "x".repeat(65_536);
    const answer = await raw(registry.url, "PUT /v2/a/manifests/t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", (socket) => {
      const more = (): void => {
        while (!socket.destroyed && socket.write(`10000\r\n${piece}\r\n`));
      };
      socket.on("drain", more);
      more();
    });
    expect(answer === "" || answer.startsWith("HTTP/1.1 413 ")).toBe(true); // a reset may overtake the answer
    expect(await status(`${registry.url}/v2/`)).toBe(200);
  });
  it("a compressed body is bytes like any other: nothing is inflated", async () => {
    await using registry = await startRegistry();
    const response = await fetch(`${registry.url}/v2/a/manifests/t`, { method: "PUT", headers: { "content-encoding": "gzip", "content-type": MEDIA_TYPES.manifest }, body: new Uint8Array([0x1f, 0x8b, 8, 0]) });
    expect(response.status).toBe(400);
  });
  it("an index of an index of … → refused at the limit; one that names itself cannot be made", async () => {
    await using registry = await startRegistry();
    const config = text("{}");
    await push(registry, config);
    let child = { digest: await pushManifest(registry, undefined, manifestOf(config, [])), size: JSON.stringify(manifestOf(config, [])).length, mediaType: MEDIA_TYPES.manifest as string };
    const put = async (): Promise<void> => {
      const index = { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [child] };
      child = { digest: await pushManifest(registry, undefined, index), size: JSON.stringify(index).length, mediaType: MEDIA_TYPES.index };
    };
    for (let depth = 0; depth < INDEX_DEPTH_LIMIT; depth++) await put();
    await expect(put()).rejects.toThrow(/MANIFEST_INVALID.*levels deep/);
    const own = { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [{ ...child, digest: sha("not yet known") }] };
    await expect(pushManifest(registry, undefined, own)).rejects.toThrow(/MANIFEST_BLOB_UNKNOWN/);
  });
  it("a blob whose file is lost → 404 for HEAD and GET, so that clients push it again, which heals", async () => {
    await using registry = await startRegistry();
    const data = noise(1000);
    await push(registry, data);
    const [file] = filesIn(registry.root, "blobs");
    (await import("node:fs")).rmSync(file!);
    expect(await registry.client.blobSize("web", sha(data))).toBeUndefined();
    expect(await status(`${registry.url}/v2/web/blobs/${sha(data)}`)).toBe(404);
    expect(await push(registry, data)).toBe("pushed");
    expect(await status(`${registry.url}/v2/web/blobs/${sha(data)}`)).toBe(200);
  });
  it("a manifest whose file is damaged → 500 that names it, and pushing it again heals", async () => {
    await using registry = await startRegistry();
    const config = text("{}");
    await push(registry, config);
    await pushManifest(registry, "t", manifestOf(config, []));
    await using again = await registry.restart();
    truncateSync(filesIn(again.root, "blobs").find((file) => statSync(file).size > 100)!, 50);
    expect(await status(`${again.url}/v2/web/manifests/t`)).toBe(500);
    await pushManifest(again, "t", manifestOf(config, []));
    expect(await status(`${again.url}/v2/web/manifests/t`)).toBe(200);
  });
});

describe("boxes and images are the same", () => {
  it("a box that was put over gRPC → pulled over HTTP; one pushed over HTTP → resolved over gRPC; an image is no box", async () => {
    await using registry = await startRegistry();
    const kernel = noise(5000);
    await push(registry, kernel, "from");
    await registry.port.putBox({ box: Box.fromPartial({ name: "debian/tiny", tag: "1", kernel: { digest: sha(kernel) } }) });
    const { copyImage, repository } = await import("@polyvisor/oci-client");
    await copyImage(repository(registry.client, "debian/tiny"), repository(registry.client, "other/tiny"), "1", { tag: "2" });
    expect((await registry.port.resolveBox({ reference: "other/tiny:2" })).box!.kernel!.digest).toBe(sha(kernel));
    const config = text("{}");
    await push(registry, config, "image");
    await pushManifest(registry, "t", manifestOf(config, []), "image");
    expect((await registry.port.listBoxes({})).boxes.map(({ name }) => name)).toEqual(["debian/tiny", "other/tiny"]);
    await expect(registry.port.resolveBox({ reference: "image:t" })).rejects.toMatchObject({ condition: "invalid" });
    expect(registry.context.warnings).toEqual([]);
  });
});

describe("garbage collection", () => {
  const collect = (registry: TestRegistry, more: { untagged?: boolean; dryRun?: boolean; graceMs?: bigint } = {}) =>
    registry.port.collectGarbage({ graceMs: 0n, untagged: false, dryRun: false, ...more });

  it("deleted images, cancelled and abandoned uploads → gone to the last file; what is shared stays until its last user goes", async () => {
    await using registry = await startRegistry();
    const [config, layer, own] = [text("{}"), noise(10_000), noise(20_000, 3)];
    for (const name of ["a", "b"]) for (const blob of [config, layer]) await push(registry, blob, name);
    await push(registry, own, "b");
    const a = await pushManifest(registry, "t", manifestOf(config, [layer]), "a");
    const b = await pushManifest(registry, "t", manifestOf(config, [layer, own]), "b");
    await fetch(await begin(registry), { method: "PATCH", headers: OCTETS, body: noise(100) });
    expect((await collect(registry, { dryRun: true })).blobs).toBe(0n);
    expect(await collect(registry)).toMatchObject({ blobs: 0n, uploads: 1n });
    await registry.client.deleteManifest("b", b);
    expect(await collect(registry, { dryRun: true })).toMatchObject({ blobs: 2n });
    expect(await collect(registry)).toMatchObject({ blobs: 2n });
    expect(await status(`${registry.url}/v2/a/blobs/${sha(layer)}`)).toBe(200);
    await registry.client.deleteManifest("a", a);
    await collect(registry);
    expect(filesIn(registry.root, "blobs")).toEqual([]);
    expect(filesIn(registry.root, "uploads")).toEqual([]);
    expect((await registry.port.describeRegistry({})).repositories).toEqual([]);
  });

  it("an index that lost its tag → stays, and with `untagged` goes with its children and their referrers", async () => {
    await using registry = await startRegistry();
    const config = text("{}");
    await push(registry, config);
    const child = manifestOf(config, [], { annotations: { a: "1" } });
    const digest = await pushManifest(registry, undefined, child);
    const descriptor = { mediaType: MEDIA_TYPES.manifest, digest, size: JSON.stringify(child).length };
    const index = await pushManifest(registry, "all", { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [descriptor] });
    await pushManifest(registry, undefined, manifestOf(config, [], { subject: descriptor, artifactType: "application/sbom" }));
    expect(await collect(registry, { untagged: true })).toMatchObject({ manifests: 0n, blobs: 0n });
    await registry.client.deleteManifest("web", "all"); // the tag alone
    expect(await collect(registry)).toMatchObject({ manifests: 0n, blobs: 0n });
    expect(await registry.client.resolve("web", index)).toBeDefined();
    expect(await collect(registry, { untagged: true })).toMatchObject({ manifests: 3n, blobs: 4n });
    expect(filesIn(registry.root, "blobs")).toEqual([]);
  });

  it("collected over and over while eight clients push and delete → every image that was pushed and not deleted is whole", { timeout: 60_000 }, async () => {
    await using registry = await startRegistry();
    let pushing = true;
    const collector = (async () => {
      while (pushing) await collect(registry, { graceMs: 2_000n, untagged: true });
    })();
    const shared = noise(30_000, 9);
    await Promise.all(
      Array.from({ length: 8 }, async (_, client) => {
        for (let i = 0; i < 12; i++) {
          const own = text(`{"client":${client},"i":${i % 3}}`); // the same few blobs come and go
          await push(registry, shared, `r${client % 2}`);
          await push(registry, own, `r${client % 2}`);
          await pushManifest(registry, `c${client}`, manifestOf(own, [shared]), `r${client % 2}`);
          if (i % 4 === 2) await registry.client.deleteManifest(`r${client % 2}`, `c${client}`);
        }
      }),
    );
    pushing = false;
    await collector;
    await collect(registry, { untagged: true });
    for (let client = 0; client < 8; client++) {
      const { bytes } = await registry.client.manifest(`r${client % 2}`, `c${client}`);
      const { config, layers } = JSON.parse(new TextDecoder().decode(bytes)) as { config: { digest: string; size: number }; layers: { digest: string; size: number }[] };
      for (const each of [config, ...layers]) await registry.client.smallBlob(`r${client % 2}`, each);
    }
    expect(filesIn(registry.root, "uploads")).toEqual([]);
  });

  it("a disk that cannot say what it needs → nothing is removed", async () => {
    await using registry = await startRegistry();
    await push(registry, noise(1000));
    await registry.port.createDisk({ disk: { id: "d", bytes: 512n, baseDigest: "", baseMediaType: "", allocatedBytes: 0n, open: false, layers: 0 } });
    (await import("node:fs")).writeFileSync(join(registry.root, "disks/d/disk.json"), "{");
    await expect(collect(registry)).rejects.toMatchObject({ condition: "corrupt" });
    expect(filesIn(registry.root, "blobs")).toHaveLength(1);
  });
});
