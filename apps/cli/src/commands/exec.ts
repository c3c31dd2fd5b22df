import { ContractError } from "@polyvisor/contracts";
import type { OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import type { Command } from "commander";
import type { Readable } from "node:stream";
import { addCommand, type Cli } from "../cli.ts";
import { parseSeconds } from "../format/quantity.ts";
import { toJson } from "../format/json.ts";

interface ExecOptions {
  stdin?: boolean;
  timeout?: string;
  json?: boolean;
}

export function addExecCommand(program: Command, cli: Cli): void {
  addCommand(program, "exec <name> <command...>", "run a command in a machine through its guest agent: its output and exit status are hv's", [
    ["hv exec web -- uname -a", "put -- before the command"],
    ["hv exec web -- sh -c 'cat /proc/cpuinfo | head -3'", "a shell line"],
    ["tar c src | hv exec -i web -- tar x -C /mnt", "hands standard input on"],
    ["hv exec web --timeout 10 -- sleep 60", "kills it after 10 s"],
  ])
    .showHelpAfterError("(a command with options of its own goes behind --: hv exec NAME -- CMD -x)")
    .option("-i, --stdin", "hand hv's standard input on to the command")
    .option("--timeout <seconds>", "kill the command after this time, and fail")
    .action(async (name: string, command: string[], options: ExecOptions) => {
      const { orchestrator } = await cli.stacks.ofMachine(name);
      const timeoutMs = options.timeout === undefined ? 0 : parseSeconds(options.timeout) * 1000;
      const collected = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
      const onOutput = (stream: "stdout" | "stderr", data: Uint8Array): void => {
        if (options.json) collected[stream].push(data);
        else cli[stream].write(data);
      };
      cli.exitCode = await execIn(orchestrator, { name, command, timeoutMs, onOutput, ...(options.stdin ? { stdin: cli.stdin } : {}) });
      if (!options.json) return;
      const text = (chunks: Uint8Array[]): string => Buffer.concat(chunks).toString("utf8");
      cli.print(toJson({ exitStatus: cli.exitCode, stdout: text(collected.stdout), stderr: text(collected.stderr) }));
    });
}

export interface GuestExec {
  readonly name: string;
  readonly command: string[];
  /** 0 = none. */
  readonly timeoutMs: number;
  readonly onOutput: (stream: "stdout" | "stderr", data: Uint8Array) => void;
  /** Absent: empty. */
  readonly stdin?: Readable;
}

/** Runs a command in a guest; answers its exit status. The command is killed when the caller is gone before its end. */
export function execIn(orchestrator: OrchestratorPort, { name, command, timeoutMs, onOutput, stdin }: GuestExec): Promise<number> {
  return new Promise<number>((resolve, reject) => {
    const channel = orchestrator.exec();
    channel.onMessage(({ stdout, stderr, exited, exitStatus }) => {
      if (stdout.length > 0) onOutput("stdout", stdout);
      if (stderr.length > 0) onOutput("stderr", stderr);
      if (exited) resolve(exitStatus);
    });
    channel.onClose((error) => reject(error ?? new ContractError("unavailable", `exec in ${name}: the stream ended without an exit status`)));
    channel.send({ name, command, stdin: new Uint8Array(0), stdinClosed: stdin === undefined, timeoutMs });
    if (!stdin) return;
    const send = (data: Uint8Array, stdinClosed: boolean): boolean => channel.send({ name: "", command: [], stdin: data, stdinClosed, timeoutMs: 0 });
    channel.onDrain(() => void stdin.resume());
    stdin.on("data", (data: Buffer) => {
      if (!send(data, false)) stdin.pause();
    });
    stdin.on("end", () => send(new Uint8Array(0), true));
  }).finally(() => stdin?.destroy());
}
