/**
 * A two-pass assembler for guest programs: GNU syntax, one flat section, encodings from the instruction table.
 * Nothing is compressed or relaxed behind the author's back: `c.*` is written out, `call` is `jal` (+-1 MiB), `la` is
 * always auipc + addi, and `li` takes as many instructions as its value needs.
 */

import { DIRECTIVES, IGNORED_DIRECTIVES, MAX_PROGRAM_BYTES } from "./assembler/directives.ts";
import { evaluateExpression, UnknownSymbol } from "./assembler/expression.ts";
import { parseOperands, type OperandContext } from "./assembler/operands.ts";
import { expand, loadImmediate, pseudoOperandCounts, type Line } from "./assembler/pseudo.ts";
import { AssemblyError, parse, type Statement } from "./assembler/source.ts";
import { encode, encodeCompressed } from "./encode.ts";
import { FORMATS, type Compressed, type Instruction } from "./instruction.ts";
import { BY_NAME, COMPRESSED_INSTRUCTIONS } from "./instructions/table.ts";

export interface AssembleOptions {
  /** Address of the first byte. */
  readonly base: bigint;
  /** Symbols defined in advance, as by `.equ`. */
  readonly symbols?: Readonly<Record<string, bigint>>;
}

export interface Assembly {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Addresses of labels and values of `.equ`. */
  readonly labels: Map<string, bigint>;
}

interface Placed {
  readonly statement: Statement;
  readonly address: bigint;
  readonly size: number;
  /** Real instructions, when it is not a directive. */
  readonly lines: readonly Line[];
}

const COMPRESSED_BY_NAME: ReadonlyMap<string, Compressed> = new Map(COMPRESSED_INSTRUCTIONS.map((row) => [row.name, row]));
const ORDERING: Readonly<Record<string, number>> = { ".aqrl": 3, ".aq": 2, ".rl": 1, "": 0 };

/** Throws `AssemblyError` naming the line and what was expected. */
export function assemble(source: string, options: AssembleOptions): Assembly {
  const symbols = new Map<string, bigint>(Object.entries(options.symbols ?? {}));
  const local: { name: string; index: number; address: bigint }[] = [];
  const scope = (index: number, address: bigint) => (expression: string): bigint =>
    evaluateExpression(expression, (symbol) => {
      if (symbol === ".") return address;
      const numeric = /^(\d+)([bf])$/.exec(symbol);
      if (!numeric) return symbols.get(symbol);
      const labels = local.filter(({ name }) => name === numeric[1]);
      return (numeric[2] === "b"
        ? labels.findLast((label) => label.index <= index)
        : labels.find((label) => label.index > index))?.address;
    });
  const define = (name: string, value: bigint): void => {
    if (symbols.has(name)) throw new Error(`symbol ${name} is already defined`);
    symbols.set(name, value);
  };

  // First pass: addresses. Sizes must not depend on symbols defined further down.
  const placed: Placed[] = [];
  let address = options.base;
  parse(source).forEach((statement, index) => at(statement, () => {
    for (const label of statement.labels) {
      if (/^\d/.test(label)) local.push({ name: label, index, address });
      else define(label, address);
    }
    const evaluate = scope(index, address);
    if (statement.mnemonic === ".equ" || statement.mnemonic === ".set") {
      const [name, value, ...rest] = statement.operands;
      if (name === undefined || value === undefined || rest.length > 0) throw new Error("expected name, value");
      define(name, evaluate(value));
    }
    const place = layOut(statement, address, evaluate);
    placed.push(place);
    address += BigInt(place.size);
    if (address - options.base > BigInt(MAX_PROGRAM_BYTES)) throw new Error(`program is larger than ${MAX_PROGRAM_BYTES} bytes`);
  }));

  // Second pass: bytes.
  const bytes = new Uint8Array(Number(address - options.base));
  placed.forEach((place, index) => at(place.statement, () => {
    const start = Number(place.address - options.base);
    write(place, (here) => scope(index, here), bytes.subarray(start, start + place.size));
  }));
  return { bytes, labels: symbols };
}

function at(statement: Statement, action: () => void): void {
  try {
    action();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new AssemblyError(statement.line, `${statement.mnemonic} ${statement.operands.join(", ")}: ${reason}`);
  }
}

