/** Reads of a disk under 1, 5 and 20 read-only layers: the height must cost nothing. Run: npx vitest bench, or `npm run bench`'s section "blocks" from a guest. */
import { Disk } from "@polyvisor/contracts/image";
import { temporaryDirectory } from "@polyvisor/testkit";
import { afterAll, test } from "vitest";
import { nodeStorage } from "./adapters/node-files.ts";
import { createStores } from "./core/stores.ts";

const MIB = 1 << 20;
const DISK_BYTES = 256 * MIB;
const directory = temporaryDirectory("pv-layers-");
afterAll(() => directory[Symbol.dispose]());

test("reads on chains of layers", { timeout: 300_000 }, async ({ bench }) => {
  const { disks } = createStores(await nodeStorage(directory.path), { maxBlobBytes: 2 ** 40 });
  for (const height of [1, 5, 20]) {
    const id = `d${height}`;
    await disks.create(Disk.fromPartial({ id, bytes: BigInt(DISK_BYTES) }));
    const { disk } = await disks.open(id, false);
    // The same bytes altogether, spread over the layers in pieces of 1 MiB.
    for (let layer = 0; layer < height; layer++) {
      for (let at = layer; at < 200; at += height) await disk.write(at * MIB, new Uint8Array(MIB).fill(layer + 1));
      await (await disks.freeze(id)).image.close();
    }
    let x = 1;
    const random = async (): Promise<void> => {
      for (let i = 0; i < 1000; i++) {
        x = (Math.imul(x, 1103515245) + 12345) >>> 0;
        await disk.read((x % 51_200) * 4096, 4096);
      }
    };
    const sequential = async (): Promise<void> => {
      for (let at = 0; at < 200 * MIB; at += MIB) await disk.read(at, MIB);
    };
    await bench(`${height} layers, 1000 × 4 KiB random`, random).run();
    await bench(`${height} layers, 200 MiB in order`, sequential).run();
  }
});
