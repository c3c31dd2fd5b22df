import { createHmac, randomBytes } from "node:crypto";
import { connect, createServer, type Socket } from "node:net";
import type { HostError, HostNetwork, HostStream, HostStreamEvents } from "../core/nat/host-network.ts";
import { bindDatagrams, datagrams } from "./host-datagrams.ts";
import { LinuxEcho } from "./host-echo.ts";
import { hostError, showAddress } from "./host-error.ts";
import { youngBuffer } from "@polyvisor/contracts";

/** The host's network through its sockets: what any user may do. */
export function hostSockets(): HostNetwork {
  const secret = randomBytes(16);
  return {
    connect({ address, port }, events) {
      const socket = connect({ host: address, port, allowHalfOpen: true, noDelay: true, autoSelectFamily: false });
      socket.once("connect", () => events.connected());
      return wrap(socket, events);
    },
    listen({ address, port }, accept) {
      return new Promise((resolve, reject) => {
        const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true });
        server.once("error", (error) => reject(hostError(error)));
        server.on("connection", (socket) => {
          let events: HostStreamEvents | undefined;
          const early: (() => void)[] = [];
          const later = (run: (to: HostStreamEvents) => void) => (events ? run(events) : void early.push(() => run(events!)));
          const stream = wrap(socket, {
            connected: () => {},
            data: (chunk) => later((to) => to.data(chunk)),
            ended: () => later((to) => to.ended()),
            drained: () => later((to) => to.drained()),
            finished: (error) => later((to) => to.finished(error)),
          });
          accept(stream, (to) => {
            events = to;
            for (const run of early.splice(0)) run();
          });
        });
        server.listen({ host: address, port, exclusive: true }, () => {
          server.removeAllListeners("error");
          server.on("error", () => {}); // of single connections (EMFILE): that one is lost, the next may not be
          resolve({ port: (server.address() as { port: number }).port, close: () => server.close() });
        });
      });
    },
    datagrams,
    bindDatagrams,
    ...(process.platform === "linux" ? { echo: new LinuxEcho() } : {}),
    initialSequence: (connection) => createHmac("sha256", secret).update(connection).digest().readUInt32BE(0),
  };
}

function wrap(socket: Socket, events: HostStreamEvents): HostStream {
  let over = false;
  let failure: HostError | undefined;
  socket.on("data", (chunk: Uint8Array) => {
    youngBuffer(2 * chunk.length); // it, and the frames that are made of it
    if (!over) events.data(chunk);
  });
  socket.on("end", () => {
    if (!over) events.ended();
  });
  socket.on("drain", () => {
    if (!over) events.drained();
  });
  socket.on("error", (error) => (failure = hostError(error)));
  socket.on("close", () => {
    if (over) return;
    over = true;
    events.finished(failure);
  });
  return {
    get local() {
      return showAddress(socket.localAddress, socket.localPort);
    },
    get remote() {
      return showAddress(socket.remoteAddress, socket.remotePort);
    },
    get pending() {
      return socket.writableLength;
    },
    write(chunk) {
      youngBuffer(chunk.length);
      if (!over) socket.write(chunk);
    },
    end() {
      if (!over) socket.end();
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    mark(trafficClass) {
      if (over || socket.destroyed) return;
      if (socket.connecting) return void socket.once("connect", () => this.mark(trafficClass)); // there may be no descriptor yet
      try {
        socket.setTypeOfService(trafficClass);
      } catch {
        // a host that does not let us choose: its packets go as usual
      }
    },
    reset() {
      if (over) return;
      over = true;
      if (socket.connecting) socket.destroy();
      else socket.resetAndDestroy();
    },
  };
}