function layOut(statement: Statement, address: bigint, evaluate: (expression: string) => bigint): Placed {
  const { mnemonic, operands } = statement;
  if (mnemonic === "" || mnemonic === ".equ" || mnemonic === ".set" || IGNORED_DIRECTIVES.has(mnemonic)) {
    return { statement, address, size: 0, lines: [] };
  }
  const directive = DIRECTIVES.get(mnemonic);
  if (directive) return { statement, address, size: directive.size(operands, { address, evaluate }), lines: [] };
  if (mnemonic.startsWith(".")) throw new Error("unknown directive");
  const lines = expandAll(mnemonic, operands, evaluate);
  const size = lines.reduce((sum, [name]) => sum + (COMPRESSED_BY_NAME.has(name) ? 2 : 4), 0);
  return { statement, address, size, lines };
}

function expandAll(mnemonic: string, operands: readonly string[], evaluate: (expression: string) => bigint): readonly Line[] {
  const [rd = "", value = ""] = operands;
  if (mnemonic === "li") {
    if (operands.length !== 2) throw new Error("expected rd, value");
    const constant = constantOf(value, evaluate);
    if (constant < -(1n << 63n) || constant >= 1n << 64n) throw new Error(`value ${constant}: expected 64 bits`);
    return loadImmediate(rd, constant);
  }
  if (mnemonic === "la") {
    if (operands.length !== 2) throw new Error("expected rd, symbol");
    // The distance counts from the auipc, which is 4 bytes before the addi.
    return [["auipc", rd, `%pcrel_hi(${value})`], ["addi", rd, rd, `%lo((${value}) - (. - 4))`]];
  }
  const real = expand(mnemonic, operands);
  if (real) return [real];
  if (find(mnemonic)) return [[mnemonic, ...operands]];
  const counts = pseudoOperandCounts(mnemonic);
  throw new Error(counts.length > 0 ? `expected ${counts.join(" or ")} operands, got ${operands.length}` : "unknown instruction");
}

function constantOf(value: string, evaluate: (expression: string) => bigint): bigint {
  try {
    return evaluate(value);
  } catch (error) {
    if (!(error instanceof UnknownSymbol)) throw error;
    throw new Error(`${error.message} above this line (use la for the address of a label)`, { cause: error });
  }
}

type Found =
  | { readonly kind: "base"; readonly row: Instruction; readonly ordering: number }
  | { readonly kind: "compressed"; readonly row: Compressed };

function find(mnemonic: string): Found | undefined {
  const compressed = COMPRESSED_BY_NAME.get(mnemonic);
  if (compressed) return { kind: "compressed", row: compressed };
  const suffix = /^(?:lr|sc|amo\w+)\.[wd](\.\w+)$/.exec(mnemonic)?.[1] ?? "";
  const ordering = ORDERING[suffix];
  const row = BY_NAME.get(suffix === "" ? mnemonic : mnemonic.slice(0, -suffix.length));
  return row && ordering !== undefined ? { kind: "base", row, ordering } : undefined;
}

function write(place: Placed, scope: (here: bigint) => (expression: string) => bigint, target: Uint8Array): void {
  const { statement, address, lines } = place;
  DIRECTIVES.get(statement.mnemonic)?.write(statement.operands, { address, evaluate: scope(address) }, target);
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  let offset = 0;
  for (const [mnemonic, ...texts] of lines) {
    const here = address + BigInt(offset);
    const found = find(mnemonic);
    if (!found) throw new Error(`unknown instruction ${mnemonic}`);
    const context: OperandContext = { evaluate: scope(here), address: here, upperImmediate: isUpper(mnemonic) };
    if (found.kind === "compressed") {
      view.setUint16(offset, encodeCompressed(found.row, parseOperands(found.row.operands, texts, context)), true);
      offset += 2;
    } else {
      const fields = parseOperands(FORMATS[found.row.format].operands, texts, context);
      view.setUint32(offset, encode(found.row, { ...fields, ordering: found.ordering }), true);
      offset += 4;
    }
  }
}

const isUpper = (mnemonic: string): boolean => mnemonic === "lui" || mnemonic === "auipc" || mnemonic === "c.lui";
