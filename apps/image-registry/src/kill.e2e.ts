import { createHash, randomBytes, randomInt } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BlockRequest, BlockStatus, Disk, type ImagePort } from "@polyvisor/contracts/image";
import { MEDIA_TYPES } from "@polyvisor/image-spec";
import { nodeOciClient } from "@polyvisor/oci-client/node";
import { temporaryDirectory } from "@polyvisor/testkit";
import { expect, it } from "vitest";
import { RegistryProcess } from "./testing/registry-process.ts";

/** 200 by hand: PV_KILLS=200. Without it, as many as a slow machine gets done in the time that the whole test run can spare. */
const KILLS = Number(process.env["PV_KILLS"] ?? 30);
const SPARE_MS = process.env["PV_KILLS"] === undefined ? 35_000 : Infinity;
const LEAST_KILLS = 6;
const PUSHERS = 3;
const SECTORS = 64;
const sha = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

interface Image {
  readonly name: string;
  readonly tag: string;
  readonly manifest: string;
  readonly blobs: readonly { digest: string; size: number }[];
}

/** What clients were told is stored. */
const acknowledged: Image[] = [];
let flushedRound = 0;

/** Pushes images until the connection breaks; `serial` makes tags unique. */
async function pushImages(url: string, name: string): Promise<void> {
  const client = nodeOciClient(url, { attempts: 1 });
  for (;;) {
    const layers = [randomBytes(randomInt(1, 200_000)), randomBytes(randomInt(1, 2_000))];
    const config = text(JSON.stringify({ id: randomBytes(8).toString("hex") }));
    const blobs = [config, ...layers].map((data) => ({ digest: sha(data), size: data.length, data }));
    try {
      for (const { data, ...blob } of blobs) await uploadInChunks(url, name, blob.digest, data);
      const bytes = text(JSON.stringify({
        schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: { mediaType: MEDIA_TYPES.config, digest: blobs[0]!.digest, size: config.length },
        layers: blobs.slice(1).map(({ digest, size }) => ({ mediaType: "application/x", digest, size })),
      }));
      const tag = `t${sha(bytes).slice(7, 19)}`;
      await client.pushManifest(name, tag, { mediaType: MEDIA_TYPES.manifest, bytes });
      acknowledged.push({ name, tag, manifest: sha(bytes), blobs: blobs.map(({ digest, size }) => ({ digest, size })) });
    } catch {
      return; // killed; that the error was nothing else shows in what the next process is asked
    }
  }
}

async function uploadInChunks(url: string, name: string, digest: string, data: Uint8Array): Promise<void> {
  const must = (response: Response, status: number): Response => {
    if (response.status !== status) throw new Error(`answered ${response.status}`);
    return response;
  };
  const begun = must(await fetch(`${url}/v2/${name}/blobs/uploads/`, { method: "POST" }), 202);
  const location = url + begun.headers.get("location")!;
  const half = data.length >> 1;
  if (half > 0) await must(await fetch(location, { method: "PATCH", headers: { "content-range": `0-${half - 1}` }, body: data.slice(0, half) }), 202).arrayBuffer();
  await must(await fetch(`${location}?digest=${digest}`, { method: "PUT", body: data.slice(half) }), 201).arrayBuffer();
}

/** Sends one operation of the blocks plane and waits for its answer. */
function blocks(port: ImagePort): { ask(operation: NonNullable<BlockRequest["operation"]>): Promise<{ status: BlockStatus; data: Uint8Array }>; close(): void } {
  const channel = port.blocks();
  const waiting = new Map<bigint, (answer: { status: BlockStatus; data: Uint8Array }) => void>();
  let id = 0n;
  let broken: (error: Error) => void = () => {};
  const end = new Promise<never>((_resolve, reject) => (broken = reject));
  end.catch(() => {});
  channel.onMessage((answer) => waiting.get(answer.id)?.(answer));
  channel.onClose((error) => broken(error ?? new Error("closed")));
  return {
    ask: (operation) => {
      id++;
      const answer = new Promise<{ status: BlockStatus; data: Uint8Array }>((resolve) => waiting.set(id, resolve));
      channel.send(BlockRequest.fromPartial({ machine: "m", disk: "m/disk0", id, operation }));
      return Promise.race([answer, end]);
    },
    close: () => channel.close(),
  };
}

