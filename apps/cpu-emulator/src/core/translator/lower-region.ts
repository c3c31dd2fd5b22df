import { F_NAMES, FORMATS, type RegisterField, type Stmt, X_NAMES } from "@polyvisor/isa";
import { type CodeWriter, F32, F64, I32, I64, type Label, Mem, type ModuleWriter, Op, VOID } from "@polyvisor/wasm-encoder";
import { FRAME_AREA, FRAME_BYTES } from "../decode-cache.ts";
import { CSRS, F, FP_DIRTY, FP_STATE, PC, TLB_SET, X } from "../hart-state.ts";
import { REGION_EXIT, REGION_WORD, RegionExit } from "../interpreter/cells.ts";
import type { Emission, Exits, Helpers, Locals } from "../interpreter/frame.ts";
import { Special, cellOf, traitsOf } from "../interpreter/handlers.ts";
import { Lowering } from "../interpreter/lower-ir.ts";
import { REGION_TYPE } from "../interpreter/module.ts";
import { FETCH_ENTRIES, FETCH_TABLE, entryMask } from "../tlb.ts";
import type { CodeSource } from "./code-source.ts";
import type { Block, Instruction, Region } from "./region.ts";
import { type Edge, type FlowNode, type Structure, structure } from "./structure.ts";
import { VerifiedPages } from "./verified-pages.ts";

export interface RegionParts {
  /** Byte address of the hart's area. */
  readonly hart: number;
  readonly fused: { readonly f64: boolean; readonly f32: boolean };
  readonly helpers: Helpers;
  /**
   * Translating ahead: byte address of the word that will hold the frame of a page (of `CodeSource.frame`) when the code runs;
   * absent: the source's frames are those of now, and are constants.
   */
  readonly frameCell?: (frame: number) => number;
}

/** Parameters of a region's function, as REGION_TYPE says. */
const PC_PARAMETER = 0;
const BUDGET = 1;
const ENTRY = 2;

/**
 * Writes the function of a region. Guest registers are locals, loaded at the start and stored at the one end; `base` is
 * the virtual address of the region's first page, so every pc is `base` plus a constant.
 *
 * An instruction that faults or needs TypeScript leaves through `trap` or `slow` with its place in `at` (offset in bits
 * 31:8, instructions retired before it in its block in bits 7:0). All other ways out set `target` and go to `go`: there the
 * next region is looked up as the interpreter would and called without coming back.
 */
export class RegionWriter {
  readonly #code: CodeWriter;
  readonly #module: ModuleWriter;
  readonly #parts: RegionParts;
  readonly #region: Region;
  readonly #source: CodeSource;
  readonly #structure: Structure;
  readonly #pages: VerifiedPages;
  readonly #locals: Locals;
  readonly #x: (number | undefined)[] = [];
  readonly #f: (number | undefined)[] = [];
  readonly #written = { x: new Set<number>(), f: new Set<number>() };
  readonly #selectors: number[];
  readonly #base: number;
  readonly #at: number;
  readonly #word: number;
  readonly #exit: number;
  readonly #target: number;
  readonly #labels = new Map<FlowNode, { loop?: Label; block?: Label }>();
  #exits!: Exits;
  #go!: Label;
  /** What is known of the FP state in the current block: 0 nothing, 1 on, FP_DIRTY. */
  #fpState = 0;
  #roundsToNearest = false;

