import { ContractError } from "@polyvisor/contracts";
import type { OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { parseSeconds } from "../format/quantity.ts";
import { toJson } from "../format/json.ts";

interface ExecOptions {
  timeout?: string;
  json?: boolean;
}

export function addExecCommand(program: Command, cli: Cli): void {
  addCommand(program, "exec <name> <command...>", "run a command in a machine through its guest agent: its output and exit status are hv's", [
    ["hv exec web -- uname -a", "put -- before the command"],
    ["hv exec web -- sh -c 'cat /proc/cpuinfo | head -3'", "a shell line"],
    ["hv exec web --timeout 10 -- sleep 60", "gives up after 10 s"],
  ])
    .showHelpAfterError("(a command with options of its own goes behind --: hv exec NAME -- CMD -x)")
    .option("--timeout <seconds>", "give up after this time; the command runs on in the guest")
    .action(async (name: string, command: string[], options: ExecOptions) => {
      const { orchestrator } = await cli.stacks.ofMachine(name);
      const timeoutMs = options.timeout === undefined ? 0 : parseSeconds(options.timeout) * 1000;
      const collected = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
      cli.exitCode = await execIn(orchestrator, name, command, timeoutMs, (stream, data) => {
        if (options.json) collected[stream].push(data);
        else cli[stream].write(data);
      });
      if (!options.json) return;
      const text = (chunks: Uint8Array[]): string => Buffer.concat(chunks).toString("utf8");
      cli.print(toJson({ exitStatus: cli.exitCode, stdout: text(collected.stdout), stderr: text(collected.stderr) }));
    });
}

/** Runs a command in a guest; answers its exit status. */
export function execIn(
  orchestrator: OrchestratorPort,
  name: string,
  command: string[],
  timeoutMs: number,
  onOutput: (stream: "stdout" | "stderr", data: Uint8Array) => void,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const channel = orchestrator.exec();
    channel.onMessage(({ stdout, stderr, exited, exitStatus }) => {
      if (stdout.length > 0) onOutput("stdout", stdout);
      if (stderr.length > 0) onOutput("stderr", stderr);
      if (exited) resolve(exitStatus);
    });
    channel.onClose((error) => reject(error ?? new ContractError("unavailable", `exec in ${name}: the stream ended without an exit status`)));
    channel.send({ name, command, stdin: new Uint8Array(0), stdinClosed: true, timeoutMs });
  });
}
