import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { mediated, type Channel } from "@polyvisor/contracts";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { NETWORK, Network, NetworkMode, Port, type Frame, type FrameBatch, type NetworkPort } from "@polyvisor/contracts/network";
import { createLogger, SYSTEM_CLOCK, type ServiceContext } from "@polyvisor/service-kit";
import { createService, DEFAULT_CONFIG } from "../index.ts";

/**
 * `npm run frames -w apps/network-fabric`: frames per second between two ports of one switch, with the mediation chain and
 * credit as in service, in batches of 64. A program of its own: vitest wraps every import in a getter, which costs a third.
 */
const BATCH = 64;
const SECONDS = 3;

/** Two NICs on a network; what one sends to the other is counted there. */
async function twoPorts(fabric: NetworkPort, frameBytes: number) {
  const name = `bench-${frameBytes}`;
  await fabric.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.INTERNAL, mtu: 9000 }) });
  const open = async (machine: string): Promise<{ channel: Channel<FrameBatch, FrameBatch>; mac: number[]; say: (frames: Frame[], credit: number) => void }> => {
    const { port } = await fabric.createPort({ port: Port.fromPartial({ id: `${machine}/net0`, machine, network: name }) });
    const channel = fabric.frames();
    const say = (frames: Frame[], credit: number): void => void channel.send({ machine, port: port!.id, frames, credit, linkUp: true, takesOffload: false });
    return { channel, say, mac: port!.mac.split(":").map((byte) => parseInt(byte, 16)) };
  };
  const [a, b] = [await open(`a${frameBytes}`), await open(`b${frameBytes}`)];
  const state = { received: 0, credit: 0, wake: (): void => {} };
  a.channel.onMessage(({ credit }) => {
    state.credit += credit;
    state.wake();
  });
  b.channel.onMessage(({ frames }) => {
    state.received += frames.length;
    if (frames.length > 0) b.say([], frames.length);
  });
  b.say([], 4096);
  a.say([], 64);
  const data = new Uint8Array(frameBytes);
  data.set([...b.mac, ...a.mac, 0x88, 0xb5]);
  const hello = data.slice();
  hello.set([...a.mac, ...b.mac]);
  b.say([{ data: hello, offload: undefined }], 0); // so that the switch knows b
  const batch = Array.from({ length: BATCH }, (): Frame => ({ data, offload: undefined }));
  return {
    state,
    /** One batch, when the fabric has given credit for it. */
    async send(): Promise<void> {
      while (state.credit < BATCH) await new Promise<void>((resolve) => (state.wake = resolve));
      state.credit -= BATCH;
      a.say(batch, 0);
    },
  };
}

/** Frames per second, and CPU seconds of this process per Gbit. */
async function rate(what: string, { state, send }: Awaited<ReturnType<typeof twoPorts>>, frameBytes: number): Promise<void> {
  for (let i = 0; i < 200; i++) await send();
  const [frames, cpu, start] = [state.received, process.cpuUsage(), performance.now()];
  while (performance.now() - start < SECONDS * 1000) await send();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const moved = state.received - frames;
  const gbit = (moved * frameBytes * 8) / 1e9;
  console.log(`${what}, ${frameBytes} B: ${Math.round(moved / seconds / 1000)} k frames/s, ${((user + system) / 1e6 / gbit).toFixed(2)} CPU s/Gbit`);
}


const context: ServiceContext = { log: createLogger("bench"), events: { publish: () => {}, subscribe: () => () => {}, close: async () => {} } as never, clock: SYSTEM_CLOCK };

const service = await createService(DEFAULT_CONFIG, {}, context);
const local = mediated(NETWORK, service.implementation);
for (const frameBytes of [60, 1514]) await rate("in process", await twoPorts(local, frameBytes), frameBytes);
await service.close();

const directory = mkdtempSync(join(tmpdir(), "pv-bench-net-"));
const address = `unix:${join(directory, "net.sock")}`;
const child = spawn(process.execPath, [fileURLToPath(new URL("../main.ts", import.meta.url)), "--listen", address], { stdio: ["ignore", "pipe", "ignore"] });
await once(child.stdout!, "data");
const connection = connectGrpc(NETWORK, address);
try {
  for (const frameBytes of [60, 1514]) await rate("over gRPC to another process", await twoPorts(connection.port, frameBytes), frameBytes);
} finally {
  connection.close();
  child.kill();
  rmSync(directory, { recursive: true, force: true });
}
