/**
 * `node tools/bench/src/registry/main.ts [--rounds N] [--only skopeo,blob,manifest,small]`: our registry beside Debian's
 * docker-registry in the same run, each on a fresh directory, with clients that are neither's (skopeo, curl, bare sockets).
 */
import { execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { dockerRegistryAbsent, startDockerRegistry } from "@polyvisor/testkit";
import { median, render, type Figure } from "../figures.ts";
import { perSecond } from "./http-load.ts";

const { values: options } = parseArgs({ options: { rounds: { type: "string", default: "3" }, only: { type: "string" }, json: { type: "string" } } });
const sections = new Set((options.only ?? "skopeo,blob,manifest,small").split(","));
const PEER = "docker-registry";
const OURS = "polyvisor";
const IMAGE_BYTES = 200_000_000;
const LAYERS = 4;
const BLOB_BYTES = 256 * 1024 * 1024;
const CONNECTIONS = 32;
const SECONDS = 4;

const run = promisify(execFile);
const work = mkdtempSync(join(tmpdir(), "pv-bench-registry-"));
const samples = new Map<string, Map<string, number[]>>();
function sample(name: string, system: string, value: number): void {
  const systems = samples.get(name) ?? new Map<string, number[]>();
  samples.set(name, systems.set(system, [...(systems.get(system) ?? []), value]));
}
const step = (text: string): void => console.error(`bench: ${text}`);
const sha = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

interface Registry {
  readonly url: string;
  readonly pid: number;
  close(): Promise<void>;
}

/** Our service as a process of its own, as in the processes topology. */
async function startOurs(): Promise<Registry> {
  const root = mkdtempSync(join(work, "ours-"));
  const main = new URL("main.ts", import.meta.resolve("@polyvisor/image-registry")).pathname;
  const child = spawn(process.execPath, [main, "--state-dir", root, "--listen", `unix:${join(root, "s.sock")}`, "--nats", "", "--exit-with-stdin"], { stdio: ["pipe", "pipe", "inherit"] });
  await new Promise<void>((resolve, reject) => {
    child.stdout.on("data", (text: Buffer) => String(text).includes("ready ") && resolve());
    child.once("exit", (code) => reject(new Error(`image-registry ended with ${code}`)));
  });
  return {
    url: `http://127.0.0.1:${readFileSync(join(root, "http-port"), "utf8").trim()}`,
    pid: child.pid!,
    close: async () => {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await gone;
      rmSync(root, { recursive: true, force: true });
    },
  };
}

/** An OCI layout with layers that do not compress, compressed already: skopeo sends them as they are. */
function writeImage(directory: string): void {
  mkdirSync(join(directory, "blobs/sha256"), { recursive: true });
  const blob = (bytes: Uint8Array): { digest: string; size: number } => {
    writeFileSync(join(directory, "blobs/sha256", sha(bytes)), bytes);
    return { digest: `sha256:${sha(bytes)}`, size: bytes.length };
  };
  const diffIds: string[] = [];
  const layers = Array.from({ length: LAYERS }, () => {
    const content = randomBytes(IMAGE_BYTES / LAYERS);
    diffIds.push(`sha256:${sha(content)}`);
    return { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...blob(gzipSync(content, { level: 0 })) };
  });
  const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  const config = { mediaType: "application/vnd.oci.image.config.v1+json", ...blob(json({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: diffIds } })) };
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = blob(json({ schemaVersion: 2, mediaType, config, layers }));
  writeFileSync(join(directory, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(directory, "index.json"), json({ schemaVersion: 2, manifests: [{ mediaType, ...manifest, annotations: { "org.opencontainers.image.ref.name": "1" } }] }));
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return (performance.now() - begun) / 1000;
}

async function skopeo(system: string, { url, pid }: Registry): Promise<void> {
  const target = `docker://${new URL(url).host}/bench/image:1`;
  const copy = (...args: string[]): Promise<unknown> => run("skopeo", ["--insecure-policy", "copy", "-q", ...args]);
  sample("skopeo push 200 MB", system, IMAGE_BYTES / 1e6 / (await bothTimes("skopeo push 200 MB", system, pid, () => copy("--dest-tls-verify=false", `oci:${join(work, "image")}:1`, target))));
  const back = join(work, "back");
  sample("skopeo pull 200 MB", system, IMAGE_BYTES / 1e6 / (await bothTimes("skopeo pull 200 MB", system, pid, () => copy("--src-tls-verify=false", target, `oci:${back}:1`))));
  rmSync(back, { recursive: true, force: true });
}

async function blob(system: string, { url, pid }: Registry): Promise<void> {
  const file = join(work, "blob");
  const digest = `sha256:${sha(readFileSync(file))}`;
  const begun = await fetch(`${url}/v2/bench/blob/blobs/uploads/`, { method: "POST" });
  const location = new URL(begun.headers.get("location")!, url);
  location.searchParams.set("digest", digest);
  const curl = (...args: string[]): Promise<unknown> => run("curl", ["-sf", "-o", "/dev/null", ...args]);
  sample("PUT 256 MiB blob", system, BLOB_BYTES / 1e6 / (await bothTimes("PUT 256 MiB blob", system, pid, () => curl("-H", "Content-Type: application/octet-stream", "-H", "Expect:", "-T", file, location.href))));
  sample("GET 256 MiB blob", system, BLOB_BYTES / 1e6 / (await bothTimes("GET 256 MiB blob", system, pid, () => curl(`${url}/v2/bench/blob/blobs/${digest}`))));
}

async function manifest(system: string, { url }: Registry): Promise<void> {
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const config = new TextEncoder().encode("{}");
  await push(url, config);
  const body = JSON.stringify({ schemaVersion: 2, mediaType, config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: `sha256:${sha(config)}`, size: 2 }, layers: [] });
  const put = await fetch(`${url}/v2/bench/small/manifests/1`, { method: "PUT", headers: { "content-type": mediaType }, body });
  if (put.status !== 201) throw new Error(`${system}: PUT manifest answered ${put.status}`);
  const request = `GET /v2/bench/small/manifests/1 HTTP/1.1\r\nHost: ${new URL(url).host}\r\nAccept: ${mediaType}\r\n\r\n`;
  sample("GET manifest, 32 connections", system, await perSecond(new URL(url), CONNECTIONS, SECONDS, async (connection) => {
    const { status } = await connection.ask(request);
    if (status !== 200) throw new Error(`${system}: GET manifest answered ${status}`);
  }));
}

