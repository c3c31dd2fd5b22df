/** The whole table: the one place where a set of instructions joins the machine. */

import type { Compressed, Instruction } from "../instruction.ts";
import { ATOMIC } from "./atomic.ts";
import { BITS } from "./bits.ts";
import { CACHE } from "./cache.ts";
import { COMPRESSED } from "./compressed.ts";
import { FLOAT } from "./float.ts";
import { FLOAT_EXTRA } from "./float-extra.ts";
import { HYPERVISOR } from "./hypervisor.ts";
import { INTEGER } from "./integer.ts";
import { SYSTEM } from "./system.ts";

/** Every 32-bit instruction. Positions are stable within a build; `BY_NAME` finds one. */
export const INSTRUCTIONS: readonly Instruction[] = [...INTEGER, ...SYSTEM, ...ATOMIC, ...FLOAT, ...FLOAT_EXTRA, ...BITS, ...CACHE, ...HYPERVISOR];

export const COMPRESSED_INSTRUCTIONS: readonly Compressed[] = COMPRESSED;

export const BY_NAME: ReadonlyMap<string, Instruction> = new Map(INSTRUCTIONS.map((row) => [row.name, row]));

export function instructionNamed(name: string): Instruction {
  const row = BY_NAME.get(name);
  if (!row) throw new Error(`no instruction is named ${name}`);
  return row;
}
