import { defineConfig, integer, path, text } from "@polyvisor/service-kit";

/** What configures the orchestrator wherever it runs. */
export interface OrchestratorConfig {
  /** Directory of the machine store; ":memory:" keeps nothing. */
  readonly stateDir: string;
  /** Shown to users: how this stack's services run. */
  readonly topology: string;
  /** Network that machines' interfaces are attached to; made when it is absent. */
  readonly network: string;
  /** How long a guest's agent may take to say hello after the harts run. */
  readonly agentTimeoutMs: number;
}

export const CONFIG = defineConfig<OrchestratorConfig>({
  stateDir: { doc: "directory of the machine store; :memory: keeps nothing", type: path },
  topology: { doc: "how the services run; shown to users", type: text, default: "processes" },
  network: { doc: "network of the machines' interfaces; made when absent", type: text, default: "nat" },
  agentTimeoutMs: { doc: "how long a booting guest's agent may stay silent", type: integer(1000, 3_600_000), default: 300_000 },
});
