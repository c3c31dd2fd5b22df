import { asContractError, ContractError, type Channel } from "@polyvisor/contracts";
import type { ConsoleInput, ConsoleOutput } from "@polyvisor/contracts/device";
import { type AttachConsoleInput, type AttachConsoleOutput, MachineState } from "@polyvisor/contracts/orchestrator";
import { stateName } from "./facts.ts";
import type { Machine } from "./machine.ts";
import type { OrchestratorPeers } from "./peers.ts";

const EMPTY = new Uint8Array(0);
const DEFAULT_CONSOLE = "serial0";

/**
 * Serves one AttachConsole stream. It may be opened while the machine starts, follows the guest through reboots, and
 * ends with the machine's state when the machine stops.
 */
export function serveAttachConsole(
  channel: Channel<AttachConsoleOutput, AttachConsoleInput>,
  find: (name: string) => Machine,
  peers: OrchestratorPeers,
): void {
  let attachment: Attachment | undefined;
  channel.onMessage((input) => {
    try {
      if (attachment) attachment.type(input.data);
      else attachment = new Attachment(channel, find(input.name), peers, input);
    } catch (error) {
      channel.close(asContractError(error));
    }
  });
}

class Attachment {
  readonly #client: Channel<AttachConsoleOutput, AttachConsoleInput>;
  readonly #machine: Machine;
  readonly #peers: OrchestratorPeers;
  readonly #console: string;
  #noReplay: boolean;
  #board: Channel<ConsoleInput, ConsoleOutput> | undefined;
  /** Typed while no board is there. */
  #waiting: Uint8Array[] = [];

  constructor(client: Channel<AttachConsoleOutput, AttachConsoleInput>, machine: Machine, peers: OrchestratorPeers, first: AttachConsoleInput) {
    this.#client = client;
    this.#machine = machine;
    this.#peers = peers;
    this.#console = first.console || DEFAULT_CONSOLE;
    this.#noReplay = first.noReplay;
    const { state } = machine.record;
    if (state !== MachineState.RUNNING && state !== MachineState.STARTING && state !== MachineState.HALTING) {
      throw new ContractError("precondition", `console: machine ${machine.name} is ${stateName(state)}; start it with: hv up ${machine.name}`);
    }
    const unsubscribe = machine.onChange(() => this.#follow());
    client.onClose(() => {
      unsubscribe();
      this.#board?.close();
    });
    this.#follow();
    if (first.data.length > 0) this.type(first.data);
  }

  type(data: Uint8Array): void {
    if (data.length === 0) return;
    if (this.#board) this.#board.send({ machine: this.#machine.name, console: this.#console, data, noReplay: false });
    else if (this.#waiting.length < 64) this.#waiting.push(data);
  }

  #follow(): void {
    if (this.#client.closed || this.#board) return;
    const { state } = this.#machine.record;
    if (this.#machine.boardUp) return this.#open();
    if (state === MachineState.HALTED || state === MachineState.SAVED || state === MachineState.ABORTED || state === MachineState.DESTROYED) {
      this.#client.send({ data: EMPTY, state: stateName(state) });
      this.#client.close();
    }
  }

  #open(): void {
    const board = this.#peers.devices.console();
    this.#board = board;
    board.onMessage((output) => this.#client.send({ data: output.data, state: "" }));
    board.onClose((error) => {
      this.#board = undefined;
      // A board that refuses the console (unknown name) must not be asked for ever; one that was torn down may come back.
      if (error && this.#machine.boardUp && error.condition !== "unavailable") this.#client.close(error);
      else queueMicrotask(() => !this.#machine.boardUp && this.#follow());
    });
    board.send({ machine: this.#machine.name, console: this.#console, data: EMPTY, noReplay: this.#noReplay });
    this.#noReplay = false; // After a reboot everything is new.
    for (const data of this.#waiting.splice(0)) this.type(data);
  }
}
