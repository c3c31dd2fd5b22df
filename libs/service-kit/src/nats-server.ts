import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { delimiter, join } from "node:path";
import { ContractError } from "@polyvisor/contracts";

/**
 * Finds a nats-server: `NATS_SERVER`, PATH and the usual directories, the cache, else the distribution's package fetched
 * into `cacheDir` without root. Undefined, with the reason, when there is none.
 */
export function findNatsServer(cacheDir: string, env: NodeJS.ProcessEnv = process.env): { path: string } | { path?: undefined; reason: string } {
  const named = env["NATS_SERVER"];
  if (named) {
    return executable(named) ? { path: named } : { reason: `NATS_SERVER names ${named}, which cannot be executed` };
  }
  const directories = [...(env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];
  const cached = join(cacheDir, "nats-server", "usr", "sbin");
  for (const directory of [...directories, cached]) {
    const candidate = join(directory || ".", "nats-server");
    if (executable(candidate)) return { path: candidate };
  }
  return fetchPackage(cacheDir, join(cached, "nats-server"));
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function fetchPackage(cacheDir: string, binary: string): { path: string } | { reason: string } {
  mkdirSync(cacheDir, { recursive: true });
  const work = mkdtempSync(join(cacheDir, ".fetch-"));
  try {
    const download = spawnSync("apt-get", ["download", "nats-server"], { cwd: work, encoding: "utf8", timeout: 120_000 });
    const file = existsSync(work) ? readdirSync(work).find((name) => name.endsWith(".deb")) : undefined;
    if (download.status !== 0 || !file) {
      const why = (download.error?.message ?? download.stderr ?? "").trim().split("\n").at(-1);
      return { reason: `nats-server is not on PATH and apt-get download failed (${why}); install nats-server or set NATS_SERVER to one` };
    }
    const unpack = spawnSync("dpkg-deb", ["-x", file, "root"], { cwd: work, encoding: "utf8" });
    if (unpack.status !== 0) return { reason: `dpkg-deb could not unpack ${file}: ${unpack.error?.message ?? unpack.stderr}` };
    try {
      renameSync(join(work, "root"), join(cacheDir, "nats-server"));
    } catch {
      // Another process was faster.
    }
    return executable(binary) ? { path: binary } : { reason: `${file} holds no usr/sbin/nats-server` };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

export interface NatsServer {
  readonly url: string;
  readonly pid: number;
  /** Resolves with what ended it. */
  readonly exited: Promise<string>;
  close(): Promise<void>;
}

/** Starts a nats-server with JetStream on a free port of 127.0.0.1, its files in `directory`. Resolves when it accepts. */
export async function startNatsServer(binary: string, directory: string): Promise<NatsServer> {
  mkdirSync(directory, { recursive: true });
  const ports = mkdtempSync(join(directory, "ports-"));
  // Port -1: it chooses a free one and writes it to <ports>/nats-server_<pid>.ports.
  const args = ["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir", join(directory, "store"), "--ports_file_dir", ports];
  const child = spawn(binary, args, { stdio: ["ignore", "ignore", "pipe"] });
  let output = "";
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (output = (output + chunk).slice(-4096)));
  let gone: string | undefined;
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve((gone = error.message)));
    child.once("exit", (code, signal) => resolve((gone = `exit ${code ?? signal}`)));
  });
  const portsFile = join(ports, `nats-server_${child.pid}.ports`);
  const deadline = Date.now() + 10_000;
  let url: string | undefined;
  while (!url) {
    if (gone !== undefined || Date.now() > deadline) {
      child.kill("SIGKILL");
      throw new ContractError("unavailable", `${binary} did not start (${gone ?? "no port within 10 s"}): ${output.trim().split("\n").at(-1)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    url = readPorts(portsFile);
  }
  return {
    url,
    pid: child.pid!,
    exited,
    async close() {
      if (gone !== undefined) return;
      child.kill("SIGTERM");
      const force = setTimeout(() => child.kill("SIGKILL"), 3_000);
      await exited;
      clearTimeout(force);
      rmSync(ports, { recursive: true, force: true });
    },
  };
}

/** Undefined while the file is absent or half written. */
function readPorts(file: string): string | undefined {
  try {
    return (JSON.parse(readFileSync(file, "utf8")) as { nats?: string[] }).nats?.[0];
  } catch {
    return undefined;
  }
}
