import type { Command } from "commander";
import type { Machine } from "@polyvisor/contracts/orchestrator";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { machineJson, machineTable, stateWord } from "../format/machine.ts";
import { parseSeconds } from "../format/quantity.ts";
import { DEFAULT_MACHINE } from "./up.ts";

/** hv status, hv halt, hv destroy. */
export function addMachineCommands(program: Command, cli: Cli): void {
  addCommand(program, "status [name]", "list the machines of all stacks, or one of them", [
    ["hv status", "all of them"],
    ["hv status web --json", "one, for a program"],
  ]).action(async (name: string | undefined, options: { json?: boolean }) => {
    const all = await listMachines(cli);
    const machines = name === undefined ? all : all.filter((machine) => machine.spec!.name === name);
    if (name !== undefined && machines.length === 0) throw new CliError(`there is no machine "${name}"; hv status lists them, hv up ${name} makes it`);
    const json = name === undefined ? machines.map(machineJson) : machineJson(machines[0]!);
    cli.answer(options, json, () => {
      const [only] = machines;
      const reason = name !== undefined && only?.reason ? `\n${only.reason}` : "";
      return machineTable(machines, Date.now()) + reason;
    });
  });

  addCommand(program, "halt [name]", "power a machine off: asks its guest first, then pulls the plug; the disk stays", [
    ["hv halt web", "clean power-off, forced after 20 s"],
    ["hv halt web --force", "at once; also ends a start that hangs"],
  ])
    .option("--force", "without asking the guest")
    .option("--timeout <seconds>", "how long the guest may take", "20")
    .action(async (name: string | undefined, options: { force?: boolean; timeout: string; json?: boolean }) => {
      const timeoutMs = parseSeconds(options.timeout) * 1000;
      const { orchestrator } = await cli.stacks.ofMachine(name ?? DEFAULT_MACHINE);
      const request = { name: name ?? DEFAULT_MACHINE, force: options.force ?? false, timeoutMs };
      const { machine } = await orchestrator.haltMachine(request, { timeoutMs: timeoutMs + 60_000 });
      cli.answer(options, machineJson(machine!), () => `${request.name} is ${stateWord(machine!.state)}${machine!.reason ? `: ${machine!.reason}` : ""}`);
    });

  addCommand(program, "destroy [name]", "remove a machine and its disk; nothing of it stays", [["hv destroy web", "also while it runs"]]).action(
    async (name: string | undefined, options: { json?: boolean }) => {
      const machine = name ?? DEFAULT_MACHINE;
      const { orchestrator } = await cli.stacks.ofMachine(machine);
      await orchestrator.destroyMachine({ name: machine }, { timeoutMs: 60_000 });
      cli.answer(options, { name: machine, state: "destroyed" }, () => `${machine} is destroyed`);
    },
  );
}

/** Machines of the running stacks as they are, of the others as they were left. */
export async function listMachines(cli: Cli): Promise<Machine[]> {
  const running = await cli.stacks.running();
  const live = await Promise.all(running.map(async (stack) => (await stack.orchestrator.listMachines({})).machines));
  const stored = cli.stacks.stoppedMachines(running.map((stack) => stack.info.topology));
  return [...live.flat(), ...stored].toSorted((a, b) => a.spec!.name.localeCompare(b.spec!.name));
}
