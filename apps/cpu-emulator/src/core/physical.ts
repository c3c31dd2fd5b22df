import { Clint } from "./clint.ts";
import type { HartCells } from "./cells.ts";
import type { PhysicalAccess } from "./engine.ts";
import { GIVEN_UP, PAGE_STATES } from "./hart-state.ts";
import { AnswerStatus, ExitKind, type HartMailbox } from "./mailbox.ts";
import type { Settling } from "./settling.ts";

/** Values of the page-state bytes (coherent leases; see lease.ts, which writes them). Ordered: more allows more. */
export const PageState = { NONE: 0, READ: 1, WRITE: 2 } as const;

/** Where guest RAM lies in the machine's memory. */
export interface RamLayout {
  /** Guest-physical address of the first byte. */
  readonly base: bigint;
  readonly bytes: number;
  /** Byte offset of that first byte in the WebAssembly memory. */
  readonly offset: number;
  /** All pages are held for good (a SHARED lease): the page states are not used. */
  readonly shared: boolean;
}

/** Physical guest memory as SBI calls and loaders use it: false when the range is not RAM. */
export interface GuestMemory {
  read(address: bigint, into: Uint8Array): boolean;
  write(address: bigint, from: Uint8Array): boolean;
}

/** What a hart reaches below its MMU: RAM by page lease, the CLINT here, devices through the mailbox. */
export class HartPhysical implements PhysicalAccess, GuestMemory {
  readonly ram: RamLayout;
  readonly #mailbox: HartMailbox;
  readonly #clint: Clint;
  readonly #settling: Settling | undefined;
  readonly #states: Uint8Array;
  readonly #bytes: Uint8Array;
  readonly #end: bigint;

  constructor(ram: RamLayout, cells: HartCells, mailbox: HartMailbox, clint: Clint, settling?: Settling) {
    this.ram = ram;
    this.#mailbox = mailbox;
    this.#clint = clint;
    this.#settling = settling;
    this.#end = ram.base + BigInt(ram.bytes);
    this.#states = new Uint8Array(cells.buffer, PAGE_STATES, ram.bytes / 4096);
    this.#bytes = new Uint8Array(cells.buffer, ram.offset, ram.bytes);
  }

  ensurePage(physical: bigint, write: boolean): boolean {
    if (physical < this.ram.base || physical >= this.#end) return false;
    if (this.ram.shared) return true;
    const page = Number(physical - this.ram.base) >>> 12;
    const needed = write ? PageState.WRITE : PageState.READ;
    // A page may be recalled between the grant and our waking up: ask again.
    while (Atomics.load(this.#states, page) < needed) {
      if (this.#mailbox.call(ExitKind.PAGE, 0, BigInt(page), write ? 1n : 0n) !== AnswerStatus.OK) return false;
    }
    return true;
  }

  holds(ramPage: number, write: boolean): boolean {
    return this.ram.shared || Atomics.load(this.#states, ramPage) >= (write ? PageState.WRITE : PageState.READ);
  }

  mmioRead(physical: bigint, bytes: 1 | 2 | 4 | 8): bigint | undefined {
    if (Clint.decodes(physical)) return this.#clint.read(physical, bytes);
    this.#settling?.beforeRead();
    if (this.#mailbox.call(ExitKind.MMIO_READ, bytes, physical, 0n) !== AnswerStatus.OK) return undefined;
    return BigInt.asUintN(bytes * 8, this.#mailbox.answerValue());
  }
  mmioWrite(physical: bigint, bytes: 1 | 2 | 4 | 8, value: bigint): boolean {
    if (Clint.decodes(physical)) return this.#clint.write(physical, bytes, value);
    this.#mailbox.post(ExitKind.MMIO_WRITE, bytes, physical, BigInt.asUintN(bytes * 8, value));
    this.#settling?.settle();
    return true;
  }

  read(address: bigint, into: Uint8Array): boolean {
    return this.#copy(address, into.length, false, (at, from, length) => into.set(this.#bytes.subarray(at, at + length), from));
  }
  write(address: bigint, from: Uint8Array): boolean {
    return this.#copy(address, from.length, true, (at, start, length) => this.#bytes.set(from.subarray(start, start + length), at));
  }
  /** Page by page, each held while it is copied: nothing here blocks between ensurePage and the copy. */
  #copy(address: bigint, length: number, write: boolean, copy: (at: number, from: number, length: number) => void): boolean {
    if (address < this.ram.base || address + BigInt(length) > this.#end) return false;
    let at = Number(address - this.ram.base);
    for (let done = 0; done < length; ) {
      if (!this.ensurePage(this.ram.base + BigInt(at), write)) return false;
      const part = Math.min(length - done, 4096 - (at & 4095));
      copy(at, done, part);
      at += part;
      done += part;
    }
    return true;
  }
}

/** Tells an MMU in the middle of an instruction that the TLB was flushed while it waited (engine.ts, ensurePage). */
export function countGivenUp(cells: HartCells): void {
  Atomics.add(cells.i32, GIVEN_UP >> 2, 1);
}
