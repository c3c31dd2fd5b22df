import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { MEMORY } from "@polyvisor/contracts/memory";
import { NETWORK } from "@polyvisor/contracts/network";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { EXIT_FAILURE } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import type { Home } from "../stack/home.ts";
import type { Stack } from "../stack/stacks.ts";
import { listMachines } from "./machine.ts";

/** Something that nothing accounts for. */
interface Leak {
  readonly kind: "space" | "port" | "disk" | "process" | "file";
  readonly what: string;
  readonly where: string;
}

export function addLeaksCommand(program: Command, cli: Cli): void {
  addCommand(program, "leaks", "list what no machine owns: memory, ports, disks, processes, files; ends with 1 if there is any", [
    ["hv destroy web && hv leaks", "proves that nothing is left"],
  ]).action(async (options: { json?: boolean }) => {
    const stacks = await cli.stacks.running();
    const machines = new Set((await listMachines(cli)).map((machine) => machine.spec!.name));
    const leaks: Leak[] = [];
    for (const stack of stacks) leaks.push(...(await inServices(stack, machines)));
    const [first] = stacks;
    let garbage = { blobs: 0n, bytes: 0n };
    if (first) {
      const { disks } = await first.images.listDisks({});
      for (const { id } of disks) if (!machines.has(id.split("/")[0]!)) leaks.push({ kind: "disk", what: id, where: "image-registry" });
      garbage = await first.images.collectGarbage({ graceMs: 0n, untagged: false, dryRun: true });
    }
    leaks.push(...processes(cli.home, stacks), ...files(cli.home));
    if (leaks.length > 0) cli.exitCode = EXIT_FAILURE;
    cli.answer(options, { leaks, garbageBlobs: garbage.blobs, garbageBytes: garbage.bytes }, () => {
      const blobs = garbage.blobs > 0n ? `\n${garbage.blobs} blobs that nothing needs (${formatBytes(garbage.bytes)}); hv registry gc removes those older than an hour (--grace 0: all)` : "";
      return (leaks.length > 0 ? table(["kind", "what", "where"], leaks.map((leak) => [leak.kind, leak.what, leak.where])) : "nothing is left over") + blobs;
    });
  });
}

async function inServices(stack: Stack, machines: ReadonlySet<string>): Promise<Leak[]> {
  const addressOf = (service: string): string => stack.info.processes.find(({ name }) => name === service)?.address ?? stack.info.orchestrator;
  const memory = connectGrpc(MEMORY, addressOf("memory-manager"));
  const network = connectGrpc(NETWORK, addressOf("network-fabric"));
  const { topology } = stack.info;
  try {
    const { machines: spaces } = await memory.port.listSpaces({});
    const { ports } = await network.port.listPorts({ machine: "" });
    return [
      ...spaces.filter((machine) => !machines.has(machine)).map((machine): Leak => ({ kind: "space", what: machine, where: `memory-manager (${topology})` })),
      ...ports.filter(({ machine }) => machine !== "" && !machines.has(machine)).map(({ id }): Leak => ({ kind: "port", what: id, where: `network-fabric (${topology})` })),
    ];
  } finally {
    memory.close();
    network.close();
  }
}

/** Service processes of this home that no stack has: Linux only, where /proc tells. */
function processes(home: Home, stacks: readonly Stack[]): Leak[] {
  const known = new Set(stacks.flatMap(({ info }) => [info.pid, ...info.processes.map(({ pid }) => pid)]));
  const found: Leak[] = [];
  for (const name of list("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid || pid === process.ppid || known.has(pid)) continue;
    const environment = read(`/proc/${name}/environ`).split("\0");
    const command = read(`/proc/${name}/cmdline`).replaceAll("\0", " ").trim();
    if (!environment.includes(`HV_HOME=${home.root}`) || !/\/src\/main\.ts|daemon\.ts|nats-server/.test(command) || /\/cli\/(bin|src\/main)/.test(command)) continue;
    found.push({ kind: "process", what: `${pid} ${command.slice(0, 100)}`, where: "this host" });
  }
  return found;
}

/** What writers that are gone have left in the registry's scratch directory. Their names begin with their process id. */
function files(home: Home): Leak[] {
  const folder = join(home.registry, "tmp");
  return list(folder)
    .filter((name) => !(Number.parseInt(name, 10) > 0 && list("/proc").includes(String(Number.parseInt(name, 10)))))
    .map((name) => ({ kind: "file", what: join(folder, name), where: "image-registry" }));
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
