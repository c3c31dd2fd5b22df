import type { Callable, CodeWriter, Label } from "@polyvisor/wasm-encoder";
import type { BinaryOp } from "@polyvisor/isa";

/** Locals that the code of instructions uses. */
export interface Locals {
  /** i32: address of the active TLB set. */
  readonly tlb: number;
  /** i64: address of the memory access, or target of a jump that leaves the page. */
  readonly address: number;
  /** i32: TLB entry, then place in linear memory. */
  readonly place: number;
  /** i64: value to store. */
  readonly value: number;
  /** i64 operands of FP operations as bits, and as numbers. */
  readonly bits: readonly [number, number, number];
  readonly f64: readonly [number, number, number, number, number];
  readonly f32: readonly [number, number, number, number, number];
}

/** Locals of the interpreter's one function. */
export interface InterpreterLocals extends Locals {
  /** i32: address of the current entry. */
  readonly entry: number;
  /** i32: instructions left; counts down. */
  readonly budget: number;
  /** i64: pc - (entry address >> 2), constant within a frame. */
  readonly bias: number;
  /** i32: how often a jump target was reached. */
  readonly count: number;
}

/** Where an instruction goes when it cannot go on. */
export interface Exits {
  /** TRAP_CAUSE and TRAP_VALUE are set; the current instruction did not happen. */
  readonly trap: Label;
  /** Let TypeScript execute the current instruction; it has changed nothing yet. */
  readonly slow: Label;
}

/** Where handlers go when they are done. */
export interface InterpreterExits extends Exits {
  /** Next entry: `entry` is set. */
  readonly dispatch: Label;
  /** Continue at the pc in `address`, in any page. */
  readonly fetch: Label;
}

/** Functions that the code of instructions calls. */
export interface Helpers {
  /** (address, kind) -> value; ACCESS_FAULT tells whether it failed. */
  readonly loadSlow: Callable;
  /** (address, value, kind) -> 1 = fault. */
  readonly storeSlow: Callable;
  /** (address, kind) -> 1 = fault; else the TLB entry is filled. */
  readonly translateSlow: Callable;
  /** i64 and i32 functions for operations without a Wasm instruction. */
  readonly arithmetic: ReadonlyMap<`${"i32" | "i64"}.${BinaryOp}`, Callable>;
  /** (place, value) -> old value, by `${op}${bytes}`. */
  readonly minMax: ReadonlyMap<string, Callable>;
}

export interface Emission {
  readonly code: CodeWriter;
  readonly locals: Locals;
  readonly exits: Exits;
  readonly helpers: Helpers;
  /** Byte address of the hart's area. */
  readonly hart: number;
  /** Whether the relaxed multiply-add of this machine rounds once. */
  readonly fused: { readonly f64: boolean; readonly f32: boolean };
}

export interface InterpreterEmission extends Emission {
  readonly locals: InterpreterLocals;
  readonly exits: InterpreterExits;
  /** (entry) -> 1 = illegal instruction; else FP_STATE is as the instruction needs it. */
  readonly fpGate: Callable;
  /** Look at the budget after every instruction. */
  readonly exact: boolean;
  /** Count the targets of backward jumps, calls and page changes. */
  readonly counting: { readonly hotAfter: number; readonly hot: Callable } | undefined;
}
