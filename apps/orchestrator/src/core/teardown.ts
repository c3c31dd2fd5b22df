import { asContractError } from "@polyvisor/contracts";
import type { Clock } from "@polyvisor/service-kit";
import type { OrchestratorPeers } from "./peers.ts";
import { within } from "./time.ts";

const STEP_TIMEOUT_MS = 10_000;

/**
 * Takes a machine out of every service, from the harts down; the disk stays. Safe for machines that were never or only
 * partly built: what is not there is skipped. Answers what could not be removed, in words.
 */
export async function teardown(peers: OrchestratorPeers, clock: Clock, machine: string): Promise<string[]> {
  const steps: [string, () => Promise<unknown>][] = [
    ["cpu-emulator: harts", () => peers.cpu.destroyHarts({ machine })],
    ["device-bus: board", () => peers.devices.destroyBoard({ machine })],
    ["network-fabric: ports", () => deletePorts(peers, machine)],
    ["memory-manager: space", () => peers.memory.destroySpace({ machine })],
    // Of a memory-manager that died while it restored (RestoreSpace): named by it.
    ["image-registry: memory", () => peers.images.deleteDisk({ id: `${machine}/memory` })],
  ];
  const left: string[] = [];
  for (const [what, run] of steps) {
    try {
      await within(clock, STEP_TIMEOUT_MS, Promise.try(run), what);
    } catch (error) {
      const { condition, message } = asContractError(error);
      if (condition !== "not-found") left.push(`${what}: ${message}`);
    }
  }
  return left;
}

async function deletePorts({ network }: OrchestratorPeers, machine: string): Promise<void> {
  const { ports } = await network.listPorts({ machine });
  await Promise.all(ports.map(({ id }) => network.deletePort({ id })));
}
