import { ContractError, type Channel } from "@polyvisor/contracts";
import type { ConsoleInput, ConsoleOutput } from "@polyvisor/contracts/device";
import { LineReader } from "./line-reader.ts";

/**
 * The host's end of the guest agent's protocol: ASCII lines over a virtio-console (the guest's end is the agent of
 * tools/boxes).
 *
 *     guest → host                         host → guest
 *     HELLO 1          at its start        PING <n>
 *     PONG <n>                             EXEC <id> <base64 of a shell command line>
 *     OUT <id> <base64>  ERR <id> <base64> HALT            clean power-off
 *     EXIT <id> <status>
 *
 * The guest is untrusted: lines are bounded, unknown ones and unknown ids are ignored, and nothing it sends throws.
 */
export class GuestAgent {
  readonly #channel: Channel<ConsoleInput, ConsoleOutput>;
  readonly #machine: string;
  readonly #console: string;
  readonly #commands = new Map<string, RunningCommand>();
  readonly #readyListeners = new Set<() => void>();
  readonly #pongs = new Map<string, () => void>();
  #nextId: number;
  #ready = false;

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
   * Runs one shell command line. Calls `onOutput` in order, then resolves with the exit status. Commands may overlap.
   * Base64 of 64 KiB is the longest line; the guest's terminal may take less (CONTRACT.md, ORC-15).
   */
  exec(commandLine: string, onOutput: (stream: "stdout" | "stderr", data: Uint8Array) => void): Promise<number> {
    if (this.#channel.closed) return Promise.reject(new ContractError("unavailable", "exec: the machine stopped"));
    const id = String(this.#nextId++);
    return new Promise((resolve, reject) => {
      this.#commands.set(id, { onOutput, resolve, reject });
      this.#write(`EXEC ${id} ${Buffer.from(commandLine, "utf8").toString("base64")}`);
    });
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
        this.#becomeReady();
        return;
      case "PONG":
        this.#pongs.get(id)?.();
        this.#pongs.delete(id);
        return;
      case "OUT":
      case "ERR":
        this.#commands.get(id)?.onOutput(word === "OUT" ? "stdout" : "stderr", Buffer.from(rest, "base64"));
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

interface RunningCommand {
  onOutput(stream: "stdout" | "stderr", data: Uint8Array): void;
  resolve(status: number): void;
  reject(error: ContractError): void;
}
