import { describe, expect, it } from "vitest";
import { memoryStorage } from "../../testing/memory-files.ts";
import { BlobStore } from "../blob-store.ts";
import { StorageError } from "../files.ts";
import { Quota } from "./quota.ts";
import { Receiver } from "./receiver.ts";
import { Uploads, type Chunk } from "./uploads.ts";

const MIB = 1024 * 1024;
const chunk = (...pieces: Uint8Array[]): Chunk => ({ body: (async function* () { yield* pieces; })(), abort: () => {}, first: undefined, bytes: undefined });

describe("a stream on its way into a file", () => {
  it("large pieces of their own → their memory is free once they are written; parts of others' buffers stay", async () => {
    const storage = memoryStorage();
    const file = await storage.files.open("f", "create");
    const hash = storage.newHash();
    const receiver = new Receiver(file, hash);
    const whole = new Uint8Array(MIB).fill(7);
    const part = new Uint8Array(2 * MIB).fill(9).subarray(0, MIB);
    await receiver.take(whole);
    await receiver.take(part);
    await receiver.drain();
    expect([whole.byteLength, part.byteLength, receiver.end]).toEqual([0, MIB, 2 * MIB]);
    const content = new Uint8Array(2 * MIB);
    await file.read(0, content);
    const expected = new Uint8Array(2 * MIB).fill(7, 0, MIB).fill(9, MIB);
    expect(content).toEqual(expected);
    const again = storage.newHash();
    again.update(expected);
    expect(hash.hex()).toBe(again.hex());
  });

  it.each([
    ["beside the writing", 33 * MIB],
    ["of the whole", MIB],
  ])("a sync %s fails → the upload says so and begins anew, as the kernel may have forgotten its bytes", async (_when, length) => {
    const storage = memoryStorage();
    const blobs = new BlobStore(storage, { maxBytes: 2 ** 40 });
    const uploads = new Uploads({ storage, blobs, quota: new Quota({ totalBytes: 0, repositoryBytes: 0 }, storage.catalogue, () => 0), now: () => 0 });
    const data = new Uint8Array(length).fill(1);
    const hash = storage.newHash();
    hash.update(data);
    const digest = `sha256:${hash.hex()}`;
    const id = await uploads.begin("web");
    storage.files.beforeSync = () => {
      storage.files.beforeSync = () => {};
      throw new StorageError("io", "the device does not answer");
    };
    await expect(uploads.finish("web", id, digest, chunk(data.slice()))).rejects.toThrow("the device does not answer");
    expect(await uploads.status("web", id)).toBe(0);
    await expect(blobs.open(digest)).rejects.toThrow("there is no blob");
    expect(await uploads.finish("web", id, digest, chunk(data.slice()))).toBe(length);
    await uploads.close();
  });

  it("a long stream → synced on its way, so that little is left for the end", async () => {
    const storage = memoryStorage();
    const file = await storage.files.open("f", "create");
    let syncs = 0;
    storage.files.beforeSync = () => void syncs++;
    const receiver = new Receiver(file, storage.newHash());
    await receiver.take(new Uint8Array(33 * MIB));
    await receiver.drain();
    expect(syncs).toBe(1);
  });
});
