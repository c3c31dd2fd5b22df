/**
 * The victim of crash.spec.ts: opens disk "d" below argv[2] and writes for as long as it lives; every fourth round it
 * deletes and clones disk "c". Sector `s` of round `r`
 * is filled with (r * 7 + s) & 0xff. Prints "flushed <round>" when a round is durable.
 */
import { writeSync } from "node:fs";
import { nodeStorage } from "../adapters/node-files.ts";
import { createStores } from "../core/stores.ts";

const SECTOR_BYTES = 512;
const [root = "", sectors = "0", firstRound = "1"] = process.argv.slice(2);
const { disks } = createStores(await nodeStorage(root), { maxBlobBytes: 2 ** 30 });
const { disk } = await disks.open("d", false);
for (let round = Number(firstRound); ; round++) {
  const writes: Promise<void>[] = [];
  for (let sector = 0; sector < Number(sectors); sector += 3) {
    const count = Math.min(3, Number(sectors) - sector);
    const data = Uint8Array.from({ length: count * SECTOR_BYTES }, (_, i) => (round * 7 + sector + Math.floor(i / SECTOR_BYTES)) & 0xff);
    writes.push(disk.write(sector * SECTOR_BYTES, data));
  }
  await Promise.all(writes);
  await disk.flush();
  writeSync(1, `flushed ${round}\n`);
  if (round % 4 !== 0) continue;
  // Nothing is being written: a clone holds one round, whole.
  await disks.delete("c").catch(() => {});
  await disks.clone("d", "c");
}
