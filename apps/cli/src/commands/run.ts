import { randomBytes } from "node:crypto";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { asContractError } from "@polyvisor/contracts";
import { type Machine, MachineSpec, MachineState, type ReadMachineStatsResponse } from "@polyvisor/contracts/orchestrator";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError, EXIT_TIMEOUT } from "../cli-error.ts";
import { stateWord } from "../format/machine.ts";
import { parseBytes, parseCount, parseSeconds } from "../format/quantity.ts";
import { statsText } from "../format/stats.ts";
import { toJson } from "../format/json.ts";
import type { Topology } from "../stack/home.ts";
import type { Stack } from "../stack/stacks.ts";
import { uploadFile } from "../upload-file.ts";
import { topologyOption } from "./up.ts";

interface RunOptions {
  timeout?: string;
  stats?: boolean;
  memory: string;
  cpus: string;
  engine?: string;
  firmware: string;
  topology?: Topology;
  json?: boolean;
}

export function addRunCommand(program: Command, cli: Cli): void {
  addCommand(program, "run <file>", "run an ELF file or raw image on a bare machine: serial port on stdout, its exit status is hv's", [
    ["hv run hello.elf", "starts in M-mode at the ELF's entry"],
    ["hv run kernel.elf --firmware builtin", "starts in S-mode, SBI calls are answered"],
    ["hv run rv64ui-p-add --timeout 10 --stats", "riscv-tests: the status comes from `tohost`"],
  ])
    .option("--timeout <seconds>", "end it after this time (exit status 124)")
    .option("--stats", "afterwards say on stderr what it did: instructions, exits, messages")
    .option("--memory <amount>", "RAM at 0x80000000", "64M")
    .option("--cpus <n>", "number of harts, 1 to 8", "1")
    .option("--engine <name>", "dynamic (default), static, interpreter, reference or recording")
    .option("--firmware <kind>", "none (M-mode) or builtin (S-mode with SBI)", "none")
    .addOption(topologyOption())
    .action(async (file: string, options: RunOptions) => run(cli, file, options));
}

async function run(cli: Cli, file: string, options: RunOptions): Promise<void> {
  const timeoutMs = options.timeout === undefined ? undefined : parseSeconds(options.timeout) * 1000;
  const spec = {
    memoryBytes: parseBytes(options.memory),
    harts: parseCount(options.cpus, "--cpus", 1, 8),
    engine: options.engine ?? "",
    firmware: options.firmware,
  };
  const stack = await cli.stacks.ensure(options.topology ?? "embedded");
  const name = `run-${randomBytes(4).toString("hex")}`;
  // The figures are read after the end, so the machine must outlive it.
  const ephemeral = !options.stats;
  const kernelDigest = await uploadFile(stack.images, file);
  await stack.orchestrator.createMachine({ spec: MachineSpec.fromPartial({ name, kernelDigest, noNetwork: true, ephemeral, ...spec }) });
  const interrupted = new Promise<"interrupted">((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolve("interrupted"));
  });
  try {
    const ended = watchUntilEnd(stack, name);
    const console = copyConsole(cli, stack, name);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<"timeout">((resolve) => {
      if (timeoutMs !== undefined) timer = setTimeout(() => resolve("timeout"), timeoutMs);
    });
    const outcome = await Promise.race([ended, timeout, interrupted]);
    clearTimeout(timer);
    const stats = options.stats ? (await stack.orchestrator.readMachineStats({ name })) : undefined;
    if (outcome === "timeout") throw new CliError(`${basename(file)} was still running after ${options.timeout} s`, EXIT_TIMEOUT);
    if (outcome === "interrupted") throw new CliError("interrupted", 130);
    await Promise.race([console, sleep(1000, undefined, { ref: false })]);
    if (outcome.state === MachineState.ABORTED) throw new CliError(`${basename(file)}: ${outcome.reason}`);
    report(cli, options, outcome, stats);
    cli.exitCode = Math.min(outcome.exitCode, 255);
  } finally {
    await stack.orchestrator.destroyMachine({ name }).catch((error: unknown) => {
      if (asContractError(error).condition !== "not-found") throw error;
    });
  }
}

/** Starts the machine; answers it as it was when it stopped. */
function watchUntilEnd(stack: Stack, name: string): Promise<Machine> {
  return new Promise((resolve, reject) => {
    const start = stack.orchestrator.startMachine({ name });
    start.onMessage(() => {});
    start.onClose((error) => error && reject(error));
    const watch = stack.orchestrator.watchMachine({ name });
    watch.onMessage(({ machine }) => {
      const state = machine!.state;
      if (state !== MachineState.HALTED && state !== MachineState.ABORTED) return;
      resolve(machine!);
      watch.close();
    });
    watch.onClose((error) => reject(error ?? new CliError(`the orchestrator went away; look at hv stack logs`)));
  });
}

/** Everything the serial port says, to stdout. Resolves when the machine has no more to say. */
function copyConsole(cli: Cli, stack: Stack, name: string): Promise<void> {
  return new Promise((resolve) => {
    const attach = (): void => {
      const channel = stack.orchestrator.attachConsole();
      channel.onMessage(({ data }) => data.length > 0 && cli.stdout.write(data));
      channel.onClose((error) => {
        // The machine is created but its start has not begun: the first message may be too early.
        if (error?.condition === "precondition") setTimeout(attach, 2);
        else resolve();
      });
      channel.send({ name, console: "serial0", data: new Uint8Array(0), noReplay: false });
    };
    attach();
  });
}

function report(cli: Cli, options: RunOptions, machine: Machine, stats: ReadMachineStatsResponse | undefined): void {
  if (!stats) return;
  cli.note(options.json ? toJson({ exitCode: machine.exitCode, state: stateWord(machine.state), reason: machine.reason, ...stats }) : statsText(stats));
}
