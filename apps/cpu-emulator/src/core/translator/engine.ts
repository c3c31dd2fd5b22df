import type { HartCells } from "../cells.ts";
import { COUNTERS, COUNTER_MASK, type SnapshotListener } from "../decode-cache.ts";
import type { Engine, ExitReason } from "../engine.ts";
import { PC, TLB_SET } from "../hart-state.ts";
import { TRANSLATED_COUNT, TRANSLATED_RETURNS } from "../interpreter/cells.ts";
import type { InterpreterEngine } from "../interpreter/engine.ts";
import { Special } from "../interpreter/handlers.ts";
import type { Batch, TranslatedRegion, TranslationRequest } from "./translate.ts";

/** Where regions are made: another thread, or at once (tests). */
export interface Translator {
  request(request: TranslationRequest): void;
  /** The next batch that is ready. */
  poll(): ReadyBatch | undefined;
}
export interface ReadyBatch extends Omit<Batch, "bytes"> {
  readonly module: WebAssembly.Module | undefined;
  readonly bytes: number;
  /** Writing and compiling. */
  readonly ms: number;
}

export interface DynamicOptions {
  readonly cells: HartCells;
  readonly memory: WebAssembly.Memory;
  /** Runs what is not translated; shared with the engine `interpreter`. */
  readonly interpreter: InterpreterEngine;
  readonly translator: Translator;
  readonly hotAfter?: number;
  readonly mostRegions?: number;
  /** See CodeRequest. */
  readonly cold?: boolean;
}

/**
 * How often a jump target is reached before it is translated. A region costs 5 ms of other threads' time, mostly TurboFan's: as
 * much as it takes to interpret 2,500,000 instructions. Debian's boot to a shell, CPU seconds of the hart and of the threads
 * that translate: 1,000: 2.3 + 7.3; 4,000: 2.1 + 3.4; 16,000: 2.2 + 1.8; 50,000: 2.6 + 1.5 (of which 0.8 are not for Wasm).
 */
const HOT_AFTER = 12_000;
/** V8 keeps 5 to 20 KB per region; when all are taken, all are given up. */
const MOST_REGIONS = 6000;
/** A region is made again when code that it leaves to has become hot, at most this often. */
const MOST_REPLACED = 6;

interface Region extends TranslatedRegion {
  readonly request: TranslationRequest;
  /** How often it was replaced. */
  readonly generation: number;
}
interface Pending {
  readonly request: TranslationRequest;
  readonly entry: number;
  readonly replaces: Region | undefined;
}

/**
 * Engine `dynamic`: the generated interpreter, which counts where jumps go, and WebAssembly functions for the regions
 * that turned out to be hot. A region is entered through the decoded entries of its instructions, so it is found exactly
 * as long as its code is: entries that decode again, or whose frame is gone, lead to no region.
 */
export class DynamicEngine implements Engine, SnapshotListener {
  readonly name = "dynamic";
  readonly #options: DynamicOptions;
  readonly #interpreter: InterpreterEngine;
  readonly #cells: HartCells;
  readonly #i32: Int32Array;
  readonly #u16: Uint16Array;
  readonly #table: WebAssembly.Table;
  readonly #imports: WebAssembly.Imports;
  readonly #regions = new Map<number, Region>();
  readonly #byFrame = new Map<number, Set<Region>>();
  /** Regions by the entries that they leave to. */
  readonly #exits = new Map<number, { readonly region: Region; readonly distance: number }>();
  /** By slot. */
  readonly #pending = new Map<number, Pending>();
  readonly #pendingEntries = new Set<number>();
  /** Entries with nothing to translate. */
  readonly #refused = new Set<number>();
  readonly #freeSlots: number[] = [];
  #nextSlot = 1;
  readonly #statistics = { regions: 0, replaced: 0, invalidated: 0, flushed: 0, stale: 0, modules: 0, bytes: 0, ms: 0, instructions: 0, guestBytes: 0 };

