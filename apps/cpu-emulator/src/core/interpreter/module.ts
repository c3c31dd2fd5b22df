import { type Callable, F32, F64, I32, I64, Mem, ModuleWriter, Op, Simd, VOID } from "@polyvisor/wasm-encoder";
import { CODE_EPOCH, CROSSING_ENTRY, CROSSING_END_ENTRY, CROSSING_SOURCE_ENTRY, PAGE_HALFWORDS, START_ENTRY } from "../decode-cache.ts";
import { ExitReason } from "../engine.ts";
import { INSTRET, PC, TLB_SET } from "../hart-state.ts";
import { FETCH_ENTRIES, FETCH_TABLE, entryMask } from "../tlb.ts";
import { defineArithmetic, defineMinMax } from "./arithmetic.ts";
import { defineAccess, defineDifference } from "./access-functions.ts";
import { REGION_EXIT, REGION_WORD, RegionExit, TRANSLATED_COUNT, TRANSLATED_RETURNS } from "./cells.ts";
import type { Helpers, InterpreterEmission, InterpreterExits, InterpreterLocals, Locals } from "./frame.ts";
import { HANDLERS, SPECIALS, Special } from "./handlers.ts";
import { defineSystem } from "./system-function.ts";
import { HandlerLowering, countEntry, next, pushPc } from "./lower-handler.ts";

/** What the module imports under "engine". Addresses and values travel through the cells of cells.ts. */
export interface EngineImports extends Record<string, Function> {
  /** Decodes the entry at this address. */
  decode(entry: number): void;
  /** Fills the fetch TLB for PC. 1 = trap. */
  fetch(): number;
  /** Decodes the instruction that crosses a page end into the frame's crossing entry. 1 = trap. */
  crossing(entry: number): number;
  /** Executes the instruction of an entry. Negative: go on at PC; else the exit reason. Counts it in INSTRET itself. */
  slow(entry: number): number;
  /** Between ACCESS_ADDRESS and ACCESS_VALUE; answers as in cells.ts. */
  load(kind: number): number;
  store(kind: number): number;
  /** ACCESS_ADDRESS into the TLB. 1 = trap. */
  translate(kind: number): number;
  fpGate(entry: number): number;
  /** Executes an instruction word at PC for translated code; answers as `slow`. */
  slowWord(word: number): number;
  /** The guest's time in ticks, a whole number. */
  ticks(): number;
  /** The entry was reached `hotAfter` times; PC is its address. */
  hot(entry: number): void;
}

/** Translated code: (pc, budget, entry selector) -> budget left. The cells of cells.ts say why it came back. */
export const REGION_TYPE = { parameters: [I64, I32, I32], results: [I32] } as const;

export interface ModuleOptions {
  /** Byte address of the hart's area; baked into the code. */
  readonly hart: number;
  readonly fused: { readonly f64: boolean; readonly f32: boolean };
  /** Look at the budget after every instruction (stepping) instead of at backward jumps and page changes. */
  readonly exact: boolean;
  /** Count jump targets and enter translated code. Without it TypeScript executes the instruction at a translated entry. */
  readonly hotAfter?: number;
}

export interface EngineExports {
  run(budget: number): ExitReason;
  difference(a: number, b: number, from: number): number;
  readonly loadSlow: Function;
  readonly storeSlow: Function;
  readonly translateSlow: Function;
}

