import { execFile, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { dockerdAbsent, startPrivateDocker, temporaryDirectory } from "@polyvisor/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeOciLayout } from "./testing/oci-layout.ts";
import { startRegistry, type TestRegistry } from "./testing/registry.ts";

/** A 200 MB image by hand: PV_CLIENT_IMAGE_BYTES=200000000. */
const IMAGE_BYTES = Number(process.env["PV_CLIENT_IMAGE_BYTES"] ?? 40_000_000);
const run = async (program: string, ...args: string[]): Promise<string> => (await promisify(execFile)(program, args, { maxBuffer: 64 * 1024 * 1024 })).stdout;
const absent = (program: string): string | undefined => (spawnSync(program, ["--version"]).error ? `${program} is not installed (apt-get install ${program})` : undefined);
function leftOut(what: string, reason: string | undefined): boolean {
  if (reason) console.log(`skipped: ${what}: ${reason}`);
  return reason !== undefined;
}

let registry: TestRegistry;
let host: string;
const directory = temporaryDirectory("pv-clients-");
const layout = join(directory.path, "image");
let digest: string;
beforeAll(async () => {
  registry = await startRegistry();
  host = new URL(registry.url).host;
  digest = writeOciLayout(layout, IMAGE_BYTES, 4);
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  directory[Symbol.dispose]();
});
const manifestOf = async (name: string, reference: string): Promise<{ digest: string; mediaType: string; layers: { digest: string; size: number }[] }> => {
  const { digest: itsDigest, mediaType, bytes } = await registry.client.manifest(name, reference);
  return { digest: itsDigest, mediaType, layers: JSON.parse(new TextDecoder().decode(bytes)).layers };
};

describe.skipIf(leftOut("skopeo", absent("skopeo")))("skopeo", () => {
  const skopeo = (command: string, ...args: string[]): Promise<string> => run("skopeo", "--insecure-policy", command, ...args);
  it("copies an OCI image there and back, byte by byte; inspects; lists", async () => {
    await skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", `oci:${layout}:1`, `docker://${host}/skopeo/web:1`);
    const inspected = JSON.parse(await skopeo("inspect", "--tls-verify=false", `docker://${host}/skopeo/web:1`)) as { Digest: string; Layers: string[] };
    expect(inspected.Digest).toBe(digest);
    expect(inspected.Layers).toHaveLength(4);
    const back = join(directory.path, "back");
    await skopeo("copy", "--src-tls-verify=false", `docker://${host}/skopeo/web@${digest}`, `dir:${back}`);
    for (const layer of inspected.Layers) {
      const hex = layer.slice("sha256:".length);
      expect(readFileSync(join(back, hex)).equals(readFileSync(join(layout, "blobs/sha256", hex)))).toBe(true);
    }
    await skopeo("copy", "--dest-tls-verify=false", `oci:${layout}:1`, `docker://${host}/skopeo/web:2`);
    expect(JSON.parse(await skopeo("list-tags", "--tls-verify=false", `docker://${host}/skopeo/web`)).Tags).toEqual(["1", "2"]);
  });
  it("copies as Docker's format, within the registry by mount, and deletes", async () => {
    await skopeo("copy", "--format", "v2s2", "--dest-tls-verify=false", `oci:${layout}:1`, `docker://${host}/skopeo/docker:1`);
    const pushed = await manifestOf("skopeo/docker", "1");
    expect(pushed.mediaType).toBe("application/vnd.docker.distribution.manifest.v2+json");
    await skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", `docker://${host}/skopeo/docker:1`, `docker://${host}/skopeo/mounted:1`);
    expect((await manifestOf("skopeo/mounted", "1")).layers).toEqual(pushed.layers);
    await skopeo("delete", "--tls-verify=false", `docker://${host}/skopeo/docker:1`);
    await expect(skopeo("inspect", "--tls-verify=false", `docker://${host}/skopeo/docker:1`)).rejects.toThrow(/manifest unknown|has no manifest/);
    expect((await manifestOf("skopeo/mounted", "1")).layers).toEqual(pushed.layers);
  });
});

describe.skipIf(leftOut("Docker Engine", dockerdAbsent()))("Docker Engine", () => {
  it("builds from scratch, pushes, forgets, pulls the same image; then only a layer that is new moves", async () => {
    const engine = await startPrivateDocker();
    try {
      const context = join(directory.path, "build");
      mkdirSync(context);
      writeFileSync(join(context, "data"), randomBytes(10_000_000));
      writeFileSync(join(context, "Dockerfile"), "FROM scratch\nCOPY data /data\n");
      await engine.docker("build", "-q", "-t", `${host}/docker/web:1`, context);
      const id = (await engine.docker("inspect", "-f", "{{.Id}}", `${host}/docker/web:1`)).trim();
      await engine.docker("push", "-q", `${host}/docker/web:1`);
      await engine.docker("rmi", `${host}/docker/web:1`);
      await engine.docker("pull", "-q", `${host}/docker/web:1`);
      expect((await engine.docker("inspect", "-f", "{{.Id}}", `${host}/docker/web:1`)).trim()).toBe(id);
      writeFileSync(join(context, "Dockerfile"), "FROM scratch\nCOPY data /data\nCOPY Dockerfile /more\n");
      await engine.docker("build", "-q", "-t", `${host}/docker/web:2`, context);
      await engine.docker("push", "-q", `${host}/docker/web:2`);
      const [one, two] = [await manifestOf("docker/web", "1"), await manifestOf("docker/web", "2")];
      expect(two.layers[0]).toEqual(one.layers[0]);
      expect(two.layers).toHaveLength(2);
    } finally {
      await engine.close();
    }
  });
});

describe.skipIf(leftOut("buildah and podman", absent("buildah") ?? absent("podman")))("buildah and podman", () => {
  it("buildah commits and pushes; podman pulls the same image and pushes it on", async () => {
    const store = ["--storage-driver", "vfs", "--root", join(directory.path, "store"), "--runroot", join(directory.path, "run")];
    const buildah = (...args: string[]): Promise<string> => run("buildah", ...store, ...args);
    const podman = (...args: string[]): Promise<string> => run("podman", ...store, ...args);
    const container = (await buildah("from", "scratch")).trim();
    await buildah("copy", container, join(layout, "index.json"), "/index.json");
    await buildah("commit", "-q", container, "made");
    await buildah("push", "-q", "--tls-verify=false", "made", `docker://${host}/buildah/web:1`);
    expect((await manifestOf("buildah/web", "1")).layers).toHaveLength(1);
    await buildah("rmi", "-a", "-f");
    await podman("pull", "-q", "--tls-verify=false", `${host}/buildah/web:1`);
    await podman("push", "-q", "--tls-verify=false", `${host}/buildah/web:1`, `docker://${host}/podman/web:1`);
    expect((await manifestOf("podman/web", "1")).layers).toHaveLength(1);
  });
});

describe("artifacts, as oras pushes them", () => {
  it("an artifact with the empty config and two referrers → found by type, copied with our client, deleted", async () => {
    const { client } = registry;
    const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
    const put = async (content: Uint8Array): Promise<{ digest: string; size: number }> => {
      const blob = { digest: `sha256:${createHash("sha256").update(content).digest("hex")}`, size: content.length };
      await client.pushBlob("oras/web", { ...blob, open: async function* (offset) { yield content.subarray(offset); } });
      return blob;
    };
    const mediaType = "application/vnd.oci.image.manifest.v1+json";
    const config = { mediaType: "application/vnd.oci.empty.v1+json", ...(await put(bytes("{}"))) };
    const artifact = async (artifactType: string, content: string, subject?: object): Promise<{ mediaType: string; digest: string; size: number }> => {
      const layers = [{ mediaType: "text/plain", ...(await put(bytes(content))) }];
      const manifest = bytes(JSON.stringify({ schemaVersion: 2, mediaType, artifactType, config, layers, ...(subject ? { subject } : {}) }));
      const pushed = await client.pushManifest("oras/web", subject ? undefined : "1", { mediaType, bytes: manifest });
      expect(pushed.subject).toBe(subject !== undefined);
      return { mediaType, digest: pushed.digest, size: manifest.length };
    };
    const root = await artifact("application/vnd.example.doc", "hello");
    const sbom = await artifact("application/vnd.example.sbom", "parts", root);
    await artifact("application/vnd.example.signature", "signed", root);
    const found = async (type?: string): Promise<string[]> => (await Array.fromAsync(client.referrers("oras/web", root.digest, type))).map(({ artifactType }) => artifactType!).sort();
    expect(await found()).toEqual(["application/vnd.example.sbom", "application/vnd.example.signature"]);
    expect(await found("application/vnd.example.sbom")).toEqual(["application/vnd.example.sbom"]);
    await client.deleteManifest("oras/web", sbom.digest);
    expect(await found()).toEqual(["application/vnd.example.signature"]);
  });
});
