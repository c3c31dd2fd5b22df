import { describe, expect, it } from "vitest";
import {
  BOX_ARTIFACT_TYPE, BOX_CONFIG_TYPE, BOX_LAYER_TYPES, DISK_TYPES, formatReference, MEDIA_TYPES, parseDigest, parseReference, readBoxDefaults,
  PACKED, readBoxManifest, readImageConfig, readIndex, readManifest, sha256Of, unpackedOf, writeBoxDefaults, writeBoxManifest,
  type OciDescriptor,
} from "./index.ts";

const SHA = `sha256:${"ab".repeat(32)}`;
const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const descriptor = (mediaType: string = MEDIA_TYPES.config): object => ({ mediaType, digest: SHA, size: 7 });
const manifest = (changes: object = {}): Uint8Array =>
  bytes({ schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: descriptor(), layers: [descriptor("application/x")], ...changes });

describe("digests (descriptor.md)", () => {
  it("reads registered and unregistered algorithms", () => {
    expect(parseDigest(SHA)).toEqual({ algorithm: "sha256", encoded: "ab".repeat(32) });
    expect(parseDigest("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8").algorithm).toBe("multihash+base58");
  });
  it.each(["", "sha256", "sha256:", `sha256:${"AB".repeat(32)}`, "sha256:abc", `SHA256:${"a".repeat(64)}`, "a:b/../c", 7, null])("refuses %j", (value) => {
    expect(() => parseDigest(value)).toThrow(/digest: expected/);
  });
  it("addresses content by sha256 only", () => {
    expect(() => sha256Of(`sha512:${"a".repeat(128)}`)).toThrow(/algorithm "sha256"/);
  });
});

describe("references (distribution-spec)", () => {
  it.each([
    ["debian/minimal", { name: "debian/minimal", tag: undefined, digest: undefined }],
    ["a:13", { name: "a", tag: "13", digest: undefined }],
    [`a-b__c.d/e:_T.1@${SHA}`, { name: "a-b__c.d/e", tag: "_T.1", digest: SHA }],
    [`a@${SHA}`, { name: "a", tag: undefined, digest: SHA }],
  ])("reads and writes %s", (text, expected) => {
    expect(parseReference(text)).toEqual(expected);
    expect(formatReference(parseReference(text))).toBe(text);
  });
  it.each(["", "A", "a//b", "/a", "a/", "a:", "a:-x", "a@", "a@sha256:12", "../a", "a b", "a___b", "a:b:c", `${"a".repeat(256)}`])("refuses %j", (text) => {
    expect(() => parseReference(text)).toThrow(/expected/);
  });
});

describe("manifests, indexes, configs", () => {
  it("keeps unknown fields of a valid manifest", () => {
    expect(readManifest(manifest({ extra: 1 }))).toMatchObject({ extra: 1 });
  });
  it.each([
    [{ schemaVersion: 1 }, "manifest.schemaVersion: expected 2"],
    [{ mediaType: MEDIA_TYPES.index }, "manifest.mediaType"],
    [{ layers: {} }, "manifest.layers: expected an array"],
    [{ layers: [{ ...descriptor(), size: -1 }] }, "manifest.layers[0].size"],
    [{ layers: [{ ...descriptor(), digest: "x" }] }, "manifest.layers[0].digest"],
    [{ config: { ...descriptor(), mediaType: "nonsense" } }, "manifest.config.mediaType"],
    [{ config: descriptor(MEDIA_TYPES.empty) }, "manifest.artifactType"],
    [{ annotations: { a: 1 } }, 'manifest.annotations["a"]'],
  ])("refuses a manifest with %j, naming the place", (changes, message) => {
    expect(() => readManifest(manifest(changes))).toThrow(message);
  });
  it("refuses what is not JSON", () => {
    expect(() => readManifest(new Uint8Array([0xff, 0xfe]))).toThrow(/JSON in UTF-8/);
  });
  it("reads an index and a container image's config", () => {
    const entry = { ...descriptor(MEDIA_TYPES.manifest), platform: { architecture: "riscv64", os: "linux" } };
    expect(readIndex(bytes({ schemaVersion: 2, manifests: [entry] })).manifests).toHaveLength(1);
    const config = { architecture: "riscv64", os: "linux", rootfs: { type: "layers", diff_ids: [SHA] } };
    expect(readImageConfig(bytes(config)).rootfs.diff_ids).toEqual([SHA]);
    expect(() => readImageConfig(bytes({ ...config, rootfs: { type: "x" } }))).toThrow(/rootfs.type/);
  });
});

