/**
 * `npm run bench [-- --rounds N] [--only boot,bare,disk,blocks,exits,mediation,compute,between,debian,net] [--topology embedded,processes] [--json FILE]`: the figures of the README, beside
 * QEMU TCG on the same box in the same run. Shared machines are noisy: read the ratios, and run it twice.
 */
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildBox } from "@polyvisor/boxes";
import { betweenFigures } from "./between-figures.ts";
import { blockFigures, FILL, qcow2Chain, writeLayer } from "./block-figures.ts";
import { bareSuite, guestSuite } from "./engine-figures.ts";
import { median, render, type Figure } from "./figures.ts";
import { parseReport, writeBenchImage } from "./guest-program.ts";
import { Hv } from "./hv.ts";
import { mediationCostNs } from "./mediation-cost.ts";
import { netFigures } from "./net-figures.ts";
import { QemuGuest, qemuVersion, runBare } from "./qemu.ts";
import { socketRoundTripUs } from "./socket-floor.ts";

const { values: options } = parseArgs({ options: { rounds: { type: "string", default: "3" }, only: { type: "string" }, topology: { type: "string", default: "embedded,processes" }, json: { type: "string" } } });
const rounds = Number(options.rounds);
const sections = new Set((options.only ?? "boot,bare,disk,blocks,exits,mediation,compute,between,debian,net").split(","));
const TOPOLOGIES = (["embedded", "processes"] as const).filter((topology) => options.topology.split(",").includes(topology));
const QEMU = "QEMU TCG";
const QEMU_QCOW2 = "QEMU qcow2";
const AHEAD_FIRST = "boot to shell, translated ahead";
const AHEAD_AGAIN = "boot to shell, translated ahead, again in the same stack";
const DISK_MIB = 192;
/** Heights of the stacks of layers whose reads are measured. */
const CHAINS = [1, 5, 20];
const SLOWER = `blocks: time under ${CHAINS.at(-1)} layers beside ${CHAINS[0]}: `;

const version = qemuVersion();
if (version === undefined) console.error("qemu-system-riscv64 is not installed: no peer in the table (Debian: apt-get install qemu-system-misc)");
const work = mkdtempSync(join(tmpdir(), "pv-bench-"));
const hv = new Hv();
const figures: Figure[] = [];
/** Samples of one figure per system. */
const samples = new Map<string, Map<string, number[]>>();
function sample(name: string, system: string, value: number): void {
  const systems = samples.get(name) ?? new Map<string, number[]>();
  samples.set(name, systems.set(system, [...(systems.get(system) ?? []), value]));
}
const medians = (name: string): Record<string, number> => Object.fromEntries([...(samples.get(name) ?? [])].map(([system, all]) => [system, median(all)]));
/** Of the compute loop, as our instret counts them. */
let instructions = 0;
const step = (text: string): void => console.error(`bench: ${text}`);

try {
  if (sections.has("bare")) await bare();
  if (sections.has("boot") || sections.has("disk")) await guests();
  if (sections.has("blocks")) await blocks();
  if (sections.has("exits")) {
    step("socket floor");
    sample("exit round trip", "bare Unix socket", await socketRoundTripUs(join(work, "floor.sock")));
  }
  collect();
  if (sections.has("mediation")) {
    step("mediation");
    figures.push({ name: "mediation chain, per message", unit: "ns", values: { "0 rules": mediationCostNs(0), "1 rule": mediationCostNs(1), "10 rules": mediationCostNs(10) } });
  }
  const engines = { hv, rounds, qemu: version !== undefined, work, step };
  if (sections.has("compute")) figures.push(...(await bareSuite(engines)));
  if (sections.has("between")) figures.push(...(await betweenFigures(engines, TOPOLOGIES)));
  if (sections.has("net")) figures.push(...(await netFigures(engines)));
  if (sections.has("debian")) figures.push(...(await guestSuite(engines)));
  console.log(`${version ?? "no QEMU"}; Node ${process.version}; median of ${rounds}`);
  console.log(render(figures));
  if (options.json) writeFileSync(options.json, JSON.stringify({ version, node: process.version, rounds, figures }, null, 2));
} finally {
  await hv.close();
  rmSync(work, { recursive: true, force: true });
}

