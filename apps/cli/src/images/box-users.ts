import type { Box } from "@polyvisor/contracts/image";
import { parseReference } from "@polyvisor/image-spec";
import type { Cli } from "../cli.ts";

export const boxReferenceOf = (box: Pick<Box, "name" | "tag" | "digest">): string => (box.tag === "" ? `${box.name}@${box.digest}` : `${box.name}:${box.tag}`);

/** Machines, of all stacks, whose specification names this box. A name without a tag may mean any of its tags. */
export async function machinesOf(cli: Cli, box: Pick<Box, "name" | "tag" | "digest">): Promise<string[]> {
  const running = await cli.stacks.running();
  const lists = await Promise.all(running.map(({ orchestrator }) => orchestrator.listMachines({})));
  const machines = [...lists.flatMap(({ machines: all }) => all), ...cli.stacks.stoppedMachines(running.map(({ info }) => info.topology))];
  return machines
    .filter(({ spec }) => {
      if (!spec?.box) return false;
      const { name, tag, digest } = parseReference(spec.box);
      return name === box.name && (digest === undefined || digest === box.digest) && (tag === undefined || box.tag === "" || tag === box.tag);
    })
    .map(({ spec }) => spec!.name);
}
