import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { ImagePort } from "@polyvisor/contracts/image";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openImage } from "./image-place.ts";
import { readImageLayers, type ImageLayers } from "./read-layers.ts";

const nobody = {} as ImagePort; // files need no registry
const folder = mkdtempSync(join(tmpdir(), "pv-layers-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const sha = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

/** What tar(1) makes of these files; "name → target" is a symbolic link, names that end in "/" are directories. */
function tar(files: Record<string, string>): Uint8Array {
  const root = mkdtempSync(join(folder, "tree-"));
  for (const [name, content] of Object.entries(files)) {
    const [path = "", target] = name.split(" → ");
    mkdirSync(join(root, path, path.endsWith("/") ? "" : ".."), { recursive: true });
    if (target) symlinkSync(target, join(root, path));
    else if (!path.endsWith("/")) writeFileSync(join(root, path), content);
  }
  return new Uint8Array(spawnSync("tar", ["-C", root, "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", "-", "."], { maxBuffer: 1 << 26 }).stdout);
}

/** An OCI layout in a directory. `say` changes what the config says of a layer. */
function layout(name: string, layers: { tar: Uint8Array; how?: "gzip" | "zstd"; say?: string }[]): string {
  const path = join(folder, name);
  mkdirSync(join(path, "blobs/sha256"), { recursive: true });
  const blob = (data: Uint8Array, mediaType: string): object => {
    writeFileSync(join(path, "blobs/sha256", sha(data)), data);
    return { mediaType, digest: `sha256:${sha(data)}`, size: data.length };
  };
  const json = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  const pack = { gzip: gzipSync, zstd: zstdCompressSync, none: (data: Uint8Array) => data };
  const descriptors = layers.map(({ tar: data, how }) => blob(pack[how ?? "none"](data), `application/vnd.oci.image.layer.v1.tar${how ? `+${how}` : ""}`));
  const config = blob(json({ architecture: "riscv64", os: "linux", rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.say ?? `sha256:${sha(layer.tar)}`) }, history: layers.map((_, i) => ({ created_by: `step ${i}` })) }), "application/vnd.oci.image.config.v1+json");
  const manifest = blob(json({ schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config, layers: descriptors }), "application/vnd.oci.image.manifest.v1+json");
  writeFileSync(join(path, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(path, "index.json"), json({ schemaVersion: 2, manifests: [manifest] }));
  return path;
}

async function read(path: string, harmlessBytes?: number): Promise<ImageLayers> {
  const place = await openImage(nobody, path);
  try {
    return await readImageLayers(place, undefined, () => {}, harmlessBytes);
  } finally {
    await place.close();
  }
}

describe("the layers of an image", () => {
  let path: string;
  beforeAll(() => {
    path = layout("image", [{ tar: tar({ "etc/motd": "one", "etc/gone": "x", "bin → usr/bin": "", "usr/bin/sh": "sh" }) }, { tar: tar({ "etc/motd": "two", "etc/.wh.gone": "" }), how: "gzip" }, { tar: tar({ "opt/tool": "t" }), how: "zstd" }]);
  });

  it("plain, gzip and zstd; from a directory and from a tar file of it: the same view", async () => {
    const file = `${path}.tar`;
    spawnSync("tar", ["-C", path, "-cf", file, "."]);
    for (const where of [path, file]) {
      const { union, layers } = await read(where);
      expect([...union.files()].filter(({ kind }) => kind === "file").map((f) => `${f.path}@${f.layer}`)).toEqual(["/etc/motd@1", "/opt/tool@2", "/usr/bin/sh@0"]);
      expect(layers.map(({ createdBy }) => createdBy)).toEqual(["step 0", "step 1", "step 2"]);
      expect(union.find("/bin/sh")?.sha256).toBe(sha(new TextEncoder().encode("sh")));
    }
  });
  it("a layer that is not what the config says, or not what its type says → refused", async () => {
    await expect(read(layout("liar", [{ tar: tar({ a: "1" }), say: `sha256:${"ab".repeat(32)}` }]))).rejects.toThrow(/made to deceive/);
    const plain = tar({ a: "1" });
    const wrong = layout("wrong", [{ tar: plain, how: "gzip" }]);
    writeFileSync(join(wrong, "blobs/sha256", sha(gzipSync(plain))), plain);
    await expect(read(wrong)).rejects.toThrow(/damaged|is not what its digest says/);
  });
  it("a decompression bomb is not read to its end", async () => {
    const bomb = new Uint8Array(20 << 20);
    bomb.set(tar({ "zeros/": "" }));
    await expect(read(layout("bomb", [{ tar: bomb, how: "zstd" }]), 1 << 20)).rejects.toThrow(/decompression bomb/);
  });
  it("no layout, an empty one, an unknown name → says what there is", async () => {
    await expect(read("./nothing-here")).rejects.toThrow(/there is no file/);
    mkdirSync(join(folder, "void"));
    await expect(read(join(folder, "void"))).rejects.toThrow(/has no index\.json; is it an OCI image layout/);
    await expect(read(`${path}@other`)).rejects.toThrow(/0 of them named other/);
  });
});
