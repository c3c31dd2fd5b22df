import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const READY_TIMEOUT_MS = 60_000;

/** Why a Docker Engine of our own cannot run here; undefined: it can be tried. */
export function dockerdAbsent(): string | undefined {
  if (process.getuid?.() !== 0) return "a Docker Engine needs root";
  return spawnSync("dockerd", ["--version"]).error ? "dockerd is not installed (apt-get install docker.io)" : undefined;
}

export interface PrivateDocker {
  /** "unix:///…", for DOCKER_HOST. */
  readonly host: string;
  docker(...args: string[]): Promise<string>;
  close(): Promise<void>;
}

/** A Docker Engine with its own data, socket and containerd, beside whatever else runs; no bridge, no iptables, nothing stays. */
export async function startPrivateDocker(): Promise<PrivateDocker> {
  const directory = mkdtempSync(join(tmpdir(), "pv-docker-"));
  const host = `unix://${join(directory, "d.sock")}`;
  const log = openSync(join(directory, "log"), "w");
  const child = spawn(
    "dockerd",
    ["--data-root", join(directory, "data"), "--exec-root", join(directory, "exec"), "--pidfile", join(directory, "pid"), "-H", host, "--bridge=none", "--iptables=false", "--ip-masq=false", "--storage-driver=vfs"],
    { stdio: ["ignore", log, log] },
  );
  closeSync(log);
  const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const env = { ...process.env, DOCKER_HOST: host, DOCKER_BUILDKIT: "0", DOCKER_CONFIG: join(directory, "config") };
  const docker = async (...args: string[]): Promise<string> => (await promisify(execFile)("docker", args, { env, maxBuffer: 16 * 1024 * 1024 })).stdout;
  const close = async (): Promise<void> => {
    child.kill("SIGTERM");
    await Promise.race([gone, sleep(15_000)]);
    await endLeft(child, gone);
    spawnSync("umount", ["-R", join(directory, "data")]); // it mounts its data root on itself
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  };
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    if (await docker("version").then(() => true, () => false)) return { host, docker, close };
    if (child.exitCode !== null || performance.now() > deadline) {
      const said = readFileSync(join(directory, "log"), "utf8").trimEnd().split("\n").slice(-5).join("\n");
      await close();
      throw new Error(`dockerd does not run here:\n${said}`);
    }
    await sleep(100);
  }
}

async function endLeft(child: ChildProcess, gone: Promise<void>): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await gone;
}
