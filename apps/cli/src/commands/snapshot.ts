import type { Command } from "commander";
import { MachineState, type Snapshot } from "@polyvisor/contracts/orchestrator";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { importArchive, saveStream } from "../file-streams.ts";
import { machineJson } from "../format/machine.ts";
import { formatBytes } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import { topologyOption } from "./up.ts";
import type { Topology } from "../stack/home.ts";

const SLOW = { timeoutMs: 30 * 60_000 };
const MACHINE_TYPE = "application/vnd.polyvisor.machine.v1";

/** hv snapshot save|restore|ls|rm|export, hv import, hv clone. */
export function addSnapshotCommands(program: Command, cli: Cli): void {
  const snapshot = program.command("snapshot").description("keep a machine's settings and disk under a name, go back to it, move it in one file");

  addCommand(snapshot, "save <machine> [name]", "keep the machine as it is; takes no longer for a large disk", [
    ["hv snapshot save web before-upgrade", ""],
    ["hv snapshot save web", "named by the time; a running guest writes out what it holds and runs on"],
    ["hv snapshot save web now --memory", "also what runs in it: it stands still for a moment, and runs on"],
  ])
    .option("--memory", "of a running machine: with memory, harts and devices")
    .option("--note <text>", "what for", "")
    .action(async (machine: string, name: string | undefined, options: { note: string; memory?: boolean; json?: boolean }) => {
      const { orchestrator } = await cli.stacks.ofMachine(machine);
      const made = (await orchestrator.saveSnapshot({ name: machine, snapshot: name ?? "", note: options.note, memory: options.memory ?? false }, SLOW)).snapshot!;
      cli.answer(options, made, () => `${machine} is kept as ${made.name}; go back with: hv snapshot restore ${machine} ${made.name}`);
    });

  addCommand(snapshot, "restore <machine> <name>", "make a halted machine what it was; what it has now is lost unless it is kept, too", [
    ["hv halt web && hv snapshot restore web before-upgrade", ""],
  ]).action(async (machine: string, name: string, options: { json?: boolean }) => {
    const { orchestrator } = await cli.stacks.ofMachine(machine);
    const restored = (await orchestrator.restoreSnapshot({ name: machine, snapshot: name }, SLOW)).machine!;
    cli.answer(options, machineJson(restored), () => `${machine} is as it was at ${name}; ${restored.state === MachineState.SAVED ? "let it go on with: hv resume" : "start it with: hv up"} ${machine}`);
  });

  addCommand(snapshot, "ls [machine]", "list snapshots", [["hv snapshot ls", "of all machines whose stack runs"]]).action(
    async (machine: string | undefined, options: { json?: boolean }) => {
      const stacks = machine === undefined ? await cli.stacks.running() : [await cli.stacks.ofMachine(machine)];
      const found: Snapshot[] = [];
      for (const { orchestrator } of stacks) found.push(...(await orchestrator.listSnapshots({ name: machine ?? "" })).snapshots);
      cli.answer(options, found, () =>
        table(
          ["machine", "snapshot", "made", "disk", "", "note"],
          found.map((each) => [each.machine, each.name, new Date(Number(each.createdUnixMs)).toISOString().slice(0, 19), each.diskBytes > 0n ? formatBytes(each.diskBytes) : "none", each.memory ? "with memory" : each.whileRunning ? "while running" : "", each.note]),
        ),
      );
    },
  );

  addCommand(snapshot, "rm <machine> <name>", "forget a snapshot", [["hv snapshot rm web before-upgrade", ""]]).action(async (machine: string, name: string, options: { json?: boolean }) => {
    const { orchestrator } = await cli.stacks.ofMachine(machine);
    await orchestrator.deleteSnapshot({ name: machine, snapshot: name });
    cli.answer(options, { machine, snapshot: name, removed: true }, () => `${name} of ${machine} is removed`);
  });

  addCommand(snapshot, "export <machine> <file>", "write a machine to one file: settings, kernel, disk; hv import makes a machine of it, here or elsewhere", [
    ["hv snapshot export web web.pv", "as it is now; a suspended machine with all that runs in it"],
    ["hv snapshot export web web.pv --snapshot before-upgrade", "as it was"],
  ])
    .option("--snapshot <name>", "a snapshot instead of the machine as it is", "")
    .action(async (machine: string, file: string, options: { snapshot: string; json?: boolean }) => {
      const { orchestrator, images } = await cli.stacks.ofMachine(machine);
      const { digest } = await orchestrator.exportMachine({ name: machine, snapshot: options.snapshot }, SLOW);
      const bytes = await saveStream(images.exportArchive({ digest }), file);
      cli.answer(options, { machine, file, digest, bytes }, () => `${file}: ${formatBytes(bytes)}; a machine again with: hv import ${file}`);
    });

  addCommand(program, "import <file> [name]", "make a machine of a file that hv snapshot export wrote", [
    ["hv import web.pv", "under the name it had"],
    ["hv import web.pv web2", "under another"],
  ])
    .addOption(topologyOption())
    .action(async (file: string, name: string | undefined, options: { topology?: Topology; json?: boolean }) => {
      const { orchestrator, images } = options.topology ? await cli.stacks.ensure(options.topology) : await cli.stacks.any();
      const { digest, artifactType } = await importArchive(images, file);
      if (artifactType !== MACHINE_TYPE) throw new CliError(`${file} is an OCI layout, but of no machine (${artifactType || "no artifact type"})`);
      const machine = (await orchestrator.importMachine({ digest, name: name ?? "" }, SLOW)).machine!;
      cli.answer(options, machineJson(machine), () => `${machine.spec!.name} is there; ${machine.state === MachineState.SAVED ? "let it go on with: hv resume" : "start it with: hv up"} ${machine.spec!.name}`);
    });

  addCommand(program, "clone <machine> <name>", "another machine like this one, with its disk's content; both share what neither changes", [
    ["hv clone web web2", "at once, however large the disk is; also while web runs"],
    ["hv suspend web && hv clone web web2", "with all that runs in it; the two can go on on one network only one after the other: they have one MAC address"],
  ]).action(async (machine: string, name: string, options: { json?: boolean }) => {
    const { orchestrator } = await cli.stacks.ofMachine(machine);
    const taken = await cli.stacks.findMachine(name);
    if (taken) throw new CliError(`there is a machine ${name} already (${taken} stack); choose another name, or: hv destroy ${name}`);
    const clone = (await orchestrator.cloneMachine({ name: machine, newName: name }, SLOW)).machine!;
    cli.answer(options, machineJson(clone), () => `${name} is like ${machine}; ${clone.state === MachineState.SAVED ? "let it go on with: hv resume" : "start it with: hv up"} ${name}`);
  });
}
