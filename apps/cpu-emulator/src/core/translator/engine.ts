import type { HartCells } from "../cells.ts";
import { COUNTERS, COUNTER_MASK, type SnapshotListener } from "../decode-cache.ts";
import type { Engine, ExitReason } from "../engine.ts";
import { PC, TLB_SET } from "../hart-state.ts";
import { TRANSLATED_COUNT, TRANSLATED_RETURNS } from "../interpreter/cells.ts";
import type { InterpreterEngine } from "../interpreter/engine.ts";
import { Special } from "../interpreter/handlers.ts";
import { AheadLibrary, usedBytes, type PlacedRegion } from "./ahead/library.ts";
import type { RecordedRegion } from "./ahead/recording.ts";
import { MOST_AHEAD, type AheadRegion } from "./ahead/translate-ahead.ts";
import type { SourceDependency } from "./code-source.ts";
import type { Batch, TranslatedRegion, TranslationRequest } from "./translate.ts";

/** Where regions are made: another thread, or at once (tests). */
export interface Translator {
  request(request: TranslationRequest): void;
  /** The next batch that is ready. */
  poll(): ReadyBatch | ReadyAhead | undefined;
}
/** Regions translated ahead of time, compiled. */
export interface ReadyAhead {
  readonly module: WebAssembly.Module;
  readonly ahead: readonly AheadRegion[];
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
export const HOT_AFTER = 12_000;
/** V8 keeps 5 to 20 KB per region; when all are taken, all are given up. */
const MOST_REGIONS = 6000;
/** Places in the table from here on are for regions made ahead. */
export const AHEAD_SLOTS = MOST_REGIONS;
/**
 * When recording. What is interpreted of Debian's boot with this many regions more is little; each costs the later boots 0.3 ms
 * of the translator's thread.
 */
const WARM_AFTER = 1000;
/** A region is made again when code that it leaves to has become hot, at most this often. */
const MOST_REPLACED = 6;

interface Region extends TranslatedRegion {
  readonly request: TranslationRequest;
  /** How often it was replaced. */
  readonly generation: number;
  /** Made ahead of time: where it lies. */
  readonly placed?: PlacedRegion;
}

/**
 * What the engine is asked to be. `static`: regions translated ahead are used where their code is found. `recording`: what is
 * translated is written down, for translations ahead; sooner, so that it covers more.
 */
export type DynamicMode = "dynamic" | "static" | "recording";
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
  readonly #mostRegions: number;
  readonly #library: AheadLibrary;
  readonly #ahead = new Map<PlacedRegion, Region>();
  readonly #recorded = new Set<RecordedRegion>();
  #mode: DynamicMode = "dynamic";
  readonly #statistics = { regions: 0, replaced: 0, invalidated: 0, flushed: 0, stale: 0, modules: 0, bytes: 0, ms: 0, instructions: 0, guestBytes: 0 };

