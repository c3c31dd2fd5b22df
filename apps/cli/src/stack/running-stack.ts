import type { OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import type { ProcessInfo } from "./stack-info.ts";

/** What a topology's composition answers to the daemon that started it. */
export interface RunningStack {
  readonly orchestrator: OrchestratorPort;
  /** gRPC targets for clients. */
  readonly addresses: { readonly orchestrator: string; readonly images: string; readonly network: string };
  /** Child processes as they are now. */
  processes(): ProcessInfo[];
  /** Calls back when {@link processes} has changed. */
  onChange(listener: () => void): void;
  /** Stops everything and resolves when nothing of it runs any more. Guests are not asked. */
  close(): Promise<void>;
}
