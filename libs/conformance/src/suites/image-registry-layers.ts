import assert from "node:assert/strict";
import { ContractError, messages, type Channel } from "@polyvisor/contracts";
import { Disk, type DiskImage, type ImagePort, type ImportImageResponse } from "@polyvisor/contracts/image";
import type { ConformanceEnvironment } from "../suite.ts";
import { Blocks, filled, opened, refused, same, SECTOR, WAIT_MS, type ImageCase } from "./image-registry-driver.ts";

/** The whole of a disk that nobody has open. */
async function contentOf(port: ImagePort, environment: ConformanceEnvironment, id: string): Promise<Uint8Array> {
  const blocks = new Blocks(port, environment, id);
  const { diskBytes } = await blocks.open(true);
  const content = await blocks.read(0, Number(diskBytes) / SECTOR);
  await blocks.close();
  return content;
}

async function exported(port: ImagePort, id: string, format: string): Promise<Uint8Array> {
  const bytes: number[] = [];
  for await (const { data, zeros } of messages(port.exportDisk({ id, format }))) {
    bytes.push(...data);
    for (let i = 0n; i < zeros; i++) bytes.push(0);
  }
  return Uint8Array.from(bytes);
}

async function imported(port: ImagePort, environment: ConformanceEnvironment, format: string, file: Uint8Array): Promise<DiskImage> {
  const channel = port.importImage();
  const answer = (async () => {
    for await (const response of messages(channel as unknown as Channel<never, ImportImageResponse>)) return response.image!;
    throw new ContractError("unavailable", "the stream ended without an answer");
  })();
  answer.catch(() => {});
  for (let at = 0; at < file.length || at === 0; at += 100_000) {
    const data = file.subarray(at, at + 100_000);
    channel.send({ format, size: BigInt(file.length), data, finish: at + data.length === file.length, zeros: 0n });
  }
  return environment.within(WAIT_MS, answer, "answer to importImage");
}

/** A disk that nobody has open, 64 sectors, of which the first 16 hold 3 and the last is 4. */
async function written(port: ImagePort, environment: ConformanceEnvironment): Promise<{ id: string; content: Uint8Array }> {
  const { id, blocks } = await opened(port, environment, 64);
  await blocks.write(0, filled(16, 3));
  await blocks.write(63, filled(1, 4));
  await blocks.close();
  return { id, content: new Uint8Array([...filled(16, 3), ...filled(47, 0), ...filled(1, 4)]) };
}

