import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import type { Frame } from "@polyvisor/contracts/network";
import type { Logger } from "pino";
import type { FramePort } from "../core/frame-port.ts";
import type { PeerLine } from "../core/peer-lines.ts";
import { frameForQemu, QemuDeframer } from "./qemu-framing.ts";

/** Of Ethernet with jumbo frames and what a TAP may hand over (QEMU: NET_BUFSIZE 4096 + 65536). */
const MAX_FRAME_BYTES = 69_632;
/** Frames that one turn may hand to a socket that is not blocked. */
const READY = 64;

/**
 * A port for QEMU's `-netdev stream,server=off,addr.type=unix,addr.path=PATH`: listens on the socket, serves one QEMU at
 * a time (the newest), and lets frames wait in the port while the socket is full.
 */
export class QemuStreamLine implements PeerLine {
  readonly #port: FramePort;
  readonly #turn: (run: () => void) => void;
  readonly #server: Server;
  readonly #path: string;
  readonly takesOffload = false;
  #socket: Socket | undefined;
  #blocked = false;

  constructor(port: FramePort, path: string, turn: (run: () => void) => void, log: Logger) {
    this.#port = port;
    this.#path = path;
    this.#turn = turn;
    rmSync(path, { force: true }); // of a fabric that was killed
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.on("error", (error) => log.warn({ err: error, port: port.info.id, path }, "QEMU port"));
    this.#server.listen(path);
  }
  get ready(): number {
    return this.#socket && !this.#blocked ? READY : 0;
  }
  send(frames: Frame[]): void {
    const socket = this.#socket;
    if (!socket) return;
    socket.cork();
    for (const { data } of frames) if (!socket.write(frameForQemu(data))) this.#blocked = true;
    socket.uncork();
  }
  settle(): void {}
  linkChanged(): void {} // the format has no word for it: frames just stop
  close(): void {
    this.#port.disconnect(this);
    this.#server.close();
    this.#socket?.destroy();
    rmSync(this.#path, { force: true });
  }

  #accept(socket: Socket): void {
    this.#socket?.destroy();
    this.#socket = socket;
    this.#blocked = false;
    this.#port.connect(this);
    const deframer = new QemuDeframer(MAX_FRAME_BYTES);
    socket.on("data", (chunk: Uint8Array) => {
      const frames = deframer.push(chunk);
      if (!frames) return void socket.destroy();
      this.#turn(() => {
        for (const data of frames) this.#port.ingress({ data, offload: undefined });
      });
    });
    socket.on("drain", () => {
      this.#blocked = false;
      this.#turn(() => this.#port.flush());
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#port.disconnect(this);
    });
  }
}
