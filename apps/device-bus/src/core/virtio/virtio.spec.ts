import { BlockStatus } from "@polyvisor/contracts/image";
import { InterruptLine } from "@polyvisor/contracts/cpu";
import { VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_MRG_RXBUF } from "@polyvisor/virtio";
import { ADDRESS_MAP } from "@polyvisor/machine";
import { F_EVENT_IDX, F_INDIRECT_DESC } from "@polyvisor/testkit";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { boardRequest, rig, settle, TestHart } from "../../testing/rig.ts";

const MACHINE = "m";
const SECTOR = 512;

async function withDevice(device: Parameters<typeof boardRequest>[1] extends (infer D)[] | undefined ? D : never, diskBytes = 64 * SECTOR) {
  const all = await rig();
  const disk = new Uint8Array(diskBytes).map((_, index) => (index >> 9) & 0xff);
  all.images.disks.set("d", disk);
  await all.port.createBoard(boardRequest(MACHINE, [device]));
  const hart = new TestHart(all.port, MACHINE);
  return { ...all, disk, hart, driver: hart.driver(all.memory, 0) };
}

const blkHeader = (type: number, sector: bigint) => {
  const header = new DataView(new ArrayBuffer(16));
  header.setUint32(0, type, true);
  header.setBigUint64(8, sector, true);
  return { read: new Uint8Array(header.buffer) };
};
const range = (sector: bigint, sectors: number, flags = 0) => {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, sector, true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return { read: new Uint8Array(view.buffer) };
};
const BLK = { kind: "blk", id: "disk0", backend: "d" };

