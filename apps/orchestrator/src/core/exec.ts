import { asContractError, ContractError, type Channel } from "@polyvisor/contracts";
import type { ExecInput, ExecOutput } from "@polyvisor/contracts/orchestrator";
import type { Clock } from "@polyvisor/service-kit";
import type { GuestCommand } from "./guest-command.ts";
import type { Machine } from "./machine.ts";
import { shellLine } from "./shell-quote.ts";
import { within } from "./time.ts";

/** A line of the agent's protocol must fit the guest's terminal buffer: N_TTY_BUF_SIZE is 4096. */
export const MAX_COMMAND_BYTES = 2900;
const EMPTY = new Uint8Array(0);

/** Serves one Exec stream: the first message names machine and command; output follows; the last answer has `exited`. */
export function serveExec(channel: Channel<ExecOutput, ExecInput>, find: (name: string) => Machine, clock: Clock): void {
  let running: GuestCommand | undefined;
  channel.onMessage((input) => {
    running ??= start(channel, input, find, clock);
    if (input.stdin.length > 0) channel.slow(!running.write(input.stdin));
    if (input.stdinClosed) running.endInput();
  });
}

/** What it throws ends the stream. */
function start(channel: Channel<ExecOutput, ExecInput>, { name, command, stdin, stdinClosed, timeoutMs }: ExecInput, find: (name: string) => Machine, clock: Clock): GuestCommand {
  if (command.length === 0) throw new ContractError("invalid", "exec: no command given");
  if (command.some((argument) => argument.includes("\0"))) throw new ContractError("invalid", "exec: an argument contains a NUL byte");
  const line = shellLine(command);
  if (Buffer.byteLength(line) > MAX_COMMAND_BYTES) {
    throw new ContractError("invalid", `exec: the command has ${Buffer.byteLength(line)} bytes, at most ${MAX_COMMAND_BYTES} fit; write a script in the guest and run that`);
  }
  const output = (message: Partial<ExecOutput>): boolean => channel.send({ stdout: EMPTY, stderr: EMPTY, exited: false, exitStatus: 0, ...message });
  const running = find(name).agent().exec(line, !stdinClosed || stdin.length > 0, (stream, data) => void output({ [stream]: data }));
  running.onDrain(() => channel.slow(false));
  channel.onClose(() => running.kill()); // who asked is gone, or waited long enough
  const ended = timeoutMs > 0 ? within(clock, timeoutMs, running.ended, `exec in ${name}: the command (it is being killed)`) : running.ended;
  ended.then(
    (exitStatus) => {
      output({ exited: true, exitStatus });
      channel.close();
    },
    (error: unknown) => channel.close(asContractError(error)),
  );
  return running;
}
