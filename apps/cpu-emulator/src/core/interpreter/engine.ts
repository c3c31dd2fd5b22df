import { decode, type Decoded } from "@polyvisor/isa";
import { fpState, HartCells } from "../cells.ts";
import { CODE_EPOCH, CROSSING_ENTRY, CROSSING_SOURCE_ENTRY, CROSSING_WORD_ENTRY, DecodeCache, PAGE_HALFWORDS, START_ENTRY } from "../decode-cache.ts";
import { type Engine, ExitReason, type PhysicalAccess, type PrivilegedCore } from "../engine.ts";
import { FP_STATE, PC } from "../hart-state.ts";
import { Access, DEVICE, FAULT, Mmu } from "../mmu.ts";
import type { CodeWatcher } from "../translator/ahead/library.ts";
import { SlowAccesses } from "./accesses.ts";
import { type Entry, Special, encode, placeMatters, staysInPage } from "./handlers.ts";
import { HartEnvironment } from "./hart-environment.ts";
import { SlowInstructions } from "./slow-instructions.ts";
import { type EngineExports, type EngineImports, type ModuleOptions, probeFused, writeInterpreter } from "./module.ts";

export interface InterpreterOptions {
  /** The machine's memory, laid out as hart-state.ts says. Shared. */
  readonly memory: WebAssembly.Memory;
  readonly hart: number;
  /** Guest-physical start of RAM; whole pages. */
  readonly ramBase: number;
  readonly ramBytes: number;
  readonly ramOffset: number;
  readonly core: PrivilegedCore;
  readonly physical: PhysicalAccess;
  /** Shared with the hart's other engines: they work on the same TLB sets. Absent: its own. */
  readonly mmu?: Mmu;
}

export interface InterpreterEngine extends Engine {
  /** Hears of code that is decoded and fetched (engine `static`). */
  watcher: CodeWatcher | undefined;
  /** To be the core's TranslationListener. */
  readonly mmu: Mmu;
  readonly cache: DecodeCache;
  /** Counts jump targets and enters translated code (engine `dynamic`); as `run` otherwise. */
  runCounting(budget: number): ExitReason;
  /** From then on `runCounting` may be called. */
  count(parts: CountingParts): void;
  /** What generated code calls for accesses that miss the TLB: functions of the module, and its memory. */
  readonly accessFunctions: Pick<EngineExports, "loadSlow" | "storeSlow" | "translateSlow">;
}

export interface CountingParts {
  /** Translated code, by the numbers in TRANSLATED entries. */
  readonly regions: WebAssembly.Table;
  readonly hotAfter: number;
  /** An entry was reached `hotAfter` times; PC is its address. */
  hot(entry: number): void;
}

/** Below this budget the variant that looks at it after every instruction runs, so that a slice never overshoots. */
const EXACT_BELOW = 2 * PAGE_HALFWORDS;

/** Linux's boot decodes 400,000 entries of some 40,000 different words. */
const WORDS_LOG2 = 15;
const JUMPS_LOG2 = 14;
/** Spreads words over a table of 2^log2 places. */
const placeOf = (word: number, log2: number): number => Math.imul(word, 0x9e37_79b1) >>> (32 - log2);

let fused: { f64: boolean; f32: boolean } | undefined;
/** Whether this machine's relaxed multiply-add rounds once; found out by trying. */
export const fusedArithmetic = (): { f64: boolean; f32: boolean } => (fused ??= probeFused());

/** Interpreters of this thread by what they are for: some 20 ms each. */
const modules = new Map<string, WebAssembly.Module>();
function interpreterModule(options: Omit<ModuleOptions, "fused">): WebAssembly.Module {
  const { hart, exact, hotAfter } = options;
  const key = `${hart} ${exact} ${hotAfter}`;
  let module = modules.get(key);
  if (!module) modules.set(key, (module = new WebAssembly.Module(writeInterpreter({ ...options, fused: fusedArithmetic() }))));
  return module;
}
/** Has the modules of a hart ready: without counting, and with. `hart`: byte address of its area. */
export function prepareInterpreter(hart: number, hotAfter: number): void {
  interpreterModule({ hart, exact: false });
  interpreterModule({ hart, exact: false, hotAfter });
}

export function createInterpreter(options: InterpreterOptions): InterpreterEngine {
  return new Interpreter(options);
}

/**
 * The generated interpreter of one hart. Wasm runs decoded entries; this class is what it calls for the rest: fetch
 * misses, decoding, slow memory accesses, and instructions that TypeScript executes (CSR, system, exact FP).
 */
