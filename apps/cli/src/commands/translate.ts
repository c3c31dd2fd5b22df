import { randomBytes } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { showTranslation } from "@polyvisor/cpu-emulator";
import { assemble, AssemblyError } from "@polyvisor/isa";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { parseSeconds } from "../format/quantity.ts";
import type { Topology } from "../stack/home.ts";
import { topologyOption, up } from "./up.ts";

interface TranslateOptions {
  show?: boolean;
  base?: string;
  at?: string;
  machine?: boolean;
  initrd?: string;
  append?: string;
  seconds?: string;
  topology?: Topology;
  json?: boolean;
}

/** Some thousand regions, on a host with other things to do. */
const TRANSLATION_MS = 150_000;
const SOURCE = /\.(s|S|asm)$/;

/** hv translate: translates what a box or kernel runs ahead of time, or shows how a piece of code is translated. */
export function addTranslateCommand(program: Command, cli: Cli): void {
  addCommand(program, "translate <what>", "translate a box, kernel or running machine ahead of time for engine static; or show how code is translated", [
    ["hv translate debian/minimal", "boots it once and keeps what it ran, translated, in the registry; then: hv up web --engine static"],
    ["hv translate Image --initrd i.cpio --append 'console=ttyS0'", "a kernel of your own, as hv up --kernel boots it"],
    ["hv translate --machine web", "what a machine with engine recording has run until now"],
    ["hv translate loop.s", "a source file is assembled, and shown: RISC-V blocks, their meaning, the WebAssembly made of them"],
    ["hv translate kernel.bin --show --base 0x80200000 --at 0x80200040", "machine code of a raw image, from an address on"],
  ])
    .option("--show", "show how the code of a file is translated, and make nothing")
    .option("--base <address>", "with --show: address of the code's first byte", "0x80000000")
    .option("--at <address>", "with --show: where the region begins: an address, or a label of the source; default: the first byte")
    .option("--machine", "<what> is the name of a machine that runs with engine recording")
    .option("--initrd <file>", "initial RAM disk of a kernel")
    .option("--append <arguments>", "added to the kernel's command line")
    .option("--seconds <n>", "how long to go on recording once it has started (a box says when it is up; a kernel does not: 10)")
    .addOption(topologyOption())
    .action(async (what: string, options: TranslateOptions) => {
      if (!options.machine && (options.show || SOURCE.test(what) || options.at !== undefined)) await show(cli, what, options);
      else await translate(cli, what, options);
    });
}

async function translate(cli: Cli, what: string, options: TranslateOptions): Promise<void> {
  const isFile = !options.machine && (await stat(what).then((found) => found.isFile(), () => false));
  const name = options.machine ? what : `translate-${randomBytes(4).toString("hex")}`;
  const { topology, initrd, append } = options;
  const { orchestrator } = options.machine
    ? await cli.stacks.ofMachine(name)
    : (await up(cli, name, {
        engine: "recording", network: true,
        ...(isFile ? { kernel: what } : { box: what }), ...(topology && { topology }), ...(initrd && { initrd }), ...(append && { append }),
      })).stack;
  try {
    const seconds = options.seconds === undefined ? (isFile ? 10 : 0) : parseSeconds(options.seconds);
    await sleep(seconds * 1000);
    cli.note(`translating what ${options.machine ? name : what} has run`);
    const translation = (await orchestrator.saveMachineTranslation({ name }, { timeoutMs: TRANSLATION_MS })).translation!;
    const { regions, bytes, wasmBytes, key } = translation;
    cli.answer(options, translation, () =>
      `${regions} regions, ${(Number(wasmBytes) / 1e6).toFixed(1)} MB of WebAssembly (${(Number(bytes) / 1e6).toFixed(1)} MB in all), kept as polyvisor/translations:${key}`);
  } finally {
    if (!options.machine) await orchestrator.destroyMachine({ name });
  }
}

async function show(cli: Cli, file: string, options: TranslateOptions): Promise<void> {
  const base = address(options.base ?? "0x80000000", "--base");
  const { code, labels } = await read(file, base);
  const at = options.at === undefined ? base : (labels.get(options.at) ?? address(options.at, "--at"));
  if (at < base || at >= base + BigInt(code.length)) {
    throw new UsageError(`--at 0x${at.toString(16)} is not in the code, which lies at 0x${base.toString(16)} to 0x${(base + BigInt(code.length)).toString(16)}`);
  }
  const text = showTranslation(code, base, at);
  if (text === undefined) throw new UsageError(`nothing to translate at 0x${at.toString(16)}: the instruction there is left to the interpreter or is illegal`);
  cli.answer(options, { text }, () => text.trimEnd());
}

async function read(file: string, base: bigint): Promise<{ code: Uint8Array; labels: Map<string, bigint> }> {
  const bytes = await readFile(file).catch((error: unknown) => {
    throw new UsageError(`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  });
  if (!SOURCE.test(file)) return { code: bytes, labels: new Map() };
  try {
    const { bytes: code, labels } = assemble(bytes.toString("utf8"), { base });
    return { code, labels };
  } catch (error) {
    if (!(error instanceof AssemblyError)) throw error;
    throw new UsageError(`${file}: ${error.message}`);
  }
}

function address(text: string, option: string): bigint {
  if (!/^(0x[0-9a-fA-F]+|\d+)$/.test(text)) throw new UsageError(`${option} ${text}: expected an address, e.g. 0x80000000`);
  return BigInt(text);
}
