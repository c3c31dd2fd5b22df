import { describe, expect, it } from "vitest";
import { sha256Bytes, writeDiskIndex } from "./chunked-disk.ts";
import { checkMemoryIndex, readMachineManifest, STATE_TYPES, writeMachineManifest, type MachineImage } from "./machine-image.ts";

const blob = (digit: string, size: number) => ({ mediaType: "", digest: `sha256:${digit.repeat(64)}`, size });
const [harts, board, chunks, index] = [blob("1", 10), blob("2", 20), blob("3", 30), blob("4", 40)];
const IMAGE: MachineImage = { config: blob("0", 5), files: { kernel: blob("a", 7) }, diskParts: [], state: { harts, board, memory: [chunks, index] } };

describe("the manifest of a suspended machine", () => {
  it("has its state's parts, in order; without one it has none", () => {
    const { state } = readMachineManifest(writeMachineManifest(IMAGE));
    expect([state!.harts, state!.board, ...state!.memory].map(({ mediaType, digest, size }) => [mediaType, digest, size])).toEqual(
      [harts, board, chunks, index].map(({ digest, size }, i) => [Object.values(STATE_TYPES)[i], digest, size]),
    );
    expect(readMachineManifest(writeMachineManifest({ ...IMAGE, state: undefined })).state).toBeUndefined();
  });

  const layersOf = (change: (layers: { mediaType: string }[]) => unknown[]): Uint8Array => {
    const manifest = JSON.parse(new TextDecoder().decode(writeMachineManifest(IMAGE))) as { layers: { mediaType: string }[] };
    return new TextEncoder().encode(JSON.stringify({ ...manifest, layers: change(manifest.layers) }));
  };
  it.each<[string, (layers: { mediaType: string }[]) => unknown[]]>([
    ["half a state", (layers) => layers.slice(0, -1)],
    ["two of a part", (layers) => [...layers, layers.at(-1)]],
    ["parts in another order", (layers) => [layers[0], layers[2], layers[1], ...layers.slice(3)]],
  ])("%s → refused", (_, change) => {
    expect(() => readMachineManifest(layersOf(change))).toThrow(/a state of harts, board, memory's chunks and its index/);
  });
});

describe("a memory's index", () => {
  const bytes = (diskBytes: number, parent?: { digest: string; bytes: number }) =>
    writeDiskIndex({ chunkBytes: 65536, diskBytes, data: { digest: chunks.digest, bytes: chunks.size }, parent, entries: [{ chunk: 0, offset: 0, length: 30, sha256: sha256Bytes(harts.digest) }] });
  it("fits the machine whose RAM it has, byte for byte", () => {
    checkMemoryIndex(bytes(1 << 20), { chunks, ramBytes: 1 << 20 });
    expect(() => checkMemoryIndex(bytes(1 << 20), { chunks, ramBytes: 1 << 21 })).toThrow(/the machine's RAM/);
  });
  it("of other chunks, or on top of another → refused", () => {
    expect(() => checkMemoryIndex(bytes(1 << 20), { chunks: index, ramBytes: 1 << 20 })).toThrow(/chunks/);
    expect(() => checkMemoryIndex(bytes(1 << 20, { digest: board.digest, bytes: 200 }), { chunks, ramBytes: 1 << 20 })).toThrow(/parent/);
  });
});
