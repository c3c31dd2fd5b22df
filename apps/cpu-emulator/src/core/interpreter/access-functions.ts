import { type Callable, type CodeWriter, I32, I64, Mem, type MemOp, type ModuleWriter, Op, Simd, VOID } from "@polyvisor/wasm-encoder";
import { SECOND_GENERATION, TLB_SET } from "../hart-state.ts";
import { LOAD_ENTRIES, LOAD_TABLE, SECOND_ENTRIES, SECOND_LOAD, SECOND_STORE, STORE_ENTRIES, STORE_TABLE, entryMask } from "../tlb.ts";
import { ACCESS_ADDRESS, ACCESS_FAULT, ACCESS_PLACE, ACCESS_VALUE, DIRECT, KIND_READ, KIND_SIZE, TRAPPED } from "./cells.ts";
import type { Helpers } from "./frame.ts";

/** By kind: log2 of the byte count, and 4 when signed. */
const LOADS: readonly MemOp[] = [
  Mem.i64Load8U, Mem.i64Load16U, Mem.i64Load32U, Mem.i64Load, Mem.i64Load8S, Mem.i64Load16S, Mem.i64Load32S, Mem.i64Load,
];
const STORES: readonly MemOp[] = [Mem.i64Store8, Mem.i64Store16, Mem.i64Store32, Mem.i64Store];

/**
 * What handlers call when the inline lookup misses. Misaligned accesses to a page that is in the TLB are done here, and those
 * to a page that is in its second level; for the rest TypeScript is asked. 64-bit values go through memory: a BigInt at the JavaScript boundary costs four times
 * as much.
 */
export function defineAccess(module: ModuleWriter, hart: number, imports: Record<"load" | "store" | "translate", Callable>): Pick<Helpers, "loadSlow" | "storeSlow" | "translateSlow"> {
  const loadSlow = module.function("loadSlow", { parameters: [I64, I32], results: [I64] });
  {
    const { code } = loadSlow;
    const [address, kind, place, answer] = [0, 1, code.local(I32), code.local(I32)];
    code.i32(0).i32(0).mem(Mem.i32Store, hart + ACCESS_FAULT);
    misalignedHit(code, hart, address, kind, place, LOADED);
    code.op(Op.i32Eqz).if(VOID);
    secondHit(code, hart, address, kind, place, LOADED);
    code.op(Op.i32Eqz).if(VOID);
    code.i32(0).get(address).mem(Mem.i64Store, hart + ACCESS_ADDRESS);
    code.get(kind).call(imports.load).tee(answer).i32(DIRECT).op(Op.i32Ne).if(VOID);
    code.i32(0).get(answer).i32(TRAPPED).op(Op.i32Eq).mem(Mem.i32Store, hart + ACCESS_FAULT);
    code.i32(0).mem(Mem.i64Load, hart + ACCESS_VALUE).op(Op.return).end();
    code.i32(0).mem(Mem.i32Load, hart + ACCESS_PLACE).set(place).end().end();
    byKind(code, kind, LOADS.length, (k) => code.get(place).mem(LOADS[k]!, 0, 0).op(Op.return));
    code.op(Op.unreachable);
  }
  const storeSlow = module.function("storeSlow", { parameters: [I64, I64, I32], results: [I32] });
  {
    const { code } = storeSlow;
    const [address, value, kind, place, answer] = [0, 1, 2, code.local(I32), code.local(I32)];
    misalignedHit(code, hart, address, kind, place, STORED);
    code.op(Op.i32Eqz).if(VOID);
    secondHit(code, hart, address, kind, place, STORED);
    code.op(Op.i32Eqz).if(VOID);
    code.i32(0).get(address).mem(Mem.i64Store, hart + ACCESS_ADDRESS);
    code.i32(0).get(value).mem(Mem.i64Store, hart + ACCESS_VALUE);
    code.get(kind).call(imports.store).tee(answer).i32(DIRECT).op(Op.i32Ne).if(VOID);
    code.get(answer).op(Op.return).end();
    code.i32(0).mem(Mem.i32Load, hart + ACCESS_PLACE).set(place).end().end();
    byKind(code, kind, STORES.length, (k) => code.get(place).get(value).mem(STORES[k]!, 0, 0).i32(0).op(Op.return));
    code.op(Op.unreachable);
  }
  const translateSlow = module.function("translateSlow", { parameters: [I64, I32], results: [I32] });
  {
    const { code } = translateSlow;
    const [address, kind, place] = [0, 1, code.local(I32)];
    const aligned = (): void => void code.get(address).op(Op.i32WrapI64).i32(1).get(kind).i32(KIND_SIZE).op(Op.i32And, Op.i32Shl).i32(1).op(Op.i32Sub, Op.i32And, Op.i32Eqz);
    for (const tables of [LOADED, STORED]) {
      aligned();
      code.get(kind).i32(KIND_READ).op(Op.i32And).i32(0).op(tables === LOADED ? Op.i32Ne : Op.i32Eq, Op.i32And).if(VOID);
      secondHit(code, hart, address, kind, place, tables);
      code.if(VOID);
      code.i32(0).op(Op.return).end().end();
    }
    code.i32(0).get(address).mem(Mem.i64Store, hart + ACCESS_ADDRESS);
    code.get(kind).call(imports.translate);
  }
  return { loadSlow, storeSlow, translateSlow };
}

