import { decode } from "@polyvisor/isa";
import type { CodeSource, SourceInstruction } from "./code-source.ts";

/** Code that lies in a file, all of it in reach. */
export class FlatSource implements CodeSource {
  readonly #view: DataView;
  readonly #start: number;
  /** `start`: offset of the code's first byte. */
  constructor(code: Uint8Array, start: number) {
    this.#view = new DataView(code.buffer, code.byteOffset, code.byteLength);
    this.#start = start;
  }
  at(offset: number): SourceInstruction | undefined {
    const place = offset - this.#start;
    if (place < 0 || place + 2 > this.#view.byteLength) return undefined;
    const low = this.#view.getUint16(place, true);
    if ((low & 3) !== 3) return { word: low, length: 2, decoded: decode(low) };
    if (place + 4 > this.#view.byteLength) return undefined;
    const word = this.#view.getUint32(place, true) | 0;
    return { word, length: 4, decoded: decode(word) };
  }
  target(): undefined {
    return undefined;
  }
  frame(offset: number): number {
    return Math.max(0, Math.floor(offset / 4096));
  }
}
