/** Boxes as users move them: packaged, written to files, pushed to and pulled from registries, listed in catalogues. */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dockerRegistryAbsent, startDockerRegistry } from "@polyvisor/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Hv } from "./hv.ts";

const absent = dockerRegistryAbsent();
if (absent) console.log(`boxes are not pushed to Debian's docker-registry: ${absent}`);

interface BoxJson {
  name: string;
  tag: string;
  digest: string;
}

describe("boxes", () => {
  const hv = new Hv();
  const folder = mkdtempSync(join(tmpdir(), "pv-boxes-e2e-"));
  const file = join(folder, "t.box");
  let packaged: BoxJson;

  beforeAll(async () => {
    await hv.ok("up", "t", "--box", "tiny");
    for (let tries = 0; tries < 100; tries++) {
      if ((await hv.json<{ state: string }[]>("status")).every(({ state }) => state !== "running")) break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    packaged = await hv.json<BoxJson>("package", "t", "--as", "me/t:1", "--output", file);
  }, 120_000);
  afterAll(async () => {
    await hv.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("a halted machine becomes a box and a file; a machine of that box starts", async () => {
    expect(packaged).toMatchObject({ name: "me/t", tag: "1" });
    await hv.ok("up", "t2", "--box", `me/t@${packaged.digest}`);
    expect((await hv.run(["box", "rm", "me/t"])).stderr).toMatch(/is the box of t2, which cannot start without it/);
    await hv.ok("destroy", "t2");
  });
  it("a file is added under another name with the same digest; a damaged, cut or foreign file is refused and leaves no box", async () => {
    expect(await hv.json<BoxJson>("box", "add", file, "--name", "copy:5")).toMatchObject({ name: "copy", tag: "5", digest: packaged.digest });
    const bytes = readFileSync(file);
    const bad = join(folder, "bad.box");
    const kernel = bytes.lastIndexOf("polyvisor tiny") > 0 ? bytes.lastIndexOf("polyvisor tiny") : 2600;
    writeFileSync(bad, Buffer.concat([bytes.subarray(0, kernel), Buffer.from("#"), bytes.subarray(kernel + 1)]));
    expect((await hv.run(["box", "add", bad, "--name", "bad:1"])).stderr).toMatch(/is not what its digest says|has the digest/);
    writeFileSync(bad, bytes.subarray(0, 1500));
    expect((await hv.run(["box", "add", bad, "--name", "bad:1"])).stderr).toMatch(/truncated|has no /);
    writeFileSync(bad, "PK\u0003\u0004".padEnd(2000, "x"));
    expect((await hv.run(["box", "add", bad, "--name", "bad:1"])).stderr).toMatch(/is not a tar archive/);
    expect(await hv.ok("box", "ls")).not.toContain("bad");
  });
  it("a catalogue: newest version, constraint, checksum; a wrong checksum is refused", async () => {
    const catalogue = join(folder, "t.json");
    const sha256 = createHash("sha256").update(readFileSync(file)).digest("hex");
    const version = (number: string, checksum: string): object => ({ version: number, providers: [{ name: "virtualbox", url: "no" }, { name: "polyvisor", url: "t.box", checksum_type: "sha256", checksum }] });
    writeFileSync(catalogue, JSON.stringify({ name: "shelf/t", versions: [version("1.2.0", sha256), version("1.10.0", sha256), version("2.0.0", "00")] }));
    expect((await hv.run(["box", "add", catalogue])).stderr).toMatch(/the catalogue says 00; it is not what its maker published/);
    expect(await hv.json<BoxJson>("box", "add", catalogue, "--version", "~> 1.2")).toMatchObject({ name: "shelf/t", tag: "1.10.0", digest: packaged.digest });
    const news = await hv.run(["box", "outdated", "--json"]);
    expect(news.status).toBe(1);
    expect(JSON.parse(news.stdout)).toContainEqual({ box: "shelf/t:1.10.0", state: "outdated", news: "version 2.0.0 is there, this is 1.10.0", update: `hv box add ${catalogue}` });
    expect((await hv.run(["box", "add", catalogue, "--version", "9"])).stderr).toMatch(/no version 9; it has: 2\.0\.0, 1\.10\.0, 1\.2\.0/);
  });
  it("prune keeps the newest of a name and what machines use", async () => {
    await hv.ok("box", "add", file, "--name", "old:1");
    await hv.ok("package", "t", "--as", "old:2");
    expect(await hv.json<{ removed: string[] }>("box", "prune", "--dry-run")).toEqual({ removed: ["old:1"] });
    await hv.ok("box", "prune");
    expect((await hv.run(["box", "inspect", "old:1"])).stderr).toMatch(/there is no box old:1/);
    await hv.ok("box", "inspect", "old:2");
  });
  it("names that are none, places that are not there → what to write instead", async () => {
    expect((await hv.run(["push", "tiny", "nowhere"])).stderr).toMatch(/names no registry; expected a host and a name/);
    expect((await hv.run(["pull", "tiny"])).stderr).toMatch(/names no registry; expected a host in front/);
    expect((await hv.run(["box", "add", "./none.box"])).stderr).toMatch(/there is no file/);
    expect((await hv.run(["pull", "localhost:1/x:1"])).status).toBe(1);
    expect((await hv.run(["package", "nobody"])).stderr).toMatch(/there is no machine "nobody"/);
  });

  describe.skipIf(absent)("and Debian's docker-registry", () => {
    let registry: Awaited<ReturnType<typeof startDockerRegistry>>;
    let host = "";
    beforeAll(async () => {
      registry = await startDockerRegistry();
      host = registry.url.replace("http://", "");
    });
    afterAll(() => registry?.close());

    it("push a box, and a machine; pull by tag and by digest: the same digest; nothing is sent twice", async () => {
      expect(await hv.json("push", "me/t:1", `${host}/shop/t:1`)).toMatchObject({ digest: packaged.digest });
      expect((await hv.run(["push", "me/t:1", `${host}/shop/t:again`])).stderr).toMatch(/0 B moved/);
      expect(await hv.json<BoxJson>("box", "add", `${host}/shop/t@${packaged.digest}`, "--name", "pinned:1")).toMatchObject({ digest: packaged.digest });
      await hv.ok("push", "t", `${host}/shop/machine:1`);
      const pulled = await hv.json<BoxJson>("pull", `${host}/shop/machine:1`, "--as", "from-machine:1");
      await hv.ok("up", "t3", "--box", `from-machine@${pulled.digest}`);
    });
    it("an index of several architectures: ours is put in beside the others and taken out of it", async () => {
      // What is there for another architecture stays; here the same manifest stands for it.
      const other = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest: packaged.digest, size: Number((await fetch(`${registry.url}/v2/shop/t/manifests/1`, { method: "HEAD", headers: { accept: "application/vnd.oci.image.manifest.v1+json" } })).headers.get("content-length")), platform: { architecture: "amd64", os: "linux" } };
      const type = "application/vnd.oci.image.index.v1+json";
      await fetch(`${registry.url}/v2/shop/t/manifests/multi`, { method: "PUT", headers: { "content-type": type }, body: JSON.stringify({ schemaVersion: 2, mediaType: type, manifests: [other] }) });
      expect((await hv.run(["pull", `${host}/shop/t:multi`, "--as", "multi:1"])).stderr).toMatch(/has nothing for riscv64; it has: linux\/amd64/);
      await hv.ok("push", "tiny", `${host}/shop/t:multi`, "--index");
      const index = JSON.parse(await (await fetch(`${registry.url}/v2/shop/t/manifests/multi`, { headers: { accept: type } })).text()) as { manifests: { platform: { architecture: string } }[] };
      expect(index.manifests.map(({ platform }) => platform.architecture)).toEqual(["amd64", "riscv64"]);
      const tiny = await hv.json<BoxJson>("box", "inspect", "tiny");
      expect(await hv.json<BoxJson>("pull", `${host}/shop/t:multi`, "--as", "multi:1")).toMatchObject({ digest: tiny.digest });
      const news = JSON.parse((await hv.run(["box", "outdated", "--json"])).stdout) as { box: string; state: string }[];
      expect(news.find(({ box }) => box === "multi:1")).toMatchObject({ state: "current" });
    });
  });
}, 120_000);
