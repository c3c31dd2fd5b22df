import { closeSync, copyFileSync, openSync, readFileSync, readSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { buildBox } from "@polyvisor/boxes";
import { holderReserveBytes } from "@polyvisor/machine";
import { type Figure, median } from "./figures.ts";
import type { Hv } from "./hv.ts";
import { QemuGuest, runBare } from "./qemu.ts";
import { buildBareSuite, COMPUTE, compilerMissing, installSuite, parseSuite, runInGuest, type Shell, SYSTEM } from "./suite.ts";

/** Engines beside QEMU, in the order of the columns. */
const ENGINES = ["dynamic", "interpreter"] as const;
const QEMU = "QEMU TCG";
const IN_GUEST = [...COMPUTE, ...SYSTEM, "gzip", "sha256"];

export interface EngineBench {
  readonly hv: Hv;
  readonly rounds: number;
  /** Whether the peer is there. */
  readonly qemu: boolean;
  readonly work: string;
  step(text: string): void;
}

type Samples = Map<string, Map<string, number[]>>;
function sample(samples: Samples, name: string, system: string, value: number): void {
  const systems = samples.get(name) ?? new Map<string, number[]>();
  samples.set(name, systems.set(system, [...(systems.get(system) ?? []), value]));
}

/** The compute suite on a bare machine: no page tables, no system. */
export async function bareSuite({ hv, rounds, qemu, work, step }: EngineBench): Promise<Figure[]> {
  const missing = compilerMissing();
  if (missing) {
    step(`compute suite left out: ${missing}`);
    return [];
  }
  const image = buildBareSuite(work);
  const samples: Samples = new Map();
  for (let round = 0; round < rounds; round++) {
    for (const system of [...ENGINES, ...(qemu ? [QEMU] : [])]) {
      step(`compute suite on ${system}, round ${round + 1}`);
      const output = system === QEMU ? await runBare(image) : await hv.run("run", image, "--memory", "256M", "--timeout", "120", "--engine", system);
      for (const [name, seconds] of parseSuite(output)) sample(samples, name, system, seconds);
    }
  }
  return timeFigures("bare", COMPUTE, samples, "<= 0.6, none > 1.0; interpreter <= 4");
}

/** The same inside Debian with the MMU on, and what only a system has; then two harts, idleness and memory. */
export async function guestSuite({ hv, rounds, qemu, work, step }: EngineBench): Promise<Figure[]> {
  const missing = compilerMissing();
  if (missing) {
    step(`compute suite in Debian left out: ${missing}`);
    return [];
  }
  const box = await buildBox("debian/minimal", { cacheDir: hv.cache });
  const samples: Samples = new Map();
  // All guests at once, idle but for the one that is measured: what else the host does meets them alike.
  const guests = new Map<string, { shell: Shell; stop: () => Promise<unknown> }>();
  for (const engine of ENGINES) {
    step(`Debian on ${engine}`);
    const begun = performance.now();
    await hv.run("up", engine, "--engine", engine);
    sample(samples, "boot", engine, (performance.now() - begun) / 1000);
    guests.set(engine, { shell: (command) => hv.run("exec", engine, "--", "sh", "-c", command), stop: () => hv.run("destroy", engine) });
  }
  if (qemu) {
    step("Debian on QEMU");
    const disk = join(work, "suite.raw");
    copyFileSync(box.disk!.path, disk);
    const guest = await QemuGuest.boot({ kernel: box.kernel.path, initrd: box.initrd!.path, disk, append: box.config.bootArguments }, join(work, "suite.sock"));
    sample(samples, "boot", QEMU, guest.bootMs / 1000);
    guests.set(QEMU, { shell: (command) => guest.exec(command), stop: () => guest.stop() });
  }
  for (const { shell } of guests.values()) await installSuite(work, shell);
  for (let round = 0; round < rounds; round++) {
    for (const [system, { shell }] of guests) {
      step(`suite in Debian on ${system}, round ${round + 1}`);
      for (const [name, seconds] of await runInGuest(shell)) sample(samples, name, system, seconds);
    }
  }
  for (const [system, { stop }] of guests) if (system !== "dynamic") await stop();
  const figures = timeFigures("Debian", IN_GUEST, samples, "<= 0.8, none > 1.5; system rows <= 1.0");
  figures.push({ name: "Debian: start to shell", unit: "s", values: medians(samples, "boot"), peer: QEMU, target: "<= 1.0" });
  figures.push(await idle(hv, "dynamic", step), await memory(hv, "dynamic"));
  await hv.run("destroy", "dynamic");
  figures.push(await twoHarts({ hv, rounds, qemu, work, step }));
  return figures;
}

/** Time of one program against two of them at once on two harts: 2 would be perfect. */
async function twoHarts({ hv, rounds, work, step }: EngineBench): Promise<Figure> {
  await hv.run("up", "two", "--cpus", "2", "--engine", "dynamic");
  const shell: Shell = (command) => hv.run("exec", "two", "--", "sh", "-c", command);
  await installSuite(work, shell);
  const speedups: number[] = [];
  for (let round = 0; round < rounds; round++) {
    step(`two harts, round ${round + 1}`);
    const alone = parseSuite(await shell("/tmp/compute bytecode")).get("bytecode")!;
    const both = [...(await shell("/tmp/compute bytecode & /tmp/compute bytecode & wait")).matchAll(/^bytecode ([0-9a-f]{16})/gm)].map(([, ticks]) => Number.parseInt(ticks!, 16) / 1e7);
    speedups.push((2 * alone) / Math.max(...both));
  }
  await hv.run("destroy", "two");
  return { name: "two harts, speed-up", unit: "x", values: { dynamic: median(speedups) }, target: ">= 1.8" };
}

async function idle(hv: Hv, machine: string, step: (text: string) => void): Promise<Figure> {
  step("idle guest");
  const pid = daemon(hv);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const [begun, cpu] = [performance.now(), cpuSeconds(pid)];
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  const share = ((cpuSeconds(pid) - cpu) * 100_000) / (performance.now() - begun);
  return { name: `idle guest (${machine}), whole daemon`, unit: "% of a core", values: { dynamic: share }, target: "<= 1" };
}

/** What the daemon holds in memory besides those of the guest's pages that are in RAM. */
async function memory(hv: Hv, machine: string): Promise<Figure> {
  const ram = Number(/^ramBytes\s+([\d,]+)/m.exec(await hv.run("stats", machine))![1]!.replaceAll(",", ""));
  const pid = daemon(hv);
  const resident = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) * 1024;
  return { name: "memory beyond guest RAM", unit: "MB", values: { dynamic: (resident - residentGuestBytes(pid, ram)) / 1e6 }, target: "<= 150" };
}

