/**
 * Platform-level interrupt controller (RISC-V PLIC specification 1.0.0; SiFive's memory map).
 *
 *   0x000000 + 4 * source     priority, 0 = never interrupts
 *   0x001000 + 4 * word       pending bits, read only
 *   0x002000 + 0x80 * context enable bits
 *   0x200000 + 0x1000 * context  threshold; + 4: claim (read) / complete (write)
 *
 * Contexts are 2 * hart for M-mode and 2 * hart + 1 for S-mode, as the device tree's interrupts-extended says.
 */
import type { SavedPlic } from "@polyvisor/contracts/device";
import type { AccessBytes, MmioDevice } from "./bus.ts";

const PENDING = 0x1000;
const ENABLE = 0x2000;
const ENABLE_STRIDE = 0x80;
const CONTEXT = 0x20_0000;
const CONTEXT_STRIDE = 0x1000;
const THRESHOLD = 0;
const CLAIM_COMPLETE = 4;
/** As SiFive's and QEMU's: three bits of priority. */
const PRIORITY_MASK = 7;

export type PlicOutput = (hart: number, mode: "machine" | "supervisor", level: boolean) => void;

interface Context {
  readonly enabled: Uint32Array;
  threshold: number;
  output: boolean;
}

export class Plic implements MmioDevice {
  readonly #sources: number;
  readonly #words: number;
  readonly #output: PlicOutput;
  readonly #priority: Uint32Array;
  readonly #pending: Uint32Array;
  /** Level of each source's wire. */
  readonly #level: Uint32Array;
  /** Claimed and not completed: the gateway forwards nothing more of that source (chapter 6). */
  readonly #inService: Uint32Array;
  readonly #contexts: Context[];
  claims = 0;
  completions = 0;

