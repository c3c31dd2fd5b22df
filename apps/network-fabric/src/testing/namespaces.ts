import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";

const TRAFFIC = new URL("traffic.ts", import.meta.url).pathname;

/** Why tests with network namespaces cannot run here; undefined: they can. */
export function namespacesMissing(): string | undefined {
  if (process.platform !== "linux") return "needs Linux";
  if (process.getuid?.() !== 0) return "needs root (network namespaces, TAP)";
  if (!existsSync("/dev/net/tun")) return "needs /dev/net/tun";
  try {
    execFileSync("ip", ["netns"], { stdio: "ignore" });
  } catch {
    return "needs iproute2 (ip netns)";
  }
  return undefined;
}

/** A network namespace of the test's own, gone with `close`. */
export class Namespace {
  readonly name: string;
  readonly #children = new Set<ChildProcess>();

  constructor(purpose: string) {
    removeStale();
    this.name = `pv-${purpose}-${process.pid}`;
    execFileSync("ip", ["netns", "add", this.name]);
    this.run("ip", "link", "set", "lo", "up");
  }
  run(program: string, ...args: string[]): string {
    return execFileSync("ip", ["netns", "exec", this.name, program, ...args], { encoding: "utf8" });
  }
  spawn(program: string, args: readonly string[], environment: Record<string, string> = {}): ChildProcess {
    const child = spawn("ip", ["netns", "exec", this.name, program, ...args], { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, ...environment } });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }
  /** A server of traffic.ts, listening. */
  async server(port: number): Promise<Lines> {
    const lines = new Lines(this.spawn(process.execPath, [TRAFFIC, "server", String(port)]));
    await lines.next("listening");
    return lines;
  }
  /** Runs a client of traffic.ts to its end: what it says last. */
  async client(kind: string, host: string, port: number, argument: string | number = ""): Promise<Record<string, unknown>> {
    return this.start(kind, host, port, argument).last();
  }
  start(kind: string, host: string, port: number, argument: string | number = ""): Lines {
    return new Lines(this.spawn(process.execPath, [TRAFFIC, kind, host, String(port), String(argument)]));
  }
  close(): void {
    for (const child of this.#children) child.kill("SIGKILL");
    execFileSync("ip", ["netns", "del", this.name]);
  }
}

/** Those of test runs that were killed. */
function removeStale(): void {
  for (const [, name, pid] of execFileSync("ip", ["netns", "list"], { encoding: "utf8" }).matchAll(/^(pv-[a-z]+-(\d+))\b/gm)) {
    if (existsSync(`/proc/${pid}`)) continue;
    spawnSync("ip", ["netns", "del", name!]); // or another run did
  }
}

/** What a program prints, line by line, as JSON. */
export class Lines {
  readonly child: ChildProcess;
  readonly all: Record<string, unknown>[] = [];
  #changed = () => {};
  #over = false;
  readonly #closed: Promise<void>;

  constructor(child: ChildProcess) {
    this.child = child;
    const reader = createInterface({ input: child.stdout! });
    reader.on("line", (line) => {
      this.all.push(JSON.parse(line) as Record<string, unknown>);
      this.#changed();
    });
    this.#closed = new Promise((resolve) => reader.once("close", resolve));
    void this.#closed.then(() => {
      this.#over = true;
      this.#changed();
    });
  }
  /** The next line with this in its field `saw`, or with this field; taken out. */
  async next(what: string): Promise<Record<string, unknown>> {
    for (;;) {
      const index = this.all.findIndex((line) => line["saw"] === what || what in line);
      if (index >= 0) return this.all.splice(index, 1)[0]!;
      if (this.#over) throw new Error(`the program ended without saying ${what}: ${JSON.stringify(this.all)}`);
      await new Promise<void>((resolve) => (this.#changed = resolve));
    }
  }
  async last(): Promise<Record<string, unknown>> {
    await this.#closed;
    return this.all.at(-1) ?? {};
  }
  go(): void {
    this.child.stdin!.write("go\n");
  }
}