class Interpreter implements InterpreterEngine {
  readonly name = "interpreter";
  readonly mmu: Mmu;
  readonly #options: InterpreterOptions;
  readonly #cells: HartCells;
  readonly cache: DecodeCache;
  watcher: CodeWatcher | undefined;
  readonly #accesses: SlowAccesses;
  readonly #slow: SlowInstructions;
  readonly #imports: EngineImports;
  readonly #u16: Uint16Array;
  readonly #i32: Int32Array;
  /** Words decoded before: word, first and second half of the entry. Direct-mapped. */
  readonly #words = new Int32Array(3 << WORDS_LOG2);
  /** Jumps and branches: word, first half of the entry when the target is in its page, the same when it is not, distance. */
  readonly #jumps = new Int32Array(4 << JUMPS_LOG2);
  readonly #entry: Entry = { op: 0, a: 0, b: 0, imm: 0 };
  readonly #fast: EngineExports;
  #exact: EngineExports | undefined;
  #counting: EngineExports | undefined;
  #decoded = 0;
  #fenceI = 0;

  constructor(options: InterpreterOptions) {
    const { memory, hart, core, physical } = options;
    this.#options = options;
    this.#cells = new HartCells(memory.buffer, hart);
    this.#u16 = new Uint16Array(memory.buffer);
    this.#i32 = new Int32Array(memory.buffer);
    this.mmu = options.mmu ?? new Mmu({ ...options, cells: this.#cells });
    this.#accesses = new SlowAccesses(this.#cells, memory, this.mmu, physical);
    const environment = new HartEnvironment(this.#cells, core, memory, this.mmu, this.#accesses);
    this.#slow = new SlowInstructions(this.#cells, core, environment, () => this.fenceI());
    this.#imports = {
      decode: (entry: number) => this.#decode(entry),
      fetch: () => this.#fetch(),
      crossing: (entry: number) => this.#crossing(entry),
      slow: (entry: number) => this.#executeSlowly(entry),
      load: (kind: number) => this.#accesses.load(kind),
      store: (kind: number) => this.#accesses.store(kind),
      translate: (kind: number) => this.#accesses.translate(kind),
      fpGate: (entry: number) => this.#fpGate(entry),
      slowWord: (word: number) => this.#executeWord(word),
      ticks: () => core.ticks(),
      hot: () => undefined,
    };
    this.#fast = this.#instantiate({ exact: false });
    this.cache = new DecodeCache({
      memory, cells: this.#cells,
      ramPages: options.ramBytes / 4096,
      ramOffset: options.ramOffset,
      pageEndOp: Special.PAGE_END,
      difference: this.#fast.difference,
      fetched: this.mmu.fetched,
      flushFetch: () => this.mmu.flushFetch(),
    });
    this.#u16[(this.#cells.base + START_ENTRY) >> 1] = Special.START;
  }

  #instantiate(variant: { exact: boolean }, counting?: CountingParts): EngineExports {
    const module = interpreterModule({ hart: this.#cells.base, ...variant, ...(counting && { hotAfter: counting.hotAfter }) });
    const imports = { ...this.#imports, ...(counting && { regions: counting.regions, hot: counting.hot }), memory: this.#options.memory };
    const instance = new WebAssembly.Instance(module, { engine: imports as unknown as WebAssembly.ModuleImports });
    return instance.exports as unknown as EngineExports;
  }

  count(parts: CountingParts): void {
    this.#counting = this.#instantiate({ exact: false }, parts);
  }

  run(budget: number): ExitReason {
    return this.#run(this.#fast, budget);
  }

  runCounting(budget: number): ExitReason {
    return this.#run(this.#counting!, budget);
  }

  #run(fast: EngineExports, budget: number): ExitReason {
    this.mmu.contextChanged();
    this.#readFpState();
    if (budget >= EXACT_BELOW) {
      // Between two looks at the budget lies at most a page of straight code.
      return fast.run(budget - PAGE_HALFWORDS);
    }
    this.#exact ??= this.#instantiate({ exact: true });
    return this.#exact.run(budget);
  }

  get accessFunctions(): EngineExports {
    return this.#fast;
  }

  fenceI(): void {
    this.#fenceI++;
    this.cache.suspectAll();
  }

  flushTlb(): void {
    this.mmu.flushTlb();
  }

  events(): Record<string, number> {
    return {
      "tlb-miss": this.mmu.misses, "tlb-flush": this.mmu.flushes,
      "decode": this.#decoded, "decode-page": this.cache.framesMade, "compare-page": this.cache.framesCompared,
      "decode-again": this.cache.entriesReset, "evict": this.cache.evictions, "fence.i": this.#fenceI,
      "slow-instruction": this.#slow.executed, "page-crossing": this.#accesses.crossing, "device": this.#accesses.device,
    };
  }

  #readFpState(): void {
    this.#cells.i32[FP_STATE >> 2] = fpState(this.#cells);
  }

  /** Frame of the page that an address lies in, for fetching; its fetch TLB entry is filled. -1 = trap. */
  #frameAt(low: number, high: number, keep = -1): number {
    const place = this.mmu.translate(low, high, Access.EXECUTE);
    if (place === FAULT) return -1;
    if (place === DEVICE) {
      this.mmu.accessFault(low, high, Access.EXECUTE);
      return -1;
    }
    const frame = this.cache.frame(this.mmu.ramPage(place), keep);
    this.mmu.fill(Access.EXECUTE, low, high, frame);
    this.watcher?.fetched(low, high, frame);
    return frame;
  }

  #fetch(): number {
    return this.#frameAt(this.#cells.i32[PC >> 2]!, this.#cells.i32[(PC >> 2) + 1]!) < 0 ? 1 : 0;
  }

