import { Command } from "commander";
import type { Cli } from "./cli.ts";
import { addBoxCommands } from "./commands/box.ts";
import { addConformCommand } from "./commands/conform.ts";
import { addConsoleCommand } from "./commands/console.ts";
import { addDiskCommands } from "./commands/disk.ts";
import { addExecCommand } from "./commands/exec.ts";
import { addCpuCommand } from "./commands/cpu.ts";
import { addGdbCommand } from "./commands/gdb.ts";
import { addImageCommands } from "./commands/image.ts";
import { addLeaksCommand } from "./commands/leaks.ts";
import { addMachineCommands } from "./commands/machine.ts";
import { addMediateCommands } from "./commands/mediate.ts";
import { addPushPullCommands } from "./commands/push-pull.ts";
import { addRunCommand } from "./commands/run.ts";
import { addNetCommands } from "./commands/net.ts";
import { addRegistryCommands } from "./commands/registry.ts";
import { addServicesCommand } from "./commands/services.ts";
import { addSshCommands } from "./commands/ssh.ts";
import { addSetCommand } from "./commands/set.ts";
import { addSnapshotCommands } from "./commands/snapshot.ts";
import { addStackCommands } from "./commands/stack.ts";
import { addStatsCommand } from "./commands/stats.ts";
import { addSuspendCommands } from "./commands/suspend.ts";
import { addTranslateCommand } from "./commands/translate.ts";
import { addTraceCommand } from "./commands/trace.ts";
import { addUpCommand } from "./commands/up.ts";

/** The whole of `hv`: one command per line, in the order in which one meets them. */
export function createProgram(cli: Cli): Command {
  const program = new Command("hv")
    .description("Polyvisor: virtual machines made of six services, with every message between them yours to see and change.")
    .version("0.1.0")
    .enablePositionalOptions()
    .showHelpAfterError("(hv --help lists the commands, hv COMMAND --help explains one)")
    .configureOutput({ writeOut: (text) => cli.stdout.write(text), writeErr: (text) => cli.stderr.write(text) })
    .exitOverride()
    .addHelpText(
      "after",
      `
A first machine:
  $ hv up                              # builds Debian's box if need be, boots it, waits for its shell
  $ hv exec default -- uname -a        # runs a command in it
  $ hv console                         # its serial console; Ctrl-] leaves
  $ hv trace default --plane blocks    # what passes between the services, live
  $ hv mediate add --plane blocks --where 'message.write.sector == 0' --deny
  $ hv destroy                         # the machine is gone
  $ hv stack down                      # so is the daemon

Everything lies under $HV_HOME (default ~/.polyvisor).`,
    );
  addUpCommand(program, cli);
  addRunCommand(program, cli);
  addConsoleCommand(program, cli);
  addExecCommand(program, cli);
  addSshCommands(program, cli);
  addMachineCommands(program, cli);
  addSuspendCommands(program, cli);
  addSnapshotCommands(program, cli);
  addDiskCommands(program, cli);
  addBoxCommands(program, cli);
  addPushPullCommands(program, cli);
  addImageCommands(program, cli);
  addRegistryCommands(program, cli);
  addNetCommands(program, cli);
  addServicesCommand(program, cli);
  addTraceCommand(program, cli);
  addMediateCommands(program, cli);
  addStatsCommand(program, cli);
  addTranslateCommand(program, cli);
  addCpuCommand(program, cli);
  addGdbCommand(program, cli);
  addSetCommand(program, cli);
  addLeaksCommand(program, cli);
  addConformCommand(program, cli);
  addStackCommands(program, cli);
  return program;
}
