import { execFile, execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { hashSync } from "bcryptjs";
import { MEDIA_TYPES } from "@polyvisor/image-spec";
import { nodeOciClient } from "@polyvisor/oci-client/node";
import { temporaryDirectory } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { startRegistry, type TestRegistry } from "./testing/registry.ts";

const ANN = { username: "ann", password: "pä:ss word" };
const sha = (data: Uint8Array): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function htpasswd(directory: string, users = [ANN]): string {
  const path = join(directory, "htpasswd");
  writeFileSync(path, `# users\n${users.map(({ username, password }) => `${username}:${hashSync(password, 4)}`).join("\n")}\n`);
  return path;
}
async function pushImage(client: TestRegistry["client"], name: string, tag: string, layer = text("layer")): Promise<string> {
  const config = text("{}");
  for (const data of [config, layer]) await client.pushBlob(name, { digest: sha(data), size: data.length, open: async function* (at) { yield data.subarray(at); } });
  const bytes = text(JSON.stringify({
    schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: { mediaType: MEDIA_TYPES.config, digest: sha(config), size: config.length },
    layers: [{ mediaType: "application/x", digest: sha(layer), size: layer.length }],
  }));
  return (await client.pushManifest(name, tag, { mediaType: MEDIA_TYPES.manifest, bytes })).digest;
}
const basic = (user: string, password: string): string => `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;

describe.each(["token", "basic"] as const)("users, challenge %s", (authChallenge) => {
  it("without credentials → 401 with a challenge; wrong ones → refused; right ones → push, pull, delete", async () => {
    using directory = temporaryDirectory();
    await using registry = await startRegistry({ htpasswd: htpasswd(directory.path), authChallenge });
    const refused = await fetch(`${registry.url}/v2/web/tags/list`);
    expect(refused.status).toBe(401);
    expect(refused.headers.get("www-authenticate")).toMatch(authChallenge === "basic" ? /^Basic realm=/ : /^Bearer realm="http:\/\/127\.0\.0\.1:\d+\/token",service="[^"]+",scope="repository:web:pull"$/);
    expect(((await refused.json()) as { errors: { code: string }[] }).errors[0]!.code).toBe("UNAUTHORIZED");
    const wrong = nodeOciClient(registry.url, { credentials: { ...ANN, password: "no" } });
    await expect(pushImage(wrong, "web", "1")).rejects.toMatchObject({ problem: "unauthorized" });
    const ann = nodeOciClient(registry.url, { credentials: ANN });
    const digest = await pushImage(ann, "web", "1");
    expect((await ann.resolve("web", "1"))?.digest).toBe(digest);
    expect(await ann.deleteManifest("web", digest)).toBe(true);
  });
  it("anonymous pull → everybody pulls, nobody pushes or deletes without logging in", async () => {
    using directory = temporaryDirectory();
    await using registry = await startRegistry({ htpasswd: htpasswd(directory.path), authChallenge, anonymousPull: true });
    const digest = await pushImage(nodeOciClient(registry.url, { credentials: ANN }), "web", "1");
    const anybody = nodeOciClient(registry.url);
    expect((await anybody.resolve("web", "1"))?.digest).toBe(digest);
    await expect(pushImage(anybody, "web", "2")).rejects.toMatchObject({ problem: "unauthorized" });
    await expect(anybody.deleteManifest("web", digest)).rejects.toMatchObject({ problem: "unauthorized" });
    expect((await fetch(`${registry.url}/v2/`)).status).toBe(401); // where clients learn how to log in
  });
});

describe("tokens", () => {
  it("one for pulling → does not push; a forged, foreign or changed one → 401; it survives a restart", async () => {
    using directory = temporaryDirectory();
    await using registry = await startRegistry({ htpasswd: htpasswd(directory.path) });
    await pushImage(nodeOciClient(registry.url, { credentials: ANN }), "web", "1");
    const answer = await fetch(`${registry.url}/token?service=x&scope=repository:web:pull&scope=repository:web:nonsense:x`, { headers: { authorization: basic(ANN.username, ANN.password) } });
    const { token } = (await answer.json()) as { token: string };
    await using again = await registry.restart();
    const ask = async (path: string, bearer: string, method = "GET"): Promise<number> => (await fetch(again.url + path, { method, headers: { authorization: `Bearer ${bearer}` } })).status;
    expect(await ask("/v2/web/manifests/1", token)).toBe(200);
    expect(await ask("/v2/web/blobs/uploads/", token, "POST")).toBe(401);
    expect(await ask("/v2/other/tags/list", token)).toBe(401);
    expect(await ask("/v2/_catalog", token)).toBe(401);
    const [head, , signature] = token.split(".");
    const all = Buffer.from(JSON.stringify({ access: [{ type: "repository", name: "web", actions: ["*"] }], iss: "polyvisor-registry", aud: "polyvisor-registry", exp: 4e9 })).toString("base64url");
    const none = Buffer.from('{"alg":"none"}').toString("base64url");
    for (const forged of [`${head}.${all}.${signature}`, `${none}.${all}.`, "x", ""]) expect(await ask("/v2/web/manifests/1", forged)).toBe(401);
    expect((await fetch(`${again.url}/token`, { headers: { authorization: basic("ann", "wrong") } })).status).toBe(401);
  });
  it("users that are added to the file while it serves → may log in; entries that are not bcrypt → refused at the start", async () => {
    using directory = temporaryDirectory();
    const file = htpasswd(directory.path);
    await using registry = await startRegistry({ htpasswd: file });
    const bob = { username: "bob", password: "b" };
    const login = async (): Promise<number> => (await fetch(`${registry.url}/v2/`, { headers: { authorization: basic("bob", "b") } })).status;
    expect(await login()).toBe(401);
    htpasswd(directory.path, [ANN, bob]);
    expect(await login()).toBe(200);
    writeFileSync(file, "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n");
    await expect(startRegistry({ htpasswd: file })).rejects.toThrow(/htpasswd -B/);
  });
});

const openssl = spawnSync("openssl", ["version"]).error ? "openssl is not installed" : undefined;
if (openssl) console.log(`skipped: TLS: ${openssl}`);
describe.skipIf(openssl)("TLS", () => {
  it("with a certificate → https, tokens from https; half a configuration → refused", async () => {
    using directory = temporaryDirectory();
    const [tlsCert, tlsKey] = [join(directory.path, "c.pem"), join(directory.path, "k.pem")];
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tlsKey, "-out", tlsCert], { stdio: "ignore" });
    await using registry = await startRegistry({ tlsCert, tlsKey, htpasswd: htpasswd(directory.path) });
    expect(registry.url).toMatch(/^https:/);
    // Node's fetch takes no certificate authority per request; curl does.
    const curl = async (...args: string[]): Promise<string> => (await promisify(execFile)("curl", ["-s", "--cacert", tlsCert, ...args])).stdout;
    if (spawnSync("curl", ["--version"]).error) return console.log("skipped: the rest of TLS: curl is not installed");
    const challenge = await curl("-i", `${registry.url}/v2/`);
    expect(challenge).toMatch(/401 [\s\S]*realm="https:\/\/127\.0\.0\.1:\d+\/token"/i);
    expect(await curl("-o", "/dev/null", "-w", "%{http_code}", "-u", `${ANN.username}:${ANN.password}`, `${registry.url}/v2/`)).toBe("200");
    await expect(startRegistry({ tlsCert })).rejects.toThrow(/both/);
  });
});

describe("a pull-through cache", () => {
  it("what is pulled is fetched once and kept; when upstream is gone, it is still served, and what is not here is 502", async () => {
    await using upstream = await startRegistry();
    const layer = new Uint8Array(3_000_000).map((_, i) => i * 7);
    const digest = await pushImage(upstream.client, "web", "1", layer);
    await using cache = await startRegistry({ upstream: upstream.url, upstreamPrefix: "mirror/" });
    const { client } = cache;
    expect((await client.manifest("mirror/web", "1")).digest).toBe(digest);
    const read = async (): Promise<number> => {
      let bytes = 0;
      for await (const piece of client.blob("mirror/web", { digest: sha(layer), size: layer.length })) bytes += piece.length;
      return bytes;
    };
    expect(await Promise.all([read(), read(), read()])).toEqual([layer.length, layer.length, layer.length]);
    expect(await Array.fromAsync(client.tags("mirror/web"))).toEqual(["1"]);
    expect(await client.resolve("mirror/web", "none")).toBeUndefined();
    expect(await client.blobSize("mirror/web", sha(text("none")))).toBeUndefined();
    await upstream[Symbol.asyncDispose]();
    expect((await client.manifest("mirror/web", "1")).digest).toBe(digest);
    expect((await client.manifest("mirror/web", digest)).digest).toBe(digest);
    expect(await read()).toBe(layer.length);
    expect(await Array.fromAsync(client.tags("mirror/web"))).toEqual(["1"]);
    expect((await fetch(`${cache.url}/v2/mirror/web/manifests/2`)).status).toBe(502);
  }, 60_000);
  it("its repositories take no pushes; others do", async () => {
    await using upstream = await startRegistry();
    await using cache = await startRegistry({ upstream: upstream.url, upstreamPrefix: "mirror/" });
    await expect(pushImage(cache.client, "mirror/web", "1")).rejects.toThrow(/is a cache of/);
    await pushImage(cache.client, "own/web", "1");
    expect(await upstream.client.resolve("own/web", "1")).toBeUndefined();
  });
  it("a tag that moves upstream → the newer image once the cached one is a minute old", async () => {
    await using upstream = await startRegistry();
    await using cache = await startRegistry({ upstream: upstream.url });
    const first = await pushImage(upstream.client, "web", "1", text("a"));
    expect((await cache.client.resolve("web", "1"))?.digest).toBe(first);
    const second = await pushImage(upstream.client, "web", "1", text("b"));
    expect((await cache.client.resolve("web", "1"))?.digest).toBe(first);
    await using later = await cache.restart(); // what it remembers of freshness is not kept
    expect((await later.client.resolve("web", "1"))?.digest).toBe(second);
  });
  it("an upstream whose blob is not what its digest says → the answer breaks off and nothing is kept", async () => {
    await using upstream = await startRegistry();
    const layer = new Uint8Array(200_000).fill(5);
    await pushImage(upstream.client, "web", "1", layer);
    const { readdirSync, statSync, writeFileSync: write } = await import("node:fs");
    const file = readdirSync(join(upstream.root, "blobs"), { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name)).find((each) => statSync(each).size === 200_000)!;
    write(file, new Uint8Array(200_000).fill(6));
    await using cache = await startRegistry({ upstream: upstream.url });
    await expect(fetch(`${cache.url}/v2/web/blobs/${sha(layer)}`).then(async (answer) => (await answer.arrayBuffer()).byteLength)).rejects.toThrow();
    await expect(cache.port.statBlob({ digest: sha(layer) })).rejects.toMatchObject({ condition: "not-found" });
  });
});
