/** Holders get a bit each in a page's reader set. */
export const MAX_HOLDERS = 31;
const NOBODY = -1;

/** Who holds which page: one holder for writing, or any number for reading, or nobody. */
export class PageDirectory {
  readonly pages: number;
  readonly #writer: Int8Array;
  readonly #readers: Uint32Array;

  constructor(pages: number) {
    this.pages = pages;
    this.#writer = new Int8Array(pages).fill(NOBODY);
    this.#readers = new Uint32Array(pages);
  }
  /** Index of the holder that has the page for writing, or undefined. */
  writer(page: number): number | undefined {
    const writer = this.#writer[page]!;
    return writer === NOBODY ? undefined : writer;
  }
  reads(page: number, holder: number): boolean {
    return ((this.#readers[page]! >>> holder) & 1) === 1;
  }
  hasReaders(page: number): boolean {
    return this.#readers[page] !== 0;
  }
  /** Indices of the holders that have the page for reading. */
  readers(page: number): number[] {
    const out: number[] = [];
    for (let bits = this.#readers[page]!, holder = 0; bits !== 0; bits >>>= 1, holder++) if (bits & 1) out.push(holder);
    return out;
  }
  setWriter(page: number, holder: number): void {
    this.#writer[page] = holder;
    this.#readers[page] = 0;
  }
  addReader(page: number, holder: number): void {
    this.#readers[page]! |= 1 << holder;
  }
  /** Takes the page from a holder, or leaves it the right to read. */
  reduce(page: number, holder: number, keepReading: boolean): void {
    if (this.#writer[page] === holder) {
      this.#writer[page] = NOBODY;
      if (keepReading) this.addReader(page, holder);
    } else if (!keepReading) this.#readers[page]! &= ~(1 << holder);
  }
  /** Takes everything from a holder; answers how many pages it had for writing. */
  forget(holder: number): number {
    let written = 0;
    for (let page = 0; page < this.pages; page++) {
      if (this.#writer[page] === holder) {
        this.#writer[page] = NOBODY;
        written++;
      } else if (this.#readers[page] !== 0) this.#readers[page]! &= ~(1 << holder);
    }
    return written;
  }
}
