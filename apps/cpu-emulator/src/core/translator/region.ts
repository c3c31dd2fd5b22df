import type { Decoded } from "@polyvisor/isa";
import { traitsOf, wordVariant } from "../interpreter/handlers.ts";
import type { CodeSource, SourceInstruction } from "./code-source.ts";

/**
 * A region: basic blocks that were executed, from one entry on, with loops and with the functions they call inside it.
 * A block is found by its offset and its *context*, the chain of inlined calls that leads to it: in a called function a
 * return is a comparison with the one address it was called from.
 */
export interface Region {
  /** Where it may be entered: blocks of the outermost context. */
  readonly entries: readonly Block[];
  readonly blocks: readonly Block[];
  readonly instructions: number;
  /** Offsets at which it is left although the code there was in reach: cold when it was made. */
  readonly exits: readonly number[];
}

export interface Instruction {
  readonly offset: number;
  readonly length: 2 | 4;
  readonly word: number;
  readonly decoded: Decoded;
  readonly variant: string;
}

/** Where control goes: to a block, or out of the region at an offset. */
export type Target = Block | Exit;
export interface Exit {
  readonly kind: "exit";
  readonly offset: number;
}

export type Terminator =
  | { readonly kind: "jump"; readonly target: Target }
  | { readonly kind: "branch"; readonly instruction: Instruction; readonly taken: Target; readonly next: Target }
  /** Jump and link, or without link when rd is 0; the target is known. */
  | { readonly kind: "call"; readonly instruction: Instruction; readonly target: Target }
  /** jalr: where it was seen to go; anywhere else leaves the region. */
  | { readonly kind: "indirect"; readonly instruction: Instruction; readonly expected: readonly Target[] }
  /** TypeScript executes the word at `offset`, then the region is left. */
  | { readonly kind: "slow"; readonly offset: number; readonly word: number };

export interface Block {
  readonly kind: "block";
  readonly offset: number;
  readonly instructions: Instruction[];
  /** Retired in the block, the terminator's instruction included. */
  retired: number;
  terminator: Terminator;
}

export interface RegionLimits {
  /** Instructions, copies of inlined functions included. The budget may be overrun by as much. */
  readonly instructions: number;
  readonly inlineDepth: number;
}
export const LIMITS: RegionLimits = { instructions: 800, inlineDepth: 3 };

/** A block's instructions fit the 8 bits that a fault's place has for them (lower-region.ts). */
const MOST_IN_BLOCK = 200;
/** A return compares with these one by one. */
const MOST_RETURN_POINTS = 6;
/** Entry selectors have 8 bits. */
const MOST_ENTRIES = 64;

class Context {
  readonly instructions = new Map<number, Instruction | Slow>();
  readonly leaders = new Set<number>();
  readonly calls = new Map<string, Context>();
  readonly blocks = new Map<number, Block>();
  readonly parent: Context | undefined;
  readonly returnsTo: number;
  readonly link: number;
  readonly start: number;
  readonly depth: number;
  constructor(parent: Context | undefined, start: number, returnsTo: number, link: number) {
    this.parent = parent;
    this.start = start;
    this.returnsTo = returnsTo;
    this.link = link;
    this.depth = parent ? parent.depth + 1 : 0;
  }
}
interface Slow {
  readonly slow: true;
  readonly offset: number;
  readonly length: 2 | 4;
  readonly word: number;
}
interface Jump {
  readonly target: number;
  readonly context: Context;
}

/** Finds the region that begins at `start`; undefined when there is nothing to translate there. */
export function discover(source: CodeSource, start: number, limits: RegionLimits = LIMITS): Region | undefined {
  return new Discovery(source, start, limits).region();
}

class Discovery {
  readonly #source: CodeSource;
  readonly #limits: RegionLimits;
  readonly #root: Context;
  readonly #entries: number[] = [];
  readonly #work: Jump[] = [];
  /** What a jump instruction of a context goes to, found once in the first pass. */
  readonly #jumps = new Map<Instruction, { call?: Jump; expected: Jump[] }>();
  readonly #exits = new Set<number>();
  /** Behind calls of the region's own function: where its returns may go. */
  readonly #returnPoints = new Set<number>();
  readonly #blocks: Block[] = [];
  #count = 0;

