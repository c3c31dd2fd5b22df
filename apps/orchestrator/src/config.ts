export interface OrchestratorConfig { stateDir: string; topology: string; network: string; agentTimeoutMs: number }
export const CONFIG = {};
