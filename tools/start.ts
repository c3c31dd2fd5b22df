/**
 * `npm start [-- --topology processes]`: builds Debian's box, boots it on the six services, runs two commands in it and
 * says what that took. With a terminal it ends at the guest's console; without one it cleans up after itself.
 */
import { parseArgs } from "node:util";
import { attachConsole, Cli, DEFAULT_BOX, ensureBox, execIn, formatDuration, planeTotals, startWithProgress, table, TOPOLOGIES, type Topology } from "@polyvisor/cli";
import { asContractError } from "@polyvisor/contracts";
import { MachineSpec, type StartProgress } from "@polyvisor/contracts/orchestrator";

const MACHINE = "start";
const { values } = parseArgs({ options: { topology: { type: "string", default: "embedded" } } });
const topology = values.topology as Topology;
if (!TOPOLOGIES.includes(topology)) {
  console.error(`--topology ${topology}; expected ${TOPOLOGIES.join(" or ")}`);
  process.exit(2);
}

const cli = new Cli(process);
const times: [stage: string, ms: number][] = [];
async function timed<T>(stage: string, run: () => Promise<T>): Promise<T> {
  const begun = performance.now();
  const result = await run();
  times.push([stage, performance.now() - begun]);
  return result;
}

const interactive = process.stdin.isTTY === true && process.stdout.isTTY === true;
const ranBefore = (await cli.stacks.running()).some(({ info }) => info.topology === topology);
try {
  await tour();
} catch (error) {
  cli.note(`${cli.color.red("npm start:")} ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  if (!interactive && !ranBefore) await cli.stacks.down(topology);
  cli.stacks.close();
}

async function tour(): Promise<void> {
  cli.note(cli.color.bold(`\n1. The ${topology} stack`));
  const { orchestrator, images, ...stack } = await timed("stack", () => cli.stacks.ensure(topology));

  cli.note(cli.color.bold("\n2. The box"));
  const box = await timed("box", () => ensureBox(cli, images, DEFAULT_BOX));
  cli.note(`  ${box.name}:${box.tag} ${box.digest.slice(0, 19)}`);

  cli.note(cli.color.bold("\n3. The machine"));
  await orchestrator.destroyMachine({ name: MACHINE }).catch((error: unknown) => {
    if (asContractError(error).condition !== "not-found") throw error;
  });
  await orchestrator.createMachine({ spec: MachineSpec.fromPartial({ name: MACHINE, box: DEFAULT_BOX }) });
  const progress: StartProgress[] = [];
  await startWithProgress(cli, orchestrator, MACHINE, (each) => progress.push(each));
  for (const [index, { stage, elapsedMs }] of progress.slice(0, -1).entries()) times.push([`up: ${stage}`, Number(progress[index + 1]!.elapsedMs - elapsedMs)]);

  cli.note(cli.color.bold("\n4. In the guest"));
  for (const command of [["uname", "-a"], ["cat", "/proc/cpuinfo"]]) {
    cli.note(cli.color.dim(`  $ ${command.join(" ")}`));
    const status = await timed(`exec: ${command.join(" ")}`, () => execIn(orchestrator, { name: MACHINE, command, timeoutMs: 60_000, onOutput: (stream, data) => void cli[stream].write(data) }));
    if (status !== 0) throw new Error(`${command.join(" ")} ended with status ${status} in the guest`);
  }

  cli.note(cli.color.bold("\n5. What it took"));
  cli.print(table(["stage", "time"], [...times, ["all", times.reduce((sum, [, ms]) => sum + ms, 0)] as const].map(([stage, ms]) => [stage, formatDuration(ms)])));
  const stats = await orchestrator.readMachineStats({ name: MACHINE });
  cli.print("");
  cli.print(table(["plane", "messages", "executed"], planeTotals(stats).map(({ plane, seen, executed }) => [plane, seen, executed])));
  cli.print(`\n${stats.instructions.toLocaleString("en-US")} instructions, ${formatDuration(Number(stats.busyUs) / 1000)} of hart time`);

  if (interactive) {
    cli.note(`\nThe machine is yours: ${cli.color.bold("npx hv exec start -- ls /")}, npx hv status; npx hv stack down ends it all.`);
    await attachConsole(cli, { orchestrator, images, ...stack }, MACHINE, {});
    return;
  }
  await orchestrator.haltMachine({ name: MACHINE, force: false, timeoutMs: 20_000 }, { timeoutMs: 60_000 });
  await orchestrator.destroyMachine({ name: MACHINE });
  cli.note("\nThere is no terminal: the machine is halted and destroyed. With one, npm start ends at its console.");
}