describe("boxes", () => {
  const kernel = { mediaType: BOX_LAYER_TYPES.kernel, digest: SHA, size: 7 };
  const config = { mediaType: BOX_CONFIG_TYPE, digest: SHA, size: 9 };
  it("survive writing and reading, byte for byte the same", () => {
    const box = { config, layers: { kernel, disk: { ...kernel, mediaType: BOX_LAYER_TYPES.disk } }, annotations: { b: "2", a: "1" } };
    const written = writeBoxManifest(box);
    expect(readBoxManifest(written)).toEqual(box);
    expect(writeBoxManifest(readBoxManifest(written))).toEqual(written);
  });
  it("name every blob of a chunked disk, bottom first; its last index is the disk", () => {
    const part = (mediaType: string, fill: string): object => ({ mediaType, digest: `sha256:${fill.repeat(32)}`, size: 200 });
    const diskParts = [part(DISK_TYPES.chunks, "01"), part(DISK_TYPES.index, "02"), part(DISK_TYPES.chunks, "03"), part(DISK_TYPES.index, "04")] as OciDescriptor[];
    const written = writeBoxManifest({ config, layers: { kernel, disk: diskParts[3]! }, diskParts, annotations: {} });
    expect(readManifest(written).layers.map(({ digest }) => digest.slice(7, 9))).toEqual(["ab", "01", "02", "03", "04"]);
    expect(readBoxManifest(written)).toEqual({ config, layers: { kernel, disk: diskParts[3] }, diskParts, annotations: {} });
    const raw = { ...kernel, mediaType: BOX_LAYER_TYPES.disk };
    const box = (layers: unknown[]): Uint8Array => bytes({ schemaVersion: 2, artifactType: BOX_ARTIFACT_TYPE, config, layers });
    expect(() => readBoxManifest(box([kernel, raw, ...diskParts]))).toThrow(/raw or chunked, not both/);
    expect(() => readBoxManifest(box([kernel, diskParts[1], diskParts[0]]))).toThrow(/the disk's index .* after its chunks/);
  });
  it("need a kernel, known layers and each at most once", () => {
    const box = (layers: unknown[]): Uint8Array => bytes({ schemaVersion: 2, artifactType: BOX_ARTIFACT_TYPE, config, layers });
    expect(() => readBoxManifest(box([]))).toThrow(/a layer of type .*kernel/);
    expect(() => readBoxManifest(box([kernel, kernel]))).toThrow(/at most one kernel/);
    expect(() => readBoxManifest(box([kernel, { ...kernel, mediaType: "application/x" }]))).toThrow(/layers\[1\].mediaType/);
    expect(() => readBoxManifest(manifest())).toThrow(/a Polyvisor box/);
  });
  it("may have kernel and initial RAM disk packed; what comes out must be said, and be no bomb", () => {
    const annotations = { [PACKED.digest]: SHA, [PACKED.size]: "70000", note: "kept" };
    const packed = { ...kernel, mediaType: `${BOX_LAYER_TYPES.kernel}+zstd`, annotations };
    const written = writeBoxManifest({ config, layers: { kernel: packed }, annotations: {} });
    expect(readBoxManifest(written).layers.kernel).toEqual(packed);
    expect(unpackedOf(packed)).toEqual({ mediaType: BOX_LAYER_TYPES.kernel, digest: SHA, size: 70000, annotations: { note: "kept" } });
    const box = (layer: object): Uint8Array => bytes({ schemaVersion: 2, artifactType: BOX_ARTIFACT_TYPE, config, layers: [layer] });
    expect(() => readBoxManifest(box({ ...packed, annotations: {} }))).toThrow(/unpacked.digest/);
    for (const size of ["0", "-1", "1e9", "999999999999", "5000000000"]) expect(() => readBoxManifest(box({ ...packed, annotations: { ...annotations, [PACKED.size]: size } }))).toThrow(/unpacked.size/);
    expect(() => readBoxManifest(box({ ...kernel, mediaType: `${BOX_LAYER_TYPES.firmware}+zstd` }))).toThrow(/layers\[0\].mediaType/);
  });
  it("carry machine defaults; absent ones are empty", () => {
    const defaults = { bootArguments: "quiet", memoryBytes: 1 << 28, harts: 2, diskBytes: 512, agentConsole: "hvc0", description: "x" };
    expect(readBoxDefaults(writeBoxDefaults(defaults))).toEqual(defaults);
    expect(readBoxDefaults(bytes({}))).toMatchObject({ harts: 0, bootArguments: "" });
    expect(() => readBoxDefaults(bytes({ harts: "two" }))).toThrow(/box config.harts/);
  });
});
