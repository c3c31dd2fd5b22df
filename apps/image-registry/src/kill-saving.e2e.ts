import { createHash, randomBytes, randomInt } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { messages, type Channel } from "@polyvisor/contracts";
import { Disk, type ImagePort, type ImportImageRequest, type ImportImageResponse, type WriteBlobResponse } from "@polyvisor/contracts/image";
import { DISK_TYPES } from "@polyvisor/image-spec";
import { temporaryDirectory } from "@polyvisor/testkit";
import { expect, it } from "vitest";
import { RegistryProcess } from "./testing/registry-process.ts";

/** More by hand: PV_KILLS=200. */
const KILLS = Number(process.env["PV_KILLS"] ?? 8);
const SPARE_MS = process.env["PV_KILLS"] === undefined ? 7_000 : Infinity;
const LEAST_KILLS = 3;
const MIB = 1 << 20;
const OWNER = "saved/web";

/** A state of a machine as the registry has it. */
interface State {
  readonly ram: Uint8Array;
  readonly harts: Uint8Array;
  readonly hartsDigest: string;
  readonly index: string;
  readonly blobs: readonly string[];
}
const sha = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;

/** 4 MiB of noise with zeros before, between and behind it. */
function newRam(): { ram: Uint8Array; harts: Uint8Array } {
  const ram = Buffer.alloc(16 * MIB);
  for (let piece = 0; piece < 4; piece++) randomBytes(MIB).copy(ram, (1 + 3 * piece) * MIB);
  return { ram, harts: randomBytes(50_000) };
}

/** The calls that a suspension makes (orchestrator, saveState and pinState; memory-manager, snapshotSpace), each when the one before is answered. */
async function save(port: ImagePort, { ram, harts }: { ram: Uint8Array; harts: Uint8Array }, stored: (state: State) => void): Promise<State> {
  const memory = port.importImage() as unknown as Channel<ImportImageResponse, ImportImageRequest> & Channel<ImportImageRequest, ImportImageResponse>;
  for (let at = 0; at < ram.length; at += MIB) {
    const data = ram.subarray(at, at + MIB);
    const zero = data.every((byte) => byte === 0);
    memory.send({ format: "raw", size: BigInt(ram.length), data: zero ? new Uint8Array(0) : data, zeros: zero ? BigInt(MIB) : 0n, finish: at + MIB === ram.length });
  }
  const { image } = await answerOf<ImportImageResponse>(memory);
  const blob = port.writeBlob();
  blob.send({ digest: "", size: BigInt(harts.length), data: harts, finish: true });
  const { digest } = await answerOf<WriteBlobResponse>(blob);
  const state = { ram, harts, hartsDigest: digest, index: image!.digest, blobs: [digest, ...image!.parts.map((part) => part.digest)] };
  stored(state);
  await port.setPins({ owner: OWNER, digests: [...state.blobs] });
  return state;
}

async function answerOf<T>(channel: unknown): Promise<T> {
  for await (const answer of messages(channel as Channel<never, T>)) return answer;
  throw new Error("the registry went away");
}

/** Whether the registry keeps all of a state, or none of it; half of one fails. What is kept is read back, byte for byte. */
async function kept(port: ImagePort, state: State): Promise<boolean> {
  const here = await Promise.all(state.blobs.map((digest) => port.statBlob({ digest }).then(() => true, () => false)));
  expect(new Set(here).size, `of a state's blobs some are here: ${here.join()}`).toBe(1);
  if (!here[0]) return false;
  const pieces: Uint8Array[] = [];
  for await (const { data } of messages(port.readBlob({ digest: state.hartsDigest, offset: 0n, length: 0n }))) pieces.push(data);
  expect(sha(Buffer.concat(pieces))).toBe(sha(state.harts));
  await port.createDisk({ disk: Disk.fromPartial({ id: "web/memory", baseDigest: state.index, baseMediaType: DISK_TYPES.index, bytes: BigInt(state.ram.length) }) });
  const hash = createHash("sha256");
  for await (const { data, zeros } of messages(port.exportDisk({ id: "web/memory", format: "raw" }))) hash.update(data).update(new Uint8Array(Number(zeros)));
  expect(`sha256:${hash.digest("hex")}`).toBe(sha(state.ram));
  await port.deleteDisk({ id: "web/memory" });
  return true;
}

const filesIn = (folder: string): string[] =>
  existsSync(folder) ? readdirSync(folder, { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => each.name) : [];

it(`SIGKILL while a machine's memory is being kept (up to ${KILLS} times) → the registry has the state before or the new one, whole, and garbage collection leaves nothing else`, { timeout: 60_000 + KILLS * 20_000 }, async () => {
  using directory = temporaryDirectory("pv-kill-saving-");
  let registry = await RegistryProcess.start(directory.path);
  let timing = performance.now();
  let current = await save(registry.port, newRam(), () => {});
  timing = performance.now() - timing; // of a whole one: kills come at any moment of it
  const begun = performance.now();
  const seen = { old: 0, new: 0 };
  for (let kill = 0; kill < KILLS && (kill < LEAST_KILLS || performance.now() - begun < SPARE_MS); kill++) {
    let next: State | undefined;
    let acknowledged = false;
    const saving = save(registry.port, newRam(), (state) => (next = state)).then(() => (acknowledged = true), () => {});
    await sleep(randomInt(1, Math.ceil(timing) + 2));
    await registry.end("SIGKILL");
    await saving;
    registry = await RegistryProcess.start(directory.path);
    await registry.port.collectGarbage({ graceMs: 0n, untagged: true, dryRun: false });
    const [before, after] = [await kept(registry.port, current), next !== undefined && (await kept(registry.port, next))];
    expect([before, after], "one of both is kept").toEqual(after ? [false, true] : [true, false]);
    if (acknowledged) expect(after).toBe(true);
    seen[after ? "new" : "old"]++;
    if (after) current = next!;
  }
  await registry.end("SIGTERM");
  expect(filesIn(join(directory.path, "blobs")).sort()).toEqual(current.blobs.map((digest) => digest.slice("sha256:".length)).sort());
  for (const folder of ["tmp", "disks", "layers", "corrupt"]) expect([folder, filesIn(join(directory.path, folder))]).toEqual([folder, []]);
  console.log(`${seen.old + seen.new} kills while saving: ${seen.old} × the old state, ${seen.new} × the new one`);
});