/** Writes the interpreter of one hart: `run`, one loop around one br_table, and `difference`. */
export function writeInterpreter({ hart, fused, exact, hotAfter = 0 }: ModuleOptions): Uint8Array<ArrayBuffer> {
  const module = new ModuleWriter();
  module.importMemory("engine", "memory", { min: 1, max: 65536, shared: true });
  if (hotAfter > 0) module.importTable("engine", "regions", { min: 0 });
  const imported = (name: keyof EngineImports & string, parameters: number, result = true): Callable =>
    module.importFunction("engine", name, { parameters: Array.from({ length: parameters }, () => I32), results: result ? [I32] : [] });
  const imports = {
    decode: imported("decode", 1, false), fetch: imported("fetch", 0), crossing: imported("crossing", 1), slow: imported("slow", 1),
    load: imported("load", 1), store: imported("store", 1), translate: imported("translate", 1), fpGate: imported("fpGate", 1),
    slowWord: imported("slowWord", 1), hot: imported("hot", 1, false),
  };
  const ticks = module.importFunction("engine", "ticks", { parameters: [], results: [F64] });
  const helpers: Helpers = {
    ...defineAccess(module, hart, imports),
    arithmetic: defineArithmetic(module),
    minMax: defineMinMax(module),
  };
  module.exportFunction("difference", defineDifference(module));
  for (const name of ["loadSlow", "storeSlow", "translateSlow"] as const) module.exportFunction(name, helpers[name]);
  const system = defineSystem(module, hart, ticks);
  const counting = hotAfter > 0 ? { hotAfter, hot: imports.hot } : undefined;
  module.exportFunction("run", defineRun(module, { hart, fused, exact, helpers, counting, fpGate: imports.fpGate }, { ...imports, system }));
  return module.finish();
}

/** Looks the page of `address` up in the fetch TLB: leaves 1 for a hit, and the TLB entry in `place`. */
function lookUpFetch({ code, locals }: InterpreterEmission): void {
  code.get(locals.address).op(Op.i32WrapI64).i32(8).op(Op.i32ShrU).i32(entryMask(FETCH_ENTRIES)).op(Op.i32And)
    .get(locals.tlb).op(Op.i32Add).tee(locals.place)
    .mem(Mem.i64Load, FETCH_TABLE).get(locals.address).op(Op.i64Xor).i64(-4096).op(Op.i64And, Op.i64Eqz);
}

/** Calls for the crossing entry to be made, unless it was made from the same two pages and no code has changed since. */
function emitCrossing(emission: InterpreterEmission, make: () => void): void {
  const { code, locals, hart } = emission;
  const source = (CROSSING_SOURCE_ENTRY - (PAGE_HALFWORDS - 1)) * 8;
  pushPc(emission);
  code.i64(2).op(Op.i64Add).set(locals.address);
  lookUpFetch(emission);
  code.get(locals.place).mem(Mem.i32Load, FETCH_TABLE + 8).get(locals.entry).mem(Mem.i32Load, source).op(Op.i32Eq, Op.i32And);
  code.i32(0).mem(Mem.i32Load, hart + CODE_EPOCH).get(locals.entry).mem(Mem.i32Load, source + 4).op(Op.i32Eq, Op.i32And, Op.i32Eqz);
  code.if(VOID, false);
  make();
  code.end();
}

type Imports = Record<"decode" | "fetch" | "crossing" | "slow" | "slowWord" | "system", Callable>;

