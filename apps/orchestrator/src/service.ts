import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Machine, MachineState, ORCHESTRATOR } from "@polyvisor/contracts/orchestrator";
import type { RunningService, ServiceContext } from "@polyvisor/service-kit";
import { SqliteMachineStore } from "./adapters/sqlite-machine-store.ts";
import type { OrchestratorConfig } from "./config.ts";
import { viewOf } from "./core/machine.ts";
import { Orchestrator } from "./core/orchestrator.ts";
import type { OrchestratorPeers } from "./core/peers.ts";

/** Starts the orchestrator in this process. Its peers must be reachable by now: it looks for machines that still run. */
export async function createService(
  config: OrchestratorConfig,
  peers: OrchestratorPeers,
  context: ServiceContext,
): Promise<RunningService<(typeof ORCHESTRATOR)["definition"]>> {
  const path = storePath(config.stateDir);
  const orchestrator = new Orchestrator(peers, new SqliteMachineStore(path), context, config);
  orchestrator.recover();
  return {
    contract: ORCHESTRATOR,
    implementation: orchestrator.implementation,
    describe: () => ({ store: path, topology: config.topology }),
    close: async () => orchestrator.close(),
  };
}

/** The machines of an orchestrator that does not run, as it left them. Only for when nobody serves that directory. */
export function readStoredMachines(stateDir: string, topology: string): Machine[] {
  const path = storePath(stateDir);
  if (!existsSync(path)) return [];
  const store = new SqliteMachineStore(path);
  try {
    return store.list().map((record) => {
      const settled = ![MachineState.STARTING, MachineState.RUNNING, MachineState.HALTING].some((state) => state === record.state);
      const seen = settled ? record : { ...record, state: MachineState.ABORTED, reason: "its stack ended while it ran" };
      return viewOf(seen, topology, false);
    });
  } finally {
    store.close();
  }
}

function storePath(stateDir: string): string {
  return stateDir === ":memory:" ? stateDir : join(stateDir, "orchestrator.sqlite");
}
