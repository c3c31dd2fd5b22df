import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { statsText } from "../format/stats.ts";

export function addStatsCommand(program: Command, cli: Cli): void {
  addCommand(program, "stats <machine>", "what a machine has done: instructions, exits by kind, pages moved, messages per plane", [
    ["hv stats web", "a machine that has stopped shows its last run"],
    ["hv stats web --json | jq .exits", ""],
  ]).action(async (machine: string, options: { json?: boolean }) => {
    const { orchestrator } = await cli.stacks.ofMachine(machine);
    const stats = await orchestrator.readMachineStats({ name: machine });
    cli.answer(options, stats, () => statsText(stats));
  });
}
