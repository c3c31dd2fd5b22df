import { ContractError, type Channel } from "@polyvisor/contracts";
import type { ConsoleInput, ConsoleOutput } from "@polyvisor/contracts/device";
import { GuestCommand } from "./guest-command.ts";
import { LineReader } from "./line-reader.ts";

/**
 * The host's end of the guest agent's protocol: ASCII lines over a virtio-console (the guest's end is the agent of
 * tools/boxes).
 *
 *     guest → host                         host → guest
 *     HELLO <version>  at its start        PING <n>
 *     PONG <n> <version>                   EXEC <id> <base64 of a shell command line>
 *     OUT <id> <base64>  ERR <id> <base64> EXEC-IN <id> <base64>, then IN <id> <base64> ..., EOF <id>
 *     ACK <id> <n>     ready for n more IN KILL <id>
 *     EXIT <id> <status>                   HALT            clean power-off
 *
 * Version 1 has no EXEC-IN, IN, EOF, KILL, ACK.
 *
 * The guest is untrusted: lines are bounded, unknown ones and unknown ids are ignored, and nothing it sends throws.
 */
export class GuestAgent {
  readonly #channel: Channel<ConsoleInput, ConsoleOutput>;
  readonly #machine: string;
  readonly #console: string;
  readonly #commands = new Map<string, GuestCommand>();
  readonly #readyListeners = new Set<() => void>();
  readonly #pongs = new Map<string, () => void>();
  #nextId: number;
  #ready = false;
  #version = 1;

  /** `firstId`: where ids of commands start; one that an earlier orchestrator cannot have used. */
  constructor(
    channel: Channel<ConsoleInput, ConsoleOutput>,
    { machine, console, firstId }: { machine: string; console: string; firstId: number },
  ) {
    this.#channel = channel;
    this.#machine = machine;
    this.#console = console;
    this.#nextId = firstId;
    const reader = new LineReader((line) => this.#receive(line));
    channel.onMessage((output) => reader.push(output.data));
    channel.onClose(() => this.#failCommands("the machine stopped"));
  }

  /** The agent has answered since the machine's start. */
  get ready(): boolean {
    return this.#ready;
  }

  /** Calls back at the agent's next sign of life, at once if there was one. */
  onReady(listener: () => void): void {
    if (this.#ready) listener();
    else this.#readyListeners.add(listener);
  }

  /** Asks for a sign of life: of an agent that said hello before this end was attached. */
  ping(): void {
    const n = String(this.#nextId++);
    this.#pongs.set(n, () => this.#becomeReady());
    this.#write(`PING ${n}`);
  }

  /**
   * Runs one shell command line. Calls `onOutput` in order. Commands may overlap. Base64 of 64 KiB is the longest line;
   * the guest's terminal may take less (CONTRACT.md, ORC-15). Without `input` its standard input is empty.
   */
  exec(commandLine: string, input: boolean, onOutput: GuestCommand["onOutput"]): GuestCommand {
    if (this.#channel.closed) throw new ContractError("unavailable", "exec: the machine stopped");
    if (input && this.#version < 2) {
      throw new ContractError("unimplemented", "exec: the box's guest agent takes no standard input; build the box again (hv box build) and make the machine anew");
    }
    const command = new GuestCommand(String(this.#nextId++), (line) => this.#write(line), onOutput);
    this.#commands.set(command.id, command);
    this.#write(`${input ? "EXEC-IN" : "EXEC"} ${command.id} ${Buffer.from(commandLine, "utf8").toString("base64")}`);
    return command;
  }

  /** Asks the guest to power itself off. */
  halt(): void {
    this.#write("HALT");
  }

  close(): void {
    this.#channel.close();
  }

  #write(line: string): void {
    const data = new TextEncoder().encode(`${line}\n`);
    this.#channel.send({ machine: this.#machine, console: this.#console, data, noReplay: false });
  }

  #receive(line: string): void {
    const [word, id = "", rest = ""] = line.split(" ", 3);
    switch (word) {
      case "HELLO":
        // A second hello: the agent was restarted and has forgotten its commands.
        if (this.#ready) this.#failCommands("the guest agent was restarted");
        this.#version = Number.parseInt(id) || 1;
        this.#becomeReady();
        return;
      case "PONG":
        this.#version = Number.parseInt(rest) || 1;
        this.#pongs.get(id)?.();
        this.#pongs.delete(id);
        return;
      case "OUT":
      case "ERR":
        this.#commands.get(id)?.onOutput(word === "OUT" ? "stdout" : "stderr", Buffer.from(rest, "base64"));
        return;
      case "ACK":
        this.#commands.get(id)?.acknowledged(Number(rest));
        return;
      case "EXIT": {
        const command = this.#commands.get(id);
        this.#commands.delete(id);
        const status = Number(rest);
        if (Number.isInteger(status) && status >= 0 && status <= 255) command?.resolve(status);
        else command?.reject(new ContractError("internal", `exec: the guest agent sent exit status "${rest.slice(0, 20)}"`));
        return;
      }
    }
  }

  #becomeReady(): void {
    this.#ready = true;
    for (const listener of this.#readyListeners) listener();
    this.#readyListeners.clear();
  }

  #failCommands(reason: string): void {
    for (const command of this.#commands.values()) {
      command.reject(new ContractError("unavailable", `exec: ${reason} before the command ended`));
    }
    this.#commands.clear();
  }
}
