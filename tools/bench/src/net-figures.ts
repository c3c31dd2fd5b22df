import { createSocket } from "node:dgram";
import { once } from "node:events";
import { copyFileSync, readFileSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { buildBox } from "@polyvisor/boxes";
import type { EngineBench } from "./engine-figures.ts";
import { type Figure, median } from "./figures.ts";
import { QemuGuest } from "./qemu.ts";
import { compilerMissing, compileProgram, type Shell } from "./suite.ts";

const OURS = "embedded";
const QEMU = "QEMU -netdev user";
const BYTES = 64_000_000;
/** Of each kind and round, the last 2048 of them measured: code that runs a few thousand times is still interpreted. */
const ROUND_TRIPS = 12_000;
/** Of `time`, which the guest's programs print (10 MHz). */
const TICKS_PER_SECOND = 1e7;

const ROWS = [
  { name: "guest to host, TCP", unit: "MB/s", of: (ticks: number) => BYTES / 1e6 / (ticks / TICKS_PER_SECOND), command: (port: number) => `up ${port} ${BYTES}`, target: ">= 1 x" },
  { name: "host to guest, TCP", unit: "MB/s", of: (ticks: number) => BYTES / 1e6 / (ticks / TICKS_PER_SECOND), command: (port: number) => `down ${port} ${BYTES}`, target: ">= 1 x" },
  { name: "TCP round trip", unit: "us", of: (ticks: number) => ticks / 10, command: (port: number) => `tcp ${port} ${ROUND_TRIPS}`, target: "<= 1 x" },
  { name: "UDP round trip", unit: "us", of: (ticks: number) => ticks / 10, command: (port: number) => `udp ${port} ${ROUND_TRIPS}`, target: "<= 1 x" },
] as const;

/** Written to a file: what takes the output to the host would meet the next ping. */
const PINGS = [
  ["ping of the gateway, 1 ms apart", "-c 1000 -i 0.001"],
  ["ping of the gateway, 50 ms apart", "-c 40 -i 0.05"],
] as const;

/** A Debian guest's network through our NAT, beside the same guest behind QEMU's user-mode network. */
export async function netFigures({ hv, rounds, qemu, work, step }: EngineBench): Promise<Figure[]> {
  const missing = compilerMissing();
  if (missing) {
    step(`network of the guest left out: ${missing}`);
    return [];
  }
  const peer = await startPeer();
  const samples = new Map<string, Map<string, number[]>>();
  const sample = (name: string, system: string, value: number): void => {
    const systems = samples.get(name) ?? new Map<string, number[]>();
    samples.set(name, systems.set(system, [...(systems.get(system) ?? []), value]));
  };
  const box = await buildBox("debian/minimal", { cacheDir: hv.cache });
  await hv.run("up", "net");
  const systems = new Map<string, Shell>([[OURS, (command) => hv.run("exec", "net", "--", "sh", "-c", command)]]);
  let guest: QemuGuest | undefined;
  if (qemu) {
    const disk = join(work, "net.raw");
    copyFileSync(box.disk!.path, disk);
    guest = await QemuGuest.boot({ kernel: box.kernel.path, initrd: box.initrd!.path, disk, append: box.config.bootArguments }, join(work, "net.sock"));
    systems.set(QEMU, (command) => guest!.exec(command));
  }
  try {
    for (const shell of systems.values()) await install(work, shell);
    for (let round = 0; round < rounds; round++) {
      for (const [system, shell] of systems) {
        step(`network of the guest on ${system}, round ${round + 1}`);
        for (const { name, of, command } of ROWS) sample(name, system, of(ticksIn(await shell(`/tmp/net ${command(peer.port)} 2>&1`))));
        for (const [name, options] of PINGS) sample(name, system, medianPing(await shell(`sleep 1; ping ${options} 10.0.2.2 > /tmp/ping 2>&1; cat /tmp/ping`)));
      }
    }
  } finally {
    await guest?.stop();
    await hv.run("destroy", "net");
    peer.close();
  }
  const values = (name: string): Record<string, number> => Object.fromEntries([...samples.get(name)!].map(([system, all]) => [system, median(all)]));
  return [
    ...ROWS.map(({ name, unit, target }) => ({ name, unit, values: values(name), peer: QEMU, target })),
    ...PINGS.map(([name]) => ({ name, unit: "us", values: values(name), peer: QEMU, target: "<= 1 x" })),
  ];
}

/** Microseconds. */
function medianPing(output: string): number {
  const times = [...output.matchAll(/time=([\d.]+) ms/g)].map(([, ms]) => Number(ms) * 1000);
  if (times.length === 0) throw new Error(`ping said: ${output}`);
  return median(times);
}

function ticksIn(output: string): number {
  const ticks = Number(output.trim());
  if (!Number.isFinite(ticks) || ticks <= 0) throw new Error(`/tmp/net said: ${output}`);
  return ticks;
}

/** The other end, on the host's loopback: TCP as `net.c` orders it, UDP echo on the same port. */
async function startPeer(): Promise<{ port: number; close(): void }> {
  const block = new Uint8Array(256 * 1024);
  const serve = (socket: Socket): void => {
    socket.setNoDelay();
    socket.on("error", () => {});
    let order: string | undefined;
    let left = 0;
    socket.on("data", (chunk: Buffer) => {
      if (order === undefined) {
        order = String.fromCharCode(chunk[0]!);
        if (order === "E") chunk = chunk.subarray(1);
        else left = Number(chunk.readBigUInt64BE(1));
        if (order === "U") chunk = chunk.subarray(9);
        if (order === "D") return void send();
      }
      if (order === "E" && chunk.length > 0) socket.write(chunk);
      if (order === "U" && (left -= chunk.length) <= 0) socket.end("!");
    });
    const send = (): void => {
      while (left > 0) {
        const part = block.subarray(0, Math.min(block.length, left));
        left -= part.length;
        if (!socket.write(part)) return void socket.once("drain", send);
      }
      socket.end();
    };
  };
  const server = createServer(serve).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const udp = createSocket("udp4");
  udp.on("message", (data, from) => udp.send(data, from.port, from.address));
  udp.bind(port, "127.0.0.1");
  await once(udp, "listening");
  return { port, close: () => (server.close(), udp.close()) };
}

async function install(directory: string, shell: Shell): Promise<void> {
  const program = gzipSync(readFileSync(compileProgram("net.c", join(directory, "net")))).toString("base64");
  for (const part of program.match(/.{1,2400}/g)!) await shell(`echo ${part} >> /tmp/net.b64`);
  const output = await shell("base64 -d < /tmp/net.b64 | gunzip > /tmp/net && chmod +x /tmp/net && echo installed");
  if (!output.includes("installed")) throw new Error(`/tmp/net could not be put into the guest: ${output}`);
}