/** The guest's RAM is the end of the machine's WebAssembly memory; /proc/PID/pagemap has 8 bytes per page, bit 63: in RAM. */
export function residentGuestBytes(pid: number, ram: number): number {
  const bytes = ram + holderReserveBytes(1);
  const mappings = [...readFileSync(`/proc/${pid}/maps`, "utf8").matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm)];
  const end = mappings.map((found) => [Number.parseInt(found[1]!, 16), Number.parseInt(found[2]!, 16)] as const).find(([from, to]) => to - from === bytes)?.[1];
  if (end === undefined) return Number.NaN;
  const entries = Buffer.alloc((ram / 4096) * 8);
  const file = openSync(`/proc/${pid}/pagemap`, "r");
  readSync(file, entries, 0, entries.length, ((end - ram) / 4096) * 8);
  closeSync(file);
  let pages = 0;
  for (let at = 7; at < entries.length; at += 8) if (entries[at]! & 0x80) pages++;
  return pages * 4096;
}

/** The daemon's process: the one that hart threads are in. */
function daemon(hv: Hv): number {
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (!readFileSync(`/proc/${name}/environ`, "utf8").split("\0").includes(`HV_HOME=${hv.home}`)) continue;
      if (readdirSync(`/proc/${name}/task`).some((task) => readFileSync(`/proc/${name}/task/${task}/comm`, "utf8").trim() === "hart0")) return Number(name);
    } catch {
      // ended meanwhile, or not ours
    }
  }
  throw new Error("no process with hart threads found under /proc");
}
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const medians = (samples: Samples, name: string): Record<string, number> =>
  Object.fromEntries([...(samples.get(name) ?? [])].map(([system, all]) => [system, median(all)]));

/** One row per program, and the geometric mean of the time ratios to QEMU. */
function timeFigures(where: string, names: readonly string[], samples: Samples, target: string): Figure[] {
  const rows: Figure[] = names.map((name) => ({ name: `${where}: ${name}`, unit: "s", values: medians(samples, name), peer: QEMU }));
  const means: Record<string, number> = {};
  for (const system of ENGINES) {
    const ratios = rows.map(({ values }) => values[system]! / values[QEMU]!).filter((ratio) => Number.isFinite(ratio));
    if (ratios.length > 0) means[system] = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);
  }
  return [...rows, { name: `${where}: geometric mean of ratios`, unit: "x QEMU's time", values: means, target }];
}
