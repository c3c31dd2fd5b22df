import { Impairment } from "@polyvisor/contracts/network";
import { Option, type Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { parseCount } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import { netOption, stackOf, type NetOptions } from "./net.ts";

interface ImpairOptions extends NetOptions {
  loss?: string;
  duplicate?: string;
  reorder?: string;
  corrupt?: string;
  delay?: string;
  jitter?: string;
  seed?: string;
  direction?: string;
  none?: boolean;
}

export function addNetImpairCommand(net: Command, cli: Cli): void {
  addCommand(net, "impair [target]", "make the line of a port (M/net0) or of all ports of a network bad; without a target: list", [
    ["hv net impair web/net0 --loss 3% --delay 50 --jitter 10", "a poor line, both ways"],
    ["hv net impair lan1 --reorder 5% --corrupt 0.1% --seed 7", "the same trouble again with the same seed"],
    ["hv net impair web/net0 --none", "a good line again"],
  ])
    .option("--loss <share>", "frames lost, e.g. 3% or 0.03")
    .option("--duplicate <share>", "frames that come twice")
    .option("--reorder <share>", "frames that the next one overtakes")
    .option("--corrupt <share>", "frames with one bit flipped")
    .option("--delay <ms>", "later, all of them")
    .option("--jitter <ms>", "up to so much later still")
    .option("--seed <n>", "where the random numbers begin (default: 1)")
    .addOption(new Option("--direction <way>", "only one way").choices(["from-guest", "to-guest"]))
    .option("--none", "no trouble any more")
    .addOption(netOption())
    .action(async (target: string | undefined, options: ImpairOptions) => {
      if (target === undefined) return list(cli, options);
      const asked = [options.loss, options.duplicate, options.reorder, options.corrupt, options.delay, options.jitter].some((option) => option !== undefined);
      if (asked === (options.none ?? false)) throw new UsageError(asked ? "--none and trouble exclude each other" : "say what to do to the line, e.g. --loss 3%, or --none");
      const { network: fabric } = await stackOf(cli, options);
      const isPort = (await fabric.listPorts({ machine: "" })).ports.some(({ id }) => id === target);
      const ms = (text: string | undefined, what: string): number => (text === undefined ? 0 : parseCount(text.replace(/\s*ms$/, ""), what, 0, 60_000));
      const { impairment } = await fabric.setImpairment({
        impairment: Impairment.fromPartial({
          ...(isPort ? { port: target } : { network: target }),
          loss: share(options.loss),
          duplicate: share(options.duplicate),
          reorder: share(options.reorder),
          corrupt: share(options.corrupt),
          delayMs: ms(options.delay, "--delay"),
          jitterMs: ms(options.jitter, "--jitter"),
          seed: options.seed === undefined ? 1n : BigInt(parseCount(options.seed, "--seed", 0, Number.MAX_SAFE_INTEGER)),
          direction: options.direction ?? "",
        }),
      });
      cli.answer(options, impairment, () => (options.none ? `${target} is a good line again` : `${target}: ${describe(impairment!)}; undo it with: hv net impair ${target} --none`));
    });
}

async function list(cli: Cli, options: ImpairOptions): Promise<void> {
  const { network } = await stackOf(cli, options);
  const { impairments } = await network.listImpairments({});
  cli.answer(options, impairments, () => {
    if (impairments.length === 0) return "All lines are good; hv net impair --help shows how to change that.";
    return table(["target", "trouble", "so far"], impairments.map((each) => [each.port || each.network, describe(each), [...each.counters].filter(([, count]) => count > 0n).map(([name, count]) => `${count} ${name}`).join(", ")]));
  });
}
/** "3%" or "0.03" → 0.03. */
export function share(text: string | undefined): number {
  if (text === undefined) return 0;
  const value = /^\d+(\.\d+)?%$/.test(text) ? Number(text.slice(0, -1)) / 100 : /^\d*\.?\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= 0 && value <= 1)) throw new UsageError(`"${text}" is no share; expected e.g. 3% or 0.03`);
  return value;
}
function describe({ loss, duplicate, reorder, corrupt, delayMs, jitterMs, direction }: Impairment): string {
  const parts = Object.entries({ loss, duplicate, reorder, corrupt }).filter(([, value]) => value > 0).map(([name, value]) => `${name} ${Number((value * 100).toPrecision(6))} %`);
  if (delayMs + jitterMs > 0) parts.push(`delay ${delayMs} ms${jitterMs ? ` + up to ${jitterMs} ms` : ""}`);
  return [...parts, direction].filter(Boolean).join(", ");
}
