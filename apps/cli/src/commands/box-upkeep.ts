import { RECIPES, recipeNews } from "@polyvisor/boxes";
import { readFile } from "node:fs/promises";
import type { Box } from "@polyvisor/contracts/image";
import { parseRemoteReference } from "@polyvisor/image-spec";
import { nodeOciClient } from "@polyvisor/oci-client/node";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { table } from "../format/table.ts";
import { boxReferenceOf, machinesOf } from "../images/box-users.ts";
import { GUEST_ARCHITECTURE } from "../images/image-place.ts";
import { Origins, type Origin } from "../images/origins.ts";
import { compareVersions, readCatalogue } from "../images/vagrant-catalogue.ts";

/** hv box prune|outdated|search. */
export function addBoxUpkeepCommands(box: Command, cli: Cli): void {
  addCommand(box, "prune", "remove old versions of boxes that no machine uses; the newest of each name stays", [["hv box prune --dry-run", "only say which"], ["hv box prune --all", "the newest too, where no machine uses it"]])
    .option("--dry-run", "remove nothing")
    .option("--all", "also the newest of a name")
    .action(async (options: { json?: boolean; dryRun?: boolean; all?: boolean }) => {
      const { images } = await cli.stacks.any();
      const { boxes } = await images.listBoxes({});
      const newest = new Map<string, Box>();
      for (const each of boxes) if (!newest.has(each.name) || each.createdUnixMs > newest.get(each.name)!.createdUnixMs) newest.set(each.name, each);
      const removed: string[] = [];
      for (const each of boxes) {
        if (!options.all && newest.get(each.name) === each) continue;
        if ((await machinesOf(cli, each)).length > 0) continue;
        removed.push(boxReferenceOf(each));
        if (options.dryRun) continue;
        await images.deleteBox({ reference: boxReferenceOf(each) });
        new Origins(cli.home).set(boxReferenceOf(each), undefined);
      }
      const verb = options.dryRun ? "would be removed" : "removed; hv registry gc frees their room";
      cli.answer(options, { removed }, () => (removed.length === 0 ? "nothing to remove" : `${removed.join("\n")}\n${verb}`));
    });

  addCommand(box, "outdated", "ask where each box came from whether there is something newer", [["hv box outdated", "exit status 1 if there is"]]).action(async (options: { json?: boolean }) => {
    const { images } = await cli.stacks.any();
    const origins = new Origins(cli.home).all();
    const rows: { box: string; state: string; news: string; update: string }[] = [];
    for (const each of (await images.listBoxes({})).boxes) rows.push({ box: boxReferenceOf(each), ...(await newsOf(cli, each, origins[boxReferenceOf(each)])) });
    if (rows.some(({ state }) => state === "outdated")) cli.exitCode = 1;
    cli.answer(options, rows, () => (rows.length === 0 ? "there are no boxes" : table(["box", "state", "news", "update with"], rows.map((row) => [row.box, row.state, row.news, row.update]))));
  });

  addCommand(box, "search [words...]", "look for boxes: here, among the recipes, in a catalogue", [
    ["hv box search docker", ""],
    ["hv box search --catalogue https://boxes.example/lamp.json", "its versions"],
  ])
    .option("--catalogue <file-or-url>", "Vagrant's catalogue JSON of one box")
    .action(async (words: string[], options: { json?: boolean; catalogue?: string }) => {
      const { images } = await cli.stacks.any();
      const found: { name: string; where: string; description: string }[] = [];
      for (const each of (await images.listBoxes({})).boxes) found.push({ name: boxReferenceOf(each), where: "here", description: each.config?.description ?? "" });
      for (const [name, { description }] of Object.entries(RECIPES)) found.push({ name, where: "recipe", description });
      if (options.catalogue) {
        const { name, description, versions } = readCatalogue(await catalogueText(options.catalogue), options.catalogue, GUEST_ARCHITECTURE);
        for (const { version } of versions) found.push({ name: `${name} ${version}`, where: options.catalogue, description });
      }
      const fits = found.filter((each) => words.every((word) => `${each.name} ${each.description}`.toLowerCase().includes(word.toLowerCase())));
      cli.answer(options, fits, () => (fits.length === 0 ? `nothing here fits "${words.join(" ")}"` : table(["box", "where", "description"], fits.map((each) => [each.name, each.where, each.description]))));
    });
}

async function newsOf(cli: Cli, box: Box, origin: Origin | undefined): Promise<{ state: string; news: string; update: string }> {
  try {
    if (origin?.kind === "registry") {
      const { origin: registry, name, tag, digest } = parseRemoteReference(origin.from);
      if (digest !== undefined) return { state: "pinned", news: "named by digest", update: "" };
      const now = await nodeOciClient(registry).resolve(name, tag ?? "latest");
      if (!now) return { state: "gone", news: `${origin.from} is no longer there`, update: "" };
      // An index there stands for one of its manifests here: then only its being the same as before can be seen.
      return now.digest === origin.digest ? { state: "current", news: "", update: "" } : { state: "outdated", news: `${origin.from} is ${now.digest.slice(0, 19)} now`, update: `hv box add ${origin.from} --name ${boxReferenceOf(box)}` };
    }
    if (origin?.kind === "catalogue") {
      const [newest] = readCatalogue(await catalogueText(origin.from), origin.from, GUEST_ARCHITECTURE).versions;
      const newer = newest && compareVersions(newest.version, origin.version ?? "0") > 0;
      return newer ? { state: "outdated", news: `version ${newest.version} is there, this is ${origin.version}`, update: `hv box add ${origin.from}` } : { state: "current", news: "", update: "" };
    }
    if (!origin && box.name in RECIPES) {
      const news = await recipeNews(box.name, { cacheDir: cli.home.cache });
      return news.length === 0 ? { state: "current", news: "", update: "" } : { state: "outdated", news: news.length > 3 ? `${news.length} newer packages` : news.join(", "), update: `hv box build ${box.name} --refresh` };
    }
    return { state: "unknown", news: "made here or brought as a file", update: "" };
  } catch (error) {
    return { state: "unreachable", news: (error as Error).message.split("\n")[0]!, update: "" };
  }
}

async function catalogueText(place: string): Promise<string> {
  if (!/^https?:/.test(place)) return readFile(place, "utf8");
  const response = await fetch(place);
  if (!response.ok) throw new Error(`${place} answers ${response.status}`);
  return response.text();
}
