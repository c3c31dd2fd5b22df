import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { IMAGE, type ImagePort } from "@polyvisor/contracts/image";

const MAIN = fileURLToPath(new URL("../main.ts", import.meta.url));

/** The image-registry as a process of its own, to be killed. */
export class RegistryProcess {
  readonly url: string;
  readonly port: ImagePort;
  readonly #child: ChildProcess;
  readonly #gone: Promise<unknown>;
  readonly #disconnect: () => void;

  private constructor(child: ChildProcess, gone: Promise<unknown>, url: string, connection: { port: ImagePort; close(): void }) {
    this.#child = child;
    this.#gone = gone;
    this.url = url;
    this.port = connection.port;
    this.#disconnect = () => connection.close();
  }

  static async start(root: string, ...flags: string[]): Promise<RegistryProcess> {
    const socket = `unix:${join(root, "s.sock")}`;
    const child = spawn(process.execPath, [MAIN, "--state-dir", root, "--listen", socket, "--nats", "", "--exit-with-stdin", ...flags], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? join(tmpdir(), "pv-compile-cache") }, // started again and again
    });
    const gone = new Promise((resolve) => child.once("exit", resolve));
    let log = "";
    child.stderr.on("data", (piece: Buffer) => (log = (log + piece).slice(-8000)));
    await new Promise<void>((resolve, reject) => {
      child.stdout.on("data", (piece: Buffer) => String(piece).includes("ready ") && resolve());
      child.once("exit", (code, signal) => reject(new Error(`image-registry ended with ${code ?? signal}: ${log}`)));
    });
    const url = `http://127.0.0.1:${readFileSync(join(root, "http-port"), "utf8").trim()}`;
    return new RegistryProcess(child, gone, url, connectGrpc(IMAGE, socket));
  }

  async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    this.#child.kill(signal);
    await this.#gone;
    this.#disconnect();
  }
}