async function push(url: string, bytes: Uint8Array): Promise<void> {
  const begun = await fetch(`${url}/v2/bench/small/blobs/uploads/`, { method: "POST" });
  const location = new URL(begun.headers.get("location")!, url);
  location.searchParams.set("digest", `sha256:${sha(bytes)}`);
  const put = await fetch(location, { method: "PUT", headers: { "content-type": "application/octet-stream" }, body: bytes as Uint8Array<ArrayBuffer> });
  if (put.status !== 201) throw new Error(`PUT blob answered ${put.status}`);
}

/** POST and PUT, as every client does it. */
async function small(system: string, { url }: Registry): Promise<void> {
  const { host } = new URL(url);
  const seed = randomBytes(1016);
  sample("1 KB blob pushes, 32 connections", system, await perSecond(new URL(url), CONNECTIONS, SECONDS, async (connection, serial) => {
    const bytes = Buffer.concat([seed, Buffer.from(serial.toString(16).padStart(8, "0"))]);
    const begun = await connection.ask(`POST /v2/bench/small/blobs/uploads/ HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\n\r\n`);
    if (begun.status !== 202) throw new Error(`${system}: POST answered ${begun.status}`);
    const at = new URL(begun.location!, url);
    at.searchParams.set("digest", `sha256:${sha(bytes)}`);
    const head = `PUT ${at.pathname}${at.search} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/octet-stream\r\nContent-Length: ${bytes.length}\r\n\r\n`;
    const put = await connection.ask(Buffer.concat([Buffer.from(head), bytes]));
    if (put.status !== 201) throw new Error(`${system}: PUT answered ${put.status}`);
  }));
}

/** Processor time that a process has used, in seconds (proc(5), stat, fields 14 and 15, in ticks of 10 ms). */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** On a machine that others use, too, processor time says what wall-clock time cannot. */
async function bothTimes(name: string, system: string, pid: number, work: () => Promise<unknown>): Promise<number> {
  const before = cpuSeconds(pid);
  const took = await seconds(work);
  sample(`${name}, server CPU`, system, cpuSeconds(pid) - before);
  return took;
}

const WORK = { skopeo, blob, manifest, small };
try {
  const absent = dockerRegistryAbsent();
  if (absent) step(`no peer in the table: ${absent}`);
  if (sections.has("skopeo")) writeImage(join(work, "image"));
  if (sections.has("blob")) writeFileSync(join(work, "blob"), randomBytes(BLOB_BYTES));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const system of [OURS, ...(absent ? [] : [PEER])]) {
      const registry = system === OURS ? await startOurs() : await startDockerRegistry();
      for (const [name, work] of Object.entries(WORK)) {
        if (!sections.has(name)) continue;
        step(`${name} on ${system}, round ${round + 1}`);
        await work(system, registry);
      }
      await registry.close();
    }
  }
  const figures: Figure[] = [];
  const targets: Record<string, string> = { "skopeo push 200 MB": ">= 1x", "skopeo pull 200 MB": ">= 1x", "PUT 256 MiB blob": ">= 1.2x", "GET 256 MiB blob": ">= 1.2x", "GET manifest, 32 connections": ">= 10,000", "1 KB blob pushes, 32 connections": ">= 1,000" };
  for (const [name, systems] of samples) {
    const values = Object.fromEntries([...systems].map(([system, all]) => [system, median(all)]));
    figures.push({ name, unit: name.endsWith("CPU") ? "s" : /MB|MiB/.test(name) ? "MB/s" : "per s", values, peer: PEER, ...(targets[name] ? { target: targets[name] } : {}) });
  }
  console.log(render(figures));
  if (options.json) writeFileSync(options.json, JSON.stringify(figures, null, 2));
} finally {
  rmSync(work, { recursive: true, force: true });
}
