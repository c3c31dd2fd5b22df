import { type Machine, MachineState } from "@polyvisor/contracts/orchestrator";
import { formatBytes, formatDuration } from "./quantity.ts";
import { table } from "./table.ts";

/** "running" for MACHINE_STATE_RUNNING. */
export function stateWord(state: MachineState): string {
  return (Object.entries(MachineState).find(([, value]) => value === state)?.[0] ?? "unknown").toLowerCase();
}

/** A machine as `--json` shows it: flat, states as words. */
export function machineJson(machine: Machine): Record<string, unknown> {
  const { spec, state, createdUnixMs, startedUnixMs, ...rest } = machine;
  return {
    name: spec?.name,
    state: stateWord(state),
    ...rest,
    created: createdUnixMs ? new Date(Number(createdUnixMs)).toISOString() : null,
    started: startedUnixMs ? new Date(Number(startedUnixMs)).toISOString() : null,
    ...spec,
  };
}

export function machineTable(machines: readonly Machine[], now: number): string {
  if (machines.length === 0) return "There are no machines; hv up makes one.";
  return table(
    ["name", "state", "box", "cpus", "memory", "topology", "up", "remark"],
    machines.map(({ spec, state, startedUnixMs, reason }) => [
      spec!.name,
      stateWord(state),
      spec!.box || "(kernel)",
      String(spec!.harts),
      formatBytes(spec!.memoryBytes),
      spec!.topology,
      state === MachineState.RUNNING && startedUnixMs ? formatDuration(now - Number(startedUnixMs)) : "",
      firstLine(reason),
    ]),
  );
}

function firstLine(text: string): string {
  const line = text.split("\n", 1)[0]!;
  return line.length > 80 ? `${line.slice(0, 79)}…` : line;
}
