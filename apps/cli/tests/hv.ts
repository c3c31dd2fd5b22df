import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const BIN = fileURLToPath(new URL("../bin/hv.mjs", import.meta.url));

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** `hv` as users run it, in a home directory of its own. */
export class Hv {
  readonly home: string;

  constructor() {
    this.home = mkdtempSync(join(tmpdir(), "hv-e2e-"));
    // Packages and built boxes are this user's: what is there already need not be fetched again.
    const cache = join(process.env["HV_HOME"] ?? join(homedir(), ".polyvisor"), "cache");
    mkdirSync(cache, { recursive: true });
    symlinkSync(cache, join(this.home, "cache"));
  }

  /** Runs one command; a non-zero exit status is an answer, not an error. */
  run(args: readonly string[], { timeoutMs = 240_000, input = "", onStderr }: { timeoutMs?: number; input?: string | Uint8Array; onStderr?: (text: string) => void } = {}): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const env = { ...process.env, HV_HOME: this.home };
      const child = execFile(process.execPath, [BIN, ...args], { env, timeout: timeoutMs, killSignal: "SIGKILL", maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
        if (error?.killed) reject(new Error(`hv ${args.join(" ")} was still running after ${timeoutMs} ms:\n${stdout}${stderr}`));
        else resolve({ status: typeof error?.code === "number" ? error.code : error ? 1 : 0, stdout, stderr });
      });
      if (onStderr) child.stderr!.on("data", onStderr);
      child.stdin!.end(input);
    });
  }

  /** Runs one command that must succeed; answers its stdout. */
  async ok(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(args);
    if (status !== 0) throw new Error(`hv ${args.join(" ")} ended with ${status}:\n${stdout}${stderr}`);
    return stdout;
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.ok(...args, "--json")) as T;
  }

  /** A shell command line in a guest. */
  sh(machine: string, line: string): Promise<Outcome> {
    return this.run(["exec", machine, "--", "sh", "-c", line]);
  }

  /** Stops all stacks and removes every file. */
  async close(): Promise<void> {
    await this.run(["stack", "down"]).catch((error: unknown) => console.error(error));
    rmSync(this.home, { recursive: true, force: true });
  }
}
