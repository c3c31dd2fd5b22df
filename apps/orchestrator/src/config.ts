import { address, choice, defineConfig, integer, path, text } from "@polyvisor/service-kit";

/** What configures the orchestrator wherever it runs. */
export interface OrchestratorConfig {
  readonly stateDir: string;
  readonly topology: string;
  readonly network: string;
  readonly agentTimeoutMs: number;
}
