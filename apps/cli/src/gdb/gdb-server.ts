import { createServer, type Server, type Socket } from "node:net";
import type { ContractError } from "@polyvisor/contracts";
import type { OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import { PacketFraming } from "./packet-framing.ts";

export interface GdbServerEvents {
  attached(peer: string): void;
  /** The debugger is gone; with why when it was not its own wish. */
  left(why: string): void;
}

/**
 * A loopback port for GDB in front of a machine's Debug stream: one debugger at a time, others are turned away. It carries
 * packets; what they mean is the cpu-emulator's business.
 */
export class GdbServer {
  readonly #server: Server;
  readonly #orchestrator: OrchestratorPort;
  readonly #machine: string;
  readonly #events: GdbServerEvents;
  #present: Socket | undefined;

  constructor(orchestrator: OrchestratorPort, machine: string, events: GdbServerEvents) {
    this.#orchestrator = orchestrator;
    this.#machine = machine;
    this.#events = events;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** Answers the port; 0 asks for any free one. */
  listen(port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, "127.0.0.1", () => {
        const address = this.#server.address();
        resolve(typeof address === "object" && address ? address.port : port);
      });
    });
  }
  /** Detaches a debugger that is there. */
  close(): void {
    this.#server.close();
    this.#present?.destroy();
  }

  #serve(socket: Socket): void {
    socket.on("error", () => {}); // its close follows
    if (this.#present) return void socket.destroy();
    this.#present = socket;
    socket.setNoDelay(true);
    this.#events.attached(`${socket.remoteAddress}:${socket.remotePort}`);
    const debug = this.#orchestrator.debug();
    let why = "";
    let noAck = false;
    const framing = new PacketFraming({
      write: (bytes) => void (socket.writable && socket.write(bytes)),
      packet: (packet) => {
        noAck = Buffer.from(packet).equals(NO_ACK);
        debug.send({ name: this.#machine, packet });
      },
      broken: (reason) => {
        why = `it sent ${reason}`;
        socket.destroy();
      },
    });
    debug.onMessage(({ packet }) => {
      framing.send(packet);
      if (noAck) framing.stopAcknowledging();
    });
    debug.onClose((error?: ContractError) => {
      if (!why && error) why = error.message;
      socket.end();
      setTimeout(() => socket.destroy(), 500).unref();
    });
    socket.on("data", (bytes: Buffer) => framing.receive(bytes));
    socket.on("close", () => {
      debug.close();
      this.#present = undefined;
      this.#events.left(why);
    });
  }
}

const NO_ACK = Buffer.from("QStartNoAckMode");
