import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const BIN = fileURLToPath(new URL("../../../apps/cli/bin/hv.mjs", import.meta.url));

/** `hv` as users run it, in a home directory that lasts as long as the benchmark; built boxes come from the user's cache. */
export class Hv {
  readonly home = mkdtempSync(join(tmpdir(), "hv-bench-"));
  readonly cache = join(process.env["HV_HOME"] ?? join(homedir(), ".polyvisor"), "cache");

  /** Runs one command and answers its standard output; throws with everything it printed when it fails. */
  run(...args: string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [BIN, ...args], {
        env: { ...process.env, HV_HOME: this.home, ...(existsSync(this.cache) ? { HV_BOX_CACHE: this.cache } : {}) },
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 300_000,
      });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
      child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
      child.on("error", reject);
      child.on("close", (code) => (code === 0 ? resolve(stdout) : reject(new Error(`hv ${args.join(" ")} ended with ${code}:\n${stdout}${stderr}`))));
    });
  }

  async close(): Promise<void> {
    await this.run("stack", "down").catch((error: unknown) => console.error(error));
    rmSync(this.home, { recursive: true, force: true });
  }
}
