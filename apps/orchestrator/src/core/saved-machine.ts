import { asContractError, ContractError } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import { readBlobBytes, writeBlobBytes } from "./blob-bytes.ts";
import { setPins } from "./pinned-files.ts";
import type { OrchestratorPeers } from "./peers.ts";

export interface SavedBlob {
  readonly mediaType: string;
  readonly digest: string;
  readonly bytes: number;
}

/** Memory, harts and devices of a machine at one moment: blobs of the image-registry. */
export interface SavedState {
  readonly harts: SavedBlob;
  readonly board: SavedBlob;
  /** A chunked image: all its blobs, the index last. */
  readonly memory: readonly SavedBlob[];
  readonly savedUnixMs: number;
}

/** As the services bound them; read from files that anybody can have written. */
export const MAX_STATE_BYTES = 4 * 1024 * 1024;
/** All of a machine's memory is read, compressed and written. */
const MEMORY_TIMEOUT_MS = 10 * 60_000;

export const blobsOf = ({ harts, board, memory }: SavedState): readonly SavedBlob[] => [harts, board, ...memory];
export const bytesOf = (saved: SavedState): number => blobsOf(saved).reduce((sum, { bytes }) => sum + bytes, 0);

/**
 * Runs `whileStill` with the machine's harts and devices standing still, at one moment of the guest: what it has posted is done, what it has asked
 * of its devices is answered. Afterwards, and whatever fails, the guest goes on if `goOn` says so.
 */
export async function standStill<T>({ cpu, devices }: OrchestratorPeers, machine: string, goOn: (done: boolean) => boolean, whileStill: (harts: Uint8Array) => Promise<T>): Promise<T> {
  let done = false;
  try {
    await cpu.pauseHarts({ machine });
    const { state } = await cpu.saveHarts({ machine }); // also waits for what the harts have posted
    await devices.pauseBoard({ machine }, { timeoutMs: 30_000 });
    const answer = await whileStill(state);
    done = true;
    return answer;
  } finally {
    if (goOn(done)) await letGoOn({ cpu, devices }, machine);
  }
}

/** Idempotent. */
export async function letGoOn({ cpu, devices }: Pick<OrchestratorPeers, "cpu" | "devices">, machine: string): Promise<void> {
  await devices.resumeBoard({ machine }).catch((error: unknown) => {
    if (!["unimplemented", "not-found"].includes(asContractError(error).condition)) throw error;
  });
  await cpu.runHarts({ machine });
}

/** The state of a machine that stands still, stored durably. */
export async function saveState({ devices, memory, images }: OrchestratorPeers, machine: string, harts: Uint8Array, nowMs: number): Promise<SavedState> {
  const { state: board } = await devices.saveBoard({ machine });
  const { parts } = await memory.snapshotSpace({ machine }, { timeoutMs: MEMORY_TIMEOUT_MS });
  return {
    harts: { mediaType: "", digest: await writeBlobBytes(images, harts), bytes: harts.length },
    board: { mediaType: "", digest: await writeBlobBytes(images, board), bytes: board.length },
    memory: parts.map(({ mediaType, digest, size }) => ({ mediaType, digest, bytes: Number(size) })),
    savedUnixMs: nowMs,
  };
}

/** Into a machine that has been built and has not run. Harts before devices: those drive the interrupts anew. */
export async function restoreState({ cpu, devices, memory, images }: OrchestratorPeers, machine: string, saved: SavedState): Promise<void> {
  const [harts, board] = [await readBlobBytes(images, saved.harts.digest, MAX_STATE_BYTES), await readBlobBytes(images, saved.board.digest, MAX_STATE_BYTES)];
  const index = saved.memory.at(-1);
  if (!index) throw new ContractError("invalid", `the saved state of ${machine} has no memory`);
  await memory.restoreSpace({ machine, digest: index.digest }, { timeoutMs: MEMORY_TIMEOUT_MS });
  await cpu.restoreHarts({ machine, state: harts });
  await devices.restoreBoard({ machine, state: board });
}

/** Keeps the blobs from garbage collection; undefined: no more. `owner` names who needs them. */
export async function pinState(images: ImagePort, owner: string, saved: SavedState | undefined): Promise<void> {
  await setPins(images, owner, saved ? blobsOf(saved).map(({ digest }) => digest) : []);
}
export const savedOwner = (machine: string, snapshot = ""): string => (snapshot === "" ? `saved/${machine}` : `saved/${machine}/${snapshot}`);
