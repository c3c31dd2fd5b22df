import type { Box } from "@polyvisor/contracts/image";
import { RECIPES } from "@polyvisor/boxes";
import { parseReference } from "@polyvisor/image-spec";
import type { Command } from "commander";
import { buildAndPublish } from "../boxes.ts";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import { addBox } from "../images/add-box.ts";
import { localRegistry } from "../images/image-place.ts";
import { boxReferenceOf, machinesOf } from "../images/box-users.ts";
import { Origins } from "../images/origins.ts";
import { shortType } from "../images/transfer.ts";
import { addBoxUpkeepCommands } from "./box-upkeep.ts";

/** hv box ls|add|inspect|build|rm|prune|outdated|search. */
export function addBoxCommands(program: Command, cli: Cli): void {
  const box = program.command("box").description("the boxes that machines boot: kernel, initial RAM disk, disk and defaults");

  addCommand(box, "ls", "list the boxes of the registry and the recipes that can be built", [["hv box ls", ""]]).action(async (options: { json?: boolean }) => {
    const { images } = await cli.stacks.any();
    const { boxes } = await images.listBoxes({});
    const recipes = Object.entries(RECIPES).filter(([name]) => !boxes.some((each) => each.name === name));
    cli.answer(options, { boxes, recipes: recipes.map(([name, { description }]) => ({ name, description })) }, () =>
      table(
        ["box", "tag", "disk", "digest", "description"],
        [
          ...boxes.map((each) => [each.name, each.tag, formatBytes(each.config?.diskBytes ?? 0n), each.digest.slice(0, 19), each.config?.description ?? ""]),
          ...recipes.map(([name, { description }]) => [name, "", "not built", "", description]),
        ],
      ),
    );
  });

  addCommand(box, "add <what>", "bring a box from a registry, a file, or a catalogue (Vagrant's JSON); checked, resumable", [
    ["hv box add registry.example/debian/13:13", "from any OCI registry"],
    ["hv box add registry.example/debian/13@sha256:…", "exactly that one"],
    ["hv box add web.box", "a file that hv package --output wrote"],
    ["hv box add https://boxes.example/lamp.json --version '~> 1.2'", "from a catalogue"],
    ["hv box add debian/13", "the same as hv box build"],
  ])
    .option("--name <name:tag>", "what to call it here (default: as it is called there)")
    .option("--version <constraint>", "which version of a catalogue")
    .option("--lazy", "from a registry: fetch the disk's chunks when a machine touches them, not now")
    .action(async (what: string, options: { name?: string; version?: string; lazy?: boolean; json?: boolean }) => {
      const { images } = await cli.stacks.any();
      if (what in RECIPES) await buildAndPublish(cli, images, what, {});
      const added = what in RECIPES ? (await images.resolveBox({ reference: what })).box! : await addBox(cli, images, what, options);
      cli.answer(options, added, () => `${added.name}:${added.tag} ${added.digest}`);
    });

  addCommand(box, "inspect <reference>", "what a box is made of, where it came from and who uses it", [["hv box inspect debian/13", ""], ["hv box inspect debian/13@sha256:…", "one version, whatever its tag says today"]]).action(
    async (reference: string, options: { json?: boolean }) => {
      const { images } = await cli.stacks.any();
      const resolved = (await images.resolveBox({ reference })).box!;
      const client = await localRegistry(images);
      const manifest = JSON.parse(Buffer.from((await client.manifest(resolved.name, resolved.digest)).bytes).toString("utf8")) as { layers: { mediaType: string; digest: string; size: number }[] };
      const machines = await machinesOf(cli, resolved);
      const origin = new Origins(cli.home).all()[boxReferenceOf(resolved)];
      cli.answer(options, { ...resolved, layers: manifest.layers, machines, origin: origin ?? null }, () => inspectText(resolved, manifest.layers, machines, origin?.from));
    },
  );

  addCommand(box, "build <name>", "build a box and put it into the registry", [
    ["hv box build debian/13", "from Debian's own packages, without root"],
    ["HV_DEBIAN_MIRROR=https://mirror.example/debian hv box build debian/13", "from a mirror of your choice"],
  ])
    .option("--refresh", "ask the mirror again even if it is built already")
    .action(async (name: string, options: { json?: boolean; refresh?: boolean }) => {
      const { images } = await cli.stacks.any();
      await buildAndPublish(cli, images, name, options);
      const resolved = (await images.resolveBox({ reference: name })).box!;
      cli.answer(options, resolved, () => `${resolved.name}:${resolved.tag} ${resolved.digest}`);
    });

  addCommand(box, "rm <reference>", "remove a box; disks of machines made from it keep working", [["hv box rm debian/minimal", "all its tags"], ["hv box rm debian/13:13", "one"]])
    .option("--force", "even if machines were made from it (they need it to start)")
    .action(async (reference: string, options: { json?: boolean; force?: boolean }) => {
      const { images } = await cli.stacks.any();
      const { name, tag } = parseReference(reference);
      const going = (await images.listBoxes({})).boxes.filter((each) => each.name === name && (tag === undefined || each.tag === tag));
      const users = (await Promise.all(going.map((each) => machinesOf(cli, each)))).flat();
      if (users.length > 0 && !options.force) throw new CliError(`${reference} is the box of ${[...new Set(users)].join(", ")}, which cannot start without it; hv destroy first, or --force`);
      await images.deleteBox({ reference });
      const origins = new Origins(cli.home);
      for (const each of going) origins.set(boxReferenceOf(each), undefined);
      cli.answer(options, { removed: reference }, () => `${reference} is removed; hv registry gc frees its room`);
    });

  addBoxUpkeepCommands(box, cli);
}

function inspectText(box: Box, layers: readonly { mediaType: string; digest: string; size: number }[], machines: readonly string[], origin: string | undefined): string {
  const { config } = box;
  const facts: [string, string][] = [
    ["box", boxReferenceOf(box)],
    ["digest", box.digest],
    ["description", config?.description ?? ""],
    ["made", new Date(Number(box.createdUnixMs)).toISOString()],
    ["from", origin ?? (box.name in RECIPES ? `recipe ${box.name}` : "unknown")],
    ["machine", `${config?.harts || 1} harts, ${formatBytes(config?.memoryBytes ?? 0n)} memory, ${formatBytes(config?.diskBytes ?? 0n)} disk`],
    ["kernel line", config?.bootArguments ?? ""],
    ["used by", machines.join(", ") || "no machine"],
  ];
  const width = Math.max(...facts.map(([key]) => key.length));
  return [
    ...facts.filter(([, value]) => value !== "").map(([key, value]) => `${key.padEnd(width)}  ${value}`),
    "",
    table(["layer", "size", "digest"], layers.map(({ mediaType, size, digest }) => [shortType(mediaType), formatBytes(size), digest])),
  ].join("\n");
}