/** The program that measures its own machine: compute, exits, page faults. */
async function bare(): Promise<void> {
  const image = join(work, "bench.img");
  writeBenchImage(image);
  for (const topology of TOPOLOGIES) await hv.run("stack", "up", "--topology", topology);
  for (let round = 0; round < rounds; round++) {
    for (const system of [...TOPOLOGIES, ...(version ? [QEMU] : [])]) {
      step(`bare machine on ${system}, round ${round + 1}`);
      const output = system === QEMU ? await runBare(image) : await hv.run("run", image, "--memory", "256M", "--timeout", "120", "--topology", system);
      const report = parseReport(output);
      const part = (name: string): { seconds: number; count: number } => {
        const found = report.get(name);
        if (!found) throw new Error(`bench.s on ${system} did not report "${name}":\n${output}`);
        return found;
      };
      // QEMU's instret counts host ticks: the count is ours, the program is the same.
      if (system !== QEMU) instructions = part("compute").count;
      sample("compute loop", system, instructions / part("compute").seconds / 1e6);
      sample("exit round trip", system, perUnit(part("exits")));
      sample("page fault, page with data", system, perUnit(part("pages-data")));
      sample("page held, TLB miss", system, perUnit(part("pages-held")));
      sample("page fault, zero pages in order", system, perUnit(part("pages-zero")));
    }
  }
}

/** Boots debian/minimal and reads and writes its disk. */
async function guests(): Promise<void> {
  step("box");
  const box = await buildBox("debian/minimal", { cacheDir: hv.cache });
  for (const topology of TOPOLOGIES) await hv.run("stack", "up", "--topology", topology);
  await hv.run("box", "build", "debian/minimal"); // one registry for both
  if (sections.has("boot")) {
    step("static translation");
    await hv.run("translate", "debian/minimal");
  }
  for (let round = 0; round < rounds; round++) {
    for (const topology of TOPOLOGIES) {
      step(`boot on ${topology}, round ${round + 1}`);
      const begun = performance.now();
      await hv.run("up", "bench", "--topology", topology);
      sample("boot to shell", topology, (performance.now() - begun) / 1000);
      if (sections.has("disk")) await disk(topology, (command) => hv.run("exec", "bench", "--", "sh", "-c", `${command} 2>&1`));
      await hv.run("destroy", "bench");
      if (sections.has("boot")) await translatedAhead(topology);
    }
    step(`boot on processes with coherent leases, round ${round + 1}`);
    const begun = performance.now();
    await hv.run("up", "bench", "--topology", "processes", "--lease", "coherent");
    sample("boot to shell, every page by message", "processes", (performance.now() - begun) / 1000);
    await hv.run("destroy", "bench");
    if (!version) continue;
    step(`boot on QEMU, round ${round + 1}`);
    const copy = join(work, "disk.raw");
    copyFileSync(box.disk!.path, copy);
    const guest = await QemuGuest.boot({ kernel: box.kernel.path, initrd: box.initrd!.path, disk: copy, append: box.config.bootArguments }, join(work, `q${round}.sock`));
    for (const row of ["boot to shell", AHEAD_FIRST, AHEAD_AGAIN]) sample(row, QEMU, guest.bootMs / 1000);
    if (sections.has("disk")) await disk(QEMU, (command) => guest.exec(command));
    await guest.stop();
  }
}

/** The same boot with the box's static translation: once in a new stack, and once more, when its modules are compiled. */
async function translatedAhead(topology: string): Promise<void> {
  await hv.run("stack", "down", "--topology", topology);
  await hv.run("stack", "up", "--topology", topology);
  for (const row of [AHEAD_FIRST, AHEAD_AGAIN]) {
    step(`${row}, on ${topology}`);
    const begun = performance.now();
    await hv.run("up", "bench", "--topology", topology, "--engine", "static");
    sample(row, topology, (performance.now() - begun) / 1000);
    await hv.run("destroy", "bench");
  }
}

/** A machine whose disk is measured in turns with the others'. */
interface DiskGuest {
  readonly system: string;
  /** Layers of its disk. */
  readonly depth: number;
  /** See {@link blockFigures}. */
  readonly share?: number;
  shell(command: string): Promise<string>;
  stop(): Promise<unknown>;
}

