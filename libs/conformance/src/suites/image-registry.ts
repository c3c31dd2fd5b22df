import assert from "node:assert/strict";
import { BlockStatus, Box, Descriptor, Disk, IMAGE } from "@polyvisor/contracts/image";
import type { ConformanceSuite } from "../suite.ts";
import { Blocks, boxOf, content, digestOf, diskOf, download, filled, type ImageCase, opened, refused, same, SECTOR, store, upload, writeOf } from "./image-registry-driver.ts";
import { LAYERS } from "./image-registry-layers.ts";

const BLOBS: readonly ImageCase[] = [
  {
    requirement: "IMG-1",
    title: "a blob written in pieces, digest computed → its digest and size, and the same bytes back",
    async run(port, environment) {
      const data = content(environment.unique("blob"), 700_000);
      const pieces = [data.subarray(0, 1), data.subarray(1, 300_000), data.subarray(300_000)];
      const stored = await upload(port, environment, { size: data.length, pieces });
      assert.deepEqual(stored, { digest: await digestOf(data), bytes: BigInt(data.length) });
      same(await download(port, stored.digest), data);
      assert.equal((await port.statBlob({ digest: stored.digest })).bytes, BigInt(data.length));
    },
  },
  {
    requirement: "IMG-1",
    title: "wrong digest, wrong size, or no end → an error, and nothing stays",
    async run(port, environment) {
      const data = content(environment.unique("blob"), 5000);
      const digest = await digestOf(data);
      const other = await digestOf(content(environment.unique("other"), 10));
      await refused(upload(port, environment, { digest: other, pieces: [data] }), "corrupt");
      await refused(upload(port, environment, { digest, size: 4999, pieces: [data] }), "invalid");
      await refused(upload(port, environment, { digest, size: 5001, pieces: [data] }), "invalid");
      await refused(upload(port, environment, { digest: "sha256:12", pieces: [data] }), "invalid");
      await upload(port, environment, { digest, pieces: [data], finish: false }).catch(() => {});
      await refused(port.statBlob({ digest }), "not-found");
      await refused(port.statBlob({ digest: other }), "not-found");
    },
  },
  {
    requirement: "IMG-2",
    title: "four writers of one blob at once, and one more after → the same answer to all",
    async run(port, environment) {
      const data = content(environment.unique("blob"), 100_000);
      const digest = await digestOf(data);
      const write = () => upload(port, environment, { digest, size: data.length, pieces: [data] });
      for (const stored of [...(await Promise.all([write(), write(), write(), write()])), await write()]) {
        assert.deepEqual(stored, { digest, bytes: 100_000n });
      }
      same(await download(port, digest), data);
    },
  },
  {
    requirement: "IMG-3",
    title: "reads of ranges → those bytes; beyond the end or of nothing → errors",
    async run(port, environment) {
      const data = content(environment.unique("blob"), 1000);
      const { digest } = await store(port, environment, data);
      same(await download(port, digest, 990n), data.subarray(990));
      same(await download(port, digest, 3n, 4n), data.subarray(3, 7));
      same(await download(port, digest, 998n, 100n), data.subarray(998));
      assert.equal((await download(port, digest, 1000n)).length, 0);
      await refused(download(port, digest, 1001n), "out-of-range");
      await refused(download(port, `sha256:${"0".repeat(64)}`), "not-found");
      await refused(download(port, "../../etc/passwd"), "invalid");
    },
  },
  {
    requirement: "IMG-4",
    title: "stat of what is not there, or no digest → not-found, invalid",
    async run(port) {
      await refused(port.statBlob({ digest: `sha256:${"1".repeat(64)}` }), "not-found");
      await refused(port.statBlob({ digest: "" }), "invalid");
    },
  },
];

