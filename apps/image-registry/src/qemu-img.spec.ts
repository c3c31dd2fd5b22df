/** QEMU's own tool as the judge of what we write and the maker of what we read. */
import { spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { mediated, messages } from "@polyvisor/contracts";
import { Disk, type DiskImage, type ImagePort, type ImportImageRequest, type ImportImageResponse } from "@polyvisor/contracts/image";
import { temporaryDirectory, testContext } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { nodeStorage } from "./adapters/node-files.ts";
import { createStores } from "./core/stores.ts";
import { createService } from "./index.ts";

const available = spawnSync("qemu-img", ["--version"]).status === 0;
if (!available) console.warn("qemu-img is not here: what it would judge is left out (Debian: apt-get install qemu-utils)");

function qemuImg(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync("qemu-img", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`qemu-img ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

interface Rig extends AsyncDisposable {
  readonly port: ImagePort;
  readonly path: (name: string) => string;
}

async function rig(): Promise<Rig> {
  const directory = temporaryDirectory("pv-qemu-img-");
  const service = await createService({ root: join(directory.path, "registry") }, {}, testContext());
  return {
    port: mediated(service.contract, service.implementation),
    path: (name) => join(directory.path, name),
    [Symbol.asyncDispose]: async () => {
      await service.close();
      directory[Symbol.dispose]();
    },
  };
}

async function exportTo(port: ImagePort, id: string, format: string, path: string): Promise<void> {
  const file = openSync(path, "w");
  let at = 0;
  for await (const { data, zeros } of messages(port.exportDisk({ id, format }))) {
    writeSync(file, data, 0, data.length, at);
    at += data.length + Number(zeros);
  }
  ftruncateSync(file, at);
  closeSync(file);
}

async function importFrom(port: ImagePort, format: string, path: string): Promise<DiskImage> {
  const channel = port.importImage();
  const file = readFileSync(path);
  const answer = new Promise<DiskImage>((resolve, reject) => {
    channel.onMessage(({ image }: ImportImageResponse) => resolve(image!));
    channel.onClose((error) => reject(error ?? new Error("no answer")));
  });
  for (let at = 0; at < file.length; at += 1 << 20) {
    const data = file.subarray(at, at + (1 << 20));
    channel.send({ format, size: BigInt(file.length), data, finish: at + data.length === file.length, zeros: 0n } satisfies ImportImageRequest);
  }
  return answer;
}

/** A disk with three layers of writes all over it. */
async function layeredDisk(root: string, id: string, bytes: number): Promise<void> {
  const { disks } = createStores(await nodeStorage(root), { maxBlobBytes: 2 ** 40 });
  await disks.create(Disk.fromPartial({ id, bytes: BigInt(bytes) }));
  const handle = await disks.open(id, false);
  for (let layer = 0; layer < 3; layer++) {
    for (let i = 0; i < 40; i++) {
      const position = (((i * 7919 + layer * 104_729) % 1000) / 1000) * bytes;
      const sector = Math.min(Math.floor(position / 512), bytes / 512 - 100);
      await handle.disk.write(sector * 512, Uint8Array.from({ length: 50 * 512 }, (_, k) => 1 + ((k * (i + 3) + layer) % 251)));
    }
    await (await disks.freeze(id)).image.close();
  }
  await handle.close();
}

describe.skipIf(!available)("qemu-img", () => {
  it.each([
    ["1 sector", 512],
    ["an odd size", 37 * 1024 * 1024 + 512],
    ["2 GiB, sparse", 2 ** 31],
  ])("finds an exported disk of %s sound, and equal to its raw export", { timeout: 120_000 }, async (_what, bytes) => {
    await using made = await rig();
    if (bytes > 51_200) await layeredDisk(made.path("registry"), "web/disk0", bytes);
    else await made.port.createDisk({ disk: Disk.fromPartial({ id: "web/disk0", bytes: BigInt(bytes) }) });
    for (const format of ["raw", "qcow2"]) await exportTo(made.port, "web/disk0", format, made.path(format));
    expect(qemuImg("check", "-f", "qcow2", made.path("qcow2"))).toMatch(/No errors were found/);
    expect(qemuImg("compare", "-f", "qcow2", "-F", "raw", made.path("qcow2"), made.path("raw"))).toMatch(/Images are identical/);
    expect(JSON.parse(qemuImg("info", "--output=json", "-f", "qcow2", made.path("qcow2")))).toMatchObject({ "virtual-size": bytes, format: "qcow2" });
  });

  it.each([
    ["its defaults", []],
    ["version 2", ["-o", "compat=0.10"]],
    ["compression", ["-c"]],
    ["zstd compression", ["-c", "-o", "compression_type=zstd"]],
    ["small clusters", ["-o", "cluster_size=512"]],
    ["large clusters, compressed", ["-c", "-o", "cluster_size=2M"]],
  ])("a qcow2 file that it made with %s → imported, the same bytes come out", { timeout: 120_000 }, async (_what, options) => {
    await using made = await rig();
    await layeredDisk(made.path("registry"), "source", 24 * 1024 * 1024);
    await exportTo(made.port, "source", "raw", made.path("raw"));
    qemuImg("convert", "-f", "raw", "-O", "qcow2", ...options, made.path("raw"), made.path("made"));
    const image = await importFrom(made.port, "qcow2", made.path("made"));
    await made.port.createDisk({ disk: Disk.fromPartial({ id: "copy", baseDigest: image.digest, baseMediaType: image.mediaType, bytes: image.diskBytes }) });
    await exportTo(made.port, "copy", "raw", made.path("back"));
    expect(Buffer.compare(readFileSync(made.path("raw")), readFileSync(made.path("back")))).toBe(0);
    expect((await importFrom(made.port, "raw", made.path("raw"))).digest).toBe(image.digest);
  });

  it("a file with a backing file, encrypted, or with extended L2 entries → refused, saying how to go on", async () => {
    await using made = await rig();
    qemuImg("create", "-f", "qcow2", made.path("base"), "1M");
    qemuImg("create", "-f", "qcow2", "-b", made.path("base"), "-F", "qcow2", made.path("overlay"));
    await expect(importFrom(made.port, "qcow2", made.path("overlay"))).rejects.toThrow(/backing file.*qemu-img convert -O qcow2/);
    qemuImg("create", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", made.path("extended"), "1M");
    await expect(importFrom(made.port, "qcow2", made.path("extended"))).rejects.toThrow(/incompatible_features/);
  });
});
