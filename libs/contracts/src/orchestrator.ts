import { OrchestratorServiceService } from "./gen/polyvisor/orchestrator/v1/orchestrator.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/orchestrator/v1/orchestrator.ts";

export const ORCHESTRATOR = {
  service: "orchestrator",
  definition: OrchestratorServiceService,
  methods: { attachConsole: { plane: "console" } },
} satisfies Contract<typeof OrchestratorServiceService>;
export type OrchestratorPort = Port<typeof OrchestratorServiceService>;
