import { ContractError, mediated } from "@polyvisor/contracts";
import { IMAGE, type ImportImageRequest } from "@polyvisor/contracts/image";
import { Access } from "@polyvisor/contracts/memory";
import { describe, expect, it } from "vitest";
import { createService, DEFAULT_CONFIG } from "./index.ts";
import { HolderModel, settle } from "./testing/holder-model.ts";
import { stillContext } from "./testing/still-context.ts";

const BASE = 0x8000_0000n;
const PAGE = 4096;
const BYTES = 3 * 1024 * 1024;

/** An image-registry that keeps one image; `exported` is what it gives back. */
function registry(exported?: { data: Uint8Array; zeros: bigint }[]) {
  const received: ImportImageRequest[] = [];
  const disks = new Set<string>();
  const images = mediated(IMAGE, {
    importImage: (channel) =>
      channel.onMessage((message) => {
        received.push(message);
        if (!message.finish) return;
        const parts = ["chunks", "index"].map((digest) => ({ mediaType: digest, digest, size: 9n, annotations: new Map() }));
        channel.send({ image: { digest: "index", mediaType: "index", indexBytes: 9n, diskBytes: message.size, addedBytes: 9n, parts } });
        channel.close();
      }),
    createDisk: ({ disk }) => {
      if (disk!.baseDigest === "unknown") throw new ContractError("not-found", "no such blob");
      disks.add(disk!.id);
      return { disk };
    },
    deleteDisk: ({ id }) => (disks.delete(id), {}),
    exportDisk: (_, out) => {
      for (const each of exported ?? received.map(({ data, zeros }) => ({ data, zeros }))) out.send(each);
      out.close();
    },
  });
  return { images, received, disks };
}

async function space(images: ReturnType<typeof registry>["images"]) {
  const { implementation } = await createService({ ...DEFAULT_CONFIG, mappedLeases: false }, { images }, stillContext());
  await implementation.createSpace!({ machine: "m", ram: { base: BASE, bytes: BigInt(BYTES) }, holderReserveBytes: 65536n, leaseKinds: [] });
  return implementation;
}

describe("a snapshot of RAM", () => {
  it("has what a coherent holder wrote last, leaves it the page, moves no zeros, and comes back as it was", async () => {
    const { images, received, disks } = registry();
    const memory = await space(images);
    const at = BigInt(2 * 1024 * 1024 + 5);
    await memory.writeMemory!({ machine: "m", address: BASE + at, data: Uint8Array.of(1, 2, 3) });
    const holder = new HolderModel("m", BASE, "h");
    memory.lease!(holder.stream.managerEnd);
    holder.acquire(3, 1, Access.WRITE);
    settle([holder]);
    holder.write(3, 7, Uint8Array.of(9));
    const taking = memory.snapshotSpace!({ machine: "m" });
    let ended = false;
    void Promise.resolve(taking).then(() => (ended = true), () => (ended = true));
    for (let turn = 0; turn < 1000 && !ended; turn++) {
      settle([holder]);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const { digest, parts, dataBytes } = await taking;
    expect([digest, parts.map((part) => part.digest), dataBytes]).toEqual(["index", ["chunks", "index"], BigInt(2 * PAGE)]);
    expect(holder.has(3, Access.WRITE)).toBe(true);
    expect(received.map(({ data, zeros, finish }) => [data.length, zeros, finish])).toEqual([[1 << 20, 0n, false], [0, 1n << 20n, false], [1 << 20, 0n, true]]);

    const other = await space(images);
    const harts = new HolderModel("m", BASE, "harts"); // they are made before memory is restored
    other.lease!(harts.stream.managerEnd);
    settle([harts]);
    await other.restoreSpace!({ machine: "m", digest });
    const read = async (address: bigint, length: number) => [...(await other.readMemory!({ machine: "m", address, length })).data];
    expect([await read(BASE + at, 4), await read(BASE + BigInt(3 * PAGE + 6), 3), disks.size]).toEqual([[1, 2, 3, 0], [0, 9, 0], 0]);
    harts.acquire(3, 1, Access.READ);
    settle([harts]);
    expect(harts.pages.get(3)!.bytes[7]).toBe(9);
  });

  it("an empty one moves one message", async () => {
    const { images, received } = registry();
    const memory = await space(images);
    expect((await memory.snapshotSpace!({ machine: "m" })).dataBytes).toBe(0n);
    expect(received.map(({ zeros, finish }) => [zeros, finish])).toEqual([[BigInt(BYTES), true]]);
  });

  it.each([
    ["longer than RAM", [{ data: new Uint8Array(0), zeros: BigInt(BYTES) }, { data: new Uint8Array(8), zeros: 0n }], "invalid"],
    ["shorter than RAM", [{ data: new Uint8Array(8), zeros: 0n }], "corrupt"],
  ] as const)("one that is %s is refused, and leaves no disk", async (_, exported, condition) => {
    const { images, disks } = registry([...exported]);
    const memory = await space(images);
    await expect(memory.restoreSpace!({ machine: "m", digest: "index" })).rejects.toMatchObject({ condition });
    expect(disks.size).toBe(0);
  });

  it("an unknown one is not-found", async () => {
    const memory = await space(registry().images);
    await expect(memory.restoreSpace!({ machine: "m", digest: "unknown" })).rejects.toMatchObject({ condition: "not-found" });
  });
});
