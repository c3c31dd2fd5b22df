/**
 * The NAT beside slirp4netns and pasta, each with a namespace as its guest, in one run: `node nat-figures.ts [ROUNDS [MTU]]`, as root.
 * Medians are printed as a table. Peers that are not installed are left out.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { NETWORK, Network, NetworkMode, Port } from "@polyvisor/contracts/network";
import { temporaryDirectory } from "@polyvisor/testkit";
import { Namespace, namespacesMissing } from "./namespaces.ts";

const SERVER = 9100;
const BYTES = 400_000_000;
const MAC = "52:54:00:00:00:15";
const rounds = Number(process.argv[2] ?? 3);
const mtus = process.argv[3] ? [Number(process.argv[3])] : [1500, 65_520];
/** Who has not brought 4 MB over the bad line by then is left at this figure. */
const LOSS_LIMIT_MS = 15_000;
const missing = namespacesMissing();
if (missing) throw new Error(`nat-figures ${missing}`);

/** Puts a NAT in front of a namespace: answers how the host's loopback is reached from there, and how to end it. */
type Nat = (guest: Namespace, mtu: number) => Promise<{ gateway: string; pid: number; stop: () => Promise<void> }>;

const ours: Nat = async (guest, mtu) => {
  const directory = temporaryDirectory("pv-figures-");
  const socket = join(directory.path, "s");
  const service = spawn(process.execPath, [new URL("../main.ts", import.meta.url).pathname], { env: { ...process.env, PV_LISTEN: `unix:${socket}`, PV_LOG_LEVEL: "error" }, stdio: "inherit" });
  while (!existsSync(socket)) await sleep(50);
  const { port: fabric, close } = connectGrpc(NETWORK, `unix:${socket}`);
  const tap = `pvf${process.pid % 100_000}`;
  await fabric.createNetwork({ network: Network.fromPartial({ name: "f", mode: NetworkMode.NAT, subnet: "10.0.2.0/24", mtu }) });
  await fabric.createPort({ port: Port.fromPartial({ id: "f/net0", machine: "f", network: "f", mac: MAC, peer: `tap:${tap}` }) });
  spawnSync("ip", ["link", "set", tap, "netns", guest.name]);
  guest.run("ip", "link", "set", tap, "address", MAC, "mtu", String(mtu), "up");
  guest.run("ip", "address", "add", "10.0.2.15/24", "dev", tap);
  guest.run("ip", "route", "add", "default", "via", "10.0.2.2");
  return { gateway: "10.0.2.2", pid: service.pid!, stop: async () => (close(), await ended(service), directory[Symbol.dispose]()) };
};
const slirp: Nat = async (guest, mtu) => {
  const child = spawn("slirp4netns", ["--configure", `--mtu=${mtu}`, "--netns-type=path", `/var/run/netns/${guest.name}`, "tap0"], { stdio: "ignore" });
  await sleep(1500);
  return { gateway: "10.0.2.2", pid: child.pid!, stop: () => ended(child) };
};
const pasta: Nat = async (guest, mtu) => {
  const child = spawn("pasta", ["-q", "-f", "--runas", "0", "--netns-only", "--config-net", "--mtu", String(mtu), "--netns", `/var/run/netns/${guest.name}`], { stdio: "ignore" });
  await sleep(1500);
  return { gateway: /default via (\S+)/.exec(guest.run("ip", "route"))?.[1] ?? "", pid: child.pid!, stop: () => ended(child) };
};
function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    if (child.exitCode !== null) resolve();
    child.kill();
  });
}

/** utime and stime of proc(5), in clock ticks of 10 ms. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
function residentMegabytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1000;
}
const median = (list: number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1] ?? NaN;
/** From the carrier's return to the lease, with busybox's client, its start included; through a raw socket, past iptables. Last: it takes routes away. */
function leaseMs(guest: Namespace): number {
  const device = /default via \S+ dev (\S+)/.exec(guest.run("ip", "route"))![1]!;
  guest.run("ip", "link", "set", device, "down");
  const start = performance.now();
  guest.run("ip", "link", "set", device, "up");
  const { status } = spawnSync("ip", ["netns", "exec", guest.name, "busybox", "udhcpc", "-i", device, "-n", "-q", "-f", "-s", "/bin/true"], { stdio: "ignore" });
  return status === 0 ? performance.now() - start : NaN;
}
async function measure(nat: Nat, mtu: number): Promise<Record<string, number>> {
  const guest = new Namespace("figures");
  const running = await nat(guest, mtu);
  try {
    const run = async (kind: string, argument: number, field: string): Promise<number> => Number((await guest.client(kind, running.gateway, SERVER, argument))[field] ?? NaN);
    // On a machine that others use, too, the time that the NAT's own process took says more than the clock.
    let spent = cpuSeconds(running.pid);
    const perCpu = (): number => {
      const before = spent;
      spent = cpuSeconds(running.pid);
      return BYTES / 1e6 / (spent - before);
    };
    const figures: Record<string, number> = {
      "down MB/s": await run("speed-down", BYTES, "megabytesPerSecond"),
      "down MB/CPU-s": perCpu(),
      "up MB/s": await run("speed-up", BYTES, "megabytesPerSecond"),
      "up MB/CPU-s": perCpu(),
      "round trip µs": await run("round-trip", 3000, "p50Microseconds"),
      "connections/s": await run("connections", 3000, "perSecond"),
    };
    const before = residentMegabytes(running.pid);
    const many = guest.start("many", running.gateway, SERVER, 500);
    await many.next("open");
    figures["MB for 500 connections"] = residentMegabytes(running.pid) - before;
    many.go();
    await many.last();
    for (const chain of ["INPUT", "OUTPUT"]) guest.run("iptables", "-A", chain, "-m", "statistic", "--mode", "random", "--probability", "0.03", "-j", "DROP");
    const lossy = guest.start("speed-down", running.gateway, SERVER, 4_000_000);
    const limit = setTimeout(() => lossy.child.kill(), LOSS_LIMIT_MS);
    figures["4 MB at 3 % loss, ms"] = Number((await lossy.last())["ms"] ?? LOSS_LIMIT_MS);
    clearTimeout(limit);
    if (installed("busybox")) figures["lease after link up, ms"] = leaseMs(guest);
    return figures;
  } finally {
    await running.stop();
    guest.close();
  }
}

const installed = (program: string): boolean => spawnSync(program, ["--help"], { stdio: "ignore" }).error === undefined;
const candidates: [string, Nat, boolean][] = [["network-fabric", ours, true], ["slirp4netns", slirp, installed("slirp4netns")], ["pasta", pasta, installed("pasta")]];
const server = spawn(process.execPath, [new URL("traffic.ts", import.meta.url).pathname, "server", String(SERVER)], { stdio: ["ignore", "ignore", "inherit"] });
await sleep(1000);
const table: Record<string, Record<string, string>> = {};
try {
  for (const mtu of mtus) {
    const samples = new Map<string, Record<string, number>[]>();
    for (let round = 0; round < rounds; round++) {
      for (const [name, nat, there] of candidates) {
        if (!there) continue;
        try {
          samples.set(name, [...(samples.get(name) ?? []), await measure(nat, mtu)]);
        } catch (error) {
          console.log(`${name}, MTU ${mtu}: left out: ${(error as Error).message}`);
        }
      }
    }
    for (const [name, list] of samples) {
      table[`${name}, MTU ${mtu}`] = Object.fromEntries(Object.keys(list[0]!).map((figure) => [figure, median(list.map((each) => each[figure]!)).toFixed(0)]));
    }
  }
} finally {
  server.kill();
}
console.table(table);
