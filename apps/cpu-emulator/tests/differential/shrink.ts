import { lengthOf, type Block, type Program } from "./random-program.ts";

/** Whether a program still shows the difference. */
export type Fails = (program: Program) => boolean | Promise<boolean>;

const FENCE_I = 0x100f;
/** fence.i stays: without it a program that changes itself may do either. */
const nopOf = (word: number): number => (word === FENCE_I ? word : lengthOf(word) === 4 ? 0x13 : 0x01);
/** Registers that point into the block's data (random-program.ts): zeroing them makes another program. */
const POINTERS: ReadonlySet<number> = new Set([2, 29, 30]);

/**
 * Makes a failing block small: instructions become nops of the same length, so that everything else stays where it is, then
 * registers become zero, as long as it still fails. Undefined: the block does not fail by itself.
 */
export async function shrink(program: Program, block: Block, fails: Fails): Promise<Block | undefined> {
  const alone = (candidate: Block): Program => ({ ...program, blocks: [candidate] });
  if (!(await fails(alone(block)))) return undefined;
  let best = block;
  const tryWith = async (change: Partial<Block>): Promise<boolean> => {
    const candidate = { ...best, ...change };
    if (!(await fails(alone(candidate)))) return false;
    best = candidate;
    return true;
  };
  // Halves first, then smaller parts: most instructions have nothing to do with it.
  for (let size = Math.ceil(best.words.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < best.words.length - 1; at += size) {
      const words = best.words.map((word, n) => (n >= at && n < at + size && n < best.words.length - 1 ? nopOf(word) : word));
      if (words.some((word, n) => word !== best.words[n])) await tryWith({ words });
    }
  }
  await tryWith({ f: best.f.map(() => 0n) });
  await tryWith({ x: best.x.map((value, n) => (POINTERS.has(n) ? value : 0n)) });
  await tryWith({ fcsr: 0 });
  for (const part of ["x", "f"] as const) {
    for (let n = 0; n < 32; n++) {
      if (best[part][n] === 0n || (part === "x" && POINTERS.has(n))) continue;
      await tryWith({ [part]: best[part].map((value, m) => (m === n ? 0n : value)) });
    }
  }
  return best;
}