  #word(entry: number): number {
    const frame = this.cache.frameIndex(entry);
    return this.#wordAt(entry, frame, (entry - this.cache.entryAddress(frame, 0)) >> 3);
  }
  #wordAt(entry: number, frame: number, index: number): number {
    if (index === CROSSING_ENTRY) return this.#i32[(entry + (CROSSING_WORD_ENTRY - CROSSING_ENTRY) * 8 + 4) >> 2]!;
    const low = this.cache.halfword(frame, index);
    return (low & 3) === 3 && index < PAGE_HALFWORDS - 1 ? low | (this.cache.halfword(frame, index + 1) << 16) : low;
  }

  #decode(entry: number): void {
    this.#decoded++;
    const frame = this.cache.frameIndex(entry);
    const index = (entry - this.cache.entryAddress(frame, 0)) >> 3;
    const word = this.#wordAt(entry, frame, index);
    if ((word & 3) === 3 && index === PAGE_HALFWORDS - 1) this.#u16[entry >> 1] = Special.CROSSING;
    else {
      this.#write(entry, (word & 3) === 3 ? word : word & 0xffff, index);
      this.watcher?.decoded(frame, index);
    }
  }

  /** Decodes a word into an entry; recently seen words are remembered with their entries. */
  #write(entry: number, word: number, index: number): void {
    const i32 = this.#i32;
    const to = entry >> 2;
    const known = this.#words;
    const at = placeOf(word, WORDS_LOG2) * 3;
    if (known[at] === word && known[at + 1] !== 0) {
      i32[to + 1] = known[at + 2]!;
      i32[to] = known[at + 1]!;
      return;
    }
    const jumps = this.#jumps;
    const jump = placeOf(word, JUMPS_LOG2) * 4;
    if (jumps[jump] !== word || jumps[jump + 1] === 0) {
      const decoded = decode(word);
      if (!decoded || !placeMatters(decoded.instruction)) {
        known[at] = word;
        known[at + 1] = i32[to] = this.#encode(decoded, index);
        known[at + 2] = i32[to + 1] = this.#entry.imm;
        return;
      }
      jumps[jump] = word;
      jumps[jump + 1] = this.#encode(decoded, decoded.imm > 0 ? 0 : PAGE_HALFWORDS - 1);
      jumps[jump + 2] = this.#encode(decoded, CROSSING_ENTRY);
      jumps[jump + 3] = decoded.imm;
    }
    const distance = jumps[jump + 3]!;
    const inPage = staysInPage(index, distance);
    i32[to + 1] = inPage ? distance * 4 : distance;
    i32[to] = jumps[jump + (inPage ? 1 : 2)]!;
  }
  /** First half of an entry; `#entry.imm` is the second. */
  #encode(decoded: Decoded | undefined, index: number): number {
    const fields = this.#entry;
    encode(decoded, index, fields);
    return fields.op | (fields.a << 16) | (fields.b << 24);
  }

  /** `entry`: of the last halfword. The second half is fetched through its own translation; a fault there has its address. */
  #crossing(entry: number): number {
    const cells = this.#cells.i32;
    const low = (cells[PC >> 2]! + 2) | 0;
    const high = low === 0 ? (cells[(PC >> 2) + 1]! + 1) | 0 : cells[(PC >> 2) + 1]!;
    const frame = this.cache.frameIndex(entry);
    const second = this.#frameAt(low, high, frame);
    if (second < 0) return 1;
    const first = this.cache.halfword(frame, PAGE_HALFWORDS - 1);
    const word = first | (this.cache.halfword(this.cache.frameIndex(second), 0) << 16);
    const crossing = entry + (CROSSING_ENTRY - (PAGE_HALFWORDS - 1)) * 8;
    this.#i32[(crossing + (CROSSING_WORD_ENTRY - CROSSING_ENTRY) * 8 + 4) >> 2] = word;
    this.#write(crossing, word, CROSSING_ENTRY);
    const source = (entry + (CROSSING_SOURCE_ENTRY - (PAGE_HALFWORDS - 1)) * 8) >> 2;
    this.#i32[source] = second;
    this.#i32[source + 1] = this.#i32[(this.#cells.base + CODE_EPOCH) >> 2]!;
    return 0;
  }

  #fpGate(entry: number): number {
    const { core } = this.#options;
    this.#readFpState();
    if (this.#cells.i32[FP_STATE >> 2] === 0) return this.#slow.illegal(this.#word(entry));
    core.fpDirty();
    this.#readFpState();
    return 0;
  }

  #executeSlowly(entry: number): number {
    return this.#executeWord(this.#word(entry));
  }

  #executeWord(word: number): number {
    const answer = this.#slow.execute(word);
    this.#readFpState(); // mstatus may have changed
    return answer;
  }
}
