import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BareEngine } from "../../src/core/interpreter/bare-machine.ts";
import { writeProgram } from "./corpus.ts";
import { QEMU_ERRATA, qemuMissing, runOnQemu } from "./qemu.ts";
import { imageOf, listing, MODES, randomProgram, type Program, type RandomImage } from "./random-program.ts";
import { runImage } from "./run-image.ts";
import { shrink } from "./shrink.ts";

export interface FuzzOptions {
  readonly seconds: number;
  readonly firstSeed: number;
  /** Found failures are written here too, ready for the corpus. */
  readonly directory: string | undefined;
  note(line: string): void;
}
export interface FuzzResult {
  readonly programs: number;
  readonly seconds: number;
  readonly oracles: ReadonlyMap<string, number>;
  readonly failures: readonly string[];
}

/** Programs of one batch: one QEMU process runs them all, three times each. */
const BATCH = 800;
/** The reference engine is 200 times slower: it judges a smaller batch now and then. */
const REFERENCE_BATCH = 100;
const REFERENCE_EVERY = 4;
const ENGINES: readonly { readonly engine: BareEngine; readonly slice?: number }[] = [{ engine: "interpreter" }, { engine: "translated" }, { engine: "translated", slice: 13 }, { engine: "static" }];
/** How long a batch, and one program, may take at most. */
const WHOLE = { ms: 120_000, instructions: 50_000_000 };
const ONE = { ms: 8000, instructions: 500_000 };
/** A failure that is still there after so many is not looked at more closely: they have one cause, as a rule. */
const MOST_FAILURES = 3;

/** Random programs on QEMU and all our engines until the time is up; failures are shrunk and told with their seed. */
export async function fuzz({ seconds, firstSeed, directory, note }: FuzzOptions): Promise<FuzzResult> {
  const begun = performance.now();
  const elapsed = (): number => (performance.now() - begun) / 1000;
  const missing = qemuMissing();
  if (missing) note(`without QEMU: ${missing}; the reference engine judges instead`);
  const failures: string[] = [];
  const oracles = new Map<string, number>();
  let programs = 0;
  for (let seed = firstSeed, n = 0; elapsed() < seconds && failures.length < MOST_FAILURES; seed++, n++) {
    const mode = MODES[n % MODES.length]!;
    const byReference = missing !== undefined || n % REFERENCE_EVERY === REFERENCE_EVERY - 1;
    const without = byReference ? new Set<string>() : QEMU_ERRATA;
    const program = randomProgram(seed, byReference ? REFERENCE_BATCH : BATCH, mode, without);
    const oracle = byReference ? "reference" : "QEMU";
    const image = imageOf(program, without);
    const expected = await judge(oracle, image);
    programs += program.blocks.length;
    oracles.set(oracle, (oracles.get(oracle) ?? 0) + program.blocks.length);
    for (const { engine, slice } of ENGINES) {
      const failure = await compare({ program, image, expected, oracle, engine, slice, without }, note);
      if (!failure) continue;
      failures.push(failure.text);
      if (directory) {
        mkdirSync(directory, { recursive: true });
        writeFileSync(join(directory, `${engine}-${seed}.txt`), failure.corpus);
      }
      break;
    }
  }
  return { programs, seconds: elapsed(), oracles, failures };
}

/** What is right. */
async function judge(oracle: string, image: RandomImage, { ms, instructions } = WHOLE): Promise<Uint8Array> {
  return oracle === "QEMU" ? runOnQemu(image, ms) : runImage(image, "reference", undefined, instructions);
}

interface Comparison {
  readonly program: Program;
  readonly image: RandomImage;
  readonly expected: Uint8Array;
  readonly oracle: string;
  readonly engine: BareEngine;
  readonly slice: number | undefined;
  readonly without: ReadonlySet<string>;
}

async function compare(comparison: Comparison, note: (line: string) => void): Promise<{ text: string; corpus: string } | undefined> {
  const { program, image, expected, oracle, engine, slice, without } = comparison;
  const name = `${engine}${slice ? ` in slices of ${slice}` : ""} against ${oracle}`;
  let actual: Uint8Array;
  try {
    actual = runImage(image, engine, slice);
  } catch (error) {
    return { text: `${name}, seed ${program.tableSeed}, mode ${program.mode.name}: ${String(error)}`, corpus: `# ${String(error)}\n` };
  }
  const difference = image.difference(expected, actual);
  if (difference === undefined) return undefined;
  note(`${name}: a difference with seed ${program.tableSeed}; shrinking it`);
  const suspect = image.differentBlock(expected, actual);
  const small = suspect && (await shrink(program, suspect, async (candidate) => {
    const smaller = imageOf(candidate, without);
    // Without the instruction that counts a loop down it never ends: that is no failure.
    const right = await judge(oracle, smaller, ONE).catch(() => undefined);
    if (!right) return false;
    try {
      return smaller.difference(right, runImage(smaller, engine, slice, ONE.instructions)) !== undefined;
    } catch {
      return true;
    }
  }));
  if (!small) return { text: `${name}: ${difference}\n  (only together with the programs before it)`, corpus: `# ${difference}\n` };
  const alone = { ...program, blocks: [small] };
  return {
    text: [`${name}, seed ${program.tableSeed}; shrunk:`, ...listing(small), "first seen as:", difference].join("\n"),
    corpus: writeProgram(alone, [name, ...listing(small)]),
  };
}