  constructor(source: CodeSource, start: number, limits: RegionLimits) {
    this.#source = source;
    this.#limits = limits;
    this.#root = new Context(undefined, start, NaN, 0);
    this.#enter(start);
  }

  region(): Region | undefined {
    for (let next = this.#work.shift(); next; next = this.#work.shift()) this.#follow(next);
    const first = this.#root.instructions.get(this.#root.start);
    if (!first || !enterable(first)) return undefined;
    const entries = this.#entries
      .filter((offset) => {
        const instruction = this.#root.instructions.get(offset);
        return instruction !== undefined && enterable(instruction);
      })
      .map((offset) => this.#block(offset, this.#root) as Block);
    const instructions = this.#blocks.reduce((sum, block) => sum + block.retired, 0);
    return { entries, blocks: this.#blocks, instructions, exits: [...this.#exits] };
  }

  #enter(offset: number): void {
    if (this.#entries.includes(offset) || this.#entries.length >= MOST_ENTRIES) return;
    this.#entries.push(offset);
    this.#go(offset, this.#root);
  }
  #go(offset: number, context: Context): void {
    context.leaders.add(offset);
    this.#work.push({ target: offset, context });
  }

  /** First pass: which instructions belong to the region, and where blocks begin. */
  #follow({ target, context }: Jump): void {
    let previous: Instruction | undefined;
    for (let offset = target; !context.instructions.has(offset) && this.#count < this.#limits.instructions; ) {
      const found = this.#source.at(offset);
      if (!found) return;
      const instruction = read(found, offset);
      context.instructions.set(offset, instruction);
      const next = offset + instruction.length;
      if ("slow" in instruction) {
        if (context === this.#root) this.#enter(next);
        return;
      }
      this.#count++;
      const { decoded } = instruction;
      const { branch, directJump } = traitsOf(decoded.instruction);
      if (branch) {
        this.#go(offset + decoded.imm, context);
        this.#go(next, context);
        return;
      }
      if (directJump) return this.#jump(instruction, offset + decoded.imm, context, next);
      if (decoded.instruction.name === "jalr") {
        const target = computedTarget(instruction, previous) ?? this.#source.target(offset);
        return this.#indirect(instruction, target, context, next);
      }
      previous = instruction;
      offset = next;
    }
  }

  #jump(instruction: Instruction, target: number, context: Context, next: number): void {
    const { rd } = instruction.decoded;
    if (!isLink(rd)) {
      this.#jumps.set(instruction, { call: { target, context }, expected: [] });
      this.#go(target, context);
      return;
    }
    const inner = this.#inline(context, target, next, rd, instruction.offset);
    if (inner) {
      this.#jumps.set(instruction, { call: { target, context: inner }, expected: [] });
      this.#go(target, inner);
      this.#go(next, context);
    } else if (target === this.#root.start) {
      this.#jumps.set(instruction, { call: { target, context: this.#root }, expected: [] });
      this.#returnTo(next);
    } else if (context === this.#root) this.#enter(next);
  }

  /** Recursion stays in the function: the call jumps to its start, and what follows is one of the places it returns to. */
  #returnTo(offset: number): void {
    this.#enter(offset);
    if (this.#entries.includes(offset) && this.#returnPoints.size < MOST_RETURN_POINTS) this.#returnPoints.add(offset);
  }

  #indirect(instruction: Instruction, target: number | undefined, context: Context, next: number): void {
    const { rd, rs1 } = instruction.decoded;
    const expected: Jump[] = [];
    if (rd === 0 && isLink(rs1)) {
      if (context.parent && context.link === rs1) expected.push({ target: context.returnsTo, context: context.parent });
    } else if (target !== undefined) {
      const inner = isLink(rd) ? this.#inline(context, target, next, rd, instruction.offset) : context;
      if (!inner && target === this.#root.start) {
        expected.push({ target, context: this.#root });
        this.#returnTo(next);
      } else if (inner) {
        expected.push({ target, context: inner });
        this.#go(target, inner);
        if (inner !== context) this.#go(next, context);
      }
    }
    if (isLink(rd) && context === this.#root) this.#enter(next);
    this.#jumps.set(instruction, { expected });
  }

  /** The context of a function called from a place, unless it is too deep or recursion. */
  #inline(context: Context, target: number, returnsTo: number, link: number, from: number): Context | undefined {
    if (context.depth >= this.#limits.inlineDepth) return undefined;
    for (let outer: Context | undefined = context; outer; outer = outer.parent) if (outer.start === target) return undefined;
    const key = `${from}:${target}`;
    let inner = context.calls.get(key);
    if (!inner) context.calls.set(key, (inner = new Context(context, target, returnsTo, link)));
    return inner;
  }

  /** Second pass: the block at an offset, or the exit there. */
  #block(offset: number, context: Context): Target {
    const first = context.instructions.get(offset);
    if (!first) {
      this.#exits.add(offset);
      return { kind: "exit", offset };
    }
    const known = context.blocks.get(offset);
    if (known) return known;
    const block: Block = { kind: "block", offset, instructions: [], retired: 0, terminator: { kind: "jump", target: { kind: "exit", offset } } };
    context.blocks.set(offset, block);
    this.#blocks.push(block);
    block.terminator = this.#fill(block, context);
    return block;
  }

  #fill(block: Block, context: Context): Terminator {
    for (let offset = block.offset; ; ) {
      const instruction = context.instructions.get(offset);
      if (!instruction) {
        this.#exits.add(offset);
        return { kind: "jump", target: { kind: "exit", offset } };
      }
      if ("slow" in instruction) return { kind: "slow", offset, word: instruction.word };
      if (block.retired >= MOST_IN_BLOCK) return { kind: "jump", target: this.#block(offset, context) };
      block.retired++;
      const { decoded, length } = instruction;
      const { branch, directJump } = traitsOf(decoded.instruction);
      if (branch) {
        return { kind: "branch", instruction, taken: this.#block(offset + decoded.imm, context), next: this.#block(offset + length, context) };
      }
      const jump = this.#jumps.get(instruction);
      if (jump?.call) return { kind: "call", instruction, target: this.#block(jump.call.target, jump.call.context) };
      if (decoded.instruction.name === "jalr") {
        const returns = context === this.#root && decoded.rd === 0 && isLink(decoded.rs1) ? [...this.#returnPoints] : [];
        const jumps = [...(jump?.expected ?? []), ...returns.map((target) => ({ target, context }))];
        const expected = jumps.map(({ target, context: inner }) => this.#block(target, inner)).filter((target) => target.kind === "block");
        return { kind: "indirect", instruction, expected };
      }
      if (directJump) {
        this.#exits.add(offset + decoded.imm);
        return { kind: "call", instruction, target: { kind: "exit", offset: offset + decoded.imm } };
      }
      block.instructions.push(instruction);
      offset += length;
      // A page ends a block: going on needs a look at where the next page is.
      if (context.leaders.has(offset) || crossesInto(offset, instruction)) return { kind: "jump", target: this.#block(offset, context) };
    }
  }
}

/** A region makes progress wherever it is entered: not at an instruction that it leaves to the interpreter. */
function enterable(instruction: Instruction | Slow): instruction is Instruction {
  return !("slow" in instruction) && !(instruction.length === 4 && (instruction.offset & 0xfff) === 0xffe);
}

/** Whether an instruction ends its page, or the following one would cross into the next. */
function crossesInto(offset: number, { offset: at }: Instruction): boolean {
  return Math.floor(offset / 4096) !== Math.floor(at / 4096) || (offset & 0xfff) === 0xffe;
}

const isLink = (register: number): boolean => register === 1 || register === 5;

function read({ word, length, decoded }: SourceInstruction, offset: number): Instruction | Slow {
  const slow: Slow = { slow: true, offset, length, word };
  if (!decoded) return slow;
  const traits = traitsOf(decoded.instruction);
  if (traits.slow) return slow;
  const variant = wordVariant(decoded);
  return variant === "none" ? slow : { offset, length, word, decoded, variant };
}

/** The target of `jalr` right behind the `auipc` of its register, unless something jumps in between. */
function computedTarget({ decoded }: Instruction, previous: Instruction | undefined): number | undefined {
  if (previous?.decoded.instruction.name !== "auipc" || previous.decoded.rd !== decoded.rs1) return undefined;
  const target = previous.offset + previous.decoded.imm + decoded.imm;
  return target - (target & 1);
}
