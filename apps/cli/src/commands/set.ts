import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { machineJson } from "../format/machine.ts";

export function addSetCommand(program: Command, cli: Cli): void {
  addCommand(program, "set <name>", "change a machine while it runs; kept for its next starts", [
    ["hv set web --engine interpreter", "another engine, without a gap in what the guest does"],
  ])
    .option("--engine <name>", "what executes the guest's instructions; hv up --help lists the engines")
    .action(async (name: string, options: { engine?: string; json?: boolean }) => {
      if (options.engine === undefined) throw new UsageError("nothing to set; give --engine NAME");
      const { orchestrator } = await cli.stacks.ofMachine(name);
      const { machine } = await orchestrator.setMachineEngine({ name, engine: options.engine });
      cli.answer(options, machineJson(machine!), () => `${name} uses the ${options.engine} engine`);
    });
}
