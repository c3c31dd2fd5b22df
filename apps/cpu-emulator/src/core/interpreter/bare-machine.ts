import { assemble } from "@polyvisor/isa";
import { HartCells, MachineCells } from "../cells.ts";
import { type Engine, ExitReason, type PhysicalAccess } from "../engine.ts";
import { GuestTime } from "../guest-time.ts";
import { F, FFLAGS, FRM, HART_AREA_BASE, HART_AREA_BYTES, INSTRET, PC, X } from "../hart-state.ts";
import type { CpuFeatures } from "../cpu-features.ts";
import { Privileged } from "../privileged.ts";
import { Mmu } from "../mmu.ts";
import { ReferenceEngine } from "../reference-engine.ts";
import { ModeEngine } from "../translator/ahead/mode-engine.ts";
import { reachableRegions } from "../translator/ahead/reachable.ts";
import type { RecordedRegion } from "../translator/ahead/recording.ts";
import { translateAhead } from "../translator/ahead/translate-ahead.ts";
import { AHEAD_SLOTS, DynamicEngine, type DynamicOptions } from "../translator/engine.ts";
import { InlineTranslator } from "../translator/inline-translator.ts";
import { createInterpreter, fusedArithmetic, type InterpreterEngine } from "./engine.ts";

/**
 * `translated`: engine `dynamic` that translates everything when it is first reached; `static`: what can be reached from pc and the
 * program's labels is translated when it first runs, and the rest as `translated`.
 */
export type BareDynamic = Pick<DynamicOptions, "hotAfter" | "mostRegions"> & { readonly features?: CpuFeatures };
export type BareEngine = "interpreter" | "reference" | "dynamic" | "translated" | "static" | "recording";

/** One hart (or two), RAM and nothing else, for tests and benchmarks of engines: programs start in M-mode at the start of RAM. */
export class BareMachine {
  static readonly RAM_BASE = 0x8000_0000;
  readonly memory: WebAssembly.Memory;
  readonly cells: HartCells;
  readonly core: Privileged;
  readonly engine: Engine;
  /** Runs what `engine` does not, if that is another one. */
  readonly interpreter: Engine | undefined;
  /** Engine `dynamic` and its modes. */
  readonly hot: DynamicEngine | undefined;
  #translator: InlineTranslator | undefined;
  #recordings: readonly RecordedRegion[] | undefined;
  readonly #programs: { readonly code: Uint8Array; readonly base: bigint; readonly labels: readonly bigint[] }[] = [];
  readonly ram: Uint8Array;
  readonly view: DataView;
  /** Traps taken, as [cause, value, pc]. */
  readonly traps: [cause: number, value: bigint, pc: bigint][] = [];
  /** What devices saw, in order; reads answer from `deviceReads`. */
  readonly deviceWrites: [physical: bigint, bytes: number, value: bigint][] = [];
  readonly deviceReads = new Map<bigint, bigint>();
  /** Page leases: pages (physical) that cannot be had. */
  readonly withheld = new Set<bigint>();

  /** `beside`: another hart of that machine, with its memory. */
  constructor(ramBytes = 16 << 20, engine: BareEngine = "interpreter", beside?: BareMachine, dynamic: BareDynamic = {}) {
    const hart = beside ? 1 : 0;
    const ramOffset = HART_AREA_BASE + 2 * HART_AREA_BYTES;
    const pages = (ramOffset + ramBytes) / 65536;
    this.memory = beside?.memory ?? new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.cells = new HartCells(this.memory.buffer, hart);
    this.core = new Privileged(this.cells, new GuestTime(new MachineCells(this.memory.buffer), () => 0), dynamic.features);
    this.core.reset(BigInt(BareMachine.RAM_BASE), 0n, 0n);
    const physical: PhysicalAccess = {
      holds: () => this.withheld.size === 0,
      ensurePage: (address) => !this.withheld.has(address & ~0xfffn),
      mmioRead: (address) => this.deviceReads.get(address),
      mmioWrite: (address, bytes, value) => {
        if (!this.deviceReads.has(address)) return false;
        this.deviceWrites.push([address, bytes, value]);
        return true;
      },
    };
    const { memory, cells, core } = this;
    const mmu = new Mmu({ memory, cells, core, physical, ramBase: BareMachine.RAM_BASE, ramBytes, ramOffset });
    const interpreter = (): InterpreterEngine => createInterpreter({ memory, hart, ramBase: BareMachine.RAM_BASE, ramBytes, ramOffset, core, physical, mmu });
    switch (engine) {
      case "reference": this.engine = new ReferenceEngine({ memory, cells, core, physical, mmu }); break;
      case "interpreter": this.engine = interpreter(); break;
      default: {
        const translator = new InlineTranslator({ buffer: memory.buffer, hart: cells.base, fused: fusedArithmetic() });
        const eager = engine === "dynamic" ? {} : { hotAfter: 1, cold: true };
        const cold = interpreter();
        this.interpreter = cold;
        const hot = new DynamicEngine({ memory, cells, interpreter: cold, translator, ...eager, ...dynamic });
        this.engine = engine === "static" || engine === "recording" ? new ModeEngine(engine, hot) : hot;
        this.hot = hot;
        if (engine === "static") this.#translator = translator;
      }
    }
    this.core.translation = mmu;
    this.ram = new Uint8Array(this.memory.buffer, ramOffset, ramBytes);
    this.view = new DataView(this.memory.buffer, ramOffset, ramBytes);
  }

