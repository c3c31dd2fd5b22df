import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Disk } from "@polyvisor/contracts/image";
import { temporaryDirectory } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { nodeStorage } from "./adapters/node-files.ts";
import { createStores, type Stores } from "./core/stores.ts";

const SECTORS = 97;
/** 200 by hand: PV_KILLS=200 npx vitest run --project unit apps/image-registry/src/crash.spec.ts */
const KILLS = Number(process.env["PV_KILLS"] ?? "30");
const WRITER = fileURLToPath(new URL("./testing/crash-writer.ts", import.meta.url));

async function stores(root: string): Promise<Stores> {
  return createStores(await nodeStorage(root), { maxBlobBytes: 2 ** 30 });
}

/** Starts a writer; `line` resolves with the next round it has flushed. */
function startWriter(root: string, firstRound: number): { child: ChildProcess; lastFlushed: () => number; whenFlushing: Promise<void> } {
  const child = spawn(process.execPath, [WRITER, root, String(SECTORS), String(firstRound)], { stdio: ["ignore", "pipe", "inherit"] });
  let last = firstRound - 1;
  let text = "";
  const whenFlushing = new Promise<void>((resolve) => {
    child.stdout?.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
      for (const match of text.matchAll(/flushed (\d+)\n/g)) last = Number(match[1]);
      if (last >= firstRound) resolve();
    });
    child.on("exit", () => resolve());
  });
  return { child, lastFlushed: () => last, whenFlushing };
}

describe("what a killed process was writing", () => {
  it("a half-written blob → removed at the next start", async () => {
    using directory = temporaryDirectory("pv-crash-");
    await stores(directory.path);
    const dead = spawn(process.execPath, ["-e", ""]);
    await new Promise((resolve) => dead.on("exit", resolve));
    const [gone, mine] = [`${dead.pid}-half`, `${process.pid}-half`].map((name) => join(directory.path, "tmp", name)) as [string, string];
    writeFileSync(gone, "half a blob");
    writeFileSync(mine, "being written");
    await stores(directory.path);
    expect([existsSync(gone), existsSync(mine)]).toEqual([false, true]);
  });
});

describe("a disk whose process is killed", () => {
  it(`SIGKILL in the middle of writes, clones and deletes, ${KILLS} times → every flushed round is there, clones are whole, nothing is left over`, { timeout: 20_000 + KILLS * 10_000 }, async () => {
    using directory = temporaryDirectory("pv-crash-");
    const root = directory.path;
    const { disks: firstDisks, blobs } = await stores(root);
    const base = await blobs.put(new Uint8Array(4000).fill(1));
    await firstDisks.create(Disk.fromPartial({ id: "d", baseDigest: base, bytes: BigInt(SECTORS * 512) }));
    let firstRound = 1;
    for (let kill = 0; kill < KILLS; kill++) {
      const { child, lastFlushed, whenFlushing } = startWriter(root, firstRound);
      const exited = new Promise((resolve) => child.on("exit", resolve));
      await whenFlushing;
      await expect(firstDisks.open("d", false)).rejects.toMatchObject({ condition: "conflict" }); // another process has it
      await new Promise((resolve) => setTimeout(resolve, (kill * 37) % 150));
      child.kill("SIGKILL");
      await exited;
      const flushed = lastFlushed();
      expect(flushed).toBeGreaterThanOrEqual(firstRound);
      const { disks } = await stores(root); // a new start
      await disks.sweep();
      // A later round may have got anywhere; the output of one may still have been in the pipe.
      const bytes = await contentOf(disks, "d");
      const rounds = [0, 1, 2].map((ahead) => flushed + ahead);
      for (let sector = 0; sector < SECTORS; sector++) {
        const content = bytes.subarray(sector * 512, (sector + 1) * 512);
        expect(rounds.map((round) => fillOf(round, sector))).toContain(content[0]);
        expect(content.every((byte) => byte === content[0])).toBe(true);
      }
      if (await disks.record("c")) {
        const clone = await contentOf(disks, "c");
        const fills = Array.from({ length: SECTORS }, (_, sector) => ((clone[sector * 512] as number) - sector + 256) & 0xff);
        expect(new Set(fills).size).toBe(1);
      }
      const used = new Set((await Promise.all(["c", "d"].map((id) => disks.record(id)))).flatMap((record) => (record ? [...record.layers, record.top] : [])));
      expect(new Set(readdirSync(join(root, "layers")))).toEqual(used);
      expect(readdirSync(join(root, "tmp"))).toEqual([]);
      firstRound = flushed + 3;
      if ((await disks.record("d"))!.layers.length < 100) continue;
      // Start over before the limit of layers.
      await disks.delete("d");
      await disks.create(Disk.fromPartial({ id: "d", baseDigest: base, bytes: BigInt(SECTORS * 512) }));
    }
    expect(await blobs.readSmall(base, 4096)).toEqual(new Uint8Array(4000).fill(1));
  });
});

const fillOf = (round: number, sector: number): number => (round * 7 + sector) & 0xff;

async function contentOf(disks: Stores["disks"], id: string): Promise<Uint8Array> {
  const handle = await disks.open(id, false); // the lock died with its owner
  const bytes = await handle.disk.read(0, SECTORS * 512);
  await handle.close();
  return bytes;
}
