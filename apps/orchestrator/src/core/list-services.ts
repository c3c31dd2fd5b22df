import type { ServiceStatus } from "@polyvisor/contracts/orchestrator";
import type { Clock } from "@polyvisor/service-kit";
import type { OrchestratorPeers } from "./peers.ts";
import { within } from "./time.ts";

const DESCRIBE_TIMEOUT_MS = 1000;

/** Asks every service who it is; one that does not answer within a second is "unreachable". */
export function listServices(peers: OrchestratorPeers, clock: Clock): Promise<ServiceStatus[]> {
  return Promise.all(
    [...peers.services].map(async ([service, { kit, address }]): Promise<ServiceStatus> => {
      try {
        const call = Promise.try(() => kit.describe({}, { timeoutMs: DESCRIBE_TIMEOUT_MS }));
        const answer = await within(clock, DESCRIBE_TIMEOUT_MS, call, `describe ${service}`);
        const { version, pid, uptimeMs, unimplemented } = answer;
        return { service, version, pid, address: answer.address || address, state: "serving", uptimeMs, unimplemented };
      } catch {
        return { service, version: "", pid: 0, address, state: "unreachable", uptimeMs: 0n, unimplemented: [] };
      }
    }),
  );
}
