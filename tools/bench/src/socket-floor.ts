import { fork } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { median } from "./figures.ts";

const MESSAGE = Buffer.alloc(64);
const ROUNDS = 20_000;

/** Microseconds of a 64-byte round trip between two processes over a Unix socket: what no RPC can undercut. */
export async function socketRoundTripUs(path: string): Promise<number> {
  const peer = fork(new URL("./socket-floor.ts", import.meta.url).pathname, [path]);
  await once(peer, "message");
  const socket = connect(path).setNoDelay(true);
  await once(socket, "connect");
  const times: number[] = [];
  await new Promise<void>((resolve) => {
    let sent = performance.now();
    socket.on("data", () => {
      const now = performance.now();
      times.push((now - sent) * 1000);
      if (times.length === ROUNDS) return resolve();
      sent = now;
      socket.write(MESSAGE);
    });
    socket.write(MESSAGE);
  });
  socket.destroy();
  peer.kill();
  return median(times);
}

if (process.send) {
  createServer((socket) => socket.on("data", (data) => void socket.write(data)).on("error", () => {})).listen(process.argv[2], () => process.send!("listening"));
}
