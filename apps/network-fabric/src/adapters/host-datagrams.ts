import { createSocket, type Socket } from "node:dgram";
import type { HostAddress, HostDatagramEvents, HostDatagrams, HostListener } from "../core/nat/host-network.ts";
import { hostError, showAddress } from "./host-error.ts";

/** Destinations of one mapping that have a socket of their own, so that ICMP errors about them are heard. */
const MAXIMUM_CONNECTED = 16;

/**
 * One local port towards everybody (RFC 4787, REQ-1: endpoint-independent mapping). Datagrams from anybody come in through an
 * unconnected socket; beside it, each of the first destinations has a connected one on the same port, because Linux reports
 * ICMP errors ("port unreachable") to connected sockets only.
 */
export function datagrams(events: HostDatagramEvents, family: 4 | 6): HostDatagrams {
  const type = family === 4 ? "udp4" : "udp6";
  const connected = new Map<string, Promise<Socket | undefined>>();
  let closed = false;
  let waiting = 0;
  const main = createSocket({ type, reuseAddr: true });
  const hear = (socket: Socket): void =>
    void socket.on("message", (data, from) => {
      if (!closed) events.received(data, from);
    });
  main.on("error", () => {}); // nothing that a guest could be told: it has no destination
  hear(main);
  const bound = new Promise<void>((resolve, reject) => {
    main.once("error", (error) => reject(hostError(error)));
    main.bind({ port: 0, exclusive: true }, resolve);
  });
  bound.catch(() => {});

  const open = async (to: HostAddress): Promise<Socket | undefined> => {
    await bound;
    if (closed) return undefined;
    const socket = createSocket({ type, reuseAddr: true });
    socket.on("error", (error) => {
      if (!closed) events.failed(to, hostError(error));
    });
    hear(socket);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once("error", reject);
        socket.bind({ port: main.address().port, exclusive: true }, () => {
          socket.once("connect", resolve);
          socket.connect(to.port, to.address);
        });
      });
    } catch (error) {
      socket.close();
      if (!closed) events.failed(to, hostError(error));
      return undefined;
    }
    if (closed) socket.close();
    return closed ? undefined : socket;
  };
  return {
    get local() {
      try {
        const { address, port } = main.address();
        return showAddress(address, port);
      } catch {
        return ""; // not bound yet
      }
    },
    get pending() {
      return waiting;
    },
    send(data, to) {
      const key = showAddress(to.address, to.port);
      let socket = connected.get(key);
      if (!socket && connected.size < MAXIMUM_CONNECTED) connected.set(key, (socket = open(to)));
      waiting += data.length;
      const sent = (error?: Error | null) => {
        waiting -= data.length;
        if (error && !closed) events.failed(to, hostError(error));
      };
      void (async () => {
        try {
          const own = await socket;
          if (closed) return sent();
          if (own) return own.send(data, sent);
          if (socket) {
            connected.delete(key); // failed and reported; the next datagram tries again
            return sent();
          }
          await bound;
          if (closed) return sent();
          main.send(data, to.port, to.address, sent);
        } catch (error) {
          sent(error as Error);
        }
      })();
    },
    close() {
      if (closed) return;
      closed = true;
      main.close();
      for (const each of connected.values()) void each.then((socket) => socket?.close());
      connected.clear();
    },
  };
}

/** A port of the host whose datagrams go to a guest. */
export function bindDatagrams(
  bind: HostAddress,
  received: (data: Uint8Array, from: HostAddress) => void,
): Promise<HostListener & { send(data: Uint8Array, to: HostAddress): void }> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(bind.address.includes(":") ? "udp6" : "udp4");
    socket.once("error", (error) => {
      socket.close();
      reject(hostError(error));
    });
    socket.bind({ port: bind.port, address: bind.address, exclusive: true }, () => {
      socket.removeAllListeners("error");
      socket.on("error", () => {}); // ICMP errors about single peers
      socket.on("message", (data, from) => received(data, from));
      let open = true;
      resolve({
        port: socket.address().port,
        send: (data, to) => {
          if (open) socket.send(data, to.port, to.address, () => {});
        },
        close: () => {
          if (open) socket.close();
          open = false;
        },
      });
    });
  });
}