async function writeRounds(port: ImagePort): Promise<void> {
  const disk = blocks(port);
  try {
    await disk.ask({ $case: "open", value: { readOnly: false } });
    for (let round = flushedRound + 1; ; round++) {
      await disk.ask({ $case: "write", value: { sector: 0n, data: new Uint8Array(SECTORS * 512).fill(round & 0xff) } });
      const { status } = await disk.ask({ $case: "flush", value: {} });
      if (status !== BlockStatus.OK) throw new Error(`flush: ${status}`);
      flushedRound = round;
    }
  } catch {
    return; // killed
  }
}

async function checkDisk(port: ImagePort): Promise<void> {
  const disk = blocks(port);
  await disk.ask({ $case: "open", value: { readOnly: false } });
  const { data } = await disk.ask({ $case: "read", value: { sector: 0n, sectors: SECTORS } });
  for (let sector = 0; sector < SECTORS; sector++) expect([flushedRound & 0xff, (flushedRound + 1) & 0xff]).toContain(data[sector * 512]);
  // What was read may be a round that was never acknowledged: it is the oldest that may be there from now on.
  disk.close();
}

async function checkImages(url: string, images: readonly Image[]): Promise<void> {
  const client = nodeOciClient(url);
  for (const { name, tag, manifest, blobs } of images) {
    expect((await client.manifest(name, tag)).digest).toBe(manifest);
    for (const blob of blobs) await client.smallBlob(name, blob); // checks the digest
  }
}

const filesIn = (folder: string): string[] =>
  existsSync(folder) ? readdirSync(folder, { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => each.name) : [];

it(`SIGKILL again and again (up to ${KILLS} times) under pushes and disk writes → nothing acknowledged is lost, no blob is damaged, and garbage collection leaves not a file too many`, { timeout: 120_000 + KILLS * 20_000 }, async () => {
  using directory = temporaryDirectory("pv-kill-");
  const root = directory.path;
  let checked = 0;
  const begun = performance.now();
  let kill = 0;
  for (; kill < KILLS && (kill < LEAST_KILLS || performance.now() - begun < SPARE_MS); kill++) {
    const registry = await RegistryProcess.start(root);
    if (kill === 0) await registry.port.createDisk({ disk: Disk.fromPartial({ id: "m/disk0", bytes: BigInt(SECTORS * 512) }) });
    else await checkDisk(registry.port);
    await checkImages(registry.url, acknowledged.slice(checked));
    checked = acknowledged.length;
    const work = [writeRounds(registry.port), ...Array.from({ length: PUSHERS }, (_, i) => pushImages(registry.url, `repo${i}/web`))];
    await sleep(randomInt(30, 500));
    await registry.end("SIGKILL");
    await Promise.all(work);
  }
  const registry = await RegistryProcess.start(root);
  await checkDisk(registry.port);
  await checkImages(registry.url, acknowledged);
  expect(acknowledged.length).toBeGreaterThan(2);
  expect(flushedRound).toBeGreaterThan(2);

  // Every other image goes; manifests whose push was not acknowledged may be there, and stay.
  const client = nodeOciClient(registry.url);
  const gone = acknowledged.filter((_, i) => i % 2 === 0);
  for (const { name, manifest } of gone) expect(await client.deleteManifest(name, manifest)).toBe(true);
  await registry.port.collectGarbage({ graceMs: 0n, untagged: true, dryRun: false });
  await checkImages(registry.url, acknowledged.filter((_, i) => i % 2 === 1));
  const reachable = new Set<string>();
  for (const { name } of (await registry.port.describeRegistry({})).repositories) {
    for await (const tag of client.tags(name)) {
      const { digest, bytes } = await client.manifest(name, tag);
      const { config, layers } = JSON.parse(new TextDecoder().decode(bytes)) as { config: { digest: string }; layers: { digest: string }[] };
      for (const each of [digest, config.digest, ...layers.map((layer) => layer.digest)]) reachable.add(each.slice("sha256:".length));
    }
  }
  await registry.end("SIGTERM");
  expect(filesIn(join(root, "blobs")).sort()).toEqual([...reachable].sort());
  expect([...filesIn(join(root, "uploads")), ...filesIn(join(root, "tmp")), ...filesIn(join(root, "corrupt"))]).toEqual([]);
  console.log(`${kill} kills: ${acknowledged.length} images acknowledged, ${flushedRound} rounds flushed, ${reachable.size} blobs reachable at the end`);
});
