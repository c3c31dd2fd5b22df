import { connect, type Socket } from "node:net";

export interface Reply {
  readonly status: number;
  readonly location: string | undefined;
}

/**
 * The least HTTP/1.1 client that keeps a connection busy: one request at a time, answers with Content-Length. fetch costs
 * more per request than the servers that are measured.
 */
export class BareConnection {
  readonly #socket: Socket;
  #buffer: Buffer = Buffer.alloc(0);
  #waiting: { resolve(reply: Reply): void; reject(error: Error): void } | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (piece: Buffer) => this.#take(piece));
    socket.on("error", (error) => this.#waiting?.reject(error));
    socket.on("close", () => this.#waiting?.reject(new Error("the server closed the connection")));
  }

  static open(url: URL): Promise<BareConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: url.hostname, port: Number(url.port), noDelay: true }, () => resolve(new BareConnection(socket)));
      socket.once("error", reject);
    });
  }

  ask(request: string | Buffer): Promise<Reply> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(request);
    });
  }

  close(): void {
    this.#waiting = undefined;
    this.#socket.destroy();
  }

  #take(piece: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? piece : Buffer.concat([this.#buffer, piece]);
    const end = this.#buffer.indexOf("\r\n\r\n");
    if (end < 0) return;
    const head = this.#buffer.toString("latin1", 0, end);
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
    if (this.#buffer.length < end + 4 + length) return;
    this.#buffer = this.#buffer.subarray(end + 4 + length);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve({ status: Number(head.slice(9, 12)), location: /\r\nlocation: (\S+)/i.exec(head)?.[1] });
  }
}

/** Runs `once` on each of so many connections again and again for a time; answers completions per second. */
export async function perSecond(url: URL, connections: number, seconds: number, once: (connection: BareConnection, serial: number) => Promise<void>): Promise<number> {
  const open = await Promise.all(Array.from({ length: connections }, () => BareConnection.open(url)));
  let serial = 0;
  let done = 0;
  const warm = performance.now() + 500;
  const end = warm + seconds * 1000;
  await Promise.all(
    open.map(async (connection) => {
      while (performance.now() < end) {
        await once(connection, serial++);
        if (performance.now() > warm) done++;
      }
    }),
  );
  for (const connection of open) connection.close();
  return done / seconds;
}