function defineRun(module: ModuleWriter, parts: Omit<InterpreterEmission, "code" | "locals" | "exits">, imports: Imports): Callable {
  const f = module.function("run", { parameters: [I32], results: [I32] });
  const { code } = f;
  const { hart } = parts;
  const start = code.local(I32); // budget when INSTRET was last right
  const i32s = () => code.local(I32);
  const i64s = () => code.local(I64);
  const locals: InterpreterLocals = {
    budget: 0,
    entry: i32s(), count: i32s(), tlb: i32s(), place: i32s(),
    bias: i64s(), address: i64s(), value: i64s(), bits: [i64s(), i64s(), i64s()],
    f64: Array.from({ length: 5 }, () => code.local(F64)) as unknown as Locals["f64"],
    f32: Array.from({ length: 5 }, () => code.local(F32)) as unknown as Locals["f32"],
  };

  const startEntry = (): void => void code.i32(hart + START_ENTRY).set(locals.entry);
  const loadTlb = (): void => void code.i32(0).mem(Mem.i32Load, hart + TLB_SET).set(locals.tlb);
  const storePc = (push: () => void): void => {
    code.i32(0);
    push();
    code.mem(Mem.i64Store, hart + PC);
  };
  const syncInstret = (): void => {
    code.i32(0).i32(0).mem(Mem.i64Load, hart + INSTRET)
      .get(start).get(locals.budget).op(Op.i32Sub, Op.i64ExtendI32S, Op.i64Add).mem(Mem.i64Store, hart + INSTRET);
  };
  const add64 = (cell: number, push: () => void): void => {
    code.i32(0).i32(0).mem(Mem.i64Load, cell);
    push();
    code.op(Op.i64Add).mem(Mem.i64Store, cell);
  };
  const leave = (reason: ExitReason): void => {
    syncInstret();
    code.i32(reason).op(Op.return);
  };

  code.get(locals.budget).set(start);
  loadTlb();
  startEntry();
  const dispatch = code.loop();
  const executed = code.block(); // `place`: what TypeScript answered
  const slow = code.block();
  const trap = code.block();
  const fetch = code.block();
  const exits: InterpreterExits = { dispatch, fetch, trap, slow };
  const emission: InterpreterEmission = { code, locals, exits, ...parts };

  // Handlers, innermost block first: handler n begins where block n ends.
  const total = SPECIALS + HANDLERS.length;
  const blocks = Array.from({ length: total }, () => code.block()).reverse();
  code.get(locals.entry).mem(Mem.i32Load16U).brTable(blocks.slice(0, -1), blocks.at(-1)!);
  for (let op = 0; op < total; op++) {
    code.end();
    switch (op) {
      case Special.DECODE: code.get(locals.entry).call(imports.decode).br(dispatch); break;
      case Special.PAGE_END: pushPc(emission); code.set(locals.address).br(fetch); break;
      case Special.START: code.i32(0).mem(Mem.i64Load, hart + PC).set(locals.address).br(fetch); break;
      case Special.CROSSING:
        emitCrossing(emission, () => {
          storePc(() => pushPc(emission));
          code.get(locals.entry).call(imports.crossing).brIf(trap);
        });
        // The same pc, at the crossing entry behind the page's end.
        code.get(locals.entry).i32((CROSSING_ENTRY - (PAGE_HALFWORDS - 1)) * 8).op(Op.i32Add).set(locals.entry);
        code.get(locals.bias).i64((CROSSING_ENTRY - (PAGE_HALFWORDS - 1)) * 2).op(Op.i64Sub).set(locals.bias).br(dispatch);
        break;
      case Special.SLOW:
        storePc(() => pushPc(emission));
        syncInstret();
        code.get(locals.entry).mem(Mem.i32Load, 4).call(imports.system).tee(locals.place).brIf(executed);
        code.get(locals.entry).call(imports.slow).set(locals.place).br(executed);
        break;
      case Special.TRANSLATED:
        if (!parts.counting) {
          code.br(slow);
          break;
        }
        code.get(locals.budget).set(locals.count);
        pushPc(emission);
        code.get(locals.budget).get(locals.entry).mem(Mem.i32Load8U, 4).get(locals.entry).mem(Mem.i32Load, 4).i32(8).op(Op.i32ShrU);
        code.callIndirect(module.type(REGION_TYPE)).set(locals.budget);
        add64(hart + TRANSLATED_COUNT, () => code.get(locals.count).get(locals.budget).op(Op.i32Sub, Op.i64ExtendI32S));
        add64(hart + TRANSLATED_RETURNS, () => code.i64(1));
        startEntry();
        code.i32(0).mem(Mem.i32Load, hart + REGION_EXIT).tee(locals.place).op(Op.i32Eqz).brIf(dispatch, true);
        code.get(locals.place).i32(RegionExit.TRAP).op(Op.i32Eq).if(VOID);
        leave(ExitReason.TRAP);
        code.end();
        syncInstret();
        code.i32(0).mem(Mem.i32Load, hart + REGION_WORD).call(imports.system).tee(locals.place).brIf(executed);
        code.i32(0).mem(Mem.i32Load, hart + REGION_WORD).call(imports.slowWord).set(locals.place).br(executed);
        break;
      case Special.NOP2: next(emission, 2); break;
      case Special.NOP4: next(emission, 4); break;
      default: new HandlerLowering(emission, HANDLERS[op - SPECIALS]!).emit();
    }
  }
  code.end(); // fetch: continue at `address`
  storePc(() => code.get(locals.address));
  code.get(locals.budget).i32(0).op(Op.i32LeS).if(VOID, false);
  leave(ExitReason.BUDGET);
  code.end();
  lookUpFetch(emission);
  code.if(VOID, true);
  code.get(locals.place).mem(Mem.i32Load, FETCH_TABLE + 8)
    .get(locals.address).op(Op.i32WrapI64).i32(0xffe).op(Op.i32And).i32(2).op(Op.i32Shl, Op.i32Add).set(locals.entry);
  code.get(locals.address).get(locals.entry).i32(2).op(Op.i32ShrU, Op.i64ExtendI32U, Op.i64Sub).set(locals.bias);
  countEntry(emission);
  code.br(dispatch).end();
  code.call(imports.fetch).if(VOID, false);
  leave(ExitReason.TRAP);
  code.end();
  startEntry();
  code.br(dispatch);

  code.end(); // trap: the current instruction did not happen
  storePc(() => pushPc(emission));
  leave(ExitReason.TRAP);

  code.end(); // slow: TypeScript executes the current instruction
  storePc(() => pushPc(emission));
  syncInstret();
  code.get(locals.entry).call(imports.slow).set(locals.place);

  code.end(); // executed
  code.get(locals.place).i32(0).op(Op.i32GeS).if(VOID, false);
  code.get(locals.place).op(Op.return).end();
  code.get(locals.budget).i32(1).op(Op.i32Sub).tee(locals.budget).set(start);
  loadTlb();
  startEntry();
  code.br(dispatch);
  code.end();
  code.op(Op.unreachable);
  if ((CROSSING_END_ENTRY - CROSSING_ENTRY) * 2 !== 4) throw new Error("the sentinel must follow a 4-byte crossing instruction");
  return f;
}