  /** Assembles a program to an address in RAM and answers its labels. */
  load(source: string, base = BigInt(BareMachine.RAM_BASE), symbols: Record<string, bigint> = {}): Map<string, bigint> {
    const { bytes, labels } = assemble(source, { base, symbols });
    this.ram.set(bytes, Number(base) - BareMachine.RAM_BASE);
    this.#programs.push({ code: bytes, base, labels: [...labels.values()] });
    return labels;
  }

  /** Runs until WFI, a trap to a zero vector, or `limit` instructions; answers why. */
  run(limit = 10_000_000, slice = 1_000_000): "wfi" | "trap" | "limit" {
    this.#translateAhead();
    for (let left = limit; left > 0; ) {
      const before = this.instret;
      const reason = this.engine.run(Math.min(slice, left));
      left -= Math.max(1, Number(this.instret - before));
      if (reason === ExitReason.WFI) return "wfi";
      if (reason !== ExitReason.TRAP) continue;
      this.traps.push([this.cells.i32[0x220 >> 2]!, this.cells.u64[0x228 >> 3]!, this.pc]);
      this.core.takeTrap();
      if (this.pc === 0n) return "trap";
    }
    return "limit";
  }

  /** Engine `static`: the regions to translate ahead, before the first run; without it, what can be reached of the programs. */
  ahead(recordings: readonly RecordedRegion[]): void {
    this.#recordings = recordings;
  }
  #translateAhead(): void {
    const translator = this.#translator;
    this.#translator = undefined;
    if (!translator) return;
    const recordings = this.#recordings ?? this.#programs.flatMap(({ code, base, labels }) => reachableRegions(code, base, [base, ...labels], 256));
    for (const { bytes, regions } of translateAhead(recordings, { hart: this.cells.base, fused: fusedArithmetic(), firstSlot: AHEAD_SLOTS })) {
      translator.ahead({ module: new WebAssembly.Module(bytes), ahead: regions });
    }
  }

  events(): Record<string, number> {
    return { ...this.interpreter?.events(), ...this.engine.events(), ...this.hot?.events() };
  }

  x(register: number): bigint {
    return this.cells.u64[(X >> 3) + register]!;
  }
  setX(register: number, value: bigint): void {
    this.cells.u64[(X >> 3) + register] = value;
  }
  f(register: number): bigint {
    return this.cells.u64[(F >> 3) + register]!;
  }
  setF(register: number, value: bigint): void {
    this.cells.u64[(F >> 3) + register] = value;
  }
  get fflags(): number {
    return this.cells.i32[FFLAGS >> 2]!;
  }
  set fflags(value: number) {
    this.cells.i32[FFLAGS >> 2] = value;
  }
  set frm(value: number) {
    this.cells.i32[FRM >> 2] = value;
  }
  get pc(): bigint {
    return this.cells.u64[PC >> 3]!;
  }
  set pc(value: bigint) {
    this.cells.u64[PC >> 3] = value;
  }
  get instret(): bigint {
    return this.cells.u64[INSTRET >> 3]!;
  }
  /** 64 bits of RAM at a guest-physical address. */
  word(address: number): bigint {
    return this.view.getBigUint64(address - BareMachine.RAM_BASE, true);
  }
  setWord(address: number, value: bigint): void {
    this.view.setBigUint64(address - BareMachine.RAM_BASE, value, true);
  }
}
