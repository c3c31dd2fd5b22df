import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { formatDuration } from "../format/quantity.ts";
import { table } from "../format/table.ts";

export function addServicesCommand(program: Command, cli: Cli): void {
  addCommand(program, "services", "list the services of the running stacks: process, address, what they do not do yet", [
    ["hv services", ""],
    ["hv services --json", "with the list of calls that answer UNIMPLEMENTED"],
  ]).action(async (options: { json?: boolean }) => {
    const stacks = await cli.stacks.running();
    const lists = await Promise.all(stacks.map(async (stack) => stack.orchestrator.listServices({})));
    const daemons = stacks.map(({ info }) => ({ topology: info.topology, pid: info.pid, helpers: info.processes.filter((each) => each.name === "nats-server") }));
    cli.answer(options, lists.map((list, index) => ({ ...list, daemon: daemons[index] })), () => {
      if (lists.length === 0) return "No stack runs; hv up or hv stack up starts one.";
      const rows = lists.flatMap(({ topology, services }, index) => [
        ...services.map(({ service, state, pid, address, uptimeMs, unimplemented }) => [
          topology,
          service,
          state === "serving" ? cli.color.green(state) : cli.color.red(state),
          pid ? String(pid) : "-",
          address,
          uptimeMs ? formatDuration(Number(uptimeMs)) : "",
          unimplemented.length > 0 ? `${unimplemented.length} calls` : "",
        ]),
        ...daemons[index]!.helpers.map(({ name, pid, address }) => [topology, name, cli.color.green("serving"), String(pid), address, "", ""]),
      ]);
      return table(["stack", "service", "state", "pid", "address", "up", "not built"], rows);
    });
  });
}
