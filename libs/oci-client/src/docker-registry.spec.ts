import { createHash } from "node:crypto";
import { MEDIA_TYPES } from "@polyvisor/image-spec";
import { dockerRegistryAbsent, startDockerRegistry } from "@polyvisor/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { copyImage, repository, type OciClient } from "./index.ts";
import { nodeOciClient } from "./node.ts";

const absent = dockerRegistryAbsent();
if (absent) console.log(`skipped: our OCI client against docker-registry: ${absent}`);

const sha = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
const blobOf = (data: Uint8Array): { digest: string; size: number; open(offset: number): AsyncIterable<Uint8Array> } => ({
  digest: sha(data), size: data.length, open: async function* (offset) { yield data.subarray(offset); },
});

describe.skipIf(absent)("our client and Debian's docker-registry", () => {
  let registry: Awaited<ReturnType<typeof startDockerRegistry>>;
  let client: OciClient;
  beforeAll(async () => {
    registry = await startDockerRegistry();
    client = nodeOciClient(registry.url);
  });
  afterAll(() => registry?.close());

  it("push in chunks, tag, list, resolve, copy to another repository by mount, read back, delete", async () => {
    await client.check();
    const layer = new Uint8Array(20_000_000).map((_, i) => (i * 31) >> 3);
    const config = new TextEncoder().encode("{}");
    const manifest = new TextEncoder().encode(JSON.stringify({
      schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, artifactType: "application/x",
      config: { mediaType: MEDIA_TYPES.empty, digest: sha(config), size: config.length },
      layers: [{ mediaType: "application/octet-stream", digest: sha(layer), size: layer.length }],
    }));
    expect(await client.pushBlob("a/web", blobOf(layer))).toBe("pushed");
    expect(await client.pushBlob("a/web", blobOf(config))).toBe("pushed");
    expect(await client.pushBlob("a/web", blobOf(config))).toBe("present");
    const { digest } = await client.pushManifest("a/web", "1", { mediaType: MEDIA_TYPES.manifest, bytes: manifest });
    expect(await client.resolve("a/web", "1")).toEqual({ mediaType: MEDIA_TYPES.manifest, digest, size: manifest.length });
    expect(await client.resolve("a/web", "nope")).toBeUndefined();

    await copyImage(repository(client, "a/web"), repository(client, "b/web", { mountFrom: "a/web" }), digest, { tag: "2" });
    const copied = await client.manifest("b/web", "2");
    expect(Buffer.from(copied.bytes)).toEqual(Buffer.from(manifest));
    const hash = createHash("sha256");
    for await (const piece of client.blob("b/web", { digest: sha(layer), size: layer.length })) hash.update(piece);
    expect(`sha256:${hash.digest("hex")}`).toBe(sha(layer));

    const tags: string[] = [];
    for await (const tag of client.tags("b/web", 1)) tags.push(tag);
    expect(tags).toEqual(["2"]);
    expect(await client.deleteManifest("b/web", digest)).toBe(true);
    expect(await client.resolve("b/web", digest)).toBeUndefined();
    await expect(client.manifest("b/web", "2")).rejects.toMatchObject({ problem: "not-found" });
  });

  it("referrers of a registry that has no API for them → kept in an index under the subject's tag, by us", async () => {
    const config = new TextEncoder().encode("{}");
    await client.pushBlob("refs", blobOf(config));
    const push = async (extra: object): Promise<{ digest: string; size: number; mediaType: string }> => {
      const bytes = new TextEncoder().encode(JSON.stringify({
        schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: { mediaType: MEDIA_TYPES.config, digest: sha(config), size: config.length }, layers: [], ...extra,
      }));
      const { digest } = await client.pushManifest("refs", undefined, { mediaType: MEDIA_TYPES.manifest, bytes });
      return { digest, size: bytes.length, mediaType: MEDIA_TYPES.manifest };
    };
    const subject = await push({});
    const sbom = await push({ subject, artifactType: "application/sbom", annotations: { a: "1" } });
    await push({ subject, artifactType: "application/signature" });
    await push({ subject, artifactType: "application/sbom", annotations: { a: "1" } }); // again: listed once
    const found = await Array.fromAsync(client.referrers("refs", subject.digest));
    expect(found.map(({ artifactType }) => artifactType).sort()).toEqual(["application/sbom", "application/signature"]);
    expect(await Array.fromAsync(client.referrers("refs", subject.digest, "application/sbom"))).toEqual([{ ...sbom, artifactType: "application/sbom", annotations: { a: "1" } }]);
  });
});