const BOXES: readonly ImageCase[] = [
  {
    requirement: "IMG-5",
    title: "a box put twice → one digest; resolved with its parts and defaults",
    async run(port, environment) {
      const disk = await store(port, environment, content(environment.unique("base"), 1024));
      const box = await boxOf(port, environment, { disk });
      const { digest } = await port.putBox({ box });
      assert.equal((await port.putBox({ box })).digest, digest);
      const found = (await port.resolveBox({ reference: `${box.name}:1` })).box!;
      assert.equal(found.digest, digest);
      assert.equal(found.kernel!.digest, box.kernel!.digest);
      assert.equal(found.kernel!.size, 100n);
      assert.equal(found.initrd, undefined);
      assert.equal(found.config!.bootArguments, "quiet");
      assert.equal(found.config!.diskBytes, 1024n);
    },
  },
  {
    requirement: "IMG-5",
    title: "a box without a kernel, with a missing blob, a wrong size, a bad name or too small a disk → refused",
    async run(port, environment) {
      const box = await boxOf(port, environment);
      const missing = Descriptor.fromPartial({ digest: `sha256:${"2".repeat(64)}` });
      const disk = await store(port, environment, content(environment.unique("base"), 1024));
      await refused(port.putBox({ box: undefined }), "invalid");
      await refused(port.putBox({ box: { ...box, kernel: undefined } }), "invalid");
      await refused(port.putBox({ box: { ...box, initrd: missing } }), "precondition");
      await refused(port.putBox({ box: { ...box, kernel: { ...box.kernel!, size: 99n } } }), "invalid");
      await refused(port.putBox({ box: { ...box, name: "../x" } }), "invalid");
      await refused(port.putBox({ box: { ...box, tag: "a/b" } }), "invalid");
      await refused(port.putBox({ box: { ...box, disk, config: { ...box.config!, diskBytes: 512n } } }), "invalid");
      await refused(port.resolveBox({ reference: box.name }), "not-found");
    },
  },
  {
    requirement: "IMG-6",
    title: "references with and without tag and digest → the box they mean",
    async run(port, environment) {
      const box = await boxOf(port, environment);
      const first = (await port.putBox({ box })).digest;
      assert.equal((await port.resolveBox({ reference: box.name })).box!.digest, first);
      const other = { ...box, tag: "", config: { ...box.config!, harts: 2 } };
      const second = (await port.putBox({ box: other })).digest;
      assert.notEqual(second, first);
      assert.equal((await port.resolveBox({ reference: box.name })).box!.tag, "latest");
      assert.equal((await port.resolveBox({ reference: `${box.name}:1` })).box!.digest, first);
      assert.equal((await port.resolveBox({ reference: `${box.name}:latest@${first}` })).box!.config!.harts, 1);
      await refused(port.resolveBox({ reference: `${box.name}:nope` }), "not-found");
      await refused(port.resolveBox({ reference: "NOT/a reference" }), "invalid");
      await refused(port.resolveBox({ reference: `${box.name}@${box.kernel!.digest}` }), "invalid");
    },
  },
  {
    requirement: "IMG-7",
    title: "boxes are listed per tag, and deleted by tag or by name",
    async run(port, environment) {
      const box = await boxOf(port, environment);
      for (const tag of ["b", "a", "c"]) await port.putBox({ box: { ...box, tag } });
      const tags = async () => (await port.listBoxes({})).boxes.filter((each) => each.name === box.name).map((each) => each.tag);
      assert.deepEqual(await tags(), ["a", "b", "c"]);
      await port.deleteBox({ reference: `${box.name}:b` });
      assert.deepEqual(await tags(), ["a", "c"]);
      await refused(port.deleteBox({ reference: `${box.name}:b` }), "not-found");
      await port.deleteBox({ reference: box.name });
      assert.deepEqual(await tags(), []);
      await refused(port.deleteBox({ reference: box.name }), "not-found");
      assert.equal((await port.statBlob({ digest: box.kernel!.digest })).bytes, 100n);
    },
  },
];

