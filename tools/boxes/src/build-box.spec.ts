import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { mediated, type Implementation } from "@polyvisor/contracts";
import { ContractError } from "@polyvisor/contracts";
import { IMAGE, type Box } from "@polyvisor/contracts/image";
import { readLinuxImage } from "@polyvisor/machine";
import { BOX_LAYER_TYPES, DiskIndex, DISK_TYPES, unpackedOf } from "@polyvisor/image-spec";
import { afterEach, describe, expect, it } from "vitest";
import { assembleTiny, buildBox, publishBox } from "./index.ts";
import { packFile } from "./pack-file.ts";

const made: string[] = [];
afterEach(() => made.splice(0).forEach((path) => rmSync(path, { recursive: true, force: true })));
function directory(): string {
  const path = mkdtempSync(join(tmpdir(), "pv-boxes-"));
  made.push(path);
  return path;
}
const sha256 = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

describe("buildBox", () => {
  it("tiny: assembled as a boot image, the same bytes every time", async () => {
    const image = assembleTiny();
    expect(readLinuxImage(image).imageBytes).toBe(BigInt(image.length));
    const cacheDir = directory();
    const built = await buildBox("tiny", { cacheDir });
    expect(built).toMatchObject({ name: "tiny", fromCache: false, kernel: { sha256: sha256(image), bytes: image.length } });
    expect(await buildBox("tiny", { cacheDir })).toEqual({ ...built, fromCache: true });
  });
  it("a damaged file in the cache → built again", async () => {
    const cacheDir = directory();
    const { kernel } = await buildBox("tiny", { cacheDir });
    writeFileSync(kernel.path, "broken");
    const lines: string[] = [];
    expect((await buildBox("tiny", { cacheDir, log: (line) => lines.push(line) })).fromCache).toBe(false);
    expect(lines.join()).toMatch(/not usable .*it will be built again/);
    expect(sha256(readFileSync(kernel.path))).toBe(kernel.sha256);
  });
  it("four builds at once, and a lock that its owner left behind → one box for all", async () => {
    const cacheDir = directory();
    const first = await buildBox("tiny", { cacheDir });
    writeFileSync(`${first.kernel.path.split("/").slice(0, -1).join("/")}.lock`, "999999999");
    const all = await Promise.all([1, 2, 3, 4].map(() => buildBox("tiny", { cacheDir, refresh: true })));
    for (const built of all) expect(built.kernel.sha256).toBe(first.kernel.sha256);
  });
  it("HV_BOX_CACHE: a box that was built elsewhere is used as it is, wherever it was copied to", async () => {
    const elsewhere = directory();
    await buildBox("tiny", { cacheDir: elsewhere });
    const built = await buildBox("tiny", { cacheDir: directory(), env: { HV_BOX_CACHE: elsewhere } });
    expect(built.fromCache).toBe(true);
    expect(built.kernel.path.startsWith(elsewhere)).toBe(true);
  });
  it("no such recipe, no apt, no mirror → says what there is and what to do", async () => {
    await expect(buildBox("x", { cacheDir: directory() })).rejects.toThrow(/there are: debian\/minimal, debian\/13, debian\/docker, tiny/);
    const env = { PATH: "/nonexistent", HV_DEBIAN_MIRROR: "file:/nonexistent" };
    await expect(buildBox("debian/minimal", { cacheDir: directory(), env })).rejects.toThrow(/apt-get is not on this machine.*HV_BOX_CACHE/);
  });
});

describe("publishBox", () => {
  it("writes the blobs that are missing, whole, the disk as chunks and index, and puts the box; again writes nothing", async () => {
    const blobs = new Map<string, Uint8Array>();
    let writes = 0;
    let box: Box | undefined;
    const implementation: Implementation<typeof IMAGE.definition> = {
      statBlob: ({ digest }) => {
        const blob = blobs.get(digest);
        if (!blob) throw new ContractError("not-found", digest);
        return { bytes: BigInt(blob.length) };
      },
      writeBlob: (channel) => {
        const pieces: Uint8Array[] = [];
        channel.onMessage(({ digest, data, finish }) => {
          pieces.push(data);
          if (!finish) return;
          writes++;
          blobs.set(digest, Buffer.concat(pieces));
          channel.send({ digest, bytes: 0n });
          channel.close();
        });
      },
      putBox: (request) => {
        box = request.box;
        return { digest: "sha256:x" };
      },
    };
    const folder = directory();
    const file = (name: string, data: Uint8Array): { path: string; bytes: number; sha256: string } => {
      writeFileSync(join(folder, name), data);
      return { path: join(folder, name), bytes: data.length, sha256: sha256(data) };
    };
    const kernel = file("kernel", Buffer.alloc(3_000_001, 7));
    const disk = file("disk", Buffer.concat([Buffer.alloc(2 << 20), Buffer.alloc(100_000, 5), Buffer.alloc(352)]));
    const initrd = await packFile(file("initrd", Buffer.alloc(300_000, 9)));
    const built = { ...(await buildBox("tiny", { cacheDir: folder })), kernel, initrd, disk };
    const port = mediated(IMAGE, implementation);
    expect((await publishBox(port, built)).digest).toBe("sha256:x");
    expect(writes).toBe(4);
    const chunks = { path: `${disk.path}.chunks`, sha256: sha256(readFileSync(`${disk.path}.chunks`)) };
    for (const { path, sha256: hex } of [kernel, chunks]) expect(Buffer.compare(blobs.get(`sha256:${hex}`)!, readFileSync(path))).toBe(0);
    const index = new DiskIndex(blobs.get(box!.disk!.digest)!);
    expect(index).toMatchObject({ diskBytes: disk.bytes, entryCount: 2, data: { digest: `sha256:${chunks.sha256}` } });
    expect(box!.disk!.mediaType).toBe(DISK_TYPES.index);
    expect(box).toMatchObject({ name: "tiny", kernel: { size: 3_000_001n }, config: { harts: 1 } });
    // What the build has packed goes as its frame, and says what comes out of it.
    expect(unpackedOf({ ...box!.initrd!, size: 0, annotations: Object.fromEntries(box!.initrd!.annotations) })).toMatchObject({ mediaType: BOX_LAYER_TYPES.initrd, digest: `sha256:${initrd.sha256}`, size: 300_000 });
    expect(zstdDecompressSync(blobs.get(box!.initrd!.digest)!).equals(readFileSync(initrd.path))).toBe(true);
    expect(blobs.has(`sha256:${initrd.sha256}`)).toBe(false);
    await publishBox(port, built);
    expect(writes).toBe(4);
    writeFileSync(chunks.path, "a build that was killed");
    await publishBox(port, built);
    expect(sha256(readFileSync(chunks.path))).toBe(chunks.sha256);
  });
});
