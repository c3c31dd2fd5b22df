import type { HotSpot } from "@polyvisor/contracts/cpu";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { codeText, modeName, pageWalkText, profileText, registersJson, registersText } from "../format/cpu.ts";
import { parseCount } from "../format/quantity.ts";
import { Symbols } from "../symbols.ts";

const MOST_HART = 7;
const SYMBOLS = ["--symbols <file>", "name addresses by this System.map or kallsyms file"] as const;

interface CpuOptions {
  hart?: string;
  symbols?: string;
  json?: boolean;
}

/** hv cpu: what the harts of a machine do, while they do it. */
export function addCpuCommand(program: Command, cli: Cli): void {
  const cpu = program.command("cpu").description("look into the harts of a running machine: registers, code, page tables, where the time goes");

  addCommand(cpu, "regs <machine>", "registers of each hart (of one that runs: as of a moment ago)", [
    ["hv cpu regs web", "all harts"],
    ["hv cpu regs web --hart 1 --csr --fp", "one, with every CSR and the floating-point registers"],
  ])
    .option("--hart <n>", "only this hart")
    .option("--fp", "floating-point registers too")
    .option("--csr", "every CSR")
    .option(...SYMBOLS)
    .action(async (name: string, options: CpuOptions & { fp?: boolean; csr?: boolean }) => {
      const symbols = Symbols.read(options.symbols);
      const only = options.hart === undefined ? undefined : hartOf(options);
      const { orchestrator } = await cli.stacks.ofMachine(name);
      const { harts, engine } = await orchestrator.readCpu({ name });
      const shown = harts.filter(({ hart }) => only === undefined || hart === only);
      if (shown.length === 0) throw new UsageError(`${name} has harts 0 to ${harts.length - 1}, not ${only}`);
      cli.answer(options, { engine, harts: shown.map(registersJson) }, () =>
        shown.map((state) => registersText(state, symbols, { fp: options.fp ?? false, csr: options.csr ?? false })).join("\n\n"),
      );
    });

  addCommand(cpu, "disas <machine> [address]", "disassemble guest memory by virtual address; without one, from the hart's pc on", [
    ["hv cpu disas web", "what hart 0 executes"],
    ["hv cpu disas web 0xffffffff80a6e232 --count 40", "from an address on"],
  ])
    .option("--hart <n>", "whose address space", "0")
    .option("--count <n>", "instructions", "16")
    .option(...SYMBOLS)
    .action(async (name: string, address: string | undefined, options: CpuOptions & { count: string }) => {
      const symbols = Symbols.read(options.symbols);
      const at = address === undefined ? undefined : parseAddress(address);
      const request = { name, hart: hartOf(options), address: at, count: parseCount(options.count, "--count", 1, 1024) };
      const { orchestrator } = await cli.stacks.ofMachine(name);
      const { lines } = await orchestrator.readCpuCode(request);
      const json = lines.map((line) => ({ ...line, address: `0x${line.address.toString(16)}` }));
      cli.answer(options, json, () => {
        if (lines.length === 0) return `nothing is mapped there; hv cpu walk ${name} ${address ?? "ADDRESS"} says why`;
        return codeText(lines, symbols, at === undefined ? lines[0]!.address : undefined);
      });
    });

  addCommand(cpu, "walk <machine> <address>", "translate a virtual address step by step, each page-table entry decoded", [
    ["hv cpu walk web 0xffffffff80a6e232", "a kernel address"],
    ["hv cpu walk web 0x3fff0000 --hart 1 --json", "of the program that hart 1 executes now"],
  ])
    .option("--hart <n>", "whose address space", "0")
    .action(async (name: string, address: string, options: CpuOptions) => {
      const request = { name, hart: hartOf(options), address: parseAddress(address) };
      const { orchestrator } = await cli.stacks.ofMachine(name);
      const walk = (await orchestrator.walkCpuAddress(request)).walk!;
      const hex = (value: bigint): string => `0x${value.toString(16)}`;
      const json = {
        ...walk, root: hex(walk.root), physical: walk.fault ? null : hex(walk.physical), pageBytes: Number(walk.pageBytes),
        steps: walk.steps.map((step) => ({ ...step, entryAddress: hex(step.entryAddress), entry: hex(step.entry) })),
      };
      cli.answer(options, json, () => pageWalkText(request.address, walk));
    });

  addCommand(cpu, "hot <machine>", "where the guest's time goes: hottest code, residency by privilege mode, the engine's own numbers", [
    ["hv cpu hot web", "the 20 hottest spots, the first 3 with their instructions"],
    ["hv exec web -- cat /proc/kallsyms > k; hv cpu hot web --symbols k", "with the kernel's names"],
  ])
    .option("--spots <n>", "how many spots", "20")
    .option("--code <n>", "so many of them with their instructions", "3")
    .option(...SYMBOLS)
    .action(async (name: string, options: CpuOptions & { spots: string; code: string }) => {
      const symbols = Symbols.read(options.symbols);
      const spots = parseCount(options.spots, "--spots", 1, 1000);
      const code = parseCount(options.code, "--code", 0, 1000);
      const { orchestrator } = await cli.stacks.ofMachine(name);
      const profile = (await orchestrator.readCpuProfile({ name, spots })).profile!;
      cli.answer(options, { ...profile, spots: profile.spots.map((spot) => spotJson(spot, symbols)) }, () => profileText(profile, symbols, code));
    });
}

function spotJson({ address, privilege, samples, code }: HotSpot, symbols: Symbols): unknown {
  return {
    address: `0x${address.toString(16)}`, symbol: symbols.name(address), privilege: modeName(privilege), samples: Number(samples),
    code: code.map((line) => ({ ...line, address: `0x${line.address.toString(16)}` })),
  };
}

function hartOf({ hart }: CpuOptions): number {
  return parseCount(hart ?? "0", "--hart", 0, MOST_HART);
}

/** "0xffffffff80000000" or decimal. */
function parseAddress(text: string): bigint {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,19})$/i.test(text)) throw new UsageError(`"${text}" is not an address; expected e.g. 0xffffffff80000000`);
  return BigInt(text);
}