const DISKS: readonly ImageCase[] = [
  {
    requirement: "IMG-8",
    title: "create is idempotent for the same disk, refuses another and what makes no sense",
    async run(port, environment) {
      const id = environment.unique("web/disk");
      const made = (await port.createDisk(diskOf(id, 16))).disk!;
      assert.equal(made.bytes, 8192n);
      assert.equal((await port.createDisk(diskOf(id, 16))).disk!.id, id);
      await refused(port.createDisk(diskOf(id, 17)), "already-exists");
      const base = await store(port, environment, content(environment.unique("base"), 1024));
      await refused(port.createDisk(diskOf(id, 16, base.digest)), "already-exists");
      const next = environment.unique("disk");
      await refused(port.createDisk(diskOf(next, 1, base.digest)), "invalid");
      await refused(port.createDisk(diskOf(next, 1, `sha256:${"3".repeat(64)}`)), "not-found");
      await refused(port.createDisk({ disk: Disk.fromPartial({ id: next, bytes: 100n }) }), "invalid");
      await refused(port.createDisk(diskOf(next, 0)), "invalid");
      for (const bad of ["", "../x", "a//b", "a b", "/a", "x".repeat(200)]) await refused(port.createDisk(diskOf(bad, 1)), "invalid");
      assert.deepEqual((await port.listDisks({})).disks.filter((disk) => [id, next].includes(disk.id)).map((disk) => disk.id), [id]);
      await port.deleteDisk({ id });
    },
  },
  {
    requirement: "IMG-9",
    title: "an open disk is not deleted; a closed one is gone, and its id is free again, empty",
    async run(port, environment) {
      const { id, blocks } = await opened(port, environment, 8);
      await blocks.write(0, filled(8, 1));
      await refused(port.deleteDisk({ id }), "conflict");
      assert.equal((await port.listDisks({})).disks.find((disk) => disk.id === id)!.open, true);
      await blocks.close();
      await port.deleteDisk({ id });
      await refused(port.deleteDisk({ id }), "not-found");
      assert.ok(!(await port.listDisks({})).disks.some((disk) => disk.id === id));
      await port.createDisk(diskOf(id, 8));
      const again = new Blocks(port, environment, id);
      await again.open();
      same(await again.read(0, 8), filled(8, 0));
      await again.close();
    },
  },
  {
    requirement: "IMG-10",
    title: "a second opener → conflict; no open first → precondition; nothing to open → not-found; closed → free at once",
    async run(port, environment) {
      const { id, blocks } = await opened(port, environment, 8);
      await refused(new Blocks(port, environment, id).open(), "conflict");
      await blocks.write(7, filled(1, 7)); // the first is not disturbed
      await refused(new Blocks(port, environment, id).send({ $case: "flush", value: {} }), "precondition");
      await refused(new Blocks(port, environment, environment.unique("none")).open(), "not-found");
      await blocks.close();
      const again = new Blocks(port, environment, id);
      assert.equal((await again.open()).status, BlockStatus.OK);
      same(await again.read(7, 1), filled(1, 7));
      await again.close();
    },
  },
  {
    requirement: "IMG-11",
    title: "two hundred pipelined writes and reads → each answered once with its own data",
    async run(port, environment) {
      const { blocks } = await opened(port, environment, 1024);
      await Promise.all(Array.from({ length: 200 }, (_, i) => blocks.write(i * 5, filled(5, i + 1))));
      const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => blocks.read(i * 5, 5)));
      for (const [i, data] of answers.entries()) same(data, filled(5, i + 1));
      await blocks.close();
    },
  },
  {
    requirement: "IMG-11",
    title: "overlapping writes sent in a row → the last one wins",
    async run(port, environment) {
      const { blocks } = await opened(port, environment, 64);
      for (let round = 0; round < 10; round++) {
        await Promise.all(Array.from({ length: 20 }, (_, i) => blocks.write(i % 3, filled(9, 1 + i))));
const expected = Uint8Array.from({ length: 9 * SECTOR }, (_, i) => expectedAfterOverlap(1 + Math.floor(i / SECTOR)));
        same(await blocks.read(1, 9), expected);
      }
      await blocks.close();
    },
  },
  {
    requirement: "IMG-11",
    title: "ranges off the disk, too long, or not whole sectors → a status, and the stream goes on",
    async run(port, environment) {
      const { blocks } = await opened(port, environment, 8);
      const read = (sector: bigint, sectors: number) => blocks.status({ $case: "read", value: { sector, sectors } });
      assert.equal(await read(8n, 1), BlockStatus.OUT_OF_RANGE);
      assert.equal(await read(0n, 9), BlockStatus.OUT_OF_RANGE);
      assert.equal(await read((1n << 64n) - 1n, 1), BlockStatus.OUT_OF_RANGE);
      assert.equal(await read(0n, 0xffff_ffff), BlockStatus.OUT_OF_RANGE);
      assert.equal(await read(8n, 0), BlockStatus.OK);
      assert.equal(await blocks.status(writeOf(7, filled(2, 1))), BlockStatus.OUT_OF_RANGE);
      assert.equal(await blocks.status(writeOf(0, new Uint8Array(100))), BlockStatus.IO_ERROR);
      assert.equal(await blocks.status({ $case: "discard", value: { sector: 0n, sectors: (1n << 64n) - 1n } }), BlockStatus.OUT_OF_RANGE);
      assert.equal(await blocks.status({ $case: "open", value: { readOnly: false } }), BlockStatus.IO_ERROR);
      same(await blocks.read(0, 8), filled(8, 0));
      await blocks.close();
      const big = await opened(port, environment, 4096);
      assert.equal(await big.blocks.status({ $case: "read", value: { sector: 0n, sectors: 2049 } }), BlockStatus.OUT_OF_RANGE);
      assert.equal((await big.blocks.read(0, 2048)).length, 1024 * 1024);
      await big.blocks.close();
    },
  },
  {
    requirement: "IMG-12",
    title: "written, flushed, closed, opened again → the same bytes",
    async run(port, environment) {
      const { id, blocks } = await opened(port, environment, 300);
      const data = content(id, 299 * SECTOR);
      await blocks.write(1, data);
      await Promise.all([blocks.flush(), blocks.flush(), blocks.flush()]);
      await blocks.close();
      const again = new Blocks(port, environment, id);
      await again.open();
      same(await again.read(1, 299), data);
      same(await again.read(0, 1), filled(1, 0));
      await again.close();
    },
  },
  {
    requirement: "IMG-13",
    title: "two disks on one base → each sees the base and its own writes; behind the base zeros",
    async run(port, environment) {
      const data = content(environment.unique("base"), 10 * SECTOR + 100);
      const base = await store(port, environment, data);
      const one = await opened(port, environment, 24, base.digest);
      const two = await opened(port, environment, 24, base.digest);
      const whole = new Uint8Array(24 * SECTOR);
      whole.set(data);
      same(await one.blocks.read(0, 24), whole);
      await one.blocks.write(3, filled(1, 0xee)); // one sector in the middle of what the base holds
      await two.blocks.write(11, filled(1, 0xdd));
      const expect = (sector: number, value: number): Uint8Array => whole.slice().fill(value, sector * SECTOR, (sector + 1) * SECTOR);
      same(await one.blocks.read(0, 24), expect(3, 0xee));
      same(await two.blocks.read(0, 24), expect(11, 0xdd));
      same(await download(port, base.digest), data);
      await one.blocks.close();
      await two.blocks.close();
    },
  },
  {
    requirement: "IMG-14",
    title: "zeroes over data and base, odd edges → zero there and nowhere else; discard → zero or as before",
    async run(port, environment) {
      const base = await store(port, environment, filled(64, 1));
      const { blocks } = await opened(port, environment, 64, base.digest);
      await blocks.write(20, filled(20, 2));
      assert.equal(await blocks.status({ $case: "writeZeroes", value: { sector: 3n, sectors: 30n } }), BlockStatus.OK);
      const now = new Uint8Array([...filled(3, 1), ...filled(30, 0), ...filled(7, 2), ...filled(24, 1)]);
      same(await blocks.read(0, 64), now);
      assert.equal(await blocks.status({ $case: "discard", value: { sector: 40n, sectors: 24n } }), BlockStatus.OK);
      const after = await blocks.read(40, 24);
      assert.ok(after.every((byte) => byte === 0 || byte === 1));
      same(await blocks.read(0, 40), now.slice(0, 40 * SECTOR));
      await blocks.close();
    },
  },
  {
    requirement: "IMG-15",
    title: "a disk opened read-only → reads work, changes answer READ_ONLY",
    async run(port, environment) {
      const id = environment.unique("disk");
      await port.createDisk(diskOf(id, 8));
      const blocks = new Blocks(port, environment, id);
      await blocks.open(true);
      assert.equal(await blocks.status(writeOf(0, filled(1, 1))), BlockStatus.READ_ONLY);
      assert.equal(await blocks.status({ $case: "writeZeroes", value: { sector: 0n, sectors: 1n } }), BlockStatus.READ_ONLY);
      same(await blocks.read(0, 8), filled(8, 0));
      await blocks.flush();
      await blocks.close();
    },
  },
];

