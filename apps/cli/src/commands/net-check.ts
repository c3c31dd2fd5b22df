import { MachineSpec, NicSpec } from "@polyvisor/contracts/orchestrator";
import type { Command } from "commander";
import { ensureBox } from "../boxes.ts";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { table } from "../format/table.ts";
import { CheckGuest } from "../net/check/guest.ts";
import { type CaseName, CASES, ROWS } from "../net/check/matrix.ts";
import { Outside } from "../net/check/outside.ts";
import { runCheck, type Outcome } from "../net/check/run-check.ts";
import { netOption, type NetOptions } from "./net.ts";
import { DEFAULT_BOX, startWithProgress } from "./up.ts";

interface CheckOptions extends NetOptions {
  mode?: string[];
}
const MACHINES = ["netcheck-a", "netcheck-b"] as const;
const SHOWN = { yes: "✓", no: "✗", port: "port" } as const;

export function addNetCheckCommand(net: Command, cli: Cli): void {
  addCommand(net, "check", "try every mode with two real guests: who reaches whom, and who should (needs root: it makes a bridge and a namespace)", [
    ["hv net check", "the whole matrix, about a minute"],
    ["hv net check --mode hostonly", "one row"],
  ])
    .option("--mode <row>", `only this row: ${ROWS.map(({ title }) => `"${title}"`).join(", ")}; may be given more than once`, (text: string, all: string[] = []) => [...all, text])
    .addOption(netOption())
    .action((options: CheckOptions) => check(cli, options));
}

async function check(cli: Cli, options: CheckOptions): Promise<void> {
  const rows = options.mode ? ROWS.filter(({ title }) => options.mode!.includes(title)) : ROWS;
  if (rows.length === 0) throw new UsageError(`no row "${options.mode!.join('", "')}"; rows are ${ROWS.map(({ title }) => `"${title}"`).join(", ")}`);
  const outside = await Outside.open();
  const outcomes: Outcome[] = [];
  let destroy: () => Promise<void> = async () => {};
  const interrupt = (): void => void Promise.allSettled([destroy(), outside.close()]).then(() => process.exit(130));
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  try {
    const stack = options.topology ? await cli.stacks.ensure(options.topology) : await cli.stacks.any();
    await ensureBox(cli, stack.images, DEFAULT_BOX);
    const { orchestrator, network } = stack;
    destroy = async () => void (await Promise.allSettled(MACHINES.map((name) => orchestrator.destroyMachine({ name }, { timeoutMs: 60_000 }))));
    await destroy(); // of a check that was killed
    const guests = await Promise.all(
      MACHINES.map(async (name) => {
        await orchestrator.createMachine({ spec: MachineSpec.fromPartial({ name, box: DEFAULT_BOX, memoryBytes: 128n << 20n, nics: [NicSpec.fromPartial({ mode: "nat" })] }) });
        await startWithProgress(cli, orchestrator, name);
        const guest = new CheckGuest(orchestrator, name);
        await guest.serve();
        return guest;
      }),
    );
    const input = { fabric: network, guests: guests as [CheckGuest, CheckGuest], outside, rows, progress: (row: string) => cli.note(`checking ${row}`) };
    for await (const row of runCheck(input)) outcomes.push(...row);
  } finally {
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
    await destroy();
    await outside.close();
  }
  const wrong = outcomes.filter(({ expected, actual }) => expected !== actual);
  cli.answer(options, { outcomes, wrong: wrong.length }, () => report(cli, outcomes, wrong));
  cli.exitCode = wrong.length === 0 ? 0 : 1;
}

/** The matrix; where it is not as it should be, "expected, got", and below what was tried. */
function report(cli: Cli, outcomes: readonly Outcome[], wrong: readonly Outcome[]): string {
  const names = Object.keys(CASES) as CaseName[];
  const cell = (mode: string, name: CaseName): string => {
    const { expected, actual } = outcomes.find((each) => each.mode === mode && each.case === name)!;
    return expected === actual ? SHOWN[actual] : cli.color.red(`${SHOWN[expected]} expected, got ${SHOWN[actual]}`);
  };
  const modes = [...new Set(outcomes.map(({ mode }) => mode))];
  return [
    table(["mode", ...names.map((name) => (name === "H" ? CASES.H : `${name} ${CASES[name]}`))], modes.map((mode) => [mode, ...names.map((name) => cell(mode, name))])),
    ...wrong.map(({ mode, case: name, detail }) => `${mode}, ${CASES[name]}: ${detail}`),
    wrong.length === 0 ? cli.color.green(`✓ ${outcomes.length} of ${outcomes.length} as they should be`) : cli.color.red(`${wrong.length} of ${outcomes.length} are not as they should be`),
  ].join("\n");
}
