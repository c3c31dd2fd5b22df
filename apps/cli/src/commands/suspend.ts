import { MachineState } from "@polyvisor/contracts/orchestrator";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { machineJson, stateWord } from "../format/machine.ts";
import { formatBytes, formatDuration } from "../format/quantity.ts";
import { DEFAULT_MACHINE, startWithProgress } from "./up.ts";

const SLOW = { timeoutMs: 15 * 60_000 };

/** hv suspend, hv resume. */
export function addSuspendCommands(program: Command, cli: Cli): void {
  addCommand(program, "suspend [name]", "keep all that runs in a machine, and stop it; hv resume (or hv up) lets it go on where it was", [
    ["hv suspend web && hv resume web", "also after hv stack down, or a restart of the host"],
    ["hv suspend web && hv snapshot export web web.pv", "to go on elsewhere: hv import web.pv && hv resume web"],
    ["hv halt web", "gives up what was kept; the disk stays as after a power cut"],
  ]).action(async (name: string | undefined, options: { json?: boolean }) => {
    const machine = name ?? DEFAULT_MACHINE;
    const { orchestrator } = await cli.stacks.ofMachine(machine);
    const begun = Date.now();
    const saved = await orchestrator.saveMachine({ name: machine }, SLOW);
    cli.answer(options, machineJson(saved.machine!), () => `${machine} is suspended (${formatBytes(saved.savedBytes)} kept, ${formatDuration(Date.now() - begun)}); let it go on with: hv resume ${machine}`);
  });

  addCommand(program, "resume [name]", "let a suspended machine go on where it was; its connections to the outside are cut", [["hv resume web", ""]]).action(async (name: string | undefined, options: { json?: boolean }) => {
    const machine = name ?? DEFAULT_MACHINE;
    const { orchestrator } = await cli.stacks.ofMachine(machine);
    const { state } = (await orchestrator.getMachine({ name: machine })).machine!;
    if (state !== MachineState.SAVED && state !== MachineState.RUNNING) throw new CliError(`${machine} is ${stateWord(state)}, not suspended; start it with: hv up ${machine}`);
    const resumed = await startWithProgress(cli, orchestrator, machine);
    cli.answer(options, machineJson(resumed), () => `${cli.color.green("✓")} ${cli.color.bold(machine)} goes on`);
  });
}
