/** Bytes that the other side has not acknowledged yet, as the chunks they came in. Offset 0 is the oldest of them. */
export class SendQueue {
  #chunks: Uint8Array[] = [];
  /** Index of the first chunk in use, and how much of it is gone already. */
  #head = 0;
  #skip = 0;
  length = 0;

  /** The chunk is kept, not copied: its owner must not change it. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.length += chunk.length;
  }
  /** Forgets the oldest bytes. */
  consume(count: number): void {
    this.length -= count;
    this.#skip += count;
    while (this.#head < this.#chunks.length && this.#skip >= this.#chunks[this.#head]!.length) {
      this.#skip -= this.#chunks[this.#head]!.length;
      this.#chunks[this.#head++] = EMPTY; // free now, not when the array is tidied
    }
    if (this.#head > 64 && this.#head * 2 > this.#chunks.length) {
      this.#chunks = this.#chunks.slice(this.#head);
      this.#head = 0;
    }
  }
  /** Copies bytes [offset, offset + count) to `target`. */
  copy(offset: number, count: number, target: Uint8Array, at: number): void {
    let index = this.#head;
    let from = this.#skip + offset;
    while (index < this.#chunks.length && from >= this.#chunks[index]!.length) from -= this.#chunks[index++]!.length;
    for (let left = count; left > 0; index++, from = 0) {
      const chunk = this.#chunks[index]!;
      const take = Math.min(chunk.length - from, left);
      target.set(from === 0 && take === chunk.length ? chunk : chunk.subarray(from, from + take), at);
      at += take;
      left -= take;
    }
  }
  clear(): void {
    this.#chunks = [];
    this.#head = this.#skip = this.length = 0;
  }
}
const EMPTY = new Uint8Array(0);
