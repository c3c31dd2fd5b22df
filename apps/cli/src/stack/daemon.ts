/**
 * The daemon of one stack: `node daemon.ts <topology>`, started by `hv` on demand, its output in the stack's log file.
 * It holds the stack's lock while it lives and writes `daemon.json` when it serves.
 */
import { mkdirSync, rmSync } from "node:fs";
import { MachineState } from "@polyvisor/contracts/orchestrator";
import { createLogger } from "@polyvisor/service-kit";
import { homeOf, stackPaths, TOPOLOGIES, type Topology } from "./home.ts";
import { LockFile, startOf } from "./lock-file.ts";
import type { RunningStack } from "./running-stack.ts";
import { endLeftovers, writeStackInfo } from "./stack-info.ts";

const topology = process.argv[2] as Topology;
if (!TOPOLOGIES.includes(topology)) throw new Error(`topology "${topology}"; expected ${TOPOLOGIES.join(" or ")}`);
const home = homeOf();
const paths = stackPaths(home, topology);
const log = createLogger("daemon");
/** Guests get this long to power off when the stack is stopped. */
const HALT_TIMEOUT_MS = 15_000;

mkdirSync(paths.root, { recursive: true, mode: 0o700 });
const lock = new LockFile(paths.lock);
if (!lock.acquire()) {
  log.info({ topology, owner: lock.owner() }, "another daemon serves this stack");
  process.exit(0);
}
const startedUnixMs = Date.now();
let stack: RunningStack | undefined;
let stopping = false;

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => void stop(signal, 0));
process.on("uncaughtException", (error) => {
  log.fatal({ err: error }, "uncaught exception");
  void stop("uncaught exception", 1);
});
process.on("unhandledRejection", (error) => {
  log.fatal({ err: error }, "unhandled rejection");
  void stop("unhandled rejection", 1);
});

try {
  // What a daemon that was killed left is in the way of a new one.
  endLeftovers(paths.info);
  rmSync(paths.run, { recursive: true, force: true });
  for (const directory of [paths.run, paths.state]) mkdirSync(directory, { recursive: true, mode: 0o700 });
  const { start } = topology === "embedded" ? await import("./embedded.ts") : await import("./processes.ts");
  const started = await start(home, paths, log);
  stack = started;
  const publish = (): void => {
    if (stopping) return;
    const { addresses } = started;
    writeStackInfo(paths.info, { topology, pid: process.pid, started: startOf(process.pid), startedUnixMs, ...addresses, processes: started.processes() });
  };
  started.onChange(publish);
  publish();
  log.info({ topology, ...started.addresses }, "ready");
} catch (error) {
  log.fatal({ err: error }, `cannot start: ${(error as Error).message}`);
  await stop("failed start", 1);
}

async function stop(reason: string, exitCode: number): Promise<void> {
  if (stopping) return;
  stopping = true;
  log.info({ reason }, "stopping");
  rmSync(paths.info, { force: true });
  try {
    if (stack) await haltMachines(stack);
    await stack?.close();
  } catch (error) {
    log.error({ err: error }, "stopping was not clean");
  }
  rmSync(paths.run, { recursive: true, force: true });
  lock.release();
  process.exit(exitCode);
}

/** Powers all machines off; ephemeral ones are gone then. */
async function haltMachines({ orchestrator }: RunningStack): Promise<void> {
  const { machines } = await orchestrator.listMachines({});
  const stopped: MachineState[] = [MachineState.CREATED, MachineState.HALTED, MachineState.ABORTED, MachineState.SAVED];
  await Promise.all(
    machines
      .filter(({ state }) => !stopped.includes(state))
      .map(({ spec, state }) => {
        const name = spec!.name;
        const options = { timeoutMs: HALT_TIMEOUT_MS + 10_000 };
        const call = spec!.ephemeral
          ? orchestrator.destroyMachine({ name }, options)
          : orchestrator.haltMachine({ name, force: state !== MachineState.RUNNING, timeoutMs: HALT_TIMEOUT_MS }, options);
        return call.catch((error: unknown) => log.warn({ machine: name, err: error }, "machine could not be halted"));
      }),
  );
}
