import { ByteWriter } from "./byte-writer.ts";
import { type AtomicOp, type BlockType, type MemOp, Op, VOID, type ValueType } from "./opcodes.ts";

/** A function or an import as `call` needs it: its index in the module's function index space. */
export interface Callable {
  readonly index: number;
}

/** A block, loop or if that branches can name: its nesting depth when it was opened. */
export interface Label {
  readonly depth: number;
}

/**
 * Writes the body of one function, instruction by instruction, in stack order. Structured control flow is by label:
 * `const done = code.block(); … code.br(done); … code.end();`. Methods chain.
 */
export class CodeWriter {
  readonly out = new ByteWriter(1024);
  /** Branch hints: position of the hinted `if` or `br_if` in `out`, and 1 = likely taken. */
  readonly hints: { readonly at: number; readonly likely: boolean }[] = [];
  readonly #locals: ValueType[] = [];
  readonly #parameters: number;
  #depth = 0;

  constructor(parameters: number) {
    this.#parameters = parameters;
  }

  get locals(): readonly ValueType[] {
    return this.#locals;
  }

  /** Open blocks; 0 when the body is complete. */
  get depth(): number {
    return this.#depth;
  }

  /** Declares a local and answers its index (parameters come first). */
  local(type: ValueType): number {
    this.#locals.push(type);
    return this.#parameters + this.#locals.length - 1;
  }

  op(...ops: Op[]): this {
    for (const op of ops) this.out.byte(op);
    return this;
  }

  get(local: number): this {
    this.out.byte(0x20).u32(local);
    return this;
  }

  set(local: number): this {
    this.out.byte(0x21).u32(local);
    return this;
  }

  tee(local: number): this {
    this.out.byte(0x22).u32(local);
    return this;
  }

  i32(value: number): this {
    this.out.byte(0x41).s32(value);
    return this;
  }

  i64(value: bigint | number): this {
    this.out.byte(0x42).s64(value);
    return this;
  }

  f32(value: number): this {
    this.out.byte(0x43).f32(value);
    return this;
  }

  f64(value: number): this {
    this.out.byte(0x44).f64(value);
    return this;
  }

  /** A load or store at popped address + offset; `offset` below 2^32. */
  mem(op: MemOp, offset = 0, alignLog2: number = op[1]): this {
    this.out.byte(op[0]).u32(alignLog2).u32(offset);
    return this;
  }

  atomic(op: AtomicOp, offset = 0): this {
    this.out.byte(0xfe).u32(op[0]).u32(op[1]).u32(offset);
    return this;
  }

  /** Full memory barrier. */
  fence(): this {
    this.out.byte(0xfe).byte(0x03).byte(0x00);
    return this;
  }

  simd(op: number): this {
    this.out.byte(0xfd).u32(op);
    return this;
  }

  v128Load(offset = 0, alignLog2 = 4): this {
    this.out.byte(0xfd).u32(0).u32(alignLog2).u32(offset);
    return this;
  }

  f32x4ExtractLane(lane: number): this {
    this.out.byte(0xfd).u32(0x1f).byte(lane);
    return this;
  }

  f64x2ExtractLane(lane: number): this {
    this.out.byte(0xfd).u32(0x21).byte(lane);
    return this;
  }

  /** Saturating truncation, see `Sat`. */
  truncSat(op: number): this {
    this.out.byte(0xfc).u32(op);
    return this;
  }

  /** Fills memory 0: pops destination, byte value, length. */
  memoryFill(): this {
    this.out.byte(0xfc).u32(11).byte(0);
    return this;
  }

  /** Copies in memory 0: pops destination, source, length. */
  memoryCopy(): this {
    this.out.byte(0xfc).u32(10).byte(0).byte(0);
    return this;
  }

  call(target: Callable): this {
    this.out.byte(0x10).u32(target.index);
    return this;
  }

  callIndirect(type: number, table = 0): this {
    this.out.byte(0x11).u32(type).u32(table);
    return this;
  }

  returnCall(target: Callable): this {
    this.out.byte(0x12).u32(target.index);
    return this;
  }

  returnCallIndirect(type: number, table = 0): this {
    this.out.byte(0x13).u32(type).u32(table);
    return this;
  }

  #open(opcode: number, type: BlockType): Label {
    this.out.byte(opcode).byte(type);
    return { depth: ++this.#depth };
  }

  block(type: BlockType = VOID): Label {
    return this.#open(0x02, type);
  }

  loop(type: BlockType = VOID): Label {
    return this.#open(0x03, type);
  }

  /** `likely` becomes a branch hint (metadata.code.branch_hint): is the condition usually true? */
  if(type: BlockType = VOID, likely?: boolean): Label {
    this.#hint(likely);
    return this.#open(0x04, type);
  }

  else(): this {
    this.out.byte(0x05);
    return this;
  }

  end(): this {
    if (this.#depth === 0) throw new Error("CodeWriter.end: no open block; the function's own end is written by the module");
    this.#depth--;
    this.out.byte(0x0b);
    return this;
  }

  br(label: Label): this {
    this.out.byte(0x0c).u32(this.#relative(label));
    return this;
  }

  brIf(label: Label, likely?: boolean): this {
    this.#hint(likely);
    this.out.byte(0x0d).u32(this.#relative(label));
    return this;
  }

  brTable(labels: readonly Label[], otherwise: Label): this {
    this.out.byte(0x0e).u32(labels.length);
    for (const label of labels) this.out.u32(this.#relative(label));
    this.out.u32(this.#relative(otherwise));
    return this;
  }

  #relative(label: Label): number {
    const relative = this.#depth - label.depth;
    if (relative < 0) throw new Error(`CodeWriter: branch to a block that is closed (opened at depth ${label.depth}, now at ${this.#depth})`);
    return relative;
  }

  #hint(likely: boolean | undefined): void {
    if (likely !== undefined) this.hints.push({ at: this.out.length, likely });
  }
}
