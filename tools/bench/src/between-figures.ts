import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assemble } from "@polyvisor/isa";
import type { EngineBench } from "./engine-figures.ts";
import { type Figure, median } from "./figures.ts";
import { runBare } from "./qemu.ts";

const QEMU = "QEMU TCG";
const RAM_BASE = 0x8000_0000n;
const NS_PER_TICK = 100;

/** What lies between instructions: interrupts, exits, TLB misses (programs/between.s); then what translation costs and covers in a boot. */
export async function betweenFigures(bench: EngineBench, topologies: readonly string[]): Promise<Figure[]> {
  const image = join(bench.work, "between.bin");
  const source = readFileSync(new URL("./programs/between.s", import.meta.url), "utf8");
  writeFileSync(image, assemble(source, { base: RAM_BASE }).bytes);
  const samples = new Map<string, Map<string, number[]>>();
  const sample = (name: string, system: string, value: number): void => {
    const systems = samples.get(name) ?? new Map<string, number[]>();
    samples.set(name, systems.set(system, [...(systems.get(system) ?? []), value]));
  };
  for (const topology of topologies) await bench.hv.run("stack", "up", "--topology", topology);
  for (let round = 0; round < bench.rounds; round++) {
    for (const system of [...topologies, ...(bench.qemu ? [QEMU] : [])]) {
      bench.step(`interrupts, exits, TLB on ${system}, round ${round + 1}`);
      const output = system === QEMU ? await runBare(image) : await bench.hv.run("run", image, "--memory", "256M", "--timeout", "120", "--topology", system);
      for (const [name, value] of measured(output)) sample(name, system, value);
    }
    bench.step(`translation in a boot, round ${round + 1}`);
    for (const [name, value] of await translation(bench)) sample(name, "embedded", value);
  }
  return [...samples].map(([name, systems]) => ({
    name, unit: "", values: Object.fromEntries([...systems].map(([system, values]) => [system, median(values)])), ...(systems.has(QEMU) ? { peer: QEMU } : {}),
  }));
}

/** Figures from what between.s prints. */
export function measured(output: string): Map<string, number> {
  const parts = new Map([...output.matchAll(/^(\S+) ([0-9a-f]{16}) ([0-9a-f]{16})\s*$/gm)].map(([, name, a, b]) => [name!, [Number.parseInt(a!, 16), Number.parseInt(b!, 16)] as const]));
  const part = (name: string): readonly [number, number] => {
    const found = parts.get(name);
    if (!found) throw new Error(`between.s did not report "${name}":\n${output}`);
    return found;
  };
  const us = (ticks: number): number => (ticks * NS_PER_TICK) / 1000;
  const perSecond = ([ticks, exits]: readonly [number, number]): number => exits / (ticks * NS_PER_TICK * 1e-9);
  const loads = part("tlb-miss")[1];
  return new Map([
    ["timer interrupt, computing: latency p99 (us)", us(part("interrupt-busy")[0])],
    ["timer interrupt, computing: latency median (us)", us(part("interrupt-busy")[1])],
    ["timer interrupt, in WFI: latency p99 (us)", us(part("interrupt-waiting")[0])],
    ["timer interrupt, in WFI: latency median (us)", us(part("interrupt-waiting")[1])],
    ["exits that wait (thousand per s)", perSecond(part("asked")) / 1000],
    ["exits that are posted (thousand per s)", perSecond(part("posted")) / 1000],
    ["TLB miss, Sv39 (ns)", ((part("tlb-miss")[0] - part("tlb-hit")[0] - part("fence")[0]) * NS_PER_TICK) / loads],
  ]);
}

/** Of a boot of debian/minimal on engine `dynamic`. */
async function translation({ hv }: EngineBench): Promise<Map<string, number>> {
  await hv.run("up", "translated", "--topology", "embedded", "--engine", "dynamic");
  const { instructions, events } = JSON.parse(await hv.run("stats", "translated", "--json")) as { instructions: number; events: Record<string, number> };
  await hv.run("destroy", "translated");
  const event = (name: string): number => {
    const count = events[name];
    if (count === undefined) throw new Error(`hv stats shows no "${name}"`);
    return count;
  };
  return new Map([
    ["boot: translation, per guest instruction translated (us)", event("translation-us") / event("translation-instructions")],
    ["boot: bytes of Wasm per byte of guest code", event("translation-bytes") / event("translation-guest-bytes")],
    ["boot: guest instructions that were translated (thousands)", event("translation-instructions") / 1000],
    ["boot: share of instructions executed in translated code (%)", (100 * event("translated-instructions")) / instructions],
  ]);
}
