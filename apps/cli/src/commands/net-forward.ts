import { PublishRequest } from "@polyvisor/contracts/network";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { FORWARD_HELP, forwardRow, parseForward } from "../format/forward.ts";
import { table } from "../format/table.ts";
import { netOption, stackOf, type NetOptions } from "./net.ts";

/** hv net forward ...: ports of the host that lead to guests, added and removed while they run. */
export function addNetForwardCommands(net: Command, cli: Cli): void {
  const forward = net.command("forward").description("ports of the host that lead to guests behind a NAT");
  addCommand(forward, "add <machine> <forward>", `forward a port until the machine stops; hv up --forward does it at every start.\n${FORWARD_HELP}`, [
    ["hv net forward add web 8080:80", "http://127.0.0.1:8080 is the guest's port 80"],
    ["hv net forward add web 0.0.0.0:5353:53/udp", "from other hosts, too"],
    ["hv net forward add web 8080:80,auto", "or another port, if 8080 is in use: the answer says which"],
  ])
    .addOption(netOption())
    .option("--port <id>", "interface, when the machine has several behind a NAT (M/net1)")
    .action(async (machine: string, text: string, options: NetOptions & { port?: string }) => {
      const { network } = await stackOf(cli, options, machine);
      const { forward: made } = await network.publish(PublishRequest.fromPartial({ ...parseForward(text), machine, port: options.port ?? "" }));
      cli.answer(options, made, () => `${made!.id} leads to ${made!.machine}:${made!.guestPort}`);
    });
  addCommand(forward, "ls [machine]", "what is forwarded", [["hv net forward ls", "of all machines"]])
    .addOption(netOption())
    .action(async (machine: string | undefined, options: NetOptions) => {
      const { network } = await stackOf(cli, options, machine);
      const { forwards } = await network.listForwards({ machine: machine ?? "" });
      cli.answer(options, forwards, () => table(["forward", "machine", "interface", "guest port", "connections", "problem"], forwards.map(forwardRow)));
    });
  addCommand(forward, "rm <id>", "forward a port no longer; connections that are open stay", [["hv net forward rm tcp/127.0.0.1:8080", "as hv net forward ls shows it"]])
    .addOption(netOption())
    .action(async (id: string, options: NetOptions) => {
      const { network } = await stackOf(cli, options);
      await network.unpublish({ id });
      cli.answer(options, { removed: id }, () => `${id} is no longer forwarded`);
    });
}
