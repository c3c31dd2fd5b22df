/** Bytes on demand from a stream of chunks of any size. */
export class ByteSource {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  async #more(): Promise<boolean> {
    const next = await this.#chunks.next();
    if (next.done) return false;
    this.#rest = next.value;
    return true;
  }

  /** `length` bytes in an array of their own; undefined at the clean end of the stream. */
  async take(length: number): Promise<Uint8Array | undefined> {
    const out = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      if (this.#rest.length === 0 && !(await this.#more())) {
        if (filled === 0) return undefined;
        throw new TarError(`the archive ends in the middle of a block (${filled} of ${length} bytes); it is truncated`);
      }
      const part = this.#rest.subarray(0, length - filled);
      out.set(part, filled);
      filled += part.length;
      this.#rest = this.#rest.subarray(part.length);
    }
    return out;
  }

  /** What is there of `limit` bytes, at least one; undefined at the end of the stream. Not an array of its own. */
  async some(limit: number): Promise<Uint8Array | undefined> {
    while (this.#rest.length === 0) if (!(await this.#more())) return undefined;
    const part = this.#rest.subarray(0, limit);
    this.#rest = this.#rest.subarray(part.length);
    return part;
  }

  async skip(length: number): Promise<void> {
    let left = length;
    while (left > 0) {
      if (this.#rest.length === 0 && !(await this.#more())) throw new TarError("the archive ends before the data of its last file; it is truncated");
      const step = Math.min(left, this.#rest.length);
      this.#rest = this.#rest.subarray(step);
      left -= step;
    }
  }

  /** Reads what follows, up to the end: a producer's pipe closes only when it is empty. */
  async drain(): Promise<void> {
    while (await this.#more());
  }
}

/** An archive that is damaged, or that holds what no honest archive does. */
export class TarError extends Error {
  constructor(message: string) {
    super(`tar: ${message}`);
    this.name = "TarError";
  }
}
