/** Longest line accepted from a guest: an `OUT` line of the agent carries at most 3 KiB of base64. */
export const MAX_LINE_BYTES = 64 * 1024;

/**
 * Cuts a byte stream into lines. The guest is untrusted: a line longer than {@link MAX_LINE_BYTES} is dropped whole,
 * so memory stays bounded whatever arrives.
 */
export class LineReader {
  readonly #onLine: (line: string) => void;
  readonly #decoder = new TextDecoder("latin1");
  #partial = "";
  #skipping = false;

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  push(data: Uint8Array): void {
    const pieces = this.#decoder.decode(data).split("\n");
    for (const [index, piece] of pieces.entries()) {
      const last = index === pieces.length - 1;
      if (!this.#skipping) this.#partial += piece;
      if (this.#partial.length > MAX_LINE_BYTES) {
        this.#partial = "";
        this.#skipping = true;
      }
      if (last) return;
      const line = this.#partial;
      const complete = !this.#skipping;
      this.#partial = "";
      this.#skipping = false;
      if (complete) this.#onLine(line.endsWith("\r") ? line.slice(0, -1) : line);
    }
  }
}
