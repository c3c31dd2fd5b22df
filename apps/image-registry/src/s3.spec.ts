import { createHash, randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DISTRIBUTION_CASES, runDistributionCase } from "@polyvisor/conformance/distribution";
import { IMAGE_SUITE } from "@polyvisor/conformance/suites/image-registry";
import { temporaryDirectory, testContext } from "@polyvisor/testkit";
import { testConformance } from "@polyvisor/testkit/conformance";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createService } from "./index.ts";
import { startRegistry, type TestRegistry } from "./testing/registry.ts";
import { startS3 } from "./testing/s3-peer.ts";

const sha = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
const push = (registry: TestRegistry, data: Uint8Array) =>
  registry.client.pushBlob("web", { digest: sha(data), size: data.length, open: async function* (offset) { yield data.subarray(offset); } });
const localBlobs = (root: string): string[] => {
  try {
    return readdirSync(join(root, "blobs"), { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => each.name);
  } catch {
    return [];
  }
};

let s3: Awaited<ReturnType<typeof startS3>>;
beforeAll(async () => void (s3 = await startS3()));
afterAll(() => s3.close());

describe("blobs in an S3-compatible store: OCI distribution-spec 1.1", () => {
  let registry: TestRegistry;
  beforeAll(async () => void (registry = await startRegistry(s3.config)));
  afterAll(async () => {
    expect(localBlobs(registry.root)).toEqual([]);
    await registry[Symbol.asyncDispose]();
  });
  it.each(DISTRIBUTION_CASES.map((each) => [each.id, each.title, each] as const))("%s: %s", async (_id, _title, testCase) => {
    await runDistributionCase(registry.url, testCase);
  });
});

describe("blobs in an S3-compatible store: the contract", () => {
  testConformance(
    IMAGE_SUITE,
    async () => {
      const directory = temporaryDirectory("pv-s3-images-");
      const service = await createService({ ...s3.config, root: directory.path }, {}, testContext());
      return {
        ...service,
        async close() {
          await service.close();
          directory[Symbol.dispose]();
        },
      };
    },
    { features: ["garbage-at-once"] },
  );
});

describe("blobs in an S3-compatible store", () => {
  it("a blob of several parts → whole, by ranges, too; garbage collection removes the object", async () => {
    await using registry = await startRegistry(s3.config);
    const data = randomBytes(40_000_000);
    await push(registry, data);
    const get = async (range: string): Promise<Buffer> => Buffer.from(await (await fetch(`${registry.url}/v2/web/blobs/${sha(data)}`, { headers: { range } })).arrayBuffer());
    expect((await get("bytes=0-")).equals(data)).toBe(true);
    expect((await get("bytes=16777210-16777220")).equals(data.subarray(16_777_210, 16_777_221))).toBe(true);
    expect(localBlobs(registry.root)).toEqual([]);
    expect(readdirSync(join(registry.root, "uploads"))).toEqual([]);
    expect((await registry.port.collectGarbage({ graceMs: 0n, untagged: false, dryRun: false })).blobs).toBeGreaterThan(0n);
    await expect(registry.port.statBlob({ digest: sha(data) })).rejects.toMatchObject({ condition: "not-found" });
  }, 60_000);

  it("more objects than a page of a listing has → garbage collection finds and removes all of them", async () => {
    const own = await startS3();
    try {
      await using registry = await startRegistry(own.config);
      const count = 1100;
      await push(registry, Buffer.from("kept"));
      let next = 0;
      const work = async (): Promise<void> => {
        while (next < count) {
          const channel = registry.port.writeBlob();
          const stored = new Promise<void>((resolve, reject) => (channel.onMessage(() => resolve()), channel.onClose((error) => error && reject(error))));
          channel.send({ digest: "", size: 0n, data: Buffer.from(`blob ${next++}`), finish: true });
          await stored;
        }
      };
      await Promise.all(Array.from({ length: 16 }, work));
      await new Promise((resolve) => setTimeout(resolve, 1100)); // S3 tells times in seconds
      await registry.port.setPins({ owner: "test", digests: [sha(Buffer.from("kept"))] });
      expect((await registry.port.collectGarbage({ graceMs: 0n, untagged: false, dryRun: true })).blobs).toBe(BigInt(count));
      expect((await registry.port.collectGarbage({ graceMs: 0n, untagged: false, dryRun: false })).blobs).toBe(BigInt(count));
      expect((await registry.port.collectGarbage({ graceMs: 0n, untagged: false, dryRun: true })).blobs).toBe(0n);
      await registry.port.statBlob({ digest: sha(Buffer.from("kept")) });
    } finally {
      await own.close();
    }
  }, 60_000);

  it("wrong keys, no such bucket, no bucket in the URL → refused at the start, by name", async () => {
    await expect(startRegistry({ ...s3.config, s3SecretAccessKey: "wrong" })).rejects.toThrow(/403/);
    await expect(startRegistry({ ...s3.config, s3: s3.config.s3!.replace("/blobs/", "/none/") })).rejects.toThrow(/404 NoSuchBucket/);
    await expect(startRegistry({ ...s3.config, s3: new URL(s3.config.s3!).origin })).rejects.toThrow(/endpoint and bucket/);
  });

  it("the store goes away in the middle → pushes fail and say so, nothing is acknowledged; the upload is there to be finished later", async () => {
    const own = await startS3();
    await using registry = await startRegistry(own.config);
    const data = randomBytes(1000);
    const begun = await fetch(`${registry.url}/v2/web/blobs/uploads/`, { method: "POST" });
    const location = registry.url + begun.headers.get("location")!;
    await fetch(location, { method: "PATCH", body: data });
    await own.stop();
    const failed = await fetch(`${location}?digest=${sha(data)}`, { method: "PUT" });
    expect(failed.status).toBe(500);
    expect((await fetch(`${registry.url}/v2/web/blobs/${sha(data)}`)).status).toBe(404);
    expect((await fetch(location)).headers.get("range")).toBe("0-999");
    await own.close();
  }, 60_000);
});
