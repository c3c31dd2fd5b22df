import { readFile } from "node:fs/promises";
import { showTranslation } from "@polyvisor/cpu-emulator";
import { assemble, AssemblyError } from "@polyvisor/isa";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";

interface TranslateOptions {
  base: string;
  at?: string;
  json?: boolean;
}

/** hv translate: what the translator of engine `dynamic` makes of a piece of code. */
export function addTranslateCommand(program: Command, cli: Cli): void {
  addCommand(program, "translate <file>", "show how the dynamic engine translates code: RISC-V blocks, their meaning, the WebAssembly made of them", [
    ["hv translate loop.s", "a source file is assembled first"],
    ["hv translate kernel.bin --base 0x80200000 --at 0x80200040", "machine code of a raw image, from an address on"],
  ])
    .option("--base <address>", "address of the code's first byte", "0x80000000")
    .option("--at <address>", "where the region begins: an address, or a label of the source; default: the first byte")
    .action(async (file: string, options: TranslateOptions) => {
      const base = address(options.base, "--base");
      const { code, labels } = await read(file, base);
      const at = options.at === undefined ? base : (labels.get(options.at) ?? address(options.at, "--at"));
      if (at < base || at >= base + BigInt(code.length)) {
        throw new UsageError(`--at 0x${at.toString(16)} is not in the code, which lies at 0x${base.toString(16)} to 0x${(base + BigInt(code.length)).toString(16)}`);
      }
      const text = showTranslation(code, base, at);
      if (text === undefined) throw new UsageError(`nothing to translate at 0x${at.toString(16)}: the instruction there is left to the interpreter or is illegal`);
      cli.answer(options, { text }, () => text.trimEnd());
    });
}

async function read(file: string, base: bigint): Promise<{ code: Uint8Array; labels: Map<string, bigint> }> {
  const bytes = await readFile(file).catch((error: unknown) => {
    throw new UsageError(`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  });
  if (!/\.(s|S|asm)$/.test(file)) return { code: bytes, labels: new Map() };
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
