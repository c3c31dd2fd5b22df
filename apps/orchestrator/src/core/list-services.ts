import { ContractError } from "@polyvisor/contracts";
import type { ServiceStatus } from "@polyvisor/contracts/orchestrator";
import type { Clock } from "@polyvisor/service-kit";
import type { OrchestratorPeers } from "./peers.ts";
import { delay, within } from "./time.ts";

const DESCRIBE_TIMEOUT_MS = 1000;
/** A service that crashed is started again within about this time (apps/cli, service-process.ts). */
const SERVING_TIMEOUT_MS = 15_000;
const SERVING_POLL_MS = 100;

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

/** Resolves when every service answers: one that has just crashed is coming back. Throws which ones do not. */
export async function servicesServing(peers: OrchestratorPeers, clock: Clock, signal: AbortSignal): Promise<void> {
  const deadline = clock.monotonic() + SERVING_TIMEOUT_MS;
  for (;;) {
    const silent = (await listServices(peers, clock)).filter(({ state }) => state !== "serving");
    if (signal.aborted) return;
    // The contract's own connection may still be waiting to look again for a service that answers already.
    if (silent.length === 0) return void (await Promise.all([...peers.services.values()].map((side) => side.ready?.())));
    if (clock.monotonic() > deadline) {
      const names = silent.map(({ service, address }) => `${service} (${address})`).join(", ");
      throw new ContractError("unavailable", `start: no answer from ${names}; see hv services and hv stack logs`);
    }
    await delay(clock, SERVING_POLL_MS, signal);
  }
}
