/** Machine files (`.pv`) taken apart and put together again with something changed, as somebody would who means harm. */
import { createHash } from "node:crypto";
import { createReadStream, writeFileSync } from "node:fs";
import { layoutBlobPath, LAYOUT_INDEX, MEDIA_TYPES, readTar, STATE_TYPES, writeLayout, type OciDescriptor } from "@polyvisor/image-spec";

export const sha256 = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;

interface Layer {
  mediaType: string;
  digest: string;
  size: number;
}

/** A machine's manifest and the blobs that it names, by digest. */
export class MachineFile {
  readonly layers: Layer[];
  readonly blobs: Map<string, Buffer>;
  readonly #manifest: { config: Layer; layers: Layer[]; artifactType: string };

  private constructor(manifest: string, blobs: Map<string, Buffer>) {
    this.#manifest = JSON.parse(manifest) as { config: Layer; layers: Layer[]; artifactType: string };
    this.layers = this.#manifest.layers;
    this.blobs = blobs;
  }

  static async read(path: string): Promise<MachineFile> {
    const files = new Map<string, Buffer>();
    for await (const entry of readTar(createReadStream(path))) if (entry.kind === "file") files.set(entry.path, Buffer.from(await entry.read()));
    const index = JSON.parse(files.get(LAYOUT_INDEX)!.toString()) as { manifests: { digest: string }[] };
    const { digest } = index.manifests[0]!;
    const blobs = new Map([...files].filter(([name]) => name.startsWith("blobs/")).map(([name, data]) => [`sha256:${name.slice("blobs/sha256/".length)}`, data]));
    const manifest = files.get(layoutBlobPath(digest))!.toString();
    blobs.delete(digest);
    return new MachineFile(manifest, blobs);
  }

  copy(): MachineFile {
    return new MachineFile(JSON.stringify(this.#manifest), new Map(this.blobs));
  }
  layer(kind: keyof typeof STATE_TYPES): Layer {
    return this.layers.find(({ mediaType }) => mediaType === STATE_TYPES[kind])!;
  }
  content(kind: keyof typeof STATE_TYPES): Buffer {
    return this.blobs.get(this.layer(kind).digest)!;
  }
  /** Puts other bytes in the place of a part; the manifest says their digest and size. */
  replace(kind: keyof typeof STATE_TYPES, data: Buffer): void {
    const layer = this.layer(kind);
    this.blobs.delete(layer.digest);
    layer.digest = sha256(data);
    layer.size = data.length;
    this.blobs.set(layer.digest, data);
  }

  /** Blobs go under the digests that `blobs` says, right or wrong. */
  async write(path: string): Promise<void> {
    const manifest = Buffer.from(JSON.stringify(this.#manifest));
    const descriptor: OciDescriptor = { mediaType: MEDIA_TYPES.manifest, digest: sha256(manifest), size: manifest.length, artifactType: this.#manifest.artifactType };
    const all = [[descriptor.digest, manifest] as const, ...this.blobs];
    const parts: Uint8Array[] = [];
    for await (const part of writeLayout(descriptor, all.map(([digest, data]) => ({ digest, size: data.length, read: async function* () { yield data; } })))) parts.push(part);
    writeFileSync(path, Buffer.concat(parts));
  }
}
