import { decode } from "@polyvisor/isa";
import type { CodeSource, SourceInstruction } from "../code-source.ts";

/**
 * All that a translation was made from, and nothing of where it was found: the instructions that were looked at and where
 * indirect jumps went, by offset from the start of the page of the first one. The same region can be made of it again, in another
 * process, and valid it is wherever these instructions lie at these distances.
 */
export interface RecordedRegion {
  /** Offset of the first instruction, in its page. */
  readonly start: number;
  /** Pairs of offset and instruction word. */
  readonly words: Int32Array;
  /** Pairs of offset of an indirect jump and of where it went. */
  readonly targets: Int32Array;
}

/** Writes down what is asked of another source. */
export class RecordingSource implements CodeSource {
  readonly #source: CodeSource;
  readonly #words = new Map<number, number>();
  readonly #targets = new Map<number, number>();
  constructor(source: CodeSource) {
    this.#source = source;
  }
  at(offset: number): SourceInstruction | undefined {
    const found = this.#source.at(offset);
    if (found) this.#words.set(offset, found.word);
    return found;
  }
  target(offset: number): number | undefined {
    const target = this.#source.target(offset);
    if (target !== undefined) this.#targets.set(offset, target);
    return target;
  }
  frame(offset: number): number {
    return this.#source.frame(offset);
  }
  recorded(start: number): RecordedRegion {
    return { start, words: Int32Array.from([...this.#words].flat()), targets: Int32Array.from([...this.#targets].flat()) };
  }
}

/** Answers as the source did that was recorded; a page's *frame* is its number in `pages`. */
export class RecordedSource implements CodeSource {
  /** The pages that instructions lie in, counted from the first instruction's. */
  readonly pages: readonly number[];
  readonly #words: Map<number, number>;
  readonly #targets: Map<number, number>;
  readonly #frames: Map<number, number>;
  constructor({ words, targets }: RecordedRegion) {
    this.#words = new Map(pairs(words));
    this.#targets = new Map(pairs(targets));
    this.pages = pagesOf(words);
    this.#frames = new Map(this.pages.map((page, frame) => [page, frame]));
  }
  at(offset: number): SourceInstruction | undefined {
    const word = this.#words.get(offset);
    return word === undefined ? undefined : { word, length: lengthOf(word), decoded: decode(word) };
  }
  target(offset: number): number | undefined {
    return this.#targets.get(offset);
  }
  frame(offset: number): number {
    return this.#frames.get(Math.floor(offset / 4096)) ?? -1;
  }
}

export const lengthOf = (word: number): 2 | 4 => ((word & 3) === 3 ? 4 : 2);

/** The pages that instructions lie in: page 0 first, whose instructions decide whether a region is here. */
export function pagesOf(words: Int32Array): number[] {
  const pages = new Set([0]);
  for (const [offset, word] of pairs(words)) {
    pages.add(Math.floor(offset / 4096));
    pages.add(Math.floor((offset + lengthOf(word) - 1) / 4096));
  }
  return [...pages];
}

export function* pairs(flat: Int32Array): Generator<[number, number]> {
  for (let i = 0; i + 1 < flat.length; i += 2) yield [flat[i]!, flat[i + 1]!];
}
