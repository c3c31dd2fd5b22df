import { asContractError } from "@polyvisor/contracts";
import type { ReadMachineStatsResponse } from "@polyvisor/contracts/orchestrator";
import type { OrchestratorPeers } from "./peers.ts";

/** Adds up what the services know of one machine. One that does not run has no figures but its message counters. */
export async function readMachineStats(peers: OrchestratorPeers, machine: string, runs: boolean): Promise<ReadMachineStatsResponse> {
  const request = { machine };
  const ask = <T>(call: () => Promise<T>): Promise<T | undefined> => (runs ? orAbsent(call) : Promise.resolve(undefined));
  const [cpu, memory, devices, network, planes] = await Promise.all([
    ask(() => peers.cpu.readStats(request)),
    ask(() => peers.memory.readSpaceStats(request)),
    ask(() => peers.devices.readBoardStats(request)),
    ask(() => peers.network.readNetworkStats({ machine, network: "" })),
    readPlanes(peers, machine),
  ]);
  const harts = cpu?.harts ?? [];
  return {
    instructions: harts.reduce((sum, hart) => sum + hart.instructions, 0n),
    exits: sumMaps(harts.map((hart) => hart.exits)),
    events: sumMaps(harts.flatMap((hart) => [hart.traps, hart.events])),
    busyUs: harts.reduce((sum, hart) => sum + hart.busyUs, 0n),
    memory: new Map(Object.entries(memory ?? {}).filter((entry): entry is [string, bigint] => typeof entry[1] === "bigint")),
    devices: devices?.counters ?? new Map(),
    network: network?.counters ?? new Map(),
    planes,
  };
}

async function readPlanes(peers: OrchestratorPeers, machine: string): Promise<ReadMachineStatsResponse["planes"]> {
  const answers = await Promise.all(
    [...peers.services].map(async ([service, { mediation }]) => {
      const answer = await mediation.readCounters({ machine }).catch(() => undefined); // ListServices says who is unreachable.
      return (answer?.planes ?? []).map((counters) => ({ ...counters, service: counters.service || service }));
    }),
  );
  return answers.flat().filter((counters) => counters.seen > 0n);
}

/** Undefined when the service does not know the machine (it just stopped) or is gone (ListServices says so). */
async function orAbsent<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    const { condition } = asContractError(error);
    if (condition === "not-found" || condition === "unavailable") return undefined;
    throw error;
  }
}

function sumMaps(maps: readonly Map<string, bigint>[]): Map<string, bigint> {
  const sum = new Map<string, bigint>();
  for (const map of maps) for (const [key, value] of map) sum.set(key, (sum.get(key) ?? 0n) + value);
  return sum;
}
