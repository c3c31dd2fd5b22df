import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A container image as an OCI layout with one file per layer that does not compress; its tag is "1". Answers the manifest's digest. */
export function writeOciLayout(directory: string, bytes: number, layers: number): string {
  mkdirSync(join(directory, "blobs/sha256"), { recursive: true });
  const blob = (content: Uint8Array): { digest: string; size: number } => {
    const hex = createHash("sha256").update(content).digest("hex");
    writeFileSync(join(directory, "blobs/sha256", hex), content);
    return { digest: `sha256:${hex}`, size: content.length };
  };
  const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  const tars = Array.from({ length: layers }, (_, i) => ({ mediaType: "application/vnd.oci.image.layer.v1.tar", ...blob(tarOf(`file${i}`, randomBytes(Math.floor(bytes / layers)))) }));
  const config = blob(json({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: tars.map(({ digest }) => digest) } }));
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = blob(json({ schemaVersion: 2, mediaType, config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config }, layers: tars }));
  writeFileSync(join(directory, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  const named = { mediaType, ...manifest, annotations: { "org.opencontainers.image.ref.name": "1" } };
  writeFileSync(join(directory, "index.json"), json({ schemaVersion: 2, manifests: [named] }));
  return manifest.digest;
}

/** One regular file in a tar (POSIX.1-1988 ustar header). */
function tarOf(name: string, content: Uint8Array): Uint8Array {
  const header = Buffer.alloc(512);
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, "0")}\0`;
  header.write(name, 0);
  header.write(octal(0o644, 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  header.write(octal(content.length, 12), 124);
  header.write(octal(0, 12), 136);
  header.write("        0", 148); // checksum as blanks, then the type
  header.write("ustar\x0000", 257);
  header.write(`${octal(header.reduce((sum, byte) => sum + byte, 0), 7)} `, 148);
  return Buffer.concat([header, content, Buffer.alloc((512 - (content.length % 512)) % 512), Buffer.alloc(1024)]);
}