  constructor(options: DynamicOptions) {
    this.#options = options;
    this.#interpreter = options.interpreter;
    this.#cells = options.cells;
    this.#i32 = new Int32Array(options.memory.buffer);
    this.#u16 = new Uint16Array(options.memory.buffer);
    this.#mostRegions = options.mostRegions ?? MOST_REGIONS;
    this.#table = new WebAssembly.Table({ element: "anyfunc", initial: AHEAD_SLOTS + MOST_AHEAD });
    if (this.#mostRegions > AHEAD_SLOTS) throw new Error(`at most ${AHEAD_SLOTS} regions, not ${this.#mostRegions}`);
    this.#count();
    this.#library = new AheadLibrary({
      cache: this.#interpreter.cache, cells: options.cells,
      translated: (entry) => this.#u16[entry >> 1] === Special.TRANSLATED,
      place: (placed, page) => this.#place(placed, page),
    });
    this.#interpreter.cache.listener = this;
    const { loadSlow, storeSlow, translateSlow } = this.#interpreter.accessFunctions;
    this.#imports = { engine: { memory: options.memory, regions: this.#table, loadSlow, storeSlow, translateSlow } as WebAssembly.ModuleImports };
  }

  #count(): void {
    const { hotAfter } = this.#options;
    this.#interpreter.count({
      regions: this.#table, hotAfter: hotAfter ?? (this.#mode === "recording" ? WARM_AFTER : HOT_AFTER), hot: (entry) => this.#hot(entry),
    });
  }

  /** Nothing is translated when the mode changes: the engine has been left, or was never entered. */
  become(mode: DynamicMode): void {
    if (mode === this.#mode) return;
    const counts = mode === "recording" || this.#mode === "recording";
    this.#dropAll();
    this.#mode = mode;
    if (counts) this.#count();
    this.#library.active = mode === "static";
    this.#interpreter.watcher = mode === "static" ? this.#library : undefined;
    if (mode === "static") this.#interpreter.mmu.flushFetch(); // fetches tell the library what is where
  }
  /** What has been written down, oldest first. */
  get recorded(): RecordedRegion[] {
    return [...this.#recorded];
  }

  run(budget: number): ExitReason {
    this.become("dynamic");
    return this.runMode(budget);
  }
  /** As what it was last told to be. */
  runMode(budget: number): ExitReason {
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
      ...(this.#library.regions > 0 && { "ahead-regions": this.#library.regions, "ahead-placed": this.#library.placed }),
      "regions-flushed": s.flushed, "regions-stale": s.stale, "translation-modules": s.modules, "translation-bytes": s.bytes,
      "translation-us": s.ms * 1000, "translation-instructions": s.instructions, "translation-guest-bytes": s.guestBytes,
    };
  }

  /** Called by the interpreter when an entry was reached often. PC is its address. */
  #hot(entry: number): void {
    this.#u16[(this.#cells.base + COUNTERS + ((entry >>> 2) & COUNTER_MASK)) >> 1] = 0;
    if (this.#u16[entry >> 1] === Special.TRANSLATED || this.#pendingEntries.has(entry) || this.#refused.has(entry)) return;
    const slot = this.#freeSlots.pop() ?? (this.#nextSlot < this.#mostRegions ? this.#nextSlot++ : undefined);
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
    const request: TranslationRequest = { slot, ...place, tlbSet: this.#cells.i32[TLB_SET >> 2]!, ...(this.#options.cold && { cold: true }), ...(this.#mode === "recording" && { record: true }) };
    this.#pending.set(slot, { request, entry, replaces });
    this.#pendingEntries.add(entry);
    this.#options.translator.request(request);
    this.#install();
  }

  /** Regions that are ready. Nothing translated is running while this does. */
  #install(): void {
    for (let batch = this.#options.translator.poll(); batch; batch = this.#options.translator.poll()) {
      if ("ahead" in batch) {
        void new WebAssembly.Instance(batch.module, this.#imports);
        this.#library.add(batch.ahead);
        continue;
      }
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
    if (old?.recorded) this.#recorded.delete(old.recorded);
    if (region.recorded && this.#recorded.size < MOST_AHEAD) this.#recorded.add(region.recorded);
    this.#statistics.regions++;
    this.#statistics.instructions += region.instructions;
    this.#statistics.guestBytes += region.guestBytes;
    this.#regions.set(region.slot, region);
    for (const { frame } of region.dependencies) this.#dependsOn(region, frame);
    for (const [selector, [frame, index]] of region.entries.entries()) this.#enterAt(region.slot, selector, cache.entryAddress(frame, index));
    for (const [frame, index, distance] of region.exits) {
      if (frame >= 0) this.#exits.set(cache.entryAddress(frame, index), { region, distance });
    }
  }

  #enterAt(slot: number, selector: number, entry: number): void {
    if (selector > 0 && this.#u16[entry >> 1] === Special.TRANSLATED) return;
    this.#i32[(entry + 4) >> 2] = (slot << 8) | selector;
    this.#i32[entry >> 2] = Special.TRANSLATED;
  }

  /** The code of a region made ahead lies in its page number `page`: it may be entered there, and goes when the code changes. */
  #place(placed: PlacedRegion, page: number): void {
    const { slot, entries, pages } = placed.region;
    const { cache } = this.#interpreter;
    let region = this.#ahead.get(placed) as (Region & { entries: [number, number][]; dependencies: SourceDependency[] }) | undefined;
    if (!region) {
      const nowhere = entries.map((): [number, number] => [-1, 0]);
      const request: TranslationRequest = { slot: AHEAD_SLOTS + slot, frame: placed.frames[0]!, index: placed.region.recorded.start >> 1, pc: 0n, tlbSet: 0 };
      region = { slot: request.slot, entries: nowhere, dependencies: [], exits: [], instructions: 0, guestBytes: 0, request, generation: 0, placed };
      this.#ahead.set(placed, region);
      this.#regions.set(region.slot, region);
    }
    const frame = placed.frames[page]!;
    const used = usedBytes(placed.region, page);
    const known = region.dependencies.find((dependency) => dependency.frame === frame);
    if (known) used.forEach((bits, i) => (known.used[i]! |= bits));
    else region.dependencies.push({ frame, version: 0, used });
    this.#dependsOn(region, frame);
    for (const [selector, offset] of entries.entries()) {
      if (Math.floor(offset / 4096) !== pages[page]) continue;
      region.entries[selector] = [frame, (offset & 0xfff) >> 1];
      this.#enterAt(region.slot, selector, cache.entryAddress(frame, (offset & 0xfff) >> 1));
    }
  }
  #dependsOn(region: Region, frame: number): void {
    let regions = this.#byFrame.get(frame);
    if (!regions) this.#byFrame.set(frame, (regions = new Set()));
    regions.add(region);
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
    this.#library.frameGone(frame);
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
      if (frame < 0) continue; // made ahead: not found yet
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
    if (!region.placed) return this.#free(region.slot);
    // Its function stays where it is: the code may come back.
    this.#ahead.delete(region.placed);
    this.#library.dropped(region.placed);
  }
  #free(slot: number): void {
    this.#table.set(slot, null);
    this.#freeSlots.push(slot);
  }
}

function uses(used: Uint32Array, offset: number): boolean {
  return (used[offset >> 8]! & (1 << ((offset >> 3) & 31))) !== 0;
}
