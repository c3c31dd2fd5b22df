import type { Command } from "commander";
import { RECIPES } from "@polyvisor/boxes";
import { buildAndPublish } from "../boxes.ts";
import { addCommand, type Cli } from "../cli.ts";
import { formatBytes } from "../format/quantity.ts";
import { table } from "../format/table.ts";

/** hv box ls|build|rm. */
export function addBoxCommands(program: Command, cli: Cli): void {
  const box = program.command("box").description("the boxes that machines boot: kernel, initial RAM disk, disk and defaults");

  addCommand(box, "ls", "list the boxes of the registry and the recipes that can be built", [["hv box ls", ""]]).action(async (options: { json?: boolean }) => {
    const { images } = await cli.stacks.any();
    const { boxes } = await images.listBoxes({});
    const sizes = (each: (typeof boxes)[number]): bigint => [each.kernel, each.initrd, each.disk].reduce((sum, file) => sum + (file?.size ?? 0n), 0n);
    const recipes = Object.entries(RECIPES).filter(([name]) => !boxes.some((each) => each.name === name));
    cli.answer(options, { boxes, recipes: recipes.map(([name, { description }]) => ({ name, description })) }, () =>
      table(
        ["box", "tag", "size", "digest", "description"],
        [
          ...boxes.map((each) => [each.name, each.tag, formatBytes(sizes(each)), each.digest.slice(0, 19), each.config?.description ?? ""]),
          ...recipes.map(([name, { description }]) => [name, "", "not built", "", description]),
        ],
      ),
    );
  });

  addCommand(box, "build <name>", "build a box and put it into the registry", [
    ["hv box build debian/minimal", "from Debian's own packages, without root"],
    ["HV_DEBIAN_MIRROR=https://mirror.example/debian hv box build debian/minimal", "from a mirror of your choice"],
  ])
    .option("--refresh", "ask the mirror again even if it is built already")
    .action(async (name: string, options: { json?: boolean; refresh?: boolean }) => {
      const { images } = await cli.stacks.any();
      await buildAndPublish(cli, images, name, options);
      const resolved = (await images.resolveBox({ reference: name })).box!;
      cli.answer(options, resolved, () => `${resolved.name}:${resolved.tag} ${resolved.digest}`);
    });

  addCommand(box, "rm <reference>", "remove a box; disks of machines made from it keep working", [["hv box rm debian/minimal", ""]]).action(
    async (reference: string, options: { json?: boolean }) => {
      const { images } = await cli.stacks.any();
      await images.deleteBox({ reference });
      cli.answer(options, { removed: reference }, () => `${reference} is removed`);
    },
  );
}
