/** Guest pages are 4 KiB (RISC-V privileged spec, 4.4: the Sv39 base page); a page number is an address >> 12. */
export const PAGE_SHIFT = 12;
export const PAGE_BYTES = 1 << PAGE_SHIFT;

/** The part of a byte range that lies on one page. `position` counts from the start of the range. */
export interface PagePiece {
  readonly page: number;
  readonly offset: number; // inside the page
  readonly length: number;
  readonly position: number;
}

/** Cuts the bytes `start .. start + length` (offsets in RAM) at page boundaries, in order. */
export function* pagePieces(start: number, length: number): Generator<PagePiece, void, void> {
  for (let position = 0; position < length; ) {
    const at = start + position;
    const offset = at % PAGE_BYTES;
    const pieceLength = Math.min(PAGE_BYTES - offset, length - position);
    yield { page: Math.floor(at / PAGE_BYTES), offset, length: pieceLength, position };
    position += pieceLength;
  }
}

/** True when `value` is a whole number of pages. */
export function pageAligned(value: bigint): boolean {
  return (value & BigInt(PAGE_BYTES - 1)) === 0n;
}

/** One bit per page. */
export class PageBitmap {
  readonly pages: number;
  readonly #words: Uint32Array;
  #count = 0;

  constructor(pages: number) {
    this.pages = pages;
    this.#words = new Uint32Array(Math.ceil(pages / 32));
  }
  /** How many bits are set. */
  get count(): number {
    return this.#count;
  }
  has(page: number): boolean {
    return ((this.#words[page >>> 5]! >>> (page & 31)) & 1) === 1;
  }
  add(page: number): void {
    if (this.has(page)) return;
    this.#words[page >>> 5]! |= 1 << (page & 31);
    this.#count++;
  }
  delete(page: number): void {
    if (!this.has(page)) return;
    this.#words[page >>> 5]! &= ~(1 << (page & 31));
    this.#count--;
  }
}