describe("virtio-blk (virtio 1.2, 5.2)", () => {
  it("tells capacity, segment limit and block size", async () => {
    const { hart } = await withDevice(BLK);
    const config = ADDRESS_MAP.virtio.base + 0x100n;
    expect([hart.read(config, 8), hart.read(config + 12n, 4), hart.read(config + 20n, 4)]).toEqual([64n, 254n, 512n]);
  });

  it.each([["direct", 0n, false], ["indirect", F_INDIRECT_DESC, true], ["with event indices", F_EVENT_IDX, false]] as const)("reads what is on the disk, %s", async (_, features, indirect) => {
    const { driver } = await withDevice(BLK);
    driver.start(features);
    const { data, written } = await driver.request(0, [blkHeader(0, 3n), { write: 300 }, { write: 724 }, { write: 1 }], indirect);
    expect(written).toBe(1025);
    expect([data[0], data[511], data[512], data[1023], data[1024]]).toEqual([3, 3, 4, 4, 0]);
  });

  it("writes, flushes and reads back", async () => {
    const { driver, disk, images } = await withDevice(BLK);
    driver.start();
    const bytes = new Uint8Array(2 * SECTOR).fill(0xab);
    expect((await driver.request(0, [blkHeader(1, 5n), { read: bytes }, { write: 1 }])).data).toEqual(new Uint8Array([0]));
    expect((await driver.request(0, [blkHeader(4, 0n), { write: 1 }])).data[0]).toBe(0);
    expect(disk.subarray(5 * SECTOR, 7 * SECTOR)).toEqual(bytes);
    expect(images.requests.at(-1)!.operation!.$case).toBe("flush");
  });

  it("raises its interrupt only when data and used ring are in memory", async () => {
    const { driver, memory, cpu, hart } = await withDevice(BLK);
    driver.start();
    const plic = ADDRESS_MAP.plic.base;
    hart.write(plic + 4n, 4, 1n);
    hart.write(plic + 0x2080n, 4, 2n);
    const head = driver.offer(0, [blkHeader(0, 9n), { write: SECTOR }, { write: 1 }]);
    memory.hold = true;
    driver.notify(0);
    await settle();
    expect(cpu.level(MACHINE, 0)).toBe(false);
    expect(driver.queue(0).usedIndex).toBe(0);
    memory.release();
    const { data } = await driver.queue(0).waitFor(head);
    await settle();
    expect(data[0]).toBe(9);
    expect(cpu.level(MACHINE, 0, InterruptLine.SUPERVISOR_EXTERNAL)).toBe(true);
    expect(hart.read(plic + 0x20_1004n, 4)).toBe(1n);
    expect(hart.read(ADDRESS_MAP.virtio.base + 0x60n, 4)).toBe(1n);
    hart.write(ADDRESS_MAP.virtio.base + 0x64n, 4, 1n);
    hart.write(plic + 0x20_1004n, 4, 1n);
    expect(cpu.level(MACHINE, 0)).toBe(false);
  });

  it("has several requests in work at a time and completes them in any order", async () => {
    const { driver, images } = await withDevice(BLK);
    driver.start(0n, 16);
    images.hold = true;
    const heads = [1n, 2n, 3n, 4n].map((sector) => driver.offer(0, [blkHeader(0, sector), { write: SECTOR }, { write: 1 }]));
    driver.notify(0);
    await settle();
    expect(images.requests.filter(({ operation }) => operation?.$case === "read")).toHaveLength(4);
    images.release();
    for (const [index, head] of heads.entries()) expect((await driver.queue(0).waitFor(head)).data[0]).toBe(index + 1);
  });

  it("splits a request of more than 1 MiB into block messages of at most 1 MiB", async () => {
    const { driver, images, disk } = await withDevice(BLK, 8192 * SECTOR);
    driver.start();
    const bytes = new Uint8Array(1536 * 1024).map((_, index) => index % 251);
    expect((await driver.request(0, [blkHeader(1, 8n), { read: bytes }, { write: 1 }])).data[0]).toBe(0);
    expect(Buffer.compare(disk.subarray(8 * SECTOR, 8 * SECTOR + bytes.length), bytes)).toBe(0);
    const { data, written } = await driver.request(0, [blkHeader(0, 8n), { write: bytes.length }, { write: 1 }]);
    expect(written).toBe(bytes.length + 1);
    expect(Buffer.compare(data.subarray(0, -1), bytes)).toBe(0);
    const sizes = images.requests.flatMap(({ operation }) => (operation?.$case === "write" ? [operation.value.data.length] : []));
    expect(sizes).toEqual([1024 * 1024, 512 * 1024]);
  });

  it("names itself, discards and writes zeroes", async () => {
    const { driver, disk } = await withDevice(BLK);
    driver.start();
    expect(new TextDecoder().decode((await driver.request(0, [blkHeader(8, 0n), { write: 20 }, { write: 1 }])).data)).toBe("d".padEnd(21, "\0"));
    expect((await driver.request(0, [blkHeader(11, 0n), range(2n, 2), { write: 1 }])).data[0]).toBe(0);
    expect((await driver.request(0, [blkHeader(13, 0n), range(6n, 1, 1), { write: 1 }])).data[0]).toBe(0);
    expect([disk[2 * SECTOR], disk[3 * SECTOR], disk[4 * SECTOR], disk[6 * SECTOR]]).toEqual([0, 0, 4, 0]);
    expect((await driver.request(0, [blkHeader(11, 0n), range(2n, 2, 1), { write: 1 }])).data[0]).toBe(2);
  });

  it.each([
    ["beyond the end", [blkHeader(0, 63n), { write: 2 * SECTOR }, { write: 1 }], 1],
    ["a sector number that overflows", [blkHeader(0, (1n << 64n) - 1n), { write: SECTOR }, { write: 1 }], 1],
    ["half a sector", [blkHeader(0, 0n), { write: 100 }, { write: 1 }], 1],
    ["an unknown type", [blkHeader(99, 0n), { write: 1 }], 2],
    ["a short header", [{ read: new Uint8Array(4) }, { write: 1 }], 1],
  ])("answers %s with an error status", async (_, buffers, status) => {
    const { driver } = await withDevice(BLK);
    driver.start();
    expect((await driver.request(0, buffers)).data.at(-1)).toBe(status);
  });

  it("answers IOERR when the image-registry does, and works again when it does", async () => {
    const { driver, images } = await withDevice(BLK);
    driver.start();
    images.fail = BlockStatus.IO_ERROR;
    expect((await driver.request(0, [blkHeader(0, 0n), { write: SECTOR }, { write: 1 }])).data.at(-1)).toBe(1);
    images.fail = undefined;
    expect((await driver.request(0, [blkHeader(0, 0n), { write: SECTOR }, { write: 1 }])).data.at(-1)).toBe(0);
  });

  it("refuses writes when read-only, and says so in its features", async () => {
    const { driver, hart } = await withDevice({ ...BLK, readOnly: true });
    expect(Number(hart.read(ADDRESS_MAP.virtio.base + 0x10n, 4)) & 0x20).toBe(0x20);
    driver.start();
    expect((await driver.request(0, [blkHeader(1, 0n), { read: new Uint8Array(SECTOR) }, { write: 1 }])).data[0]).toBe(1);
  });

  it("survives any requests a guest may make, and serves a good one after", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ type: fc.constantFrom(0, 1, 4, 8, 11, 13, 77), sector: fc.constantFrom(0n, 1n, 63n, 64n, (1n << 64n) - 1n), read: fc.nat(1100), write: fc.nat(1100) }), { maxLength: 6 }),
        async (requests) => {
          const { driver } = await withDevice(BLK);
          driver.start(0n, 32);
          for (const { type, sector, read, write } of requests) await driver.request(0, [blkHeader(type, sector), { read: new Uint8Array(read) }, { write }]);
          expect((await driver.request(0, [blkHeader(0, 63n), { write: SECTOR }, { write: 1 }])).data.at(-1)).toBe(0);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("writes nothing to memory for requests that a reset has forgotten", async () => {
    const { driver, images, memory } = await withDevice(BLK);
    driver.start();
    images.hold = true;
    driver.offer(0, [blkHeader(0, 5n), { write: SECTOR }, { write: 1 }]);
    driver.notify(0);
    await settle();
    driver.start();
    const before = memory.bytes.slice();
    images.release();
    await settle();
    expect(Buffer.compare(memory.bytes, before)).toBe(0);
  });
});