  constructor(module: ModuleWriter, code: CodeWriter, region: Region, source: CodeSource, parts: RegionParts) {
    this.#module = module;
    this.#code = code;
    this.#region = region;
    this.#source = source;
    this.#parts = parts;
    this.#structure = structure(region);
    this.#pages = new VerifiedPages(this.#structure);
    const i32 = (): number => code.local(I32);
    const i64 = (): number => code.local(I64);
    this.#locals = {
      tlb: i32(), place: i32(), address: i64(), value: i64(), bits: [i64(), i64(), i64()],
      f64: Array.from({ length: 5 }, () => code.local(F64)) as unknown as Locals["f64"],
      f32: Array.from({ length: 5 }, () => code.local(F32)) as unknown as Locals["f32"],
    };
    this.#base = i64();
    this.#at = i32();
    this.#word = i32();
    this.#exit = i32();
    this.#target = i64();
    this.#selectors = [ENTRY, ...Array.from({ length: this.#structure.selectors - 1 }, i32)];
  }

  /** What a local of the function stands for, for people. */
  localName(local: number): string {
    const register = (file: readonly (number | undefined)[], names: readonly string[]): string | undefined => names[file.indexOf(local)];
    const { tlb, place, address, value } = this.#locals;
    const named = new Map([
      [PC_PARAMETER, "pc"], [BUDGET, "budget"], [ENTRY, "entry"], [this.#base, "base"], [this.#at, "at"], [this.#word, "word"],
      [this.#exit, "exit"], [this.#target, "target"], [tlb, "tlb"], [place, "place"], [address, "address"], [value, "value"],
    ]);
    return named.get(local) ?? register(this.#x, X_NAMES) ?? register(this.#f, F_NAMES) ?? `$${local}`;
  }

  write(): void {
    const code = this.#code;
    const { hart } = this.#parts;
    this.#collectRegisters();
    code.i32(0).mem(Mem.i32Load, hart + TLB_SET).set(this.#locals.tlb);
    for (const [register, local] of this.#x.entries()) if (local !== undefined) code.i32(0).mem(Mem.i64Load, hart + X + register * 8).set(local);
    for (const [register, local] of this.#f.entries()) if (local !== undefined) code.i32(0).mem(Mem.i64Load, hart + F + register * 8).set(local);
    const common = code.block();
    this.#go = code.block();
    const faulted = code.block();
    const slow = code.block();
    const trap = code.block();
    this.#exits = { trap, slow };
    this.#tree(this.#structure.root);
    code.op(Op.unreachable).end(); // trap
    code.i32(RegionExit.TRAP).set(this.#exit).br(faulted);
    code.end(); // slow
    code.i32(RegionExit.SLOW).set(this.#exit);
    code.end(); // faulted
    code.get(this.#base).get(this.#at).i32(8).op(Op.i32ShrS, Op.i64ExtendI32S, Op.i64Add).set(this.#target);
    code.get(BUDGET).get(this.#at).i32(0xff).op(Op.i32And, Op.i32Sub).set(BUDGET).br(common);
    code.end().end(); // go, common
    for (const register of this.#written.x) code.i32(0).get(this.#x[register]!).mem(Mem.i64Store, hart + X + register * 8);
    for (const register of this.#written.f) code.i32(0).get(this.#f[register]!).mem(Mem.i64Store, hart + F + register * 8);
    this.#chain();
    code.i32(0).get(this.#target).mem(Mem.i64Store, hart + PC);
    code.i32(0).get(this.#exit).mem(Mem.i32Store, hart + REGION_EXIT).i32(0).get(this.#word).mem(Mem.i32Store, hart + REGION_WORD);
    code.get(BUDGET);
  }

  /** To the region at `target`, if there is one and budget is left. */
  #chain(): void {
    const code = this.#code;
    const { tlb, place } = this.#locals;
    code.get(this.#exit).op(Op.i32Eqz).get(BUDGET).i32(0).op(Op.i32GtS, Op.i32And).if(VOID, true);
    code.get(this.#target).op(Op.i32WrapI64).i32(8).op(Op.i32ShrU).i32(entryMask(FETCH_ENTRIES)).op(Op.i32And).get(tlb).op(Op.i32Add).tee(place);
    code.mem(Mem.i64Load, FETCH_TABLE).get(this.#target).op(Op.i64Xor).i64(-4096).op(Op.i64And, Op.i64Eqz).if(VOID, true);
    code.get(place).mem(Mem.i32Load, FETCH_TABLE + 8).get(this.#target).op(Op.i32WrapI64).i32(0xffe).op(Op.i32And).i32(2).op(Op.i32Shl, Op.i32Add).tee(place);
    code.mem(Mem.i32Load16U).i32(Special.TRANSLATED).op(Op.i32Eq).if(VOID, true);
    code.get(this.#target).get(BUDGET).get(place).mem(Mem.i32Load8U, 4).get(place).mem(Mem.i32Load, 4).i32(8).op(Op.i32ShrU);
    code.returnCallIndirect(this.#module.type(REGION_TYPE)).end().end().end();
  }

  #collectRegisters(): void {
    const use = (file: (number | undefined)[], register: number): void => void (file[register] ??= this.#code.local(I64));
    for (const { instruction, decoded } of this.#region.blocks.flatMap(instructionsOf)) {
      const { rd, rs1, rs2, rs3 } = decoded;
      if (instruction === undefined) continue;
      for (const operand of FORMATS[instruction.format].operands) {
        switch (operand) {
          case "rd": if (rd !== 0) { use(this.#x, rd); this.#written.x.add(rd); } break;
          case "rs1": case "mem": case "base": if (rs1 !== 0) use(this.#x, rs1); break;
          case "rs2": if (rs2 !== 0) use(this.#x, rs2); break;
          case "fd": use(this.#f, rd); this.#written.f.add(rd); break;
          case "fs1": use(this.#f, rs1); break;
          case "fs2": use(this.#f, rs2); break;
          case "fs3": use(this.#f, rs3); break;
        }
      }
    }
  }

  /** A node and all it dominates. Never falls through. */
  #tree(node: FlowNode): void {
    const code = this.#code;
    const merges = node.dominated.filter((other) => other.merge).sort((a, b) => a.order - b.order);
    const loop = node.loop ? code.loop() : undefined;
    const labels = this.#labelsOf(node);
    if (loop) labels.loop = loop;
    for (const merge of [...merges].reverse()) this.#labelsOf(merge).block = code.block();
    this.#body(node);
    for (const merge of merges) {
      code.end();
      this.#tree(merge);
    }
    if (loop) code.end().op(Op.unreachable);
  }

  #labelsOf(node: FlowNode): { loop?: Label; block?: Label } {
    let labels = this.#labels.get(node);
    if (!labels) this.#labels.set(node, (labels = {}));
    return labels;
  }

  #body(node: FlowNode): void {
    if (node.block) this.#block(node, node.block);
    else this.#select(node);
  }

  #select(node: FlowNode): void {
    const code = this.#code;
    const { edges } = node;
    const number = this.#selectors[node.selector]!;
    const take = (edge: Edge): void => {
      if (node.selector === 0) code.get(PC_PARAMETER).i64(-edge.offset).op(Op.i64Add).set(this.#base);
      this.#edge(edge);
    };
    if (edges.length === 1) return take(edges[0]!);
    const blocks = edges.map(() => code.block()).reverse();
    code.get(number).brTable(blocks.slice(0, -1), blocks.at(-1)!);
    for (const edge of edges) {
      code.end();
      take(edge);
    }
  }

  /** Ends in a branch. */
  #edge(edge: Edge): void {
    const code = this.#code;
    const { from, to, offset } = edge;
    if (!to) return this.#leave(offset);
    for (const [selector, value] of edge.sets) code.i32(value).set(this.#selectors[selector]!);
    if (this.#pages.mustCheck(edge)) this.#checkPage(Math.floor(offset / 4096), offset);
    if (to.order <= from.order) {
      code.get(BUDGET).i32(0).op(Op.i32LeS).if(VOID, false);
      this.#leave(offset);
      code.end().br(this.#labelsOf(to).loop!);
    } else if (to.merge) code.br(this.#labelsOf(to).block!);
    else this.#tree(to);
  }

  #leave(offset: number): void {
    this.#pushPc(offset);
    this.#code.set(this.#target).br(this.#go);
  }

  #pushPc(offset: number): void {
    this.#code.get(this.#base).i64(offset).op(Op.i64Add);
  }

  /** Leaves at `offset` unless fetches from the page are still translated to the frame that was translated here. */
  #checkPage(page: number, offset: number): void {
    const code = this.#code;
    const { address, place, tlb } = this.#locals;
    const { hart, frameCell } = this.#parts;
    const frame = this.#source.frame(page * 4096);
    this.#pushPc(page * 4096);
    code.tee(address).op(Op.i32WrapI64).i32(8).op(Op.i32ShrU).i32(entryMask(FETCH_ENTRIES)).op(Op.i32And).get(tlb).op(Op.i32Add).tee(place);
    code.mem(Mem.i64Load, FETCH_TABLE).get(address).op(Op.i64Ne);
    code.get(place).mem(Mem.i32Load, FETCH_TABLE + 8);
    if (frameCell) code.i32(0).mem(Mem.i32Load, frameCell(frame));
    else code.i32(hart + FRAME_AREA + frame * FRAME_BYTES);
    code.op(Op.i32Ne, Op.i32Or).if(VOID, false);
    this.#leave(offset);
    code.end();
  }

  #block(node: FlowNode, block: Block): void {
    const code = this.#code;
    this.#fpState = 0;
    this.#roundsToNearest = false;
    const { terminator } = block;
    const first = block.instructions[0] ?? ("instruction" in terminator ? terminator.instruction : undefined);
    if (first && first.length === 4 && (first.offset & 0xfff) === 0xffe) this.#checkPage(Math.floor(first.offset / 4096) + 1, first.offset);
    for (const [retired, instruction] of block.instructions.entries()) this.#instruction(instruction, retired);
    if (block.retired > 0) code.get(BUDGET).i32(block.retired).op(Op.i32Sub).set(BUDGET);
    switch (terminator.kind) {
      case "jump": this.#edge(node.edges[0]!); return;
      case "slow":
        // Behind the block: nothing of it is left to count.
        code.i32(terminator.offset << 8).set(this.#at).i32(terminator.word).set(this.#word).br(this.#exits.slow);
        return;
      case "call":
        this.#lowering(terminator.instruction).emit();
        this.#edge(node.edges[0]!);
        return;
      case "branch": {
        const [taken, next] = node.edges as [Edge, Edge];
        const statement = terminator.instruction.decoded.instruction.semantics.find((s) => s.kind === "branch")!;
        this.#lowering(terminator.instruction).expr((statement as Extract<Stmt, { kind: "branch" }>).cond);
        // The edge whose code follows in place goes last, so that it is nested less deep.
        const inPlace = (edge: Edge): boolean => edge.to !== undefined && edge.to.order > node.order && !edge.to.merge;
        const swap = inPlace(taken) && !inPlace(next);
        if (swap) code.op(Op.i32Eqz);
        code.if();
        this.#edge(swap ? next : taken);
        code.end();
        this.#edge(swap ? taken : next);
        return;
      }
      case "indirect":
        this.#lowering(terminator.instruction).emit();
        for (const edge of node.edges) {
          code.get(this.#target);
          this.#pushPc(edge.offset);
          code.op(Op.i64Eq).if(VOID, true);
          this.#edge(edge);
          code.end();
        }
        code.br(this.#go);
    }
  }

  #instruction(instruction: Instruction, retired: number): void {
    const code = this.#code;
    const traits = traitsOf(instruction.decoded.instruction);
    const { rd } = instruction.decoded;
    if (traits.writesX && rd === 0 && !traits.effects) return;
    if (traits.effects) code.i32((instruction.offset << 8) | retired).set(this.#at).i32(instruction.word).set(this.#word);
    if (traits.floating) this.#checkFpState(traits.writesF || traits.fp !== undefined);
    this.#lowering(instruction).emit();
    if (traits.rounded && instruction.variant === "dynamic") this.#roundsToNearest = true;
  }

  /** Once per block: only system instructions change mstatus.FS, and they end the region. */
  #checkFpState(writes: boolean): void {
    const code = this.#code;
    const needed = writes ? FP_DIRTY : 1;
    if (this.#fpState >= needed) return;
    this.#fpState = needed;
    code.i32(0).mem(Mem.i32Load, this.#parts.hart + FP_STATE);
    if (writes) code.i32(FP_DIRTY).op(Op.i32Ne);
    else code.op(Op.i32Eqz);
    code.brIf(this.#exits.slow, false);
  }

  #lowering(instruction: Instruction): RegionLowering {
    const { hart, fused, helpers } = this.#parts;
    const emission: Emission = { code: this.#code, locals: this.#locals, exits: this.#exits, helpers, hart, fused };
    const variant = instruction.variant === "dynamic" && this.#roundsToNearest ? "nearest" : instruction.variant;
    return new RegionLowering(emission, instruction, variant, { x: this.#x, f: this.#f, base: this.#base, target: this.#target });
  }
}

function instructionsOf({ instructions, terminator }: Block): { instruction: Instruction["decoded"]["instruction"]; decoded: Instruction["decoded"] }[] {
  const all = "instruction" in terminator ? [...instructions, terminator.instruction] : instructions;
  return all.map(({ decoded }) => ({ instruction: decoded.instruction, decoded }));
}

interface RegisterLocals {
  readonly x: readonly (number | undefined)[];
  readonly f: readonly (number | undefined)[];
  readonly base: number;
  /** Where an indirect jump goes. */
  readonly target: number;
}

/** One instruction with its operands in locals and constants. Jumps only set their link and `target`. */
class RegionLowering extends Lowering {
  readonly variant: string;
  readonly #instruction: Instruction;
  readonly #registers: RegisterLocals;

  constructor(emission: Emission, instruction: Instruction, variant: string, registers: RegisterLocals) {
    super(emission, instruction.decoded.instruction);
    this.variant = variant;
    this.#instruction = instruction;
    this.#registers = registers;
  }

  emit(): void {
    for (const statement of this.instruction.semantics) this.#statement(statement);
  }

  #statement(statement: Stmt): void {
    const { code } = this.emission;
    const { x, f, target } = this.#registers;
    const { rd } = this.#instruction.decoded;
    switch (statement.kind) {
      case "let": {
        if (this.traits.directJump) return;
        this.expr(statement.value);
        code.set(this.nameLocal(statement.name, target));
        return;
      }
      case "setX":
        if (rd === 0 && !this.traits.effects) return;
        this.expr(statement.value);
        if (rd === 0) code.op(Op.drop);
        else code.set(x[rd]!);
        return;
      case "setF":
        this.expr(statement.value);
        code.set(f[rd]!);
        return;
      case "store": this.store(statement); return;
      case "fence": code.fence(); return;
      case "require": this.requireGrant(); return;
      case "jump": case "branch": return; // the block's terminator
      case "system": case "cacheBlock": case "guestStore": throw new Error(`${this.instruction.name} is left to TypeScript`);
      default: throw new Error(`${this.instruction.name}: no translation of ${(statement satisfies never as Stmt).kind}`);
    }
  }

  pushImm(): void {
    this.emission.code.i64(this.#instruction.decoded.imm);
  }
  pushUimm(): void {
    this.emission.code.i64(this.#instruction.decoded.rs1);
  }
  pushPc(): void {
    this.emission.code.get(this.#registers.base).i64(this.#instruction.offset).op(Op.i64Add);
  }
  pushNext(): void {
    this.emission.code.get(this.#registers.base).i64(this.#instruction.offset + this.#instruction.length).op(Op.i64Add);
  }
  pushX(field: RegisterField): void {
    const register = this.#instruction.decoded[field];
    if (register === 0) this.emission.code.i64(0);
    else this.emission.code.get(this.#registers.x[register]!);
  }
  pushF(field: RegisterField): void {
    this.emission.code.get(this.#registers.f[this.#instruction.decoded[field]]!);
  }
  pushCsrCell(): void {
    this.emission.code.i32(CSRS + cellOf(this.#instruction.decoded.imm) * 8);
  }
  pushCsrPrivilege(): void {
    this.emission.code.i32((this.#instruction.decoded.imm >> 8) & 3);
  }
}
