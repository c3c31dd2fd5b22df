import { asContractError } from "@polyvisor/contracts";
import type { Box, ImagePort } from "@polyvisor/contracts/image";
import { buildBox, publishBox, RECIPES } from "@polyvisor/boxes";
import type { Cli } from "./cli.ts";
import { CliError } from "./cli-error.ts";
import { formatBytes } from "./format/quantity.ts";

/** The box of that reference; one that we have a recipe for is built and published when the registry lacks it. */
export async function ensureBox(cli: Cli, images: ImagePort, reference: string): Promise<Box> {
  let damage = "";
  try {
    return (await images.resolveBox({ reference })).box!;
  } catch (error) {
    const { condition, message } = asContractError(error);
    if (condition !== "not-found" && condition !== "corrupt") throw error;
    if (condition === "corrupt") damage = message;
  }
  const name = reference.split(/[:@]/)[0]!;
  if (!(name in RECIPES)) {
    if (damage) throw new CliError(`box "${reference}" is damaged: ${damage}`);
    throw new CliError(`there is no box "${reference}" and no recipe for it; hv box ls lists the boxes, recipes are: ${Object.keys(RECIPES).join(", ")}`);
  }
  cli.note(damage ? `box ${name} is damaged (${damage}); building it again` : `box ${name} is not in the registry yet; building it`);
  await buildAndPublish(cli, images, name, {});
  return (await images.resolveBox({ reference })).box!;
}

export async function buildAndPublish(cli: Cli, images: ImagePort, name: string, { refresh = false }: { refresh?: boolean }): Promise<void> {
  let shown = "";
  const built = await buildBox(name, {
    cacheDir: cli.home.cache,
    refresh,
    log: (line) => cli.note(cli.color.dim(`  ${line}`)),
    onProgress: ({ step, doneBytes, totalBytes }) => {
      // One line per step, and per quarter of a long one.
      const quarter = totalBytes ? Math.floor((4 * (doneBytes ?? 0)) / totalBytes) : 0;
      const line = totalBytes ? `${step} (${formatBytes(totalBytes)})${quarter > 0 ? ` ${quarter * 25} %` : ""}` : step;
      if (line !== shown) cli.note(`  ${line}`);
      shown = line;
    },
  });
  cli.note(built.fromCache ? `  ${name}:${built.tag} comes from the cache` : `  ${name}:${built.tag} is built`);
  await publishBox(images, built);
}
