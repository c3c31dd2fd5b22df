import { createHash } from "node:crypto";
import { channelPair, messages, type Channel } from "@polyvisor/contracts";
import type { BlobChunk, ImportArchiveRequest, ImportArchiveResponse } from "@polyvisor/contracts/image";
import { MEDIA_TYPES, writeLayout } from "@polyvisor/image-spec";
import { describe, expect, it } from "vitest";
import { createStores, type Stores } from "./core/stores.ts";
import { MemoryFiles, memoryStorage } from "./testing/memory-files.ts";

interface Rig extends Stores {
  readonly files: MemoryFiles;
  export(digest: string): Promise<Buffer>;
  import(file: Uint8Array, finish?: boolean): Promise<ImportArchiveResponse>;
}

function rig(): Rig {
  const files = new MemoryFiles();
  const stores = createStores(memoryStorage(files), { maxBlobBytes: 100 << 20 });
  return {
    ...stores,
    files,
    export: async (digest) => {
      const [out, reader] = channelPair<BlobChunk, never>();
      void stores.archives.export(digest, out);
      const parts: Uint8Array[] = [];
      for await (const { data } of messages(reader as unknown as Channel<never, BlobChunk>)) parts.push(data);
      return Buffer.concat(parts);
    },
    import: async (file, finish = true) => {
      const [sender, receiver] = channelPair<ImportArchiveRequest, ImportArchiveResponse>();
      const answer = (async () => {
        for await (const response of messages(sender as unknown as Channel<never, ImportArchiveResponse>)) return response;
        throw new Error("no answer");
      })();
      stores.archives.import(receiver);
      for (let at = 0; at < file.length; at += 5000) sender.send({ data: file.subarray(at, at + 5000), finish: finish && at + 5000 >= file.length });
      if (!finish) sender.close();
      return answer;
    },
  };
}

const sha256 = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;

async function manifestIn(stores: Stores, ...contents: Uint8Array[]): Promise<string> {
  const layers = await Promise.all(contents.map(async (data) => ({ mediaType: "application/x", digest: await stores.blobs.put(data), size: data.length })));
  const manifest = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: layers[0], layers: layers.slice(1) };
  return stores.blobs.put(new TextEncoder().encode(JSON.stringify(manifest)));
}

const blobsOf = (files: MemoryFiles): string[] => [...files.nodes.keys()].filter((path) => path.startsWith("blobs/") || path.startsWith("tmp/")).sort();
const contents = [new Uint8Array(3).fill(1), new Uint8Array(70_000).map((_, i) => i & 0xff), new Uint8Array(512)];

describe("an archive", () => {
  it("carries a manifest and all it names into another store; the same content gives the same file", async () => {
    const from = rig();
    const digest = await manifestIn(from, ...contents);
    const file = await from.export(digest);
    expect(file.equals(await from.export(digest))).toBe(true);
    const to = rig();
    expect(await to.import(file)).toMatchObject({ digest, mediaType: MEDIA_TYPES.manifest });
    expect(blobsOf(to.files)).toEqual(blobsOf(from.files));
    for (const data of contents) await to.blobs.verify(sha256(data));
    expect(await to.import(file)).toMatchObject({ digest }); // again: all is there
  });

  it("cut anywhere → refused, nothing is left", async () => {
    const from = rig();
    const file = await from.export(await manifestIn(from, ...contents));
    for (let length = 1; length < file.length - 1024; length += 1013) {
      const to = rig();
      await expect(to.import(file.subarray(0, length)), `cut at ${length}`).rejects.toMatchObject({ condition: "invalid" });
      expect(blobsOf(to.files)).toEqual([]);
      await expect(to.import(file.subarray(0, length), false)).rejects.toThrow(/no answer|went away/);
      await expect.poll(() => blobsOf(to.files)).toEqual([]);
    }
  });

  it("any bit flipped → refused, or what comes in is what was sent", async () => {
    const from = rig();
    const digest = await manifestIn(from, ...contents);
    const file = await from.export(digest);
    for (let i = 0; i < 150; i++) {
      const at = (i * 7919) % file.length;
      const damaged = Buffer.from(file);
      damaged[at]! ^= 1 << (i % 8);
      const to = rig();
      const result = await to.import(damaged).catch((error: { condition?: string }) => error.condition);
      if (typeof result === "string") {
        expect(["invalid", "corrupt", "exhausted"]).toContain(result);
        expect(blobsOf(to.files)).toEqual([]);
      } else {
        expect((result as ImportArchiveResponse).digest).toBe(digest);
        for (const data of contents) await to.blobs.verify(sha256(data));
      }
    }
  });

  it("with other entries than a layout's, a blob too large, or a manifest that names what is not in it → refused", async () => {
    const from = rig();
    const data = new Uint8Array(100).fill(5);
    const blob = (digest: string, size: number, bytes = data) => ({ digest, size, read: async function* () { yield bytes.subarray(0, size); } });
    const archive = async (manifest: object, ...blobs: ReturnType<typeof blob>[]): Promise<Buffer> => {
      const bytes = new TextEncoder().encode(JSON.stringify(manifest));
      const parts: Uint8Array[] = [];
      const descriptor = { mediaType: MEDIA_TYPES.manifest, digest: sha256(bytes), size: bytes.length };
      for await (const part of writeLayout(descriptor, [blob(descriptor.digest, bytes.length, bytes), ...blobs])) parts.push(part);
      return Buffer.concat(parts);
    };
    const config = { mediaType: "application/x", digest: sha256(data), size: 100 };
    const sound = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config, layers: [] };
    const refused = async (file: Buffer, message: RegExp): Promise<void> => {
      await expect(from.import(file)).rejects.toThrow(message);
      expect(blobsOf(from.files)).toEqual([]);
    };
    await refused(await archive(sound), /lacks blob/);
    await refused(await archive({ ...sound, config: { ...config, size: 99 } }, blob(config.digest, 100)), /lacks blob/);
    await refused(await archive(sound, blob(`sha256:${"ab".repeat(32)}`, 100)), /other bytes than its digest/);
    await refused(await archive(sound, blob(config.digest, 100), blob(config.digest, 100)), /twice/);
    await refused(await archive({ schemaVersion: 1 }), /schemaVersion/);
    const good = await archive(sound, blob(config.digest, 100));
    const renamed = (path: string, type = "0"): Buffer => {
      const file = Buffer.from(good);
      file.fill(0, 0, 100).write(path, 0);
      file.write(type, 156);
      file.write("        ", 148);
      file.write(`${file.subarray(0, 512).reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `, 148);
      return file;
    };
    for (const path of ["../../etc/passwd", "/etc/passwd", "blobs/sha256/../../../x", "blobs/sha256/short", "extra"]) await refused(renamed(path), /an OCI layout has only/);
    for (const type of ["1", "2", "3", "4", "6"]) await refused(renamed("oci-layout", type), /an OCI layout has only|lacks/);
    expect((await from.import(good)).digest).toMatch(/^sha256/);
  });

  it("of a blob that is not here, or of another size → precondition, saying which", async () => {
    const from = rig();
    const digest = await manifestIn(from, ...contents);
    from.files.nodes.delete([...from.files.nodes.keys()].find((path) => path.includes(sha256(contents[1]!).slice(7)))!);
    await expect(from.export(digest)).rejects.toMatchObject({ condition: "precondition" });
    await expect(from.export(sha256(new Uint8Array(1)))).rejects.toMatchObject({ condition: "not-found" });
  });
});