  constructor(options: DynamicOptions) {
    this.#options = options;
    this.#interpreter = options.interpreter;
    this.#cells = options.cells;
    this.#i32 = new Int32Array(options.memory.buffer);
    this.#u16 = new Uint16Array(options.memory.buffer);
    this.#table = new WebAssembly.Table({ element: "anyfunc", initial: options.mostRegions ?? MOST_REGIONS });
    this.#interpreter.count({ regions: this.#table, hotAfter: options.hotAfter ?? HOT_AFTER, hot: (entry) => this.#hot(entry) });
    this.#interpreter.cache.listener = this;
    const { loadSlow, storeSlow, translateSlow } = this.#interpreter.accessFunctions;
    this.#imports = { engine: { memory: options.memory, regions: this.#table, loadSlow, storeSlow, translateSlow } as WebAssembly.ModuleImports };
  }

  run(budget: number): ExitReason {
    this.#install();
    return this.#interpreter.runCounting(budget);
  }
  fenceI(): void {
    this.#interpreter.fenceI();
  }
  flushTlb(): void {
    this.#interpreter.flushTlb();
  }
  leave(): void {
    this.#dropAll();
  }

  events(): Record<string, number> {
    const s = this.#statistics;
    return {
      "translated-instructions": Number(this.#cells.u64[TRANSLATED_COUNT >> 3]!), "translated-returns": Number(this.#cells.u64[TRANSLATED_RETURNS >> 3]!),
      "regions": this.#regions.size, "regions-made": s.regions, "regions-replaced": s.replaced, "regions-invalidated": s.invalidated,
      "regions-flushed": s.flushed, "regions-stale": s.stale, "translation-modules": s.modules, "translation-bytes": s.bytes,
      "translation-us": s.ms * 1000, "translation-instructions": s.instructions, "translation-guest-bytes": s.guestBytes,
    };
  }

  /** Called by the interpreter when an entry was reached often. PC is its address. */
  #hot(entry: number): void {
    this.#u16[(this.#cells.base + COUNTERS + ((entry >>> 2) & COUNTER_MASK)) >> 1] = 0;
    if (this.#u16[entry >> 1] === Special.TRANSLATED || this.#pendingEntries.has(entry) || this.#refused.has(entry)) return;
    const slot = this.#freeSlots.pop() ?? (this.#nextSlot < this.#table.length ? this.#nextSlot++ : undefined);
    if (slot === undefined) {
      this.#statistics.flushed += this.#regions.size;
      this.#dropAll();
      return;
    }
    const { cache } = this.#interpreter;
    const pc = this.#cells.u64[PC >> 3]!;
    const left = this.#exits.get(entry);
    const replaces = left && left.region.generation < MOST_REPLACED ? left.region : undefined;
    const place = replaces
      ? { frame: replaces.request.frame, index: replaces.request.index, pc: pc - BigInt(left!.distance) }
      : { frame: cache.frameIndex(entry), index: cache.entryIndex(entry), pc };
    const request: TranslationRequest = { slot, ...place, tlbSet: this.#cells.i32[TLB_SET >> 2]!, ...(this.#options.cold && { cold: true }) };
    this.#pending.set(slot, { request, entry, replaces });
    this.#pendingEntries.add(entry);
    this.#options.translator.request(request);
    this.#install();
  }

  /** Regions that are ready. Nothing translated is running while this does. */
  #install(): void {
    for (let batch = this.#options.translator.poll(); batch; batch = this.#options.translator.poll()) {
      this.#statistics.ms += batch.ms;
      for (const slot of batch.refused) this.#refuse(slot);
      if (!batch.module) continue;
      this.#statistics.modules++;
      this.#statistics.bytes += batch.bytes;
      // Its functions go into the table by themselves: nothing of the instance is used.
      void new WebAssembly.Instance(batch.module, this.#imports);
      for (const region of batch.regions) this.#installRegion(region);
    }
  }

  #installRegion(translated: TranslatedRegion): void {
    const pending = this.#settle(translated.slot);
    const { cache } = this.#interpreter;
    if (!pending || translated.dependencies.some(({ frame, version }) => (version & 1) !== 0 || cache.version(frame) !== version)) {
      this.#statistics.stale++;
      this.#free(translated.slot);
      return;
    }
    const old = pending.replaces && this.#regions.get(pending.replaces.slot) === pending.replaces ? pending.replaces : undefined;
    if (old) {
      this.#statistics.replaced++;
      this.#drop(old);
    }
    const region: Region = { ...translated, request: pending.request, generation: old ? old.generation + 1 : 0 };
    this.#statistics.regions++;
    this.#statistics.instructions += region.instructions;
    this.#statistics.guestBytes += region.guestBytes;
    this.#regions.set(region.slot, region);
    for (const { frame } of region.dependencies) {
      let regions = this.#byFrame.get(frame);
      if (!regions) this.#byFrame.set(frame, (regions = new Set()));
      regions.add(region);
    }
    for (const [selector, [frame, index]] of region.entries.entries()) {
      const entry = cache.entryAddress(frame, index);
      if (selector > 0 && this.#u16[entry >> 1] === Special.TRANSLATED) continue;
      this.#i32[(entry + 4) >> 2] = (region.slot << 8) | selector;
      this.#i32[entry >> 2] = Special.TRANSLATED;
    }
    for (const [frame, index, distance] of region.exits) {
      if (frame >= 0) this.#exits.set(cache.entryAddress(frame, index), { region, distance });
    }
  }

  #settle(slot: number): Pending | undefined {
    const pending = this.#pending.get(slot);
    if (!pending) return undefined;
    this.#pending.delete(slot);
    this.#pendingEntries.delete(pending.entry);
    return pending;
  }
  #refuse(slot: number): void {
    const pending = this.#settle(slot);
    this.#freeSlots.push(slot);
    if (!pending) return;
    if (this.#refused.size > 10_000) this.#refused.clear();
    this.#refused.add(pending.entry);
  }

  bytesChanged(frame: number, offset: number): void {
    // An instruction that begins 2 bytes before them is changed as well.
    for (const region of this.#byFrame.get(frame) ?? []) {
      const { used } = region.dependencies.find((dependency) => dependency.frame === frame)!;
      if (!uses(used, offset) && (offset === 0 || !uses(used, offset - 8))) continue;
      this.#statistics.invalidated++;
      this.#drop(region);
    }
    this.#refused.clear();
  }
  frameGone(frame: number): void {
    for (const region of this.#byFrame.get(frame) ?? []) {
      this.#statistics.invalidated++;
      this.#drop(region);
    }
    this.#refused.clear();
  }

  #dropAll(): void {
    for (const region of this.#regions.values()) this.#drop(region);
    // What is still being made must not be installed: its slots come back when it arrives.
    this.#pending.clear();
    this.#pendingEntries.clear();
  }

  #drop(region: Region): void {
    const { cache } = this.#interpreter;
    for (const [frame, index] of region.entries) {
      const at = cache.entryAddress(frame, index) >> 2;
      if ((this.#i32[at]! & 0xffff) !== Special.TRANSLATED || this.#i32[at + 1]! >> 8 !== region.slot) continue;
      this.#i32[at] = this.#i32[at + 1] = 0; // decodes again
    }
    for (const [frame, index] of region.exits) {
      if (frame < 0) continue;
      const entry = cache.entryAddress(frame, index);
      if (this.#exits.get(entry)?.region === region) this.#exits.delete(entry);
    }
    for (const { frame } of region.dependencies) this.#byFrame.get(frame)?.delete(region);
    this.#regions.delete(region.slot);
    this.#free(region.slot);
  }
  #free(slot: number): void {
    this.#table.set(slot, null);
    this.#freeSlots.push(slot);
  }
}

function uses(used: Uint32Array, offset: number): boolean {
  return (used[offset >> 8]! & (1 << ((offset >> 3) & 31))) !== 0;
}