const NET = { kind: "net", id: "net0", backend: "p", mac: "52:54:00:12:34:56" };
const frame = (fill: number, byteLength = 60) => new Uint8Array(byteLength).fill(fill);

describe("virtio-net (virtio 1.2, 5.1)", () => {
  it("has the address it was given and a link that follows the fabric", async () => {
    const { hart, network, driver } = await withDevice(NET);
    driver.start();
    const config = ADDRESS_MAP.virtio.base + 0x100n;
    expect([hart.read(config, 1), hart.read(config + 5n, 1), hart.read(config + 6n, 2)]).toEqual([0x52n, 0x56n, 1n]);
    network.give("p", { linkUp: false });
    expect([hart.read(config + 6n, 2), hart.read(ADDRESS_MAP.virtio.base + 0x60n, 4)]).toEqual([0n, 2n]);
  });

  it("sends the guest's frames without their header", async () => {
    const { driver, network } = await withDevice(NET);
    driver.start();
    await driver.request(1, [{ read: new Uint8Array(12) }, { read: frame(7) }]);
    await driver.request(1, [{ read: new Uint8Array([...new Uint8Array(12), ...frame(8)]) }]);
    expect(network.received.get("p")).toEqual([frame(7), frame(8)]);
  });

  it("keeps frames in the guest's ring while the fabric gives no credit", async () => {
    const { driver, network } = await withDevice(NET);
    driver.start();
    network.give("p", { credit: 0 });
    const sent = await (async () => {
      for (let count = 0; count < 1024; count++) await driver.request(1, [{ read: new Uint8Array([...new Uint8Array(12), ...frame(1)]) }]);
      return network.received.get("p")!.length;
    })();
    expect(sent).toBe(1024);
    const head = driver.offer(1, [{ read: new Uint8Array([...new Uint8Array(12), ...frame(2)]) }]);
    driver.notify(1);
    await settle();
    expect(network.received.get("p")!.length).toBe(1024);
    network.give("p", { credit: 1 });
    await driver.queue(1).waitFor(head);
    expect(network.received.get("p")!.length).toBe(1025);
  });

  it("puts received frames behind a header with num_buffers 1, in order, and returns credit", async () => {
    const { driver, network } = await withDevice(NET);
    driver.start(0n, 64);
    const heads = Array.from({ length: 40 }, () => driver.offer(0, [{ write: 1526 }]));
    driver.notify(0);
    await settle();
    expect(network.credit.get("p")).toBe(256);
    network.give("p", { frames: heads.map((_, index) => frame(index)) });
    for (const [index, head] of heads.entries()) {
      const { data, written } = await driver.queue(0).waitFor(head);
      expect([written, data[10], data[12], data[71]]).toEqual([72, 1, index, index]);
    }
    expect(network.credit.get("p")).toBe(256 + 40);
  });

  it("drops what the guest's buffers cannot hold and frames that come before it listens, returning the credit", async () => {
    const { driver, network, port } = await withDevice(NET);
    network.give("p", { frames: Array.from({ length: 40 }, () => frame(1)) });
    driver.start();
    driver.offer(0, [{ write: 64 }]);
    driver.notify(0);
    await settle();
    network.give("p", { frames: [frame(1, 1000)] });
    const { counters } = await port.readBoardStats({ machine: MACHINE });
    expect(counters.get("net0.rx-dropped")).toBe(41n);
    expect(network.credit.get("p")).toBe(256 + 40);
  });

  it("passes on what the driver left to do: checksum and segmentation, as its header says (5.1.6)", async () => {
    const { driver, network } = await withDevice(NET);
    driver.start(VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4);
    expect(network.takesOffload.get("p")).toBe(false);
    const header = Uint8Array.of(1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0);
    await driver.request(1, [{ read: new Uint8Array([...header, ...frame(7, 3000)]) }]);
    expect(network.received.get("p")!.map(({ length }) => length)).toEqual([3000]);
    expect(network.offloads.get("p")).toEqual([{ needsChecksum: true, gsoType: 1, headerLength: 54, gsoSize: 1000, checksumStart: 34, checksumOffset: 16 }]);
  });

  it("puts a packet larger than a buffer into several, seen at once, with the header in the first (5.1.6.4)", async () => {
    const { driver, network } = await withDevice(NET);
    driver.start(VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_MRG_RXBUF, 64);
    expect(network.takesOffload.get("p")).toBe(true);
    const heads = Array.from({ length: 4 }, () => driver.offer(0, [{ write: 1000 }]));
    driver.notify(0);
    await settle();
    const offload = { needsChecksum: true, gsoType: 1, headerLength: 54, gsoSize: 1400, checksumStart: 34, checksumOffset: 16 };
    network.give("p", { frames: [frame(5, 2500)], offload });
    network.give("p", { frames: [frame(6, 2500)], offload }); // has to wait for a buffer
    const [first, second, third] = await Promise.all(heads.slice(0, 3).map((head) => driver.queue(0).waitFor(head)));
    expect([...first!.data.subarray(0, 13)]).toEqual([1, 1, 54, 0, 0x78, 5, 34, 0, 16, 0, 3, 0, 5]);
    expect([first!.written, second!.written, third!.written]).toEqual([1000, 1000, 512]);
    expect(third!.data[511]).toBe(5);
    const more = [1, 2].map(() => driver.offer(0, [{ write: 1000 }]));
    driver.notify(0);
    const last = await driver.queue(0).waitFor(more[1]!);
    expect([last.written, last.data[511]]).toEqual([512, 6]);
  });

  it("counts frames that are too short and gives their buffers back", async () => {
    const { driver, network, port } = await withDevice(NET);
    driver.start();
    await driver.request(1, [{ read: new Uint8Array(5) }]);
    expect(network.received.get("p")).toEqual([]);
    expect((await port.readBoardStats({ machine: MACHINE })).counters.get("net0.tx-malformed")).toBe(1n);
  });
});

