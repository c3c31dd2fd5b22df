import { COMPRESSED_INSTRUCTIONS, CSR_BY_NUMBER, FORMATS, INSTRUCTIONS, usesFloatState, type Decoded, type Instruction, type ir } from "@polyvisor/isa";
import { PAGE_HALFWORDS } from "../decode-cache.ts";
import { CSRS } from "../hart-state.ts";

/**
 * The list of handlers of the generated interpreter and how a decoded instruction becomes an entry for one of them.
 * There is one handler per instruction, length and variant; what can be decided at decode time is.
 */
export type Variant =
  | "plain"
  /** rd is x0: the result is dropped, effects stay. */
  | "discard"
  /** Direct jumps: target in the same page, ahead or behind (the budget is looked at behind), or in another page. */
  | "forward" | "backward" | "out"
  | "forward-discard" | "backward-discard" | "out-discard"
  /** FP rounding mode: frm, nearest-even in the instruction, towards zero in the instruction. */
  | "dynamic" | "nearest" | "truncate"
  /** CSR instructions on a register that is only a cell; with bit 0 always zero; reading sstatus; sstatus.SIE alone. */
  | "cell" | "cell-discard" | "even" | "even-discard" | "status" | "interrupts" | "interrupts-discard";

export interface Handler {
  readonly instruction: Instruction;
  readonly length: 2 | 4;
  readonly variant: Variant;
}

/** Handlers that belong to no instruction, by number. 0 must stay DECODE: fresh frames are zero. */
export const Special = {
  DECODE: 0,
  /** Continue at the pc that follows from the entry's address: after the last halfword of a page. */
  PAGE_END: 1,
  /** Continue at the PC cell. */
  START: 2,
  /** A 4-byte instruction that begins in the last halfword. */
  CROSSING: 3,
  /** Executed by TypeScript: CSR and system instructions, unusual rounding modes, illegal instructions. */
  SLOW: 4,
  /** Computes into x0. */
  NOP2: 5,
  NOP4: 6,
  /** Translated code begins here: `imm` has its place in the table in bits 31:8, and which entry of it in bits 7:0. */
  TRANSLATED: 7,
} as const;
export const SPECIALS = 8;

/** What a definition in IR uses and does, as far as handlers differ by it. */
export interface Traits {
  readonly imm: boolean;
  readonly writesX: boolean;
  readonly writesF: boolean;
  /** Must run even when rd is x0. */
  readonly effects: boolean;
  readonly branch: boolean;
  readonly jump: boolean;
  readonly directJump: boolean;
  readonly rounded: boolean;
  /** First fp operation, if any. */
  readonly fp: Extract<ir.Expr, { kind: "fp" }> | undefined;
  readonly csr: Extract<ir.Expr, { kind: "csr" }> | undefined;
  /** Always executed by TypeScript. */
  readonly slow: boolean;
  readonly floating: boolean;
}

const traitsCache = new Map<Instruction, Traits>();

export function traitsOf(instruction: Instruction): Traits {
  let traits = traitsCache.get(instruction);
  if (!traits) traitsCache.set(instruction, (traits = analyse(instruction)));
  return traits;
}

function analyse(instruction: Instruction): Traits {
  const kinds = new Set<string>();
  let fp: Traits["fp"];
  let csr: Traits["csr"];
  const visit = (expr: ir.Expr): void => {
    kinds.add(expr.kind);
    if (expr.kind === "fp") fp = expr;
    if (expr.kind === "csr") csr = expr;
    for (const child of children(expr)) visit(child);
  };
  for (const statement of instruction.semantics) {
    kinds.add(statement.kind);
    for (const expr of roots(statement)) visit(expr);
  }
  const jump = instruction.semantics.find((s) => s.kind === "jump");
  const operands: readonly string[] = FORMATS[instruction.format].operands;
  return {
    imm: kinds.has("imm") || kinds.has("branch"),
    writesX: kinds.has("setX"),
    writesF: kinds.has("setF"),
    effects: usesFloatState(instruction) || ["load", "fp", "amo", "lr", "sc", "csr", "jump", "store", "setF", "branch", "fence", "system"].some((k) => kinds.has(k)),
    branch: kinds.has("branch"),
    jump: jump !== undefined,
    directJump: jump !== undefined && operands.includes("target"),
    rounded: operands.includes("rm"),
    fp,
    csr,
    slow: kinds.has("system") || ["cacheBlock", "guestLoad", "guestStore"].some((k) => kinds.has(k)) || fp?.op === "classify" || fp?.op === "toI32Modular",
    floating: usesFloatState(instruction),
  };
}

