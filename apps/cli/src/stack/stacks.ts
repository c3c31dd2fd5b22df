import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { asContractError } from "@polyvisor/contracts";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { IMAGE, type ImagePort } from "@polyvisor/contracts/image";
import { NETWORK, type NetworkPort } from "@polyvisor/contracts/network";
import { type Machine, ORCHESTRATOR, type OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import { readStoredMachines } from "@polyvisor/orchestrator";
import { CliError } from "../cli-error.ts";
import { type Home, type StackPaths, stackPaths, TOPOLOGIES, type Topology } from "./home.ts";
import { isAlive, LockFile, startOf } from "./lock-file.ts";
import { endLeftovers, readStackInfo, type StackInfo } from "./stack-info.ts";
import { DAEMON_V8_FLAGS } from "./v8-flags.ts";

/** A connected stack. */
export interface Stack {
  readonly info: StackInfo;
  readonly orchestrator: OrchestratorPort;
  readonly images: ImagePort;
  readonly network: NetworkPort;
}

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 45_000;

/** The user's stacks: found, started on demand, stopped. */
export class Stacks {
  readonly #home: Home;
  readonly #note: (line: string) => void;
  readonly #connected = new Map<Topology, Stack & { close(): void }>();

  constructor(home: Home, note: (line: string) => void) {
    this.#home = home;
    this.#note = note;
  }

  /** Stacks that run now. */
  async running(): Promise<Stack[]> {
    const stacks = await Promise.all(TOPOLOGIES.map((topology) => this.#connect(topology)));
    return stacks.filter((stack) => stack !== undefined);
  }

  /** The stack of that topology, started if need be. Any number of callers may race. */
  async ensure(topology: Topology): Promise<Stack> {
    const running = await this.#connect(topology);
    if (running) return running;
    const paths = stackPaths(this.#home, topology);
    this.#note(`starting the ${topology} stack (log: ${paths.log})`);
    await startDaemon(this.#home, paths);
    const started = await this.#connect(topology);
    if (!started) throw new CliError(`the ${topology} stack ended right after its start; look at: hv stack logs --topology ${topology}`);
    return started;
  }

  /** A running stack, or the embedded one, started: for what all share, the boxes. */
  async any(): Promise<Stack> {
    return (await this.running())[0] ?? this.ensure("embedded");
  }

  /** The one that runs; an error when none does, or several and none is chosen. */
  async only(topology?: Topology): Promise<Stack> {
    const stacks = (await this.running()).filter(({ info }) => topology === undefined || info.topology === topology);
    if (stacks.length === 0) throw new CliError(`no ${topology ?? ""} stack runs; hv up starts one`.replace("  ", " "));
    if (stacks.length > 1) throw new CliError("two stacks run; say which with --topology, or name a machine with --machine");
    return stacks[0]!;
  }

  /** Which stack has the machine: a running one, or by its stored state one that is stopped. */
  async findMachine(name: string): Promise<Topology | undefined> {
    const running = await this.running();
    for (const { info, orchestrator } of running) {
      try {
        await orchestrator.getMachine({ name });
        return info.topology;
      } catch (error) {
        if (asContractError(error).condition !== "not-found") throw error;
      }
    }
    const stored = this.stoppedMachines(running.map(({ info }) => info.topology));
    return stored.find((machine) => machine.spec!.name === name)?.spec!.topology as Topology | undefined;
  }

  /** The stack that has the machine; started if it is stopped. */
  async ofMachine(name: string): Promise<Stack> {
    const topology = await this.findMachine(name);
    if (!topology) throw new CliError(`there is no machine "${name}"; hv status lists the machines, hv up ${name} makes it`);
    return this.ensure(topology);
  }

  /** Machines of stacks that do not run, as they were left. */
  stoppedMachines(running: readonly Topology[]): Machine[] {
    return TOPOLOGIES.filter((topology) => !running.includes(topology)).flatMap((topology) =>
      readStoredMachines(stackPaths(this.#home, topology).state, topology),
    );
  }

  /** Stops a stack and waits for its end. False when none ran. */
  async down(topology: Topology): Promise<boolean> {
    const paths = stackPaths(this.#home, topology);
    this.#connected.get(topology)?.close();
    this.#connected.delete(topology);
    const pid = new LockFile(paths.lock).owner();
    const info = readStackInfo(paths.info);
    if (pid === undefined) {
      endLeftovers(paths.info);
      return false;
    }
    const daemon = { pid, started: startOf(pid) };
    process.kill(pid, "SIGTERM");
    const deadline = performance.now() + STOP_TIMEOUT_MS;
    while (isAlive(daemon)) {
      if (performance.now() > deadline) {
        this.#note(`the ${topology} stack (pid ${pid}) does not stop; killing it`);
        for (const victim of [pid, ...(info?.processes ?? []).map((each) => each.pid)]) kill(victim);
        for (const file of [paths.info, paths.lock, paths.run]) rmSync(file, { recursive: true, force: true });
        break;
      }
      await sleep(50);
    }
    return true;
  }

  close(): void {
    for (const stack of this.#connected.values()) stack.close();
    this.#connected.clear();
  }

  async #connect(topology: Topology): Promise<Stack | undefined> {
    const info = readStackInfo(stackPaths(this.#home, topology).info);
    const known = this.#connected.get(topology);
    if (known && known.info.pid === info?.pid) return known;
    known?.close();
    this.#connected.delete(topology);
    if (!info) return undefined;
    const orchestrator = connectGrpc(ORCHESTRATOR, info.orchestrator);
    const images = connectGrpc(IMAGE, info.images);
    const network = connectGrpc(NETWORK, info.network ?? info.orchestrator); // a daemon of before this field serves it there
    const stack = {
      info,
      orchestrator: orchestrator.port,
      images: images.port,
      network: network.port,
      close: () => {
        orchestrator.close();
        images.close();
        network.close();
      },
    };
    this.#connected.set(topology, stack);
    return stack;
  }
}

/** Starts the daemon of a topology and waits until it serves. It decides itself whether another was faster. */
async function startDaemon(home: Home, paths: StackPaths): Promise<void> {
  mkdirSync(dirname(paths.log), { recursive: true, mode: 0o700 });
  const log = openSync(paths.log, "a", 0o600);
  const program = fileURLToPath(new URL("./daemon.ts", import.meta.url));
  const child = spawn(process.execPath, [...DAEMON_V8_FLAGS, program, paths.topology], {
    detached: true,
    stdio: ["ignore", log, log],
    cwd: home.root,
    // glibc keeps what V8's compiler threads free in an arena per thread: 80 MB less after a boot with two (unless the user says otherwise).
    env: { MALLOC_ARENA_MAX: "2", MALLOC_TRIM_THRESHOLD_: "262144", ...process.env, HV_HOME: home.root },
  });
  closeSync(log);
  let exit: number | undefined;
  child.on("error", () => (exit = 1));
  child.on("exit", (code) => (exit = code ?? 1));
  child.unref();
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (readStackInfo(paths.info) === undefined) {
    if (exit !== undefined && exit !== 0) {
      throw new CliError(`the ${paths.topology} stack did not start; its log ends:\n${tail(paths.log)}`);
    }
    if (performance.now() > deadline) {
      if (child.pid !== undefined && isAlive({ pid: child.pid, started: "" })) kill(child.pid);
      throw new CliError(`the ${paths.topology} stack did not start within ${START_TIMEOUT_MS / 1000} s; its log ends:\n${tail(paths.log)}`);
    }
    await sleep(20);
  }
}

function tail(log: string): string {
  const lines = readFileSync(log, "utf8").trimEnd().split("\n").slice(-12);
  return lines.map((line) => `  ${line.slice(0, 500)}`).join("\n");
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It is gone already.
  }
}
