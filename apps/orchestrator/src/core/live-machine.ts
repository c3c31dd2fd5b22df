import type { Channel } from "@polyvisor/contracts";
import { BoardEvent } from "@polyvisor/contracts/device";
import { HartEvent } from "@polyvisor/contracts/cpu";
import type { Clock } from "@polyvisor/service-kit";
import { GuestAgent } from "./guest-agent.ts";
import type { OrchestratorPeers } from "./peers.ts";

/** How a guest's run ended. `lost`: a service failed under it, or took its part of the machine away. */
export interface GuestEnd {
  readonly kind: "powered-off" | "reset" | "lost";
  readonly exitCode: number;
  readonly reason: string;
}

export interface LiveMachineOptions {
  readonly name: string;
  readonly peers: OrchestratorPeers;
  readonly clock: Clock;
  /** Console of the guest agent; empty: none on this board. */
  readonly agentConsole: string;
  /** Guest address of a test program's result word. */
  readonly tohost: bigint | undefined;
  /** True: attached to a machine that runs already, whose agent said hello long ago. */
  readonly adopted: boolean;
}

const TOHOST_POLL_MS = 10;

/**
 * The orchestrator's view of one running guest: watches board and harts, talks to the agent, polls `tohost`. It ends
 * exactly once, whatever comes first.
 */
export class LiveMachine {
  readonly name: string;
  readonly agent: GuestAgent | undefined;
  /** Resolves when the guest has ended. Never rejects. */
  readonly whenEnded: Promise<GuestEnd>;
  readonly #peers: OrchestratorPeers;
  readonly #clock: Clock;
  readonly #channels: Channel<never, never>[] = [];
  #resolveEnded!: (end: GuestEnd) => void;
  #ended: GuestEnd | undefined;
  #closed = false;
  #cancelPoll: () => void = () => {};

  constructor({ name, peers, clock, agentConsole, tohost, adopted }: LiveMachineOptions) {
    this.name = name;
    this.#peers = peers;
    this.#clock = clock;
    this.whenEnded = new Promise((resolve) => (this.#resolveEnded = resolve));
    this.#watchBoard();
    this.#watchHarts();
    if (agentConsole) this.agent = this.#openAgent(agentConsole, adopted);
    if (tohost !== undefined) this.#pollToHost(tohost);
  }

  get ended(): GuestEnd | undefined {
    return this.#ended;
  }

  /** Lets go of all streams. The guest is not touched. */
  close(): void {
    this.#closed = true;
    this.#cancelPoll();
    this.agent?.close();
    for (const channel of this.#channels) channel.close();
  }

  #end(end: GuestEnd): void {
    if (this.#ended || this.#closed) return;
    this.#ended = end;
    this.#cancelPoll();
    this.#resolveEnded(end);
  }

  #lost(reason: string): void {
    this.#end({ kind: "lost", exitCode: 0, reason });
  }

  #watchBoard(): void {
    const channel = this.#peers.devices.watchBoard({ machine: this.name });
    this.#channels.push(channel as Channel<never, never>);
    channel.onMessage((event: BoardEvent) => {
      if (event.state === "powered-off") {
        this.#end({ kind: "powered-off", exitCode: event.exitCode, reason: event.reason || "the guest powered off" });
      } else if (event.state === "reset") {
        this.#end({ kind: "reset", exitCode: 0, reason: event.reason || "the guest asked for a reset" });
      } else if (event.state === "failed" || event.state === "destroyed") {
        this.#lost(`device-bus: board ${event.state}: ${event.reason || "no reason given"}`);
      }
    });
    channel.onClose((error) => this.#lost(`device-bus stopped watching the board: ${error?.message ?? "stream ended"}`));
  }

  #watchHarts(): void {
    const channel = this.#peers.cpu.watchHarts({ machine: this.name });
    this.#channels.push(channel as Channel<never, never>);
    channel.onMessage((event: HartEvent) => {
      if (event.state === "failed" || event.state === "destroyed") {
        this.#lost(`cpu-emulator: harts ${event.state}: ${event.reason || "no reason given"}`);
      }
    });
    channel.onClose((error) => this.#lost(`cpu-emulator stopped watching the harts: ${error?.message ?? "stream ended"}`));
  }

  #openAgent(console: string, adopted: boolean): GuestAgent {
    const channel = this.#peers.devices.console();
    // Ids start at the clock: an agent that outlived an earlier orchestrator may still answer its commands.
    const agent = new GuestAgent(channel, { machine: this.name, console, firstId: Math.floor(this.#clock.now()) });
    channel.send({ machine: this.name, console, data: new Uint8Array(0), noReplay: adopted });
    channel.onClose((error) => this.#lost(`device-bus closed the agent's console: ${error?.message ?? "stream ended"}`));
    if (adopted) agent.ping();
    return agent;
  }

  /** riscv-tests' convention: 1 = pass, (code << 1) | 1 = failure; even values are HTIF requests, which nobody serves. */
  #pollToHost(address: bigint): void {
    const poll = async (): Promise<void> => {
      const value = await this.#peers.memory
        .readMemory({ machine: this.name, address, length: 8 })
        .then(({ data }) => new DataView(data.buffer, data.byteOffset, data.byteLength).getBigUint64(0, true))
        .catch(() => 0n); // A memory-manager that is gone shows in the watches.
      if (this.#closed || this.#ended) return;
      if ((value & 1n) === 1n) {
        const exitCode = Number(BigInt.asUintN(32, value >> 1n));
        return this.#end({ kind: "powered-off", exitCode, reason: `the program wrote 0x${value.toString(16)} to tohost` });
      }
      this.#cancelPoll = this.#clock.after(TOHOST_POLL_MS, () => void poll());
    };
    void poll();
  }
}
