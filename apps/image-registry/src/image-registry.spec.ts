import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mediated, messages } from "@polyvisor/contracts";
import { BlockRequest, BlockStatus, Box, Descriptor, Disk, type BlockResponse, type ImagePort } from "@polyvisor/contracts/image";
import { temporaryDirectory, testContext } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { blobPath } from "./core/blob-store.ts";
import { decodeName, encodeName, StorageError } from "./core/files.ts";
import { ImageService } from "./core/image-service.ts";
import { createService } from "./index.ts";
import { MemoryFiles, memoryStorage } from "./testing/memory-files.ts";

async function start(root: string): Promise<{ port: ImagePort; context: ReturnType<typeof testContext>; close(): Promise<void> }> {
  const context = testContext();
  const service = await createService({ root }, {}, context);
  return { port: mediated(service.contract, service.implementation), context, close: () => service.close() };
}

async function put(port: ImagePort, data: Uint8Array): Promise<string> {
  const channel = port.writeBlob();
  const answer = new Promise<string>((resolve, reject) => {
    channel.onMessage(({ digest }) => resolve(digest));
    channel.onClose((error) => reject(error ?? new Error("no answer")));
  });
  channel.send({ digest: "", size: BigInt(data.length), data, finish: true });
  return answer;
}

async function get(port: ImagePort, digest: string): Promise<number> {
  let bytes = 0;
  for await (const { data } of messages(port.readBlob({ digest, offset: 0n, length: 0n }))) bytes += data.length;
  return bytes;
}

/** Every file below a directory, without the empty directories. */
const filesIn = (root: string): string[] => readdirSync(root, { recursive: true, withFileTypes: true }).filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name));

describe("image-registry on a real directory", () => {
  it("a damaged blob → read ends corrupt, the blob counts as absent, writing it again heals it", async () => {
    using directory = temporaryDirectory();
    const { port, close } = await start(directory.path);
    const data = new Uint8Array(600_000).fill(3);
    const digest = await put(port, data);
    const path = join(directory.path, blobPath(digest));
    const bytes = readFileSync(path);
    bytes[300_000] = 4;
    writeFileSync(path, bytes);
    await expect(get(port, digest)).rejects.toMatchObject({ condition: "corrupt" });
    await expect(port.statBlob({ digest })).rejects.toMatchObject({ condition: "not-found" });
    expect(await put(port, data)).toBe(digest);
    expect(await get(port, digest)).toBe(600_000);
    await close();
  });

  it("a truncated manifest → resolve does not find it; the others are still listed", async () => {
    using directory = temporaryDirectory();
    const { port, context, close } = await start(directory.path);
    const kernel = Descriptor.fromPartial({ digest: await put(port, new Uint8Array(10)) });
    const { digest } = await port.putBox({ box: Box.fromPartial({ name: "a", tag: "1", kernel }) });
    await port.putBox({ box: Box.fromPartial({ name: "b", tag: "1", kernel, config: { harts: 2 } }) });
    writeFileSync(join(directory.path, blobPath(digest)), "{");
    expect((await port.listBoxes({})).boxes.map((box) => box.name)).toEqual(["b"]);
    expect(context.warnings).toHaveLength(1);
    await expect(port.resolveBox({ reference: "a" })).rejects.toMatchObject({ condition: "not-found" });

    for (const id of ["good", "bad"]) await port.createDisk({ disk: Disk.fromPartial({ id, bytes: 512n }) });
    writeFileSync(join(directory.path, "disks/bad/disk.json"), "{}");
    expect((await port.listDisks({})).disks.map((disk) => disk.id)).toEqual(["good"]);
    await close();
  });

  it("two services on one directory: one's blobs and boxes are the other's; a disk opens in one only", async () => {
    using directory = temporaryDirectory();
    const one = await start(directory.path);
    const two = await start(directory.path);
    const digest = await put(one.port, new Uint8Array(100).fill(9));
    expect(await get(two.port, digest)).toBe(100);
    await one.port.createDisk({ disk: Disk.fromPartial({ id: "web/disk0", bytes: 4096n }) });
    const open = async (port: ImagePort): Promise<BlockResponse> => {
      const channel = port.blocks();
      const answer = new Promise<BlockResponse>((resolve, reject) => {
        channel.onMessage(resolve);
        channel.onClose((error) => reject(error ?? new Error("closed")));
      });
      channel.send(BlockRequest.fromPartial({ machine: "web", disk: "web/disk0", operation: { $case: "open", value: {} } }));
      return answer;
    };
    expect((await open(one.port)).status).toBe(BlockStatus.OK);
    await expect(open(two.port)).rejects.toMatchObject({ condition: "conflict" });
    await expect(two.port.deleteDisk({ id: "web/disk0" })).rejects.toMatchObject({ condition: "conflict" });
    expect((await two.port.listDisks({})).disks).toMatchObject([{ id: "web/disk0", open: true }]);
    await one.close(); // ends the open disk
    expect((await open(two.port)).status).toBe(BlockStatus.OK);
    await two.close();
  });

  it("facts tell of blobs, boxes and disks; a deleted disk leaves no file", async () => {
    using directory = temporaryDirectory();
    const { port, context, close } = await start(directory.path);
    const before = filesIn(directory.path);
    await port.createDisk({ disk: Disk.fromPartial({ id: "web/disk0", bytes: 1n << 40n }) }); // 1 TiB costs nothing
    await port.deleteDisk({ id: "web/disk0" });
    expect(filesIn(directory.path)).toEqual(before);
    const kernel = Descriptor.fromPartial({ digest: await put(port, new Uint8Array(10)) });
    await port.putBox({ box: Box.fromPartial({ name: "a", tag: "1", kernel }) });
    await port.deleteBox({ reference: "a" });
    expect(context.facts.map(({ machine, fact }) => `${machine} ${fact}`)).toEqual([
      "web disk-created", "web disk-deleted", "- blob-stored", "- box-tagged", "- box-untagged",
    ]);
    await close();
  });
});

