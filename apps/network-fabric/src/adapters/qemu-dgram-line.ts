import { createSocket, type Socket } from "node:dgram";
import type { Frame } from "@polyvisor/contracts/network";
import type { Logger } from "pino";
import type { FramePort } from "../core/frame-port.ts";
import type { PeerLine } from "../core/peer-lines.ts";

const LOOPBACK = "127.0.0.1";
/** Datagrams on their way into the kernel; more wait in the port. */
const MAX_SENDING = 256;

/** A port for QEMU's `-netdev dgram` over UDP on the loopback: one frame is one datagram. */
export class QemuDgramLine implements PeerLine {
  readonly #port: FramePort;
  readonly #socket: Socket;
  readonly #remotePort: number;
  readonly #turn: (run: () => void) => void;
  readonly takesOffload = false;
  #sending = 0;

  constructor(port: FramePort, ports: { local: number; remote: number }, turn: (run: () => void) => void, log: Logger) {
    this.#port = port;
    this.#remotePort = ports.remote;
    this.#turn = turn;
    this.#socket = createSocket("udp4");
    this.#socket.on("error", (error) => log.warn({ err: error, port: port.info.id }, "QEMU port"));
    this.#socket.on("message", (data, { port: from }) => {
      if (from === this.#remotePort) turn(() => port.ingress({ data: new Uint8Array(data), offload: undefined }));
    });
    this.#socket.bind(ports.local, LOOPBACK);
    port.connect(this);
  }
  get ready(): number {
    return MAX_SENDING - this.#sending;
  }
  send(frames: Frame[]): void {
    for (const { data } of frames) {
      this.#sending++;
      this.#socket.send(data, this.#remotePort, LOOPBACK, () => {
        if (--this.#sending === 0) this.#turn(() => this.#port.flush());
      });
    }
  }
  settle(): void {}
  linkChanged(): void {}
  close(): void {
    this.#port.disconnect(this);
    this.#socket.close();
  }
}