  constructor(sources: number, harts: number, output: PlicOutput) {
    this.#sources = sources;
    this.#words = (sources >> 5) + 1;
    this.#output = output;
    const bits = () => new Uint32Array(this.#words);
    this.#priority = new Uint32Array(sources + 1);
    this.#pending = bits();
    this.#level = bits();
    this.#inService = bits();
    this.#contexts = Array.from({ length: harts * 2 }, () => ({ enabled: bits(), threshold: 0, output: false }));
  }

  /** Drives the wire of a source. Idempotent. */
  setLevel(source: number, level: boolean): void {
    const word = source >> 5;
    const bit = 1 << (source & 31);
    if (((this.#level[word]! & bit) !== 0) === level) return;
    this.#level[word]! ^= bit;
    // Level-triggered gateway: a request that has reached the core stays when the wire falls (chapter 5).
    if (level && (this.#inService[word]! & bit) === 0) {
      this.#pending[word]! |= bit;
      this.#update();
    }
  }

  reset(): void {
    this.#priority.fill(0);
    this.#pending.fill(0);
    this.#inService.fill(0);
    this.#level.fill(0);
    for (const context of this.#contexts) {
      context.enabled.fill(0);
      context.threshold = 0;
    }
    this.#update();
  }

  /** Without the wires' levels: devices drive them anew, and a level that is high is pending or in service already. */
  save(): SavedPlic {
    return {
      priority: [...this.#priority],
      pending: [...this.#pending],
      inService: [...this.#inService],
      contexts: this.#contexts.map(({ enabled, threshold }) => ({ enabled: [...enabled], threshold })),
    };
  }
  /** Answers why that cannot be; then nothing is changed. */
  restore(saved: SavedPlic): string | undefined {
    const { priority, pending, inService, contexts } = saved;
    const words = [pending, inService, ...contexts.map(({ enabled }) => enabled)];
    if (priority.length !== this.#sources + 1 || contexts.length !== this.#contexts.length || words.some(({ length }) => length !== this.#words)) {
      return `an interrupt controller of ${priority.length - 1} sources and ${contexts.length} contexts; this one has ${this.#sources} and ${this.#contexts.length}`;
    }
    for (let source = 1; source <= this.#sources; source++) this.#priority[source] = priority[source]! & PRIORITY_MASK;
    for (let word = 0; word < this.#words; word++) {
      this.#pending[word] = pending[word]! & this.#existing(word);
      this.#inService[word] = inService[word]! & this.#existing(word);
    }
    for (const [index, context] of this.#contexts.entries()) {
      const { enabled, threshold } = contexts[index]!;
      for (let word = 0; word < this.#words; word++) context.enabled[word] = enabled[word]! & this.#existing(word);
      context.threshold = threshold & PRIORITY_MASK;
    }
    this.#update();
    return undefined;
  }

  read(offset: number, bytes: AccessBytes): number | undefined {
    if (bytes !== 4) return undefined; // SiFive's PLIC takes 32-bit accesses only
    if (offset < PENDING) return this.#priority[offset >> 2] ?? 0;
    if (offset < ENABLE) return this.#pending[(offset - PENDING) >> 2] ?? 0;
    if (offset < CONTEXT) {
      const at = offset - ENABLE;
      return this.#contexts[Math.floor(at / ENABLE_STRIDE)]?.enabled[(at % ENABLE_STRIDE) >> 2] ?? 0;
    }
    const context = this.#contexts[Math.floor((offset - CONTEXT) / CONTEXT_STRIDE)];
    if (!context) return 0;
    const register = (offset - CONTEXT) % CONTEXT_STRIDE;
    if (register === THRESHOLD) return context.threshold;
    if (register === CLAIM_COMPLETE) return this.#claim(context);
    return 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): boolean {
    if (bytes !== 4) return false;
    if (offset < PENDING) {
      const source = offset >> 2;
      if (source === 0 || source > this.#sources) return false;
      this.#priority[source] = value & PRIORITY_MASK;
    } else if (offset < ENABLE) {
      return false;
    } else if (offset < CONTEXT) {
      const at = offset - ENABLE;
      const context = this.#contexts[Math.floor(at / ENABLE_STRIDE)];
      const word = (at % ENABLE_STRIDE) >> 2;
      if (!context || word >= this.#words) return false;
      context.enabled[word] = value & this.#existing(word);
    } else {
      const context = this.#contexts[Math.floor((offset - CONTEXT) / CONTEXT_STRIDE)];
      const register = (offset - CONTEXT) % CONTEXT_STRIDE;
      if (!context) return false;
      if (register === THRESHOLD) context.threshold = value & PRIORITY_MASK;
      else if (register === CLAIM_COMPLETE) return this.#complete(context, value);
      else return false;
    }
    this.#update();
    return true;
  }

  /** Source 0 does not exist, nor do those above the last. */
  #existing(word: number): number {
    let mask = 0xffff_ffff;
    if (word === 0) mask &= ~1;
    if (word === this.#words - 1 && (this.#sources & 31) !== 31) mask &= (1 << ((this.#sources & 31) + 1)) - 1;
    return mask;
  }

  /** Highest priority first, lowest number among equals (chapter 4); a threshold does not hide from claims. */
  #best(context: Context, above: number): number {
    let best = 0;
    let bestPriority = above;
    for (let word = 0; word < this.#words; word++) {
      let candidates = this.#pending[word]! & context.enabled[word]!;
      while (candidates !== 0) {
        const bit = 31 - Math.clz32(candidates & -candidates);
        candidates &= candidates - 1;
        const source = word * 32 + bit;
        if (this.#priority[source]! > bestPriority) {
          best = source;
          bestPriority = this.#priority[source]!;
        }
      }
    }
    return best;
  }

  #claim(context: Context): number {
    const source = this.#best(context, 0);
    if (source === 0) return 0;
    const bit = 1 << (source & 31);
    this.#pending[source >> 5]! &= ~bit;
    this.#inService[source >> 5]! |= bit;
    this.claims++;
    this.#update();
    return source;
  }

  #complete(context: Context, source: number): boolean {
    const word = source >>> 5;
    const bit = 1 << (source & 31);
    // Chapter 9: the completion of a source that is not enabled for the context is ignored.
    if (source === 0 || source > this.#sources || (context.enabled[word]! & bit) === 0) return false;
    if ((this.#inService[word]! & bit) === 0) return false;
    this.completions++;
    this.#inService[word]! &= ~bit;
    if ((this.#level[word]! & bit) !== 0) this.#pending[word]! |= bit;
    this.#update();
    return true;
  }

  #update(): void {
    for (let index = 0; index < this.#contexts.length; index++) {
      const context = this.#contexts[index]!;
      const level = this.#best(context, context.threshold) !== 0;
      if (level === context.output) continue;
      context.output = level;
      this.#output(index >> 1, (index & 1) === 0 ? "machine" : "supervisor", level);
    }
  }
}
