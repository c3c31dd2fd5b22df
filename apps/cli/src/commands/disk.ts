import type { Command } from "commander";
import { messages } from "@polyvisor/contracts";
import type { Disk } from "@polyvisor/contracts/image";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { formatOf, importDiskFile } from "../disk-file.ts";
import { saveStream } from "../file-streams.ts";
import { machineJson } from "../format/machine.ts";
import { formatBytes, parseBytes } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import type { Stack } from "../stack/stacks.ts";

/** Packing and growing may go through all of a disk. */
const SLOW = { timeoutMs: 30 * 60_000 };

/** hv disk ls|export|import|resize|commit|diff. A disk is named by its machine. */
export function addDiskCommands(program: Command, cli: Cli): void {
  const disk = program.command("disk").description("the disks of machines: read-only layers and one that the machine writes");

  addCommand(disk, "ls", "list the disks, how large they are and what they take", [["hv disk ls", ""]]).action(async (options: { json?: boolean }) => {
    const { images } = await cli.stacks.any();
    const { disks } = await images.listDisks({});
    cli.answer(options, disks, () =>
      table(
        ["disk", "size", "written", "layers", "base", "state"],
        disks.map((each) => [each.id, formatBytes(each.bytes), formatBytes(each.allocatedBytes), each.layers, each.baseDigest.slice(0, 19) || "none", each.open ? "open" : ""]),
      ),
    );
  });

  addCommand(disk, "origins", "list disk images that come from other registries as they are touched, and how much of them is here", [
    ["hv pull registry.example/debian/13:13 --lazy; hv up web --box debian/13; hv disk origins", ""],
  ]).action(async (options: { json?: boolean }) => {
    const { images } = await cli.stacks.any();
    const { origins } = await images.listBlobOrigins({});
    cli.answer(options, origins, () =>
      table(
        ["blob", "here", "of", "", "requests", "from"],
        origins.map((each) => [
          each.digest.slice(7, 19), formatBytes(each.presentBytes), formatBytes(each.bytes), `${((100 * Number(each.presentBytes)) / Number(each.bytes)).toFixed(1)} %`, each.requests, `${each.registry}/${each.repository}`,
        ]),
      ),
    );
  });

  addCommand(disk, "export <machine> <file>", "write a machine's disk to a file, as it is at this moment", [
    ["hv disk export web web.qcow2", "for QEMU and others"],
    ["hv disk export web web.raw", "plain bytes, sparse"],
  ])
    .option("--format <name>", "raw or qcow2 (default: as the file's name says)")
    .action(async (machine: string, file: string, options: { format?: string; json?: boolean }) => {
      const format = formatOf(file, options.format);
      const { stack, id } = await diskOf(cli, machine);
      const bytes = await saveStream(stack.images.exportDisk({ id, format }), file);
      cli.answer(options, { file, format, bytes }, () => `${file}: ${formatBytes(bytes)} (${format})`);
    });

  addCommand(disk, "import <machine> <file>", "replace a halted machine's disk by a file; what was on the old disk is gone", [
    ["hv disk import web other.qcow2", "raw and qcow2 always; vmdk, vdi, vhdx where qemu-img is installed"],
  ])
    .option("--format <name>", "raw, qcow2, vmdk, vdi, vhdx, vpc (default: as the file's name says)")
    .option("--size <amount>", "size of the disk, if it is to be larger than the file's")
    .action(async (machine: string, file: string, options: { format?: string; size?: string; json?: boolean }) => {
      const format = formatOf(file, options.format);
      const stack = await cli.stacks.ofMachine(machine);
      const image = await importDiskFile(stack.images, file, format);
      const bytes = options.size === undefined ? image.diskBytes : parseBytes(options.size);
      const { machine: changed } = await stack.orchestrator.replaceMachineDisk({ name: machine, digest: image.digest, mediaType: image.mediaType, bytes }, SLOW);
      cli.answer(options, machineJson(changed!), () => `${machine} has a disk of ${formatBytes(bytes)} from ${file}; start it with: hv up ${machine}`);
    });

  addCommand(disk, "resize <machine> <size>", "change the size of a halted machine's disk; its filesystem is the guest's to grow", [
    ["hv disk resize web 4G", "then in the guest: resize2fs /dev/vda"],
  ])
    .option("--shrink", "allow a smaller size; what lies behind it is lost")
    .action(async (machine: string, size: string, options: { shrink?: boolean; json?: boolean }) => {
      const bytes = parseBytes(size);
      const { orchestrator } = await cli.stacks.ofMachine(machine);
      await orchestrator.resizeMachineDisk({ name: machine, bytes, mayShrink: options.shrink ?? false }, SLOW);
      cli.answer(options, { machine, bytes }, () => `${machine}'s disk has ${formatBytes(bytes)}`);
    });

  addCommand(disk, "commit <machine>", "make an image of a disk: a layer on its base, which other machines can stand on", [
    ["hv disk commit web", "answers the image's digest"],
    ["hv disk commit web --rebase", "and let the halted machine stand on it: its layers become one"],
  ])
    .option("--rebase", "the machine's disk stands on the image afterwards")
    .option("--flatten", "an image of its own instead of a layer")
    .action(async (machine: string, options: { rebase?: boolean; flatten?: boolean; json?: boolean }) => {
      const { stack, id } = await diskOf(cli, machine);
      const { image } = await stack.images.commitDisk({ id, rebase: options.rebase ?? false, flatten: options.flatten ?? false }, SLOW);
      cli.answer(options, image, () => `${image!.digest}\n${formatBytes(image!.addedBytes)} new, a disk of ${formatBytes(image!.diskBytes)}`);
    });

  addCommand(disk, "diff <machine>", "list the ranges that a machine's disk changes over its base", [["hv disk diff web", "bytes from, length"]]).action(
    async (machine: string, options: { json?: boolean }) => {
      const { stack, id } = await diskOf(cli, machine);
      const ranges: { position: bigint; length: bigint; zero: boolean }[] = [];
      for await (const range of messages(stack.images.diffDisk({ id }))) ranges.push(range);
      const total = ranges.reduce((sum, { length }) => sum + length, 0n);
      cli.answer(options, { ranges, bytes: total }, () =>
        [...ranges.map(({ position, length, zero }) => `${String(position).padStart(14)}  ${formatBytes(length).padStart(10)}${zero ? "  zero" : ""}`), `${formatBytes(total)} in ${ranges.length} ranges`].join("\n"),
      );
    },
  );
}

/** The disk of a machine, and the stack that has it. */
export async function diskOf(cli: Cli, machine: string): Promise<{ stack: Stack; id: string; disk: Disk }> {
  const stack = await cli.stacks.ofMachine(machine);
  const { disks } = await stack.images.listDisks({});
  const disk = disks.find(({ id }) => id === `${machine}/disk0`);
  if (!disk) throw new CliError(`machine ${machine} has no disk; one is made at its first start (hv up ${machine}), if its box brings one`);
  return { stack, id: disk.id, disk };
}