/** Block I/O on both topologies beside QEMU with qcow2, and on chains of layers. All are up at once and take turns, so that what else the machine does meets each. */
async function blocks(): Promise<void> {
  step("box");
  const box = await buildBox("debian/minimal", { cacheDir: hv.cache });
  for (const topology of TOPOLOGIES) await hv.run("stack", "up", "--topology", topology);
  await hv.run("box", "build", "debian/minimal");
  const guests: DiskGuest[] = [];
  try {
    for (const depth of CHAINS) {
      step(`guests with ${depth} layers`);
      for (const topology of TOPOLOGIES) if (topology === "embedded" || depth === CHAINS[0]) guests.push(await ourDiskGuest(topology, depth));
      if (!version) continue;
      const files = { kernel: box.kernel.path, initrd: box.initrd!.path, disk: qcow2Chain(work, box.disk!.path, depth), diskFormat: "qcow2", append: box.config.bootArguments };
      const guest = await QemuGuest.boot(files, join(work, `b${depth}.sock`));
      guests.push({ system: QEMU_QCOW2, depth, shell: (command) => guest.exec(`{ ${command}; } 2>&1`), stop: () => guest.stop() });
    }
    for (let round = 0; round < rounds; round++) {
      for (const { system, depth, share, shell } of guests) {
        step(`blocks on ${system}, ${depth} layers, round ${round + 1}`);
        const keep = (prefix: string, found: ReadonlyMap<string, number>): void => found.forEach((value, name) => {
          console.error(`  ${name}: ${Math.round(value)}`);
          sample(prefix + name, system, value);
        });
        if (depth === CHAINS[0]) keep("blocks: ", await blockFigures(shell, share ? { share } : {}));
        if (!share) keep(`blocks, ${depth} layers: `, await blockFigures(shell, { only: "reads" }));
      }
    }
  } finally {
    for (const guest of guests) await guest.stop();
  }
  const named = (depth: number): string => `blocks, ${depth} layers: `;
  for (const [name, systems] of [...samples].filter(([name]) => name.startsWith(named(CHAINS[0]!)))) {
    const what = name.slice(named(CHAINS[0]!).length);
    for (const system of systems.keys()) sample(`${SLOWER}${what.replace(/ \(.*/, "")}`, system, medians(name)[system]! / medians(named(CHAINS.at(-1)!) + what)[system]!);
  }
}

async function ourDiskGuest(topology: string, depth: number): Promise<DiskGuest> {
  const name = `blocks${depth}`;
  const shell = (command: string): Promise<string> => hv.run("exec", name, "--", "sh", "-c", `{ ${command}; } 2>&1`);
  await hv.run("up", name, "--engine", "dynamic", "--topology", topology);
  if (depth > 1) await shell(FILL);
  for (let layer = 1; layer < depth; layer++) {
    await shell(writeLayer(layer - 1));
    await hv.run("snapshot", "save", name, `s${layer}`); // what is written so far becomes a read-only layer
  }
  return { system: topology, depth, ...(topology === "processes" ? { share: 0.1 } : {}), shell, stop: () => hv.run("destroy", name) };
}

async function disk(system: string, exec: (command: string) => Promise<string>): Promise<void> {
  step(`disk on ${system}`);
  // busybox: "real  0m 0.53s"
  const megabytesPerSecond = (output: string): number => {
    const [, minutes, seconds] = /real\s+(\d+)m\s*([\d.]+)s/.exec(output) ?? [];
    if (!seconds) throw new Error(`dd on ${system} said: ${output}`);
    return DISK_MIB / (Number(minutes) * 60 + Number(seconds));
  };
  const dd = (how: string): Promise<string> => exec(`time dd bs=1M count=${DISK_MIB} ${how}`);
  sample("virtio-blk sequential write", system, megabytesPerSecond(await dd("if=/dev/zero of=/dev/vda oflag=direct conv=fsync")));
  sample("virtio-blk sequential read", system, megabytesPerSecond(await dd("if=/dev/vda of=/dev/null iflag=direct")));
}

function perUnit({ seconds, count }: { seconds: number; count: number }): number {
  return (seconds * 1e6) / count;
}

function collect(): void {
  const add = (name: string, unit: string, peer: string, target?: string): void => {
    if (samples.has(name)) figures.push({ name, unit, values: medians(name), peer, ...(target ? { target } : {}) });
  };
  add("boot to shell", "s", QEMU, "<= 15 s; processes <= 1.3 x embedded");
  add(AHEAD_FIRST, "s", QEMU, "<= 0.7 x");
  add(AHEAD_AGAIN, "s", QEMU);
  add("boot to shell, every page by message", "s", QEMU);
  add("compute loop", "MIPS", QEMU, ">= 300 MIPS");
  add("exit round trip", "us", "bare Unix socket", "<= 15 embedded, <= 80 processes");
  add("page fault, page with data", "us", QEMU);
  add("page fault, zero pages in order", "us", QEMU);
  add("page held, TLB miss", "us", QEMU);
  add("virtio-blk sequential read", "MB/s", QEMU);
  add("virtio-blk sequential write", "MB/s", QEMU);
  for (const name of samples.keys()) {
    if (name.startsWith(SLOWER)) figures.push({ name, unit: "", values: medians(name), target: "<= 1.1" });
    else if (name.startsWith("blocks")) add(name, "", QEMU_QCOW2, name.includes("for comparison") ? "" : ">= 0.8 x");
  }
}
