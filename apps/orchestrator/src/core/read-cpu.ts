import { ContractError } from "@polyvisor/contracts";
import { MachineState, type ReadCpuResponse } from "@polyvisor/contracts/orchestrator";
import { stateName } from "./facts.ts";
import type { Machine } from "./machine.ts";
import type { OrchestratorPeers } from "./peers.ts";

/** The name of a machine that has harts; `precondition` when it has none. */
export function running(machine: Machine): string {
  const { state } = machine.record;
  if (state !== MachineState.RUNNING && state !== MachineState.STARTING) {
    throw new ContractError("precondition", `cpu: machine ${machine.name} is ${stateName(state)}; start it with: hv up ${machine.name}`);
  }
  return machine.name;
}

/** The registers of all harts. */
export async function readCpu(machine: Machine, { cpu }: OrchestratorPeers): Promise<ReadCpuResponse> {
  const name = running(machine);
  const { engine } = await cpu.readStats({ machine: name });
  const answers = await Promise.all(Array.from({ length: machine.record.spec.harts }, (_, hart) => cpu.readHart({ machine: name, hart })));
  return { harts: answers.flatMap(({ state }) => (state ? [state] : [])), engine };
}