function roots(statement: ir.Stmt): readonly ir.Expr[] {
  switch (statement.kind) {
    case "let": case "setX": case "setF": return [statement.value];
    case "store": case "guestStore": return [statement.address, statement.value];
    case "branch": return [statement.cond];
    case "jump": return [statement.target];
    case "cacheBlock": return [statement.address];
    default: return [];
  }
}

function children(expr: ir.Expr): readonly ir.Expr[] {
  switch (expr.kind) {
    case "unary": return [expr.a];
    case "binary": return [expr.a, expr.b];
    case "select": return [expr.cond, expr.then, expr.else];
    case "load": case "lr": case "guestLoad": return [expr.address];
    case "fp": return expr.args;
    case "amo": case "sc": return [expr.address, expr.value];
    case "csr": return [expr.operand];
    default: return [];
  }
}

function variantsOf(traits: Traits, instruction: Instruction): readonly Variant[] {
  if (traits.slow) return [];
  if (traits.csr) {
    const cells: readonly Variant[] = ["cell", "cell-discard", "even", "even-discard"];
    if (traits.csr.op === "write") return cells;
    return traits.csr.operand.kind === "uimm" ? [...cells, "status", "interrupts", "interrupts-discard"] : [...cells, "status"];
  }
  if (traits.branch) return ["forward", "backward", "out"];
  if (traits.directJump) return ["forward", "backward", "out", "forward-discard", "backward-discard", "out-discard"];
  if (traits.rounded) return /^f(cvt\.[wl]|round)/.test(instruction.name) ? ["dynamic", "nearest", "truncate"] : ["dynamic", "nearest"];
  return traits.writesX && traits.effects ? ["plain", "discard"] : ["plain"];
}

/** Every instruction handler; the handler number is SPECIALS + its position. */
export const HANDLERS: readonly Handler[] = INSTRUCTIONS.flatMap((instruction) => {
  const short = COMPRESSED_INSTRUCTIONS.some((c) => c.expands === instruction.name);
  const lengths: readonly (2 | 4)[] = short ? [2, 4] : [4];
  return lengths.flatMap((length) => variantsOf(traitsOf(instruction), instruction).map((variant) => ({ instruction, length, variant })));
});

/** By instruction, length / 2 - 1 and variant. */
const numbers = new Map<Instruction, readonly [Map<string, number>, Map<string, number>]>();
for (const [i, { instruction, length, variant }] of HANDLERS.entries()) {
  let lengths = numbers.get(instruction);
  if (!lengths) numbers.set(instruction, (lengths = [new Map(), new Map()]));
  lengths[length === 2 ? 0 : 1].set(variant, SPECIALS + i);
}

/** What decode-cache.ts describes: one entry. */
export interface Entry {
  op: number;
  a: number;
  b: number;
  imm: number;
}

/**
 * Where operands go: a = rd, else rs2; b = rs1. Without an immediate, `imm` holds rs2 * 8 in byte 0 and rs3 * 8 in
 * byte 1. In-page jumps hold the distance in bytes of entries (4 times the distance in bytes of code).
 */
