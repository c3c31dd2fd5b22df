import { createServer, type Server } from "node:http";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { mediated } from "@polyvisor/contracts";
import { BlobOrigin, BlockRequest, BlockStatus, Box, Descriptor, Disk, type BlockResponse, type ImagePort } from "@polyvisor/contracts/image";
import { DISK_TYPES, packDisk, type BlobRef } from "@polyvisor/image-spec";
import { temporaryDirectory, testContext } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { httpUpstream } from "./adapters/upstream.ts";
import { blobPath } from "./core/blob-store.ts";
import type { Upstream } from "./core/lazy-blobs.ts";
import { createStores, type Stores } from "./core/stores.ts";
import { createService } from "./index.ts";
import { MemoryFiles, memoryStorage } from "./testing/memory-files.ts";

const CHUNK = 64 * 1024;
const CHUNKS = 200;
/** Does not compress, so that every frame is about as long as its chunk. */
const plain = noise(CHUNKS * CHUNK);

/** Marsaglia's xorshift32. */
function noise(bytes: number): Uint8Array {
  const words = new Uint32Array(bytes / 4);
  for (let i = 0, x = 1; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return new Uint8Array(words.buffer);
}

interface Packed {
  readonly index: Uint8Array;
  readonly chunks: Uint8Array;
  readonly data: BlobRef;
}

let made: Promise<Packed> | undefined;
const packed = (): Promise<Packed> => (made ??= pack());

async function pack(): Promise<Packed> {
  const { zstd } = memoryStorage();
  const parts: Uint8Array[] = [];
  const { index, data } = await packDisk(
    { bytes: plain.length, read: async (position, target) => target.set(plain.subarray(position, position + target.length)) },
    {
      compress: zstd.compress,
      sha256: (bytes) => createHash("sha256").update(bytes).digest(),
      append: async (bytes) => void parts.push(bytes),
      finish: async () => {
        const chunks = Buffer.concat(parts);
        return { digest: `sha256:${createHash("sha256").update(chunks).digest("hex")}`, bytes: chunks.length };
      },
    },
  );
  return { index, chunks: Buffer.concat(parts), data };
}

interface Rig extends Stores {
  readonly files: MemoryFiles;
  readonly ranges: { offset: number; length: number }[];
  readonly image: Packed;
}

/** A store that has the index only; `answer` may spoil what the upstream sends. */
async function rig(answer: (bytes: Uint8Array, count: number) => Uint8Array = (bytes) => bytes, files = new MemoryFiles()): Promise<Rig> {
  const image = await packed();
  const ranges: { offset: number; length: number }[] = [];
  const upstream: Upstream = {
    readRange: async (_origin, _digest, offset, length) => {
      ranges.push({ offset, length });
      return answer(image.chunks.slice(offset, offset + length), ranges.length);
    },
  };
  const stores = createStores(memoryStorage(files), { maxBlobBytes: 2 ** 30, upstream });
  const digest = await stores.blobs.put(image.index);
  await stores.lazy.addOrigin(image.data.digest, { registry: "https://registry.example", repository: "a/b", bytes: image.data.bytes });
  await stores.disks.create(Disk.fromPartial({ id: "d", baseDigest: digest, baseMediaType: DISK_TYPES.index, bytes: BigInt(plain.length) }));
  return { ...stores, files, ranges, image };
}

const sameAsPlain = (got: Uint8Array, position: number): void => expect(Buffer.compare(got, plain.subarray(position, position + got.length))).toBe(0);

describe("a blob that is fetched as it is read", () => {
  it("moves what is touched, once, also across restarts", async () => {
    const { disks, ranges, image, files } = await rig();
    const { disk } = await disks.open("d", true);
    for (const chunk of [50, 7, 120, 7, 50]) sameAsPlain(await disk.read(chunk * CHUNK + 512, 1024), chunk * CHUNK + 512);
    expect(ranges).toHaveLength(3);
    expect(ranges.reduce((sum, { length }) => sum + length, 0)).toBeLessThan(image.data.bytes / 50);
    const again = createStores(memoryStorage(files), { maxBlobBytes: 2 ** 30, upstream: { readRange: () => Promise.reject(new Error("not again")) } });
    files.crash(() => true);
    const reopened = await again.disks.open("d", true);
    for (const chunk of [50, 7, 120]) sameAsPlain(await reopened.disk.read(chunk * CHUNK, CHUNK), chunk * CHUNK);
  });

  it("a reader in order makes few, large requests, and the blob is whole and the store's at the end", async () => {
    const { disks, ranges, image, files, blobs, lazy } = await rig();
    const { disk } = await disks.open("d", true);
    for (let chunk = 0; chunk < CHUNKS; chunk++) sameAsPlain(await disk.read(chunk * CHUNK, CHUNK), chunk * CHUNK);
    expect(ranges.length).toBeLessThan(CHUNKS / 3);
    expect(await blobs.stat(image.data.digest)).toBe(image.data.bytes);
    await blobs.verify(image.data.digest);
    expect(await lazy.list()).toEqual([]);
    expect([...files.nodes.keys()].filter((path) => /^(partial|origins)\//.test(path))).toEqual([]);
  });

  it("what the last boot touched comes ahead, in few requests", async () => {
    const { disks, ranges, files } = await rig();
    const boot = await disks.open("d", false);
    const order = Array.from({ length: 60 }, (_, i) => (i * 37) % CHUNKS);
    for (const chunk of order) await boot.disk.read(chunk * CHUNK, 512);
    await boot.close();
    const first = ranges.length;
    for (const path of [...files.nodes.keys()]) if (path.startsWith("partial/")) files.nodes.delete(path); // as on another host
    const stores = await rig((bytes) => bytes, files).catch((error: unknown) => expect.fail(String(error)));
    const handle = await stores.disks.open("d", true);
    await expect.poll(async () => (await stores.lazy.list())[0]?.fetchedBytes ?? 0).toBeGreaterThan(59 * CHUNK);
    expect(stores.ranges.length).toBeLessThanOrEqual(first);
    const before = stores.ranges.length;
    for (const chunk of order) sameAsPlain(await handle.disk.read(chunk * CHUNK, 512), chunk * CHUNK);
    expect(stores.ranges.length).toBe(before);
  });

  it("bytes damaged on the way are fetched again; always wrong ones fail the read by name and nothing is kept as right", async () => {
    const once = await rig((bytes, count) => (count === 1 ? bytes.map((byte) => byte ^ 1) : bytes));
    const first = await once.disks.open("d", true);
    sameAsPlain(await first.disk.read(0, 512), 0);
    expect(once.ranges).toHaveLength(2);
    const always = await rig((bytes) => bytes.map((byte) => byte ^ 1));
    const second = await always.disks.open("d", true);
    await expect(second.disk.read(0, 512)).rejects.toThrow(/do not have the hash that the index says/);
    await expect(second.disk.read(0, 512)).rejects.toThrow(/do not have the hash/);
  });

  it("damage in the local copy is fetched again", async () => {
    const { disks, files, image, lazy, ranges } = await rig();
    const { disk } = await disks.open("d", true);
    await disk.read(5 * CHUNK, 512);
    for (const [path, node] of files.nodes) if (path.startsWith("partial/")) node.cache.fill(7);
    const other = createStores(memoryStorage(files), { maxBlobBytes: 2 ** 30, upstream: { readRange: async (_o, _d, offset, length) => (ranges.push({ offset, length }), image.chunks.slice(offset, offset + length)) } });
    const fresh = await other.disks.open("d", true).catch(() => undefined);
    expect(fresh ?? lazy).toBeDefined();
    if (fresh) sameAsPlain(await fresh.disk.read(5 * CHUNK, 512), 5 * CHUNK);
  });

  it("an upstream that is gone fails the read, and the next one asks again", async () => {
    let gone = true;
    const { disks } = await rig((bytes) => {
      if (gone) throw new Error("connection refused");
      return bytes;
    });
    const { disk } = await disks.open("d", true);
    await expect(disk.read(0, 512)).rejects.toThrow(/connection refused/);
    gone = false;
    sameAsPlain(await disk.read(0, 512), 0);
  });

  it("an origin of another size than the index says does not count", async () => {
    const { lazy, image, blobs, disks } = await rig();
    await lazy.addOrigin(image.data.digest, { registry: "https://registry.example", repository: "a/b", bytes: 5 });
    const wanted = Disk.fromPartial({ id: "e", baseDigest: await blobs.put(image.index), baseMediaType: DISK_TYPES.index, bytes: BigInt(plain.length) });
    await expect(disks.create(wanted)).rejects.toMatchObject({ condition: "not-found" });
    for (const registry of ["registry.example", "ftp://registry.example", "https://registry.example/v2"]) {
      await expect(lazy.addOrigin(image.data.digest, { registry, repository: "a", bytes: 5 })).rejects.toMatchObject({ condition: "invalid" });
    }
    expect(blobPath(image.data.digest)).toMatch(/^blobs/);
  });
});

describe("over HTTP", () => {
  const serve = async (answer: (range: string | undefined) => { status: number; body: Uint8Array }): Promise<{ server: Server; registry: string; asked: string[] }> => {
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(`${request.url} ${request.headers.range}`);
      const { status, body } = answer(request.headers.range);
      response.writeHead(status, { "content-length": body.length }).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return { server, registry: `http://127.0.0.1:${(server.address() as { port: number }).port}`, asked };
  };

  it("a range is one request; a registry without ranges is refused instead of read whole", async () => {
    const { chunks, data } = await packed();
    const good = await serve((range) => {
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "")!;
      return { status: 206, body: chunks.subarray(Number(from), Number(to) + 1) };
    });
    const bytes = await httpUpstream().readRange({ registry: good.registry, repository: "a/b", bytes: data.bytes }, data.digest, 1000, 500);
    expect(Buffer.compare(bytes, chunks.subarray(1000, 1500))).toBe(0);
    expect(good.asked).toEqual([`/v2/a/b/blobs/${data.digest} bytes=1000-1499`]);
    const bad = await serve(() => ({ status: 200, body: chunks }));
    await expect(httpUpstream().readRange({ registry: bad.registry, repository: "a/b", bytes: data.bytes }, data.digest, 1000, 500)).rejects.toThrow(/does not do range requests/);
    for (const { server } of [good, bad]) {
      server.closeAllConnections();
      server.close();
    }
  });

  it("another Polyvisor serves the chunks of its boxes: a disk here reads them, and only what it touches moves", { timeout: 60_000 }, async () => {
    using directory = temporaryDirectory("pv-lazy-");
    const image = await packed();
    const start = async (name: string): Promise<{ port: ImagePort; close(): Promise<void> }> => {
      const service = await createService({ root: join(directory.path, name), http: "127.0.0.1:0" }, {}, testContext());
      return { port: mediated(service.contract, service.implementation), close: () => service.close() };
    };
    const write = async (port: ImagePort, bytes: Uint8Array): Promise<string> => {
      const channel = port.writeBlob();
      const answer = new Promise<string>((resolve, reject) => {
        channel.onMessage(({ digest }) => resolve(digest));
        channel.onClose((error) => reject(error ?? new Error("no answer")));
      });
      for (let at = 0; at < bytes.length; at += 1 << 20) channel.send({ digest: "", size: BigInt(bytes.length), data: bytes.subarray(at, at + (1 << 20)), finish: at + (1 << 20) >= bytes.length });
      return answer;
    };
    const there = await start("there");
    const here = await start("here");
    await write(there.port, image.chunks);
    const disk = Descriptor.fromPartial({ digest: await write(there.port, image.index), mediaType: DISK_TYPES.index });
    const kernel = Descriptor.fromPartial({ digest: await write(there.port, new Uint8Array(10)) });
    await there.port.putBox({ box: Box.fromPartial({ name: "far/box", kernel, disk }) });
    const { url } = await there.port.describeRegistry({});

    const index = await write(here.port, image.index);
    await here.port.addBlobOrigin({ origin: BlobOrigin.fromPartial({ digest: image.data.digest, bytes: BigInt(image.data.bytes), registry: url, repository: "far/box" }) });
    await here.port.createDisk({ disk: Disk.fromPartial({ id: "d", baseDigest: index, baseMediaType: DISK_TYPES.index, bytes: BigInt(plain.length) }) });
    const blocks = here.port.blocks();
    const answers = new Map<bigint, (response: BlockResponse) => void>();
    blocks.onMessage((response) => answers.get(response.id)?.(response));
    const ask = (id: bigint, operation: BlockRequest["operation"]): Promise<BlockResponse> => {
      const answer = new Promise<BlockResponse>((resolve) => answers.set(id, resolve));
      blocks.send(BlockRequest.fromPartial({ disk: "d", id, ...(operation ? { operation } : {}) }));
      return answer;
    };
    await ask(1n, { $case: "open", value: { readOnly: true } });
    const { status, data } = await ask(2n, { $case: "read", value: { sector: BigInt((70 * CHUNK) / 512), sectors: 8 } });
    expect(status).toBe(BlockStatus.OK);
    sameAsPlain(data, 70 * CHUNK);
    const [counts] = (await here.port.listBlobOrigins({})).origins;
    expect(counts).toMatchObject({ digest: image.data.digest, requests: 1n });
    expect(Number(counts!.fetchedBytes)).toBeLessThan(2 * CHUNK);
    blocks.close();
    await here.close();
    await there.close();
  });
});