/** IMG-30 to IMG-35: what disks become. */
export const LAYERS: ImageCase[] = [
  {
    requirement: "IMG-30",
    title: "a disk grows by zeros and shrinks only by leave; what was cut off does not come back",
    async run(port, environment) {
      const { id } = await written(port, environment);
      await refused(port.resizeDisk({ id: environment.unique("none"), bytes: 512n, mayShrink: false }), "not-found");
      await refused(port.resizeDisk({ id, bytes: 511n, mayShrink: true }), "invalid");
      await refused(port.resizeDisk({ id, bytes: 512n, mayShrink: false }), "precondition");
      const blocks = new Blocks(port, environment, id);
      await blocks.open();
      await refused(port.resizeDisk({ id, bytes: 65536n, mayShrink: false }), "conflict");
      await blocks.close();
      await port.resizeDisk({ id, bytes: BigInt(10 * SECTOR), mayShrink: true });
      same(await contentOf(port, environment, id), filled(10, 3));
      await port.resizeDisk({ id, bytes: BigInt(100 * SECTOR), mayShrink: false });
      same(await contentOf(port, environment, id), new Uint8Array([...filled(10, 3), ...filled(90, 0)]));
    },
  },
  {
    requirement: "IMG-31",
    title: "a clone of an open disk has its content of that moment; then neither sees the other, and either may go",
    async run(port, environment) {
      const { id, content } = await written(port, environment);
      const blocks = new Blocks(port, environment, id);
      await blocks.open();
      const newId = environment.unique("clone");
      const { disk } = await port.cloneDisk({ id, newId });
      assert.equal(disk!.bytes, 64n * 512n);
      await refused(port.cloneDisk({ id, newId }), "already-exists");
      await refused(port.cloneDisk({ id: environment.unique("none"), newId: environment.unique("clone") }), "not-found");
      await blocks.write(0, filled(1, 9));
      same(await contentOf(port, environment, newId), content);
      const clone = new Blocks(port, environment, newId);
      await clone.open();
      await clone.write(1, filled(1, 8));
      await clone.close();
      same(await blocks.read(0, 3), new Uint8Array([...filled(1, 9), ...filled(2, 3)]));
      await blocks.close();
      await port.deleteDisk({ id });
      same((await contentOf(port, environment, newId)).slice(0, 3 * SECTOR), new Uint8Array([...filled(1, 3), ...filled(1, 8), ...filled(1, 3)]));
    },
  },
  {
    requirement: "IMG-32",
    title: "a committed disk is an image that others stand on; again the same digest; with rebase its layers are gone",
    async run(port, environment) {
      const { id, content } = await written(port, environment);
      const { digest, image } = await port.commitDisk({ id, rebase: false, flatten: false });
      assert.equal(image!.digest, digest);
      assert.equal(image!.diskBytes, BigInt(content.length));
      assert.equal((await port.commitDisk({ id, rebase: true, flatten: false })).digest, digest);
      const { disks } = await port.listDisks({});
      const disk = disks.find((each) => each.id === id)!;
      assert.deepEqual([disk.baseDigest, disk.baseMediaType, disk.layers], [digest, image!.mediaType, 0]);
      const other = environment.unique("disk");
      await port.createDisk({ disk: Disk.fromPartial({ id: other, baseDigest: digest, baseMediaType: image!.mediaType, bytes: image!.diskBytes }) });
      for (const each of [id, other]) same(await contentOf(port, environment, each), content);
      const blocks = new Blocks(port, environment, other);
      await blocks.open();
      await blocks.write(20, filled(1, 7));
      const above = await port.commitDisk({ id: other, rebase: false, flatten: false });
      assert.notEqual(above.digest, digest);
      await refused(port.commitDisk({ id: other, rebase: true, flatten: false }), "conflict");
      await blocks.close();
    },
  },
  {
    requirement: "IMG-33",
    title: "the difference to the base is what was written and zeroed, in order",
    async run(port, environment) {
      const { id } = await written(port, environment);
      const { digest, image } = await port.commitDisk({ id, rebase: false, flatten: false });
      const other = environment.unique("disk");
      await port.createDisk({ disk: Disk.fromPartial({ id: other, baseDigest: digest, baseMediaType: image!.mediaType, bytes: image!.diskBytes }) });
      const blocks = new Blocks(port, environment, other);
      await blocks.open();
      await blocks.write(24, filled(8, 5));
      assert.equal((await blocks.send({ $case: "writeZeroes", value: { sector: 0n, sectors: 16n } })).status, 1);
      await blocks.close();
      const covered = new Set<number>();
      let end = 0n;
      for await (const { position, length, zero } of messages(port.diffDisk({ id: other }))) {
        assert.ok(position >= end && length > 0n);
        end = position + length;
        for (let at = position; at < end; at += 512n) covered.add(Number(at / 512n));
        if (position >= 24n * 512n) assert.equal(zero, false);
      }
      for (const sector of [0, 15, 24, 31]) assert.ok(covered.has(sector), `sector ${sector} was changed`);
      assert.ok(!covered.has(63), "sector 63 was not changed");
    },
  },
  {
    requirement: "IMG-34",
    title: "a raw export is the disk's bytes; a qcow2 export comes back as the same image; another format is refused",
    async run(port, environment) {
      const { id, content } = await written(port, environment);
      same(await exported(port, id, "raw"), content);
      const qcow2 = await exported(port, id, "qcow2");
      const { digest } = await port.commitDisk({ id, rebase: false, flatten: true });
      assert.equal((await imported(port, environment, "qcow2", qcow2)).digest, digest);
      assert.equal((await imported(port, environment, "raw", content)).digest, digest);
      await refused(exported(port, id, "vhd"), "invalid");
      await refused(exported(port, environment.unique("none"), "raw"), "not-found");
    },
  },
  {
    requirement: "IMG-35",
    title: "files that are damaged, foreign, empty or cut are refused; the service goes on",
    async run(port, environment) {
      const { id } = await written(port, environment);
      const qcow2 = await exported(port, id, "qcow2");
      const changed = (at: number, ...bytes: number[]): Uint8Array => {
        const copy = qcow2.slice();
        copy.set(bytes, at);
        return copy;
      };
      for (const [what, file] of [
        ["a backing file", changed(8, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 4)],
        ["encryption", changed(32, 0, 0, 0, 1)],
        ["an absurd cluster size", changed(20, 0, 0, 0, 60)],
        ["an L1 table behind the end", changed(40, 0, 0, 0x7f)],
        ["an L1 entry behind the end", changed(Number(new DataView(qcow2.buffer).getBigUint64(40)), 0x80, 0x70)],
        ["no magic", changed(0, 0)],
        ["half a header", qcow2.slice(0, 60)],
        ["nothing", new Uint8Array(0)],
      ] as const) {
        await refused(imported(port, environment, "qcow2", file), "invalid").catch((error: unknown) => assert.fail(`${what}: ${String(error)}`));
      }
      await refused(imported(port, environment, "vmdk", qcow2), "invalid");
      assert.equal((await imported(port, environment, "qcow2", qcow2)).diskBytes, 64n * 512n);
    },
  },
];
