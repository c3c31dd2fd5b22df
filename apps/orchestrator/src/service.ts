import { join } from "node:path";
import { ORCHESTRATOR } from "@polyvisor/contracts/orchestrator";
import type { RunningService, ServiceContext } from "@polyvisor/service-kit";
import { SqliteMachineStore } from "./adapters/sqlite-machine-store.ts";
import type { OrchestratorConfig } from "./config.ts";
import { Orchestrator } from "./core/orchestrator.ts";
import type { OrchestratorPeers } from "./core/peers.ts";

/** Starts the orchestrator in this process. Its peers must be reachable by now: it looks for machines that still run. */
export async function createService(
  config: OrchestratorConfig,
  peers: OrchestratorPeers,
  context: ServiceContext,
): Promise<RunningService<(typeof ORCHESTRATOR)["definition"]>> {
  const path = config.stateDir === ":memory:" ? ":memory:" : join(config.stateDir, "orchestrator.sqlite");
  const orchestrator = new Orchestrator(peers, new SqliteMachineStore(path), context, config);
  orchestrator.recover();
  return {
    contract: ORCHESTRATOR,
    implementation: orchestrator.implementation,
    describe: () => ({ store: path, topology: config.topology }),
    close: async () => orchestrator.close(),
  };
}
