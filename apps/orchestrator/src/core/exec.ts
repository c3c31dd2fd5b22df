import { asContractError, ContractError, type Channel } from "@polyvisor/contracts";
import type { ExecInput, ExecOutput } from "@polyvisor/contracts/orchestrator";
import type { Clock } from "@polyvisor/service-kit";
import type { Machine } from "./machine.ts";
import { shellLine } from "./shell-quote.ts";
import { within } from "./time.ts";

/** A line of the agent's protocol must fit the guest's terminal buffer: N_TTY_BUF_SIZE is 4096. */
export const MAX_COMMAND_BYTES = 2900;
const EMPTY = new Uint8Array(0);

/** Serves one Exec stream: the first message names machine and command; output follows; the last answer has `exited`. */
export function serveExec(channel: Channel<ExecOutput, ExecInput>, find: (name: string) => Machine, clock: Clock): void {
  let begun = false;
  const fail = (error: unknown): void => channel.close(asContractError(error));
  channel.onMessage((input) => {
    if (!begun) {
      begun = true;
      void run(channel, input, find, clock).catch(fail);
    } else if (input.stdin.length > 0) {
      fail(new ContractError("unimplemented", "exec: stdin is not passed to the guest yet; write a file in the guest, or use: hv console"));
    }
  });
}

async function run(
  channel: Channel<ExecOutput, ExecInput>,
  { name, command, stdin, timeoutMs }: ExecInput,
  find: (name: string) => Machine,
  clock: Clock,
): Promise<void> {
  if (command.length === 0) throw new ContractError("invalid", "exec: no command given");
  if (command.some((argument) => argument.includes("\0"))) throw new ContractError("invalid", "exec: an argument contains a NUL byte");
  if (stdin.length > 0) throw new ContractError("unimplemented", "exec: stdin is not passed to the guest yet");
  const line = shellLine(command);
  if (Buffer.byteLength(line) > MAX_COMMAND_BYTES) {
    throw new ContractError("invalid", `exec: the command has ${Buffer.byteLength(line)} bytes, at most ${MAX_COMMAND_BYTES} fit; write a script in the guest and run that`);
  }
  const running = find(name)
    .agent()
    .exec(line, (stream, data) => {
      channel.send({ stdout: stream === "stdout" ? data : EMPTY, stderr: stream === "stderr" ? data : EMPTY, exited: false, exitStatus: 0 });
    });
  const exitStatus = await (timeoutMs > 0 ? within(clock, timeoutMs, running, `exec in ${name}: the command (it still runs in the guest)`) : running);
  channel.send({ stdout: EMPTY, stderr: EMPTY, exited: true, exitStatus });
  channel.close();
}