describe("image-registry on a full filesystem", () => {
  const full = (): never => {
    throw new StorageError("no-space", "no space left on device");
  };
  it("blobs and boxes → exhausted, nothing stays behind; a disk answers NO_SPACE and works when there is room again", async () => {
    const files = new MemoryFiles();
    const service = new ImageService(memoryStorage(files), { maxBlobBytes: 1 << 20 }, testContext());
    const port = mediated((await import("@polyvisor/contracts/image")).IMAGE, service.implementation);
    await port.createDisk({ disk: Disk.fromPartial({ id: "d", bytes: 4096n }) });
    const before = [...files.nodes.keys()];
    files.beforeWrite = full;
    await expect(put(port, new Uint8Array(100).fill(1))).rejects.toMatchObject({ condition: "exhausted" });
    await expect(port.createDisk({ disk: Disk.fromPartial({ id: "e", bytes: 4096n }) })).rejects.toMatchObject({ condition: "exhausted" });
    expect([...files.nodes.keys()]).toEqual(before);

    const channel = port.blocks();
    const answers: BlockResponse[] = [];
    channel.onMessage((answer) => answers.push(answer));
    const send = async (operation: NonNullable<BlockRequest["operation"]>): Promise<BlockStatus> => {
      const n = answers.length;
      channel.send(BlockRequest.fromPartial({ disk: "d", operation }));
      while (answers.length === n) await new Promise((resolve) => setImmediate(resolve));
      return answers[n]!.status;
    };
    const write = { $case: "write", value: { sector: 0n, data: new Uint8Array(512).fill(1) } } as const;
    await send({ $case: "open", value: { readOnly: false } });
    expect(await send(write)).toBe(BlockStatus.NO_SPACE);
    files.beforeWrite = () => {};
    expect(await send(write)).toBe(BlockStatus.OK);
    files.beforeSync = () => {
      throw new StorageError("io", "medium error");
    };
    expect(await send({ $case: "flush", value: {} })).toBe(BlockStatus.IO_ERROR);
    channel.close();
    await new Promise((resolve) => setImmediate(resolve)); // the stream's end reaches the disk
    await port.deleteDisk({ id: "d" }); // that its last flush failed is no reason to keep it
    await service.close();
  });
  it("a blob larger than the store takes → exhausted", async () => {
    const service = new ImageService(memoryStorage(), { maxBlobBytes: 10 }, testContext());
    const port = mediated((await import("@polyvisor/contracts/image")).IMAGE, service.implementation);
    await expect(put(port, new Uint8Array(11))).rejects.toMatchObject({ condition: "exhausted" });
  });
});

describe("names on disk", () => {
  it.each(["debian/minimal", "Web/disk0", "..", ".hidden", "a%b", "ü"])("%s → one component that decodes to it", (name) => {
    const component = encodeName(name);
    expect(component).toMatch(/^[a-z0-9_%;-][a-z0-9._%;-]*$/);
    expect(decodeName(component)).toBe(name);
  });
});