/** Sector `s` after twenty writes of nine sectors, the i-th at sector i % 3 with value 1 + i: the last that covers it. */
function expectedAfterOverlap(s: number): number {
  let value = 0;
  for (let i = 0; i < 20; i++) if (s >= i % 3 && s < (i % 3) + 9) value = 1 + i;
  return value;
}

const REGISTRY: readonly ImageCase[] = [
  {
    requirement: "IMG-40",
    title: "garbage collected with the usual grace, or dry → a blob that was just written stays",
    async run(port, environment) {
      const { digest } = await store(port, environment, content(environment.unique("blob"), 1024));
      await port.collectGarbage({ untagged: false, dryRun: false });
      await port.collectGarbage({ graceMs: 0n, untagged: true, dryRun: true });
      assert.equal((await port.statBlob({ digest })).bytes, 1024n);
    },
  },
  {
    requirement: "IMG-40",
    title: "garbage collected at once → a blob that nothing names is gone; those of boxes, disks and pins stay until they go",
    needs: ["garbage-at-once"],
    async run(port, environment) {
      const blob = async (): Promise<string> => (await store(port, environment, content(environment.unique("blob"), 1000))).digest;
      const [nobodys, boxed, based, pinned] = [await blob(), await blob(), await blob(), await blob()];
      const [name, id, owner] = [environment.unique("box"), environment.unique("disk"), environment.unique("machine")];
      await port.putBox({ box: Box.fromPartial({ name, tag: "1", kernel: { digest: boxed } }) });
      await port.createDisk({ disk: Disk.fromPartial({ id, bytes: 1024n, baseDigest: based }) });
      await port.setPins({ owner, digests: [pinned] });
      const collect = (): Promise<unknown> => port.collectGarbage({ graceMs: 0n, untagged: false, dryRun: false });
      const there = async (...digests: string[]): Promise<boolean[]> => Promise.all(digests.map((digest) => port.statBlob({ digest }).then(() => true, () => false)));
      await collect();
      assert.deepEqual(await there(nobodys, boxed, based, pinned), [false, true, true, true]);
      await port.deleteBox({ reference: name });
      await port.deleteDisk({ id });
      await port.setPins({ owner, digests: [] });
      await collect();
      assert.deepEqual(await there(boxed, based, pinned), [false, false, false]);
    },
  },
  {
    requirement: "IMG-41",
    title: "pins with a malformed digest, or of nobody → invalid",
    async run(port) {
      await refused(port.setPins({ owner: "m", digests: ["sha256:x"] }), "invalid");
      await refused(port.setPins({ owner: "", digests: [] }), "invalid");
    },
  },
  {
    requirement: "IMG-42",
    title: "a box that was put → described as a repository with its tag and its blobs' bytes",
    async run(port, environment) {
      const name = environment.unique("box");
      const { digest } = await store(port, environment, content(environment.unique("blob"), 2048));
      await port.putBox({ box: Box.fromPartial({ name, tag: "1", kernel: { digest } }) });
      const found = (await port.describeRegistry({})).repositories.find((each) => each.name === name);
      assert.equal(found?.tags, 1n);
      assert.ok(found.bytes >= 2048n);
    },
  },
  {
    requirement: "IMG-43",
    title: "a translation is found by its key, the last one put; other keys, missing blobs and names that are no tags are not",
    async run(port, environment) {
      const key = environment.unique("key");
      assert.equal((await port.findTranslation({ key })).digest, "");
      for (const bytes of [3000, 5000]) {
        const { digest } = await store(port, environment, content(environment.unique("blob"), bytes));
        await port.putTranslation({ key, digest });
        assert.deepEqual(await port.findTranslation({ key }), { digest, bytes: BigInt(bytes) });
      }
      await refused(port.putTranslation({ key, digest: `sha256:${"0".repeat(64)}` }), "precondition");
      await refused(port.putTranslation({ key: "a/b", digest: `sha256:${"0".repeat(64)}` }), "invalid");
      await refused(port.findTranslation({ key: "../x" }), "invalid");
    },
  },
];

export const IMAGE_SUITE: ConformanceSuite<typeof IMAGE.definition> = { contract: IMAGE, cases: [...BLOBS, ...BOXES, ...DISKS, ...LAYERS, ...REGISTRY] };
