import { readFileSync } from "node:fs";
import { Option, type Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { formatDuration } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import { stackPaths, TOPOLOGIES, type Topology } from "../stack/home.ts";

interface StackOptions {
  topology?: Topology;
  json?: boolean;
}

/** hv stack up|down|ls|logs. */
export function addStackCommands(program: Command, cli: Cli): void {
  const stack = program.command("stack").description("the daemon behind the machines: one per topology, started on demand");
  const topology = (): Option => new Option("--topology <name>", "which one").choices(TOPOLOGIES);

  addCommand(stack, "up", "start a stack without a machine", [["hv stack up --topology processes", "six processes and a NATS server"]])
    .addOption(topology())
    .action(async (options: StackOptions) => {
      const { info } = await cli.stacks.ensure(options.topology ?? "embedded");
      cli.answer(options, info, () => `the ${info.topology} stack runs, pid ${info.pid}; hv services lists it`);
    });

  addCommand(stack, "down", "halt the machines of a stack and stop it; nothing is left running", [
    ["hv stack down", "all stacks"],
    ["hv stack down --topology processes", "one"],
  ])
    .addOption(topology())
    .action(async (options: StackOptions) => {
      const stopped: Topology[] = [];
      for (const each of options.topology ? [options.topology] : TOPOLOGIES) if (await cli.stacks.down(each)) stopped.push(each);
      cli.answer(options, { stopped }, () => (stopped.length > 0 ? `stopped: ${stopped.join(", ")}` : "no stack was running"));
    });

  addCommand(stack, "ls", "list the running stacks", []).action(async (options: { json?: boolean }) => {
    const stacks = (await cli.stacks.running()).map(({ info }) => info);
    cli.answer(options, stacks, () =>
      stacks.length === 0
        ? "No stack runs; hv up or hv stack up starts one."
        : table(
            ["stack", "pid", "up", "processes", "log"],
            stacks.map((info) => [info.topology, String(info.pid), formatDuration(Date.now() - info.startedUnixMs), 1 + info.processes.length, stackPaths(cli.home, info.topology).log]),
          ),
    );
  });

  addCommand(stack, "logs", "show what the daemon has logged", [["hv stack logs --lines 200", ""]])
    .addOption(topology())
    .option("--lines <n>", "how many of the last lines", "50")
    .action((options: StackOptions & { lines: string }) => {
      const { log } = stackPaths(cli.home, options.topology ?? "embedded");
      let text: string;
      try {
        text = readFileSync(log, "utf8");
      } catch {
        throw new CliError(`there is no log at ${log}; that stack has not run yet`);
      }
      cli.print(text.trimEnd().split("\n").slice(-Number(options.lines)).join("\n"));
    });
}
