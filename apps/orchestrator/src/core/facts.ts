import { type Machine, MachineState } from "@polyvisor/contracts/orchestrator";
import type { EventBus } from "@polyvisor/service-kit";

/** Facts on `pv.v1.<machine>.orchestrator.<fact>`; README.md lists their data. */
export type MachineFact =
  | "machine-created"
  | "machine-started"
  | "machine-running"
  | "machine-saved"
  | "machine-halted"
  | "machine-aborted"
  | "machine-destroyed";

export function publishFact(events: EventBus, fact: MachineFact, machine: Machine): void {
  events.publish({
    machine: machine.spec!.name,
    service: "orchestrator",
    fact,
    data: { state: stateName(machine.state), reason: machine.reason, exitCode: machine.exitCode },
  });
}

/** "running" for MACHINE_STATE_RUNNING: the word that people see. */
export function stateName(state: MachineState): string {
  const entry = Object.entries(MachineState).find(([, value]) => value === state);
  return (entry?.[0] ?? "unspecified").toLowerCase();
}
