/** Directives that produce bytes: their size (first pass) and content (second pass). */

import { stringBytes } from "./source.ts";

export interface DirectiveContext {
  readonly address: bigint;
  /** Throws `UnknownSymbol` for what is not defined yet. */
  readonly evaluate: (expression: string) => bigint;
}

interface Directive {
  /** Bytes it takes at this address. */
  size(operands: readonly string[], context: DirectiveContext): number;
  write(operands: readonly string[], context: DirectiveContext, target: Uint8Array): void;
}

/** More than this in one program is a mistake in an expression. */
export const MAX_PROGRAM_BYTES = 64 * 1024 * 1024;

function data(bytes: 1 | 2 | 4 | 8): Directive {
  const bits = bytes * 8;
  return {
    size: (operands) => operands.length * bytes,
    write: (operands, { evaluate }, target) => operands.forEach((operand, index) => {
      const value = evaluate(operand);
      if (value < -(1n << BigInt(bits - 1)) || value >= 1n << BigInt(bits)) {
        throw new Error(`value ${value}: expected ${bits} bits`);
      }
      for (let byte = 0; byte < bytes; byte++) target[index * bytes + byte] = Number((value >> BigInt(8 * byte)) & 0xffn);
    }),
  };
}

function text(terminated: boolean): Directive {
  const parts = (operands: readonly string[]): Uint8Array[] => operands.map(stringBytes);
  const end = terminated ? 1 : 0;
  return {
    size: (operands) => parts(operands).reduce((sum, part) => sum + part.length + end, 0),
    write: (operands, _context, target) => {
      let offset = 0;
      for (const part of parts(operands)) {
        target.set(part, offset);
        offset += part.length + end;
      }
    },
  };
}

const space: Directive = {
  size: ([count = "", ...rest], { evaluate }) => {
    if (count === "" || rest.length > 1) throw new Error("expected size[, fill]");
    return length(evaluate(count));
  },
  write: ([, fill], { evaluate }, target) => {
    if (fill !== undefined) target.fill(Number(BigInt.asUintN(8, evaluate(fill))));
  },
};

/** Fills with no-operations, so that code may run through it. */
function align(boundary: (value: bigint) => bigint): Directive {
  return {
    size: ([value = "", ...rest], { address, evaluate }) => {
      if (value === "" || rest.length > 0) throw new Error("expected one operand");
      const step = boundary(evaluate(value));
      if (step <= 0n || (step & (step - 1n)) !== 0n) throw new Error(`alignment ${step}: expected a power of two`);
      return length((step - (address % step)) % step);
    },
    write: (_operands, { address }, target) => {
      const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
      let offset = Number(address & 1n) & 1;
      if (offset + 2 <= target.length && (Number(address & 3n) + offset) % 4 === 2) {
        view.setUint16(offset, 0x0001, true); // c.nop
        offset += 2;
      }
      for (; offset + 4 <= target.length; offset += 4) view.setUint32(offset, 0x0000_0013, true); // nop
      if (offset + 2 <= target.length) view.setUint16(offset, 0x0001, true);
    },
  };
}

const org: Directive = {
  size: ([value = "", ...rest], { address, evaluate }) => {
    if (value === "" || rest.length > 0) throw new Error("expected an address");
    const distance = evaluate(value) - address;
    if (distance < 0n) throw new Error(`.org ${value}: is ${-distance} bytes behind the current address 0x${address.toString(16)}`);
    return length(distance);
  },
  write: () => undefined,
};

function length(value: bigint): number {
  if (value < 0n || value > BigInt(MAX_PROGRAM_BYTES)) throw new Error(`size ${value}: expected 0..${MAX_PROGRAM_BYTES}`);
  return Number(value);
}

export const DIRECTIVES: ReadonlyMap<string, Directive> = new Map<string, Directive>([
  [".byte", data(1)],
  [".half", data(2)], [".short", data(2)], [".2byte", data(2)],
  [".word", data(4)], [".long", data(4)], [".4byte", data(4)],
  [".dword", data(8)], [".quad", data(8)], [".8byte", data(8)],
  [".ascii", text(false)],
  [".asciz", text(true)], [".string", text(true)],
  [".space", space], [".zero", space], [".skip", space],
  [".align", align((power) => (power < 0n || power > 24n ? -1n : 1n << power))],
  [".p2align", align((power) => (power < 0n || power > 24n ? -1n : 1n << power))],
  [".balign", align((bytes) => bytes)],
  [".org", org],
]);

/** Accepted for compatibility with GNU as: they change nothing in a flat image of one section. */
export const IGNORED_DIRECTIVES: ReadonlySet<string> = new Set([".globl", ".global", ".text", ".option", ".type", ".size"]);
