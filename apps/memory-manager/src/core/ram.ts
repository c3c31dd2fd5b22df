import { ContractError } from "@polyvisor/contracts";
import { PAGE_BYTES, PageBitmap, RamView } from "@polyvisor/guest-memory";

/** A page of WebAssembly memory (WebAssembly core spec 2.0, 4.2.8). */
export const WASM_PAGE_BYTES = 65536;
/** wasm32 reaches 4 GiB; the holder's reserve and RAM share it. */
export const MEMORY_LIMIT_BYTES = 4 * 1024 ** 3;

/**
 * The backing of one space: a shared WebAssembly.Memory that the host commits lazily, RAM behind the holder's reserve.
 * In a process of its own the reserve is never touched and costs nothing.
 */
export class Ram {
  readonly memory: WebAssembly.Memory;
  readonly ramOffset: number;
  readonly view: RamView;
  readonly pages: number;
  /** Pages that this service wrote; all others are zero unless a holder shared the memory. */
  readonly touched: PageBitmap;
  /** Set once a holder may have written behind our back: then only looking tells whether a page is zero. */
  sharedOut = false;
  readonly #fenceCell = new Int32Array(new SharedArrayBuffer(4));

  /** Sizes are checked by the caller: multiples of the Wasm page and of the guest page, at most 4 GiB together. */
  constructor(base: bigint, ramBytes: number, reserveBytes: number) {
    const wasmPages = Math.ceil((reserveBytes + ramBytes) / WASM_PAGE_BYTES);
    try {
      this.memory = new WebAssembly.Memory({ initial: wasmPages, maximum: wasmPages, shared: true });
    } catch (cause) {
      throw new ContractError(
        "exhausted",
        `the host cannot reserve ${reserveBytes + ramBytes} bytes for the space: destroy other spaces or ask for less RAM`,
        { cause },
      );
    }
    this.ramOffset = reserveBytes;
    this.pages = ramBytes / PAGE_BYTES;
    this.view = new RamView(this.memory.buffer, reserveBytes, ramBytes, base);
    this.touched = new PageBitmap(this.pages);
  }

  isZero(page: number): boolean {
    if (this.touched.has(page)) return false;
    return !this.sharedOut || this.view.isZero(page * PAGE_BYTES, PAGE_BYTES);
  }
  read(offset: number, target: Uint8Array): void {
    this.view.copyOut(offset, target);
  }
  write(offset: number, source: Uint8Array): void {
    if (source.length === 0) return;
    this.view.copyIn(offset, source);
    const last = Math.floor((offset + source.length - 1) / PAGE_BYTES);
    for (let page = Math.floor(offset / PAGE_BYTES); page <= last; page++) this.touched.add(page);
  }
  /** Orders what was written before against what is written after, for harts on other threads (weakly ordered hosts). */
  fence(): void {
    Atomics.add(this.#fenceCell, 0, 0);
  }
  /** A copy of whole pages. */
  copyPages(first: number, count: number): Uint8Array {
    return this.view.u8.slice(first * PAGE_BYTES, (first + count) * PAGE_BYTES);
  }
}
