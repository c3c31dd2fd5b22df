import { asContractError } from "@polyvisor/contracts";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import type { Stack } from "../stack/stacks.ts";
import { DEFAULT_MACHINE } from "./up.ts";

/** Ctrl-], as telnet(1) has it. */
const ESCAPE = 0x1d;
/** A pipe that has ended may still get answers: wait until the guest has been quiet for so long. */
const QUIET_MS = 1000;

interface ConsoleOptions {
  console?: string;
  replay?: boolean;
}

export function addConsoleCommand(program: Command, cli: Cli): void {
  addCommand(program, "console [name]", "attach to a machine's serial console; Ctrl-] leaves it, the machine runs on", [
    ["hv console", `the console of "${DEFAULT_MACHINE}"`],
    ["hv console web --no-replay", "only what comes from now on"],
    ["echo 'uname -a' | hv console web", "from a pipe: leaves when the guest falls silent"],
  ])
    .option("--console <name>", "another console of the board", "serial0")
    .option("--no-replay", "without the last 64 KiB of output")
    .action(async (name: string | undefined, options: ConsoleOptions) => {
      const machine = name ?? DEFAULT_MACHINE;
      await attachConsole(cli, await cli.stacks.ofMachine(machine), machine, options);
    });
}

/** Joins the user's terminal and a console until one of them ends. */
export async function attachConsole(cli: Cli, stack: Stack, name: string, { console = "serial0", replay = true }: ConsoleOptions): Promise<void> {
  const { stdin, stdout } = cli;
  const terminal = stdin.isTTY === true;
  if (terminal) cli.note(cli.color.dim(`[console of ${name}; Ctrl-] leaves it]`));
  const channel = stack.orchestrator.attachConsole();
  const send = (data: Uint8Array): boolean => channel.send({ name, console, data, noReplay: !replay });
  let lastOutput = performance.now();
  let state = "";
  const ended = new Promise<"escape" | "quiet" | "machine">((resolve, reject) => {
    channel.onMessage((output) => {
      lastOutput = performance.now();
      if (output.data.length > 0) stdout.write(output.data);
      if (output.state) state = output.state;
    });
    channel.onClose((error) => (error ? reject(asContractError(error)) : resolve("machine")));
    stdin.on("data", (data: Buffer) => {
      const escape = terminal ? data.indexOf(ESCAPE) : -1;
      if (escape !== 0) send(escape < 0 ? data : data.subarray(0, escape));
      if (escape >= 0) resolve("escape");
    });
    stdin.on("end", () => {
      const wait = setInterval(() => {
        if (performance.now() - lastOutput < QUIET_MS) return;
        clearInterval(wait);
        resolve("quiet");
      }, 100);
    });
  });
  if (terminal) stdin.setRawMode(true);
  send(new Uint8Array(0));
  stdin.resume();
  try {
    const how = await ended;
    if (how === "machine") cli.note(cli.color.dim(`\r\n[machine ${name} is ${state || "gone"}]`));
    if (how === "escape") cli.note(cli.color.dim(`\r\n[left; ${name} runs on: hv console ${name}, hv halt ${name}]`));
  } finally {
    if (terminal) stdin.setRawMode(false);
    stdin.pause();
    stdin.removeAllListeners("data");
    channel.close();
  }
}
