import { ContractError } from "@polyvisor/contracts";
import { PAGE_BYTES, PageBitmap, RamView } from "@polyvisor/guest-memory";

/** A page of WebAssembly memory (WebAssembly core spec 2.0, 4.2.8). */
export const WASM_PAGE_BYTES = 65536;
/** wasm32 reaches 4 GiB; the holder's reserve and RAM share it. */
export const MEMORY_LIMIT_BYTES = 4 * 1024 ** 3;

/** Where a space's bytes lie: a shared WebAssembly.Memory, RAM behind the holder's reserve. */
export interface Backing {
  readonly memory: WebAssembly.Memory;
  /** Set when other processes can map RAM: what they open it with. */
  readonly token?: string;
  close?(): void;
}

/** Makes the backing of a new space. Sizes are checked: multiples of the Wasm page and of the guest page, at most 4 GiB together. */
export type MakeBacking = (layout: { readonly offset: number; readonly bytes: number }) => Backing;

/** Memory of this process. The host commits it lazily: in a process of its own the reserve is never touched and costs nothing. */
export const privateBacking: MakeBacking = ({ offset, bytes }) => {
  const wasmPages = Math.ceil((offset + bytes) / WASM_PAGE_BYTES);
  try {
    return { memory: new WebAssembly.Memory({ initial: wasmPages, maximum: wasmPages, shared: true }) };
  } catch (cause) {
    throw new ContractError("exhausted", `the host cannot reserve ${offset + bytes} bytes for the space: destroy other spaces or ask for less RAM`, { cause });
  }
};

/** RAM of one space, and what is known about its pages. */
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

  constructor(base: bigint, ramBytes: number, reserveBytes: number, memory: WebAssembly.Memory) {
    this.memory = memory;
    this.ramOffset = reserveBytes;
    this.pages = ramBytes / PAGE_BYTES;
    this.view = new RamView(memory.buffer, reserveBytes, ramBytes, base);
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
