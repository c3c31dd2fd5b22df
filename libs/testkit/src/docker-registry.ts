import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Why Debian's docker-registry cannot be used here; undefined: it can. */
export function dockerRegistryAbsent(): string | undefined {
  return spawnSync("docker-registry", ["--version"]).error ? "docker-registry is not installed (apt-get install docker-registry)" : undefined;
}

/** Debian's docker-registry (distribution 2.8) on a port and a directory of its own: the reference for OCI distribution. */
export async function startDockerRegistry(): Promise<{ readonly url: string; readonly pid: number; close(): Promise<void> }> {
  const directory = mkdtempSync(join(tmpdir(), "pv-docker-registry-"));
  const config = join(directory, "config.yml");
  const lines = ["version: 0.1", "log: {level: info, accesslog: {disabled: true}}", "storage:", `  filesystem: {rootdirectory: ${join(directory, "data")}}`, "  delete: {enabled: true}", "http: {addr: '127.0.0.1:0', secret: test}"];
  writeFileSync(config, `${lines.join("\n")}\n`);
  const child = spawn("docker-registry", ["serve", config], { stdio: ["ignore", "pipe", "pipe"] });
  const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
  let log = "";
  const url = await new Promise<string>((resolve, reject) => {
    const take = (piece: Buffer): void => {
      log = (log + piece).slice(-16_384);
      const port = /listening on 127\.0\.0\.1:(\d+)/.exec(log)?.[1];
      if (port) resolve(`http://127.0.0.1:${port}`);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("error", reject);
    child.once("close", (code) => reject(new Error(`docker-registry ended with ${code}: ${log}`)));
  });
  return {
    url,
    pid: child.pid!,
    async close() {
      child.kill("SIGKILL");
      await gone;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
