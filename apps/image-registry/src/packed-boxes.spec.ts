import { createHash, randomBytes } from "node:crypto";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { messages } from "@polyvisor/contracts";
import { Box, Descriptor, type ImagePort } from "@polyvisor/contracts/image";
import { BOX_LAYER_TYPES, MEDIA_TYPES, PACKED, readBoxManifest, writeBoxDefaults, writeBoxManifest, BOX_CONFIG_TYPE } from "@polyvisor/image-spec";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startRegistry, type TestRegistry } from "./testing/registry.ts";

const sha = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
/** Compresses to about half. */
const kernel = Buffer.concat(Array.from({ length: 512 }, () => Buffer.concat([randomBytes(512), Buffer.alloc(512, 7)])));

async function write(port: ImagePort, data: Uint8Array): Promise<string> {
  const channel = port.writeBlob();
  channel.send({ digest: "", size: BigInt(data.length), data, finish: true });
  for await (const { digest } of messages(channel as never) as AsyncIterable<{ digest: string }>) return digest;
  throw new Error("no answer");
}
async function read(port: ImagePort, digest: string): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const { data } of messages(port.readBlob({ digest, offset: 0n, length: 0n }))) pieces.push(data);
  return Buffer.concat(pieces);
}

describe("kernels and initial RAM disks of boxes", () => {
  let registry: TestRegistry;
  beforeEach(async () => void (registry = await startRegistry()));
  afterEach(() => registry[Symbol.asyncDispose]());
  const manifest = async (name: string): Promise<ReturnType<typeof readBoxManifest>> => {
    const { bytes } = await registry.client.manifest(name, "1");
    return readBoxManifest(bytes);
  };

  it("are zstd frames in the manifest, plain bytes for who resolves the box; also after garbage collection took the plain ones", async () => {
    const { port } = registry;
    const digest = await write(port, kernel);
    const put = await port.putBox({ box: Box.fromPartial({ name: "web", tag: "1", kernel: Descriptor.fromPartial({ digest }) }) });
    const { layers } = await manifest("web");
    expect(layers.kernel).toMatchObject({ mediaType: `${BOX_LAYER_TYPES.kernel}${PACKED.suffix}`, annotations: { [PACKED.digest]: digest, [PACKED.size]: String(kernel.length) } });
    expect(layers.kernel!.size).toBeLessThan(kernel.length * 0.6);
    expect(zstdDecompressSync(await read(port, layers.kernel!.digest)).equals(kernel)).toBe(true); // any zstd unpacks it

    await new Promise((resolve) => setTimeout(resolve, 10)); // older than now
    await port.collectGarbage({ graceMs: 0n, untagged: false, dryRun: false });
    await expect(port.statBlob({ digest })).rejects.toMatchObject({ condition: "not-found" });
    expect((await port.listBoxes({})).boxes[0]!.kernel).toMatchObject({ digest, size: BigInt(kernel.length), mediaType: BOX_LAYER_TYPES.kernel });
    const { box } = await port.resolveBox({ reference: "web:1" });
    expect(box!.kernel).toMatchObject({ digest, size: BigInt(kernel.length) });
    expect((await read(port, digest)).equals(kernel)).toBe(true);
    expect((await port.putBox({ box: { ...box!, name: "same", createdUnixMs: 0n } })).digest).toBe(put.digest);
    // As it comes from another registry: packed already.
    const packed = { ...layers.kernel!, size: BigInt(layers.kernel!.size), annotations: new Map(Object.entries(layers.kernel!.annotations!)) };
    expect((await port.putBox({ box: Box.fromPartial({ name: "moved", tag: "1", kernel: packed }) })).digest).toBe(put.digest);
  });

  it("small ones and those that do not compress stay as they are", async () => {
    for (const data of [randomBytes(600_000), Buffer.alloc(1000)]) {
      const digest = await write(registry.port, data);
      await registry.port.putBox({ box: Box.fromPartial({ name: "plain", tag: "1", kernel: Descriptor.fromPartial({ digest }) }) });
      expect((await manifest("plain")).layers.kernel).toMatchObject({ digest, mediaType: BOX_LAYER_TYPES.kernel });
    }
  });

  it.each([
    ["a bomb: more comes out than it says", zstdCompressSync(Buffer.alloc(1 << 20)), { [PACKED.digest]: sha(Buffer.alloc(1000)), [PACKED.size]: "1000" }],
    ["other bytes than it says", zstdCompressSync(Buffer.alloc(1000)), { [PACKED.digest]: sha(kernel), [PACKED.size]: "1000" }],
    ["fewer", zstdCompressSync(Buffer.alloc(999)), { [PACKED.digest]: sha(Buffer.alloc(1000)), [PACKED.size]: "1000" }],
    ["no frame", Buffer.from("no frame at all"), { [PACKED.digest]: sha(Buffer.alloc(1000)), [PACKED.size]: "1000" }],
  ])("a frame with %s → corrupt, nothing stored; the box can be removed", async (_what, frame, annotations) => {
    const { client, port } = registry;
    const blob = async (data: Uint8Array): Promise<{ digest: string; size: number }> => {
      await client.pushBlob("evil", { digest: sha(data), size: data.length, open: async function* (offset) { yield data.subarray(offset); } });
      return { digest: sha(data), size: data.length };
    };
    const defaults = writeBoxDefaults({ bootArguments: "", memoryBytes: 0, harts: 1, diskBytes: 0, agentConsole: "", description: "" });
    const config = { mediaType: BOX_CONFIG_TYPE, ...(await blob(defaults)) };
    const bytes = writeBoxManifest({ config, layers: { kernel: { mediaType: `${BOX_LAYER_TYPES.kernel}${PACKED.suffix}`, ...(await blob(frame)), annotations } }, annotations: {} });
    await client.pushManifest("evil", "1", { bytes, mediaType: MEDIA_TYPES.manifest });
    await expect(port.resolveBox({ reference: "evil:1" })).rejects.toMatchObject({ condition: "corrupt", message: expect.stringMatching(/no zstd frame of the 1000 bytes/) });
    await expect(port.statBlob({ digest: annotations[PACKED.digest]! })).rejects.toMatchObject({ condition: "not-found" });
    await port.deleteBox({ reference: "evil:1" });
  });
});
