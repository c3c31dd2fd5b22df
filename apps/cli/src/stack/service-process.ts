import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { SERVICE_V8_FLAGS } from "./v8-flags.ts";

export interface ServiceProcessOptions {
  readonly name: string;
  readonly main: URL;
  readonly environment: Readonly<Record<string, string>>;
  readonly logFile: string;
  readonly log: Logger;
  /** The pid has changed. */
  onChange(): void;
}

const READY_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 7_000;
/** Restarts wait 0.2 s, 0.4 s … 5 s; a process that lived for a minute starts over. */
const BACKOFF_MS = { first: 200, last: 5_000, healthy: 60_000 };
/** After so many crashes in a row it stays down. */
const MAX_CRASHES = 10;

/** One service as a child process: started, watched, started again when it crashes, stopped. */
export class ServiceProcess {
  readonly name: string;
  readonly #options: ServiceProcessOptions;
  #child: ChildProcess | undefined;
  #stopping = false;
  #crashes = 0;

  constructor(options: ServiceProcessOptions) {
    this.name = options.name;
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when the service has said that it is ready. */
  async start(): Promise<void> {
    const { main, environment, logFile, log, onChange } = this.#options;
    const logFd = openSync(logFile, "a", 0o600);
    const child = spawn(process.execPath, [...SERVICE_V8_FLAGS, fileURLToPath(main)], {
      stdio: ["pipe", "pipe", logFd],
      env: { ...process.env, ...environment },
    });
    closeSync(logFd);
    this.#child = child;
    child.stdin!.on("error", () => {}); // Closed by a crash.
    const bornAt = performance.now();
    const ready = new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code, signal) => reject(new Error(`${this.name} ended while starting (${signal ?? `exit ${code}`}); its log: ${logFile}`)));
      createInterface({ input: child.stdout! }).on("line", (line) => line.startsWith("ready ") && resolve());
      sleep(READY_TIMEOUT_MS, undefined, { ref: false }).then(() => reject(new Error(`${this.name} was not ready within ${READY_TIMEOUT_MS / 1000} s; its log: ${logFile}`)), () => {});
    });
    child.once("exit", (code, signal) => {
      if (this.#child === child) this.#child = undefined;
      onChange();
      if (this.#stopping) return;
      log.error({ service: this.name, code, signal, pid: child.pid, logFile }, "service ended unexpectedly");
      void this.#restart(performance.now() - bornAt);
    });
    await ready;
    log.info({ service: this.name, pid: child.pid }, "service is ready");
    onChange();
  }

  async #restart(livedMs: number): Promise<void> {
    const { log } = this.#options;
    this.#crashes = livedMs > BACKOFF_MS.healthy ? 1 : this.#crashes + 1;
    if (this.#crashes > MAX_CRASHES) {
      log.error({ service: this.name, crashes: this.#crashes }, "it crashes again and again: left down; hv stack down, then hv stack up");
      return;
    }
    await sleep(Math.min(BACKOFF_MS.first * 2 ** (this.#crashes - 1), BACKOFF_MS.last));
    if (this.#stopping) return;
    // A start that fails ends in "exit", which comes back here.
    await this.start().catch((error: unknown) => log.error({ service: this.name, err: error }, "restart failed"));
  }

  /** SIGTERM, then SIGKILL; resolves when the process is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await gone;
    clearTimeout(timer);
  }
}
