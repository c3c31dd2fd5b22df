import { createHash } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { parseDigest, readIndex, readManifestView, sha256Of, tarEnd, tarFileHeader, tarPadding, type OciDescriptor } from "@polyvisor/image-spec";
import type { FetchedManifest, ImageSource, ImageTarget } from "@polyvisor/oci-client";
import { CliError } from "../cli-error.ts";
import type { LayoutFiles } from "./layout-files.ts";

const REF_NAME = "org.opencontainers.image.ref.name"; // image-spec, annotations.md
const blobPath = (digest: string): string => {
  const { algorithm, encoded } = parseDigest(digest);
  return `blobs/${algorithm}/${encoded}`;
};
const sha256 = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** An OCI image layout as a place that images come from. Everything is checked against its digest. */
export class OciLayout implements ImageSource {
  readonly #files: LayoutFiles;
  constructor(files: LayoutFiles) {
    this.#files = files;
  }

  /** `reference`: a digest, a tag (an entry's ref.name), or "" for the only entry. */
  async manifest(reference: string): Promise<FetchedManifest> {
    const descriptor = reference.includes(":") ? { digest: reference, mediaType: "" } : await this.#entry(reference);
    const bytes = await this.#files.read(blobPath(descriptor.digest));
    const digest = sha256(bytes);
    if (digest !== `sha256:${sha256Of(descriptor.digest)}`) throw new CliError(`${this.#files.path}: the manifest ${descriptor.digest} has the digest ${digest}; the file is damaged`);
    return { bytes, digest, mediaType: readManifestView(bytes, descriptor.mediaType).mediaType };
  }

  async *blob({ digest, size }: OciDescriptor, offset: number): AsyncGenerator<Uint8Array> {
    const hash = createHash("sha256");
    let done = 0;
    for await (const piece of this.#files.stream(blobPath(digest), 0)) {
      hash.update(piece);
      const skip = Math.max(0, Math.min(piece.length, offset - done));
      done += piece.length;
      if (done > size) break;
      if (skip < piece.length) yield piece.subarray(skip);
    }
    if (done !== size || `sha256:${hash.digest("hex")}` !== digest) throw new CliError(`${this.#files.path}: the blob ${digest} is not what its digest says; the file is damaged`);
  }

  async #entry(tag: string): Promise<OciDescriptor> {
    const { manifests } = readIndex(await this.#files.read("index.json"));
    const fits = manifests.filter((entry) => tag === "" || nameOf(entry) === tag);
    if (fits.length === 1) return fits[0]!;
    const names = manifests.map((entry) => nameOf(entry) || entry.digest).join(", ");
    throw new CliError(`${this.#files.path} has ${manifests.length} images${tag ? `, ${fits.length} of them named ${tag}` : ""} (${names}); say which behind "@": ${this.#files.path}@NAME`);
  }
}

const nameOf = (entry: OciDescriptor): string => entry.annotations?.[REF_NAME] ?? "";

/** Writes an image into a tar file that holds an OCI layout. The file appears when it is whole. */
export async function writeLayoutArchive(path: string, name: string, copy: (target: ImageTarget) => Promise<FetchedManifest>): Promise<void> {
  const part = `${path}.part`;
  const file = await open(part, "w");
  const written = new Set<string>();
  let queue = Promise.resolve();
  /** One member at a time: an archive has no holes. */
  const member = (header: Uint8Array, content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, size: number): Promise<void> =>
    (queue = queue.then(async () => {
      await file.write(header);
      for await (const piece of content) await file.write(piece);
      await file.write(tarPadding(size));
    }));
  const bytesMember = (memberName: string, bytes: Uint8Array): Promise<void> => member(tarFileHeader(memberName, bytes.length), [bytes], bytes.length);
  try {
    await bytesMember("oci-layout", new TextEncoder().encode('{"imageLayoutVersion":"1.0.0"}'));
    const root = await copy({
      pushBlob: async ({ digest, size }, read) => {
        if (written.has(digest)) return;
        written.add(digest);
        await member(tarFileHeader(blobPath(digest), size), read(0), size);
      },
      pushManifest: async ({ bytes, digest }) => {
        if (written.has(digest)) return;
        written.add(digest);
        await bytesMember(blobPath(digest), bytes);
      },
    });
    const entry = { mediaType: root.mediaType, digest: root.digest, size: root.bytes.length, annotations: { [REF_NAME]: name } };
    await bytesMember("index.json", new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [entry] })));
    await file.write(tarEnd());
    await file.sync();
    await file.close();
    await rename(part, path);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(part, { force: true });
    throw error;
  }
}