interface Tables {
  /** In the set: its offset there, its entries. */
  readonly table: number;
  readonly entries: number;
  /** Of the second level: its offset in the hart area. */
  readonly second: number;
}
const LOADED: Tables = { table: LOAD_TABLE, entries: LOAD_ENTRIES, second: SECOND_LOAD };
const STORED: Tables = { table: STORE_TABLE, entries: STORE_ENTRIES, second: SECOND_STORE };

/** Leaves 1, and the place, when the address's page is in the TLB and the access stays in it. */
function misalignedHit(code: CodeWriter, hart: number, address: number, kind: number, place: number, { table, entries }: Tables): void {
  code.i32(0).mem(Mem.i32Load, hart + TLB_SET);
  code.get(address).op(Op.i32WrapI64).i32(8).op(Op.i32ShrU).i32(entryMask(entries)).op(Op.i32And, Op.i32Add).tee(place);
  code.mem(Mem.i64Load, table).get(address).op(Op.i64Xor).i64(-4096).op(Op.i64And, Op.i64Eqz);
  staysInPage(code, address, kind);
  code.op(Op.i32And);
  code.get(address).op(Op.i32WrapI64).get(place).mem(Mem.i32Load, table + 8).op(Op.i32Add).set(place);
}

/** Leaves 1, and the place, when the address's page is in the TLB's second level and the access stays in it; then it is in the first. */
function secondHit(code: CodeWriter, hart: number, address: number, kind: number, place: number, { table, entries, second }: Tables): void {
  const low = (): CodeWriter => code.get(address).op(Op.i32WrapI64);
  const at = hart + second;
  low().i32(8).op(Op.i32ShrU).i32(entryMask(SECOND_ENTRIES)).op(Op.i32And).tee(place).mem(Mem.i64Load, at);
  code.get(address).i64(-4096).op(Op.i64And).i32(0).mem(Mem.i64Load, hart + SECOND_GENERATION).op(Op.i64Or, Op.i64Eq);
  code.get(place).mem(Mem.i32Load, at + 12).i32(0).mem(Mem.i32Load, hart + TLB_SET).op(Op.i32Eq, Op.i32And);
  staysInPage(code, address, kind);
  code.op(Op.i32And).if(I32);
  const first = (): void => void code.i32(0).mem(Mem.i32Load, hart + TLB_SET).get(address).op(Op.i32WrapI64).i32(8).op(Op.i32ShrU).i32(entryMask(entries)).op(Op.i32And, Op.i32Add);
  first();
  code.get(address).i64(-4096).op(Op.i64And).mem(Mem.i64Store, table);
  first();
  code.get(place).mem(Mem.i32Load, at + 8).mem(Mem.i32Store, table + 8);
  low().get(place).mem(Mem.i32Load, at + 8).op(Op.i32Add).set(place);
  code.i32(1).else().i32(0).end();
}

/** Leaves 1 when the access does not cross the page's end. */
function staysInPage(code: CodeWriter, address: number, kind: number): void {
  code.get(address).op(Op.i32WrapI64).i32(4095).op(Op.i32And).i32(1).get(kind).i32(KIND_SIZE).op(Op.i32And, Op.i32Shl, Op.i32Add).i32(4096).op(Op.i32LeU);
}

/** One piece of code per kind; each must leave the function. */
function byKind(code: CodeWriter, kind: number, kinds: number, emit: (kind: number) => void): void {
  const blocks = Array.from({ length: kinds }, () => code.block()).reverse();
  code.get(kind).brTable(blocks.slice(0, -1), blocks.at(-1)!);
  for (let k = 0; k < kinds; k++) {
    code.end();
    emit(k);
  }
}

/** (page, page, from): byte offset of the first 8-byte difference at or after `from`; 4096 when there is none. */
export function defineDifference(module: ModuleWriter): Callable {
  const f = module.function("difference", { parameters: [I32, I32, I32], results: [I32] });
  const { code } = f;
  const [a, b, at] = [0, 1, 2];
  const at64 = (which: number): void => void code.get(which).get(at).op(Op.i32Add);
  const step = (bytes: number): void => void code.get(at).i32(bytes).op(Op.i32Add).set(at);
  // 64 bytes at a time while they are equal, when `from` allows …
  const differs = code.block();
  const fast = code.loop();
  code.get(at).i32(4096 - 64).op(Op.i32GtU).brIf(differs, false);
  for (let i = 0; i < 4; i++) {
    at64(a);
    code.v128Load(i * 16, 3);
    at64(b);
    code.v128Load(i * 16, 3).simd(Simd.v128Xor);
    if (i > 0) code.simd(Simd.v128Or);
  }
  code.simd(Simd.v128AnyTrue).brIf(differs, false);
  step(64);
  code.br(fast).end().end();
  // … then 8 at a time.
  const done = code.block();
  const slow = code.loop();
  code.get(at).i32(4096).op(Op.i32GeU).brIf(done, false);
  at64(a);
  code.mem(Mem.i64Load);
  at64(b);
  code.mem(Mem.i64Load).op(Op.i64Ne).brIf(done, false);
  step(8);
  code.br(slow).end().end();
  code.get(at);
  return f;
}
