/**
 * A program at either end of the NAT, in a network namespace of its own: `traffic.ts server PORT` and
 * `traffic.ts KIND HOST PORT [ARGUMENT...]`. A client prints one line of JSON; a server one per thing that it saw.
 */
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, createServer, type Socket } from "node:net";

const BLOCK = Buffer.alloc(256 * 1024);
for (let i = 0, state = 1; i < BLOCK.length; i += 4, state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) BLOCK.writeUInt32LE(state, i);

/** Pieces of a stream in which no two places look alike; the last is shorter. */
function* pieces(bytes: number): Generator<Buffer> {
  for (let at = 0, index = 0; at < bytes; at += BLOCK.length, index++) {
    const piece = Buffer.from(BLOCK.subarray(0, Math.min(BLOCK.length, bytes - at)));
    if (piece.length >= 4) piece.writeUInt32LE(index, 0);
    yield piece;
  }
}
export function hashOf(bytes: number): string {
  const hash = createHash("sha256");
  for (const piece of pieces(bytes)) hash.update(piece);
  return hash.digest("hex");
}
async function sendAll(socket: Socket, bytes: number): Promise<void> {
  for (const piece of pieces(bytes)) if (!socket.write(piece)) await new Promise((resolve) => socket.once("drain", resolve));
}
/** Reads to the end, and leaves the other direction open (an async iterator would destroy the socket). */
function drain(socket: Socket, take: (chunk: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on("data", take);
    socket.once("end", resolve);
    socket.once("error", reject);
  });
}
async function receiveAll(socket: Socket): Promise<{ bytes: number; hash: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  await drain(socket, (chunk) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  return { bytes, hash: hash.digest("hex") };
}
async function receiveText(socket: Socket): Promise<string> {
  let text = "";
  await drain(socket, (chunk) => (text += String(chunk)));
  return text;
}
const say = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`);
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function serve(port: number): void {
  createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on("error", ({ code }: NodeJS.ErrnoException) => say({ saw: "error", code }));
    socket.once("data", (head: Buffer) => {
      const line = head.toString("latin1").split("\n")[0]!;
      const rest = head.subarray(line.length + 1);
      const [kind, argument] = line.split(" ");
      if (rest.length > 0) socket.unshift(rest);
      const verbs: Record<string, () => unknown> = {
        down: async () => {
          await sendAll(socket, Number(argument));
          socket.end();
        },
        up: async () => socket.end(JSON.stringify(await receiveAll(socket))),
        // For figures: no hash, no pieces of its own.
        blast: async () => {
          for (let left = Number(argument); left > 0; left -= BLOCK.length) if (!socket.write(BLOCK.subarray(0, left))) await new Promise((resolve) => socket.once("drain", resolve));
          socket.end();
        },
        count: async () => {
          let left = Number(argument);
          socket.on("data", (chunk) => (left -= chunk.length) <= 0 && socket.end("ok"));
        },
        echo: () => socket.pipe(socket),
        sink: () => socket.pause(),
        reset: () => socket.resetAndDestroy(),
        bye: () => socket.end(),
        // Ends its own direction first, and listens on.
        early: async () => {
          socket.end("early");
          say({ saw: "after-end", ...(await receiveAll(socket)) });
        },
        // Waits for the client's end, then speaks.
        late: async () => {
          const { bytes } = await receiveAll(socket);
          socket.end(`late ${bytes}`);
        },
        stay: () => socket.resume(),
      };
      void Promise.try(verbs[kind!]!).catch(() => {}); // the error event has said it
    });
  }).listen(port, "0.0.0.0", 1024, () => say({ saw: "listening" }));
  const udp = createSocket("udp4");
  udp.on("message", (data, from) => {
    say({ saw: "udp", bytes: data.length, port: from.port });
    udp.send(data, from.port, from.address);
  });
  udp.bind(port);
  // Another port of the same host, and what it hears.
  const other = createSocket("udp4");
  other.on("message", (data, from) => {
    say({ saw: "udp-other", bytes: data.length, port: from.port });
    other.send(data, from.port, from.address);
  });
  other.bind(port + 1);
}

/** A client's socket, its failure as a code. */
function dial(host: string, port: number, options: { allowHalfOpen?: boolean } = {}): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true, ...options }, () => resolve(socket));
    socket.once("error", reject);
  });
}
const clients: Record<string, (host: string, port: number, argument: string) => Promise<object>> = {
  connect: async (host, port) => {
    (await dial(host, port)).end();
    return { connected: true };
  },
  down: async (host, port, bytes) => {
    const socket = await dial(host, port, { allowHalfOpen: true });
    socket.write(`down ${bytes}\n`);
    const got = await receiveAll(socket);
    socket.end();
    return got;
  },
  up: async (host, port, bytes) => {
    const socket = await dial(host, port, { allowHalfOpen: true });
    socket.write("up\n");
    await sendAll(socket, Number(bytes));
    socket.end();
    return JSON.parse(await receiveText(socket)) as object;
  },
  "speed-down": async (host, port, bytes) => {
    const socket = await dial(host, port, { allowHalfOpen: true });
    const start = performance.now();
    socket.write(`blast ${bytes}\n`);
    await drain(socket, () => {});
    socket.end();
    return { megabytesPerSecond: Number(bytes) / 1000 / (performance.now() - start), ms: performance.now() - start };
  },
  "speed-up": async (host, port, bytes) => {
    const socket = await dial(host, port, { allowHalfOpen: true });
    const start = performance.now();
    socket.write(`count ${bytes}\n`);
    for (let left = Number(bytes); left > 0; left -= BLOCK.length) if (!socket.write(BLOCK.subarray(0, left))) await new Promise((resolve) => socket.once("drain", resolve));
    await drain(socket, () => {});
    socket.end();
    return { megabytesPerSecond: Number(bytes) / 1000 / (performance.now() - start) };
  },
  "round-trip": async (host, port, count) => {
    const socket = await dial(host, port);
    socket.write("echo\n");
    const times: number[] = [];
    for (let i = 0; i < Number(count); i++) {
      const start = performance.now();
      socket.write("x");
      await new Promise((resolve) => socket.once("data", resolve));
      times.push(performance.now() - start);
    }
    socket.end();
    times.sort((a, b) => a - b);
    return { p50Microseconds: times[times.length >> 1]! * 1000, p99Microseconds: times[Math.floor(times.length * 0.99)]! * 1000 };
  },
  /** Sixteen at a time: connect, one line, the server's end, ours. */
  connections: async (host, port, count) => {
    const start = performance.now();
    let left = Number(count);
    const worker = async (): Promise<void> => {
      while (left-- > 0) {
        const socket = await dial(host, port);
        socket.write("bye\n");
        await drain(socket, () => {});
        socket.end();
      }
    };
    await Promise.all(Array.from({ length: 16 }, worker));
    return { perSecond: (Number(count) * 1000) / (performance.now() - start) };
  },
  many: async (host, port, count) => {
    const sockets = await Promise.all(Array.from({ length: Number(count) }, () => dial(host, port)));
    const echoed = await Promise.all(
      sockets.map(
        (socket, i) =>
          new Promise<boolean>((resolve) => {
            let got = "";
            socket.on("data", (chunk) => {
              got += String(chunk);
              if (got.length >= `hello ${i}`.length) resolve(got === `hello ${i}`);
            });
            socket.write("echo\n");
            socket.write(`hello ${i}`);
          }),
      ),
    );
    say({ open: echoed.length });
    await new Promise((resolve) => process.stdin.once("data", resolve)); // the test looks at the fabric now
    for (const socket of sockets) socket.end();
    return { echoed: echoed.filter(Boolean).length };
  },
  /** Writes until nothing more goes out for a second. */
  stuff: async (host, port) => {
    const socket = await dial(host, port);
    socket.write("sink\n");
    let sent = 0;
    for (let idle = 0; idle < 10; ) {
      if (socket.writableLength < BLOCK.length) {
        socket.write(BLOCK);
        sent += BLOCK.length;
        idle = 0;
      } else idle++;
      await sleep(idle > 0 ? 100 : 0);
    }
    say({ stuffed: sent });
    await new Promise((resolve) => process.stdin.once("data", resolve));
    socket.resetAndDestroy();
    return { sent };
  },
  "reset-by-server": async (host, port) => {
    const socket = await dial(host, port);
    socket.write("reset\n");
    return new Promise((resolve) => {
      socket.once("error", ({ code }: NodeJS.ErrnoException) => resolve({ code }));
      socket.once("end", () => resolve({ code: "EOF" }));
      socket.resume();
    });
  },
  "reset-by-client": async (host, port) => {
    const socket = await dial(host, port);
    socket.write("stay\n");
    await sleep(200);
    socket.resetAndDestroy();
    return {};
  },
  early: async (host, port) => {
    const socket = await dial(host, port, { allowHalfOpen: true });
    socket.write("early\n");
    const { bytes } = await receiveAll(socket);
    await sendAll(socket, 100_000);
    socket.end();
    return { bytes };
  },
  late: async (host, port) => {
    const socket = await dial(host, port, { allowHalfOpen: true });
    socket.write("late\n");
    socket.end(Buffer.alloc(1000));
    return { answer: await receiveText(socket) };
  },
  udp: async (host, port, bytes) => {
    const socket = createSocket("udp4");
    const data = BLOCK.subarray(0, Number(bytes));
    const answer = new Promise<object>((resolve) => {
      socket.once("message", (got) => resolve({ bytes: got.length, same: got.equals(data) }));
      socket.once("error", ({ code }: NodeJS.ErrnoException) => resolve({ code }));
    });
    // Connected, so that the kernel tells it about ICMP errors.
    await new Promise<void>((resolve) => socket.connect(port, host, resolve));
    socket.send(data);
    const timeout = sleep(10_000).then(() => ({ code: "timeout" }));
    return Promise.race([answer, timeout]);
  },
  /** Two destinations from one port: what the servers see tells the mapping. */
  "udp-two": async (host, port) => {
    const socket = createSocket("udp4");
    let answers = 0;
    const both = new Promise((resolve) => socket.on("message", () => ++answers === 2 && resolve(undefined)));
    socket.send("a", port, host);
    socket.send("b", port + 1, host);
    await Promise.race([both, sleep(10_000)]);
    return { answers };
  },
};

if (import.meta.main) {
  const [kind = "", host = "", port = "", argument = ""] = process.argv.slice(2);
  if (kind === "server") serve(Number(host));
  else {
    try {
      say(await clients[kind]!(host, Number(port), argument));
    } catch (error) {
      say({ code: (error as NodeJS.ErrnoException).code ?? String(error) });
    }
    process.exit(0);
  }
}
