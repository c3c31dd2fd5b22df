import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import {
  DEVICE,
  type ConsoleInput,
  type ConsoleOutput,
  type CreateBoardRequest,
  type CreateBoardResponse,
} from "@polyvisor/contracts/device";
import { Board, type BoardEnvironment } from "./board.ts";
import { planBoard } from "./board-request.ts";
import { serveExits } from "./exits.ts";

type DeviceDefinition = (typeof DEVICE)["definition"];

interface Entry {
  /** What the board was asked to be, to tell a repetition from a conflict. */
  readonly fingerprint: string;
  readonly creating: Promise<Board>;
  board?: Board;
}

/** The boards of this process behind the contract of proto/polyvisor/device/v1. */
export class DeviceService {
  readonly #environment: BoardEnvironment;
  readonly #maxBoards: number;
  readonly #entries = new Map<string, Entry>();

  constructor(environment: BoardEnvironment, maxBoards: number) {
    this.#environment = environment;
    this.#maxBoards = maxBoards;
  }

  readonly implementation: Implementation<DeviceDefinition> = {
    createBoard: (request) => this.#create(request),
    destroyBoard: ({ machine }) => this.#destroy(machine),
    resetBoard: ({ machine }) => {
      this.#existing(machine, "reset").reset();
      return {};
    },
    pauseBoard: async ({ machine }) => {
      await this.#existing(machine, "pause").pause();
      return {};
    },
    resumeBoard: ({ machine }) => {
      this.#existing(machine, "resume").resume();
      return {};
    },
    saveBoard: ({ machine }) => ({ state: this.#existing(machine, "save").save() }),
    restoreBoard: ({ machine, state }) => {
      this.#existing(machine, "restore").restore(state);
      return {};
    },
    describeBoard: ({ machine }) => ({
      windows: this.#existing(machine, "describe").bus.windows.map((window) => ({
        base: window.base,
        bytes: window.byteLength,
        device: window.device,
        compatible: window.compatible,
        interrupt: window.interrupt,
      })),
    }),
    readBoardStats: ({ machine }) => ({ counters: this.#existing(machine, "read stats of").counters() }),
    exits: (channel) => serveExits(channel, (machine) => this.#entries.get(machine)?.board),
    console: (channel) => this.#attachConsole(channel),
    watchBoard: ({ machine }, out) => {
      const board = this.#entries.get(machine)?.board;
      if (board) board.watch(out);
      else out.close(notFound(machine, "watch"));
    },
  };

  get boards(): number {
    return this.#entries.size;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#entries.keys()].map((machine) => this.#destroy(machine)));
  }

  async #create(request: CreateBoardRequest): Promise<CreateBoardResponse> {
    const plan = planBoard(request);
    const { machine } = plan;
    const fingerprint = JSON.stringify(plan, (_, value) => (typeof value === "bigint" ? value.toString() : value));
    const existing = this.#entries.get(machine);
    if (existing) {
      if (existing.fingerprint !== fingerprint)
        throw new ContractError("already-exists", `create board ${machine}: it exists and differs; destroy it first`);
      return { deviceTree: (await existing.creating).deviceTree };
    }
    if (this.#entries.size >= this.#maxBoards)
      throw new ContractError("exhausted", `create board ${machine}: ${this.#maxBoards} boards exist, the limit; destroy one`);
    const entry: Entry = { fingerprint, creating: Board.create(plan, this.#environment) };
    this.#entries.set(machine, entry);
    try {
      entry.board = await entry.creating;
    } catch (error) {
      this.#entries.delete(machine);
      throw error;
    }
    this.#environment.fact(machine, "board-created", { harts: plan.harts, devices: plan.devices.map(({ id, kind }) => ({ id, kind })) });
    return { deviceTree: entry.board.deviceTree };
  }

  /** Idempotent: what is not there is destroyed already. */
  async #destroy(machine: string): Promise<Record<string, never>> {
    const entry = this.#entries.get(machine);
    if (!entry) return {};
    const board = await entry.creating.catch(() => undefined);
    if (this.#entries.get(machine) === entry) this.#entries.delete(machine);
    if (!board) return {};
    board.destroy();
    // The space may be gone before its board; then so are the grants.
    const { memory } = this.#environment.peers;
    await Promise.allSettled(board.plan.devices.map(({ id }) => memory.setGrants({ machine, device: id, grants: [] })));
    return {};
  }

  #attachConsole(channel: Channel<ConsoleOutput, ConsoleInput>): void {
    let attached: { machine: string; name: string } | undefined;
    channel.onMessage((message) => {
      const board = this.#entries.get(message.machine)?.board;
      const console = board?.console(message.console);
      if (!board || !console) {
        const reason = board
          ? `attach console: machine ${message.machine} has no console ${JSON.stringify(message.console)}; DescribeBoard lists its devices`
          : `attach console: machine ${message.machine} has no board`;
        return channel.close(new ContractError("not-found", reason));
      }
      if (!attached) {
        attached = { machine: message.machine, name: message.console };
        console.attach(channel, !message.noReplay);
      } else if (attached.machine !== message.machine || attached.name !== message.console) {
        return channel.close(new ContractError("invalid", "console: a stream belongs to the console that its first message names"));
      }
      if (message.data.length > 0) console.input(message.data);
    });
  }

  #existing(machine: string, operation: string): Board {
    const board = this.#entries.get(machine)?.board;
    if (!board) throw notFound(machine, operation);
    return board;
  }
}

function notFound(machine: string, operation: string): ContractError {
  return new ContractError("not-found", `${operation} board: machine ${JSON.stringify(machine)} has no board here; create it first`);
}