describe("virtio-console (virtio 1.2, 5.3)", () => {
  it("carries bytes both ways, for several clients, with replay for late ones", async () => {
    const { driver, port } = await withDevice({ kind: "console", id: "console0", backend: "hvc-agent" });
    driver.start();
    const attach = (noReplay: boolean) => {
      const channel = port.console();
      let text = "";
      channel.onMessage(({ data }) => void (text += new TextDecoder().decode(data)));
      channel.send({ machine: MACHINE, console: "hvc-agent", data: new Uint8Array(0), noReplay });
      return { channel, text: () => text };
    };
    const early = attach(false);
    await driver.request(1, [{ read: new TextEncoder().encode("hello ") }]);
    await driver.request(1, [{ read: new TextEncoder().encode("world") }]);
    const late = attach(false);
    const live = attach(true);
    expect([early.text(), late.text(), live.text()]).toEqual(["hello world", "hello world", ""]);
    const head = driver.offer(0, [{ write: 16 }]);
    driver.notify(0);
    await settle();
    early.channel.send({ machine: MACHINE, console: "hvc-agent", data: new TextEncoder().encode("ls\n"), noReplay: false });
    const { data, written } = await driver.queue(0).waitFor(head);
    expect(new TextDecoder().decode(data.subarray(0, written))).toBe("ls\n");
  });

  it("keeps input that comes before the guest has buffers", async () => {
    const { driver, port } = await withDevice({ kind: "console", id: "console0", backend: "" });
    port.console().send({ machine: MACHINE, console: "console0", data: new TextEncoder().encode("early"), noReplay: false });
    driver.start();
    const { data, written } = await driver.request(0, [{ write: 3 }]);
    expect(new TextDecoder().decode(data.subarray(0, written))).toBe("ear");
    expect((await driver.request(0, [{ write: 64 }])).written).toBe(2);
  });
});

describe("virtio-rng (virtio 1.2, 5.4)", () => {
  it("fills buffers with random bytes", async () => {
    const { driver } = await withDevice({ kind: "rng", id: "rng0" });
    driver.start();
    const first = await driver.request(0, [{ write: 64 }]);
    const second = await driver.request(0, [{ write: 64 }]);
    expect(first.written).toBe(64);
    expect(first.data).not.toEqual(second.data);
  });
});