export function encode(decoded: Decoded | undefined, index: number, into: Entry): void {
  into.op = Special.SLOW;
  into.a = into.b = into.imm = 0;
  if (!decoded) return;
  const { instruction, length, rd } = decoded;
  const traits = traitsOf(instruction);
  const writes = traits.writesX || traits.writesF;
  into.imm = decoded.word; // for SLOW
  if (traits.slow) return;
  if (traits.writesX && rd === 0 && !traits.effects) {
    into.op = length === 2 ? Special.NOP2 : Special.NOP4;
    into.imm = 0;
    return;
  }
  const variant = variantFor(traits, decoded, index);
  const op = numbers.get(instruction)?.[length === 2 ? 0 : 1].get(variant);
  if (op === undefined) return; // a rounding mode without a handler
  into.op = op;
  into.a = (writes ? rd : decoded.rs2) * 8;
  into.b = decoded.rs1 * 8;
  if (traits.csr) into.imm = (CSRS + cellOf(decoded.imm) * 8) | (((decoded.imm >> 8) & 3) << 16);
  else if (!traits.imm) into.imm = (decoded.rs2 * 8) | ((decoded.rs3 * 8) << 8);
  else into.imm = variant.startsWith("forward") || variant.startsWith("backward") ? decoded.imm * 4 : decoded.imm;
}

/** The variant of an instruction word that is translated: what does not depend on its place. "none": TypeScript executes it. */
export function wordVariant(decoded: Decoded): string {
  const traits = traitsOf(decoded.instruction);
  if (traits.csr === undefined && !traits.rounded) return "plain";
  const variant = variantFor(traits, decoded, 0);
  return (variantsOf(traits, decoded.instruction) as readonly string[]).includes(variant) ? variant : "none";
}

function variantFor(traits: Traits, decoded: Decoded, index: number): string {
  const discard = traits.writesX && decoded.rd === 0;
  if (traits.csr) return csrVariant(traits.csr, decoded);
  if (traits.branch || traits.directJump) {
    const direction = !staysInPage(index, decoded.imm) ? "out" : decoded.imm > 0 ? "forward" : "backward";
    return traits.directJump && discard ? `${direction}-discard` : direction;
  }
  if (traits.rounded) {
    if (discard) return "none"; // a conversion whose only effect is its flags
    return decoded.rm === 7 ? "dynamic" : decoded.rm === 0 ? "nearest" : decoded.rm === 1 ? "truncate" : "none";
  }
  return discard ? "discard" : "plain";
}

/** Whether a jump from a halfword of a page, over `distance` bytes, ends in it. */
export function staysInPage(index: number, distance: number): boolean {
  const target = index + distance / 2;
  return index < PAGE_HALFWORDS && target >= 0 && target < PAGE_HALFWORDS;
}
/** Whether an instruction's entry depends on where it stands in its page: only on staysInPage. */
export function placeMatters(instruction: Instruction): boolean {
  const { branch, directJump } = traitsOf(instruction);
  return branch || directJump;
}

const EVERY_BIT = (1n << 64n) - 1n;

/** The variant for CSRs that need nothing but their cell and a privilege check; "none" for the others. */
function csrVariant({ op, operand }: NonNullable<Traits["csr"]>, { imm, rd, rs1 }: Decoded): string {
  const row = CSR_BY_NUMBER.get(imm);
  const discard = rd === 0 ? "-discard" : "";
  if (row?.kind === "plain" && !row.readOnly) {
    if (row.readMask === EVERY_BIT && row.writeMask === EVERY_BIT) return `cell${discard}`;
    if (row.readMask === EVERY_BIT - 1n && row.writeMask === EVERY_BIT - 1n) return `even${discard}`;
  }
  if (imm === SSTATUS && op !== "write") {
    if (rs1 === 0) return rd === 0 ? "none" : "status";
    if (operand.kind === "uimm" && rs1 === SIE) return `interrupts${discard}`;
  }
  return "none";
}

export const SSTATUS = 0x100;
const MSTATUS = 0x300;
/** sstatus.SIE as a value. */
export const SIE = 2;
/** sstatus is a view of mstatus. */
export const cellOf = (csr: number): number => (csr === SSTATUS ? MSTATUS : csr);