/**
 * Whether relaxed multiply-add rounds once on this machine. (1+u)(1-u) - 1 = -u² exactly when fused, 0 when not;
 * u = 2^-30 for f64, 2^-13 for f32.
 */
export function probeFused(): { f64: boolean; f32: boolean } {
  const module = new ModuleWriter();
  const f64 = module.function("f64", { parameters: [F64], results: [F64] });
  f64.code.f64(1).get(0).op(Op.f64Add).simd(Simd.f64x2Splat).f64(1).get(0).op(Op.f64Sub).simd(Simd.f64x2Splat)
    .f64(-1).simd(Simd.f64x2Splat).simd(Simd.f64x2RelaxedMadd).f64x2ExtractLane(0);
  const f32 = module.function("f32", { parameters: [F32], results: [F32] });
  f32.code.f32(1).get(0).op(Op.f32Add).simd(Simd.f32x4Splat).f32(1).get(0).op(Op.f32Sub).simd(Simd.f32x4Splat)
    .f32(-1).simd(Simd.f32x4Splat).simd(Simd.f32x4RelaxedMadd).f32x4ExtractLane(0);
  module.exportFunction("f64", f64);
  module.exportFunction("f32", f32);
  const probe = new WebAssembly.Instance(new WebAssembly.Module(module.finish())).exports as unknown as Record<"f64" | "f32", (u: number) => number>;
  return { f64: probe.f64(2 ** -30) === -(2 ** -60), f32: probe.f32(2 ** -13) === -(2 ** -26) };
}
