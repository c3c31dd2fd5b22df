import { ByteWriter } from "./byte-writer.ts";
import { type Callable, CodeWriter } from "./code-writer.ts";
import { FUNCREF, type ValueType } from "./opcodes.ts";

/** Section ids (core spec 5.5.2). */
const Section = { custom: 0, type: 1, import: 2, function: 3, table: 4, memory: 5, export: 7, element: 9, code: 10 } as const;
const MAGIC_AND_VERSION = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

export interface Limits {
  readonly min: number;
  /** Required when `shared`. */
  readonly max?: number;
  readonly shared?: boolean;
}

export interface Signature {
  readonly parameters: readonly ValueType[];
  readonly results: readonly ValueType[];
}

export interface DefinedFunction extends Callable {
  readonly code: CodeWriter;
}

/**
 * Builds one module: types, imports (functions and a memory or table), functions, exports, names and branch hints.
 * Imported functions must be declared before the first defined one, as their indices come first.
 */
export class ModuleWriter {
  readonly #types: string[] = [];
  readonly #signatures: Signature[] = [];
  readonly #imports: ((out: ByteWriter) => void)[] = [];
  readonly #names: { readonly index: number; readonly name: string }[] = [];
  readonly #functions: { readonly type: number; readonly code: CodeWriter }[] = [];
  readonly #exports: { readonly name: string; readonly kind: number; readonly index: number }[] = [];
  readonly #elements: { readonly offset: number; readonly functions: readonly Callable[] }[] = [];
  #tables: Limits[] = [];
  #memory: Limits | undefined;
  #importedFunctions = 0;
  #importedTables = 0;

  /** Index of a function type; equal signatures share one. */
  type(signature: Signature): number {
    const key = `${signature.parameters.join()}:${signature.results.join()}`;
    const known = this.#types.indexOf(key);
    if (known >= 0) return known;
    this.#signatures.push(signature);
    return this.#types.push(key) - 1;
  }

  importFunction(module: string, name: string, signature: Signature): Callable {
    if (this.#functions.length > 0) throw new Error(`ModuleWriter.importFunction ${module}.${name}: declare imports before functions`);
    const type = this.type(signature);
    this.#imports.push((out) => out.name(module).name(name).byte(0x00).u32(type));
    const index = this.#importedFunctions++;
    this.#names.push({ index, name });
    return { index };
  }

  importMemory(module: string, name: string, limits: Limits): void {
    this.#imports.push((out) => writeLimits(out.name(module).name(name).byte(0x02), limits));
  }

  importTable(module: string, name: string, limits: Limits): void {
    this.#importedTables++;
    this.#imports.push((out) => writeLimits(out.name(module).name(name).byte(0x01).byte(FUNCREF), limits));
  }

  memory(limits: Limits): void {
    this.#memory = limits;
  }

  /** Defines a table of function references and answers its index. */
  table(limits: Limits): number {
    return this.#importedTables + this.#tables.push(limits) - 1;
  }

  /** Puts functions into table 0 from `offset` on, when the module is instantiated. */
  elements(offset: number, functions: readonly Callable[]): void {
    this.#elements.push({ offset, functions });
  }

  function(name: string, signature: Signature): DefinedFunction {
    const code = new CodeWriter(signature.parameters.length);
    const index = this.#importedFunctions + this.#functions.push({ type: this.type(signature), code }) - 1;
    this.#names.push({ index, name });
    return { index, code };
  }

  exportFunction(name: string, target: Callable): void {
    this.#exports.push({ name, kind: 0x00, index: target.index });
  }

  exportMemory(name: string): void {
    this.#exports.push({ name, kind: 0x02, index: 0 });
  }

  /** The module's bytes. Names go into the name section, so stack traces and profiles are readable. */
  finish(): Uint8Array<ArrayBuffer> {
    for (const [i, { code }] of this.#functions.entries()) {
      if (code.depth !== 0) throw new Error(`ModuleWriter.finish: function ${i} has ${code.depth} unclosed blocks`);
    }
    const out = new ByteWriter(1 << 14).raw(MAGIC_AND_VERSION);
    vector(out, Section.type, this.#signatures, (s, { parameters, results }) =>
      s.byte(0x60).u32(parameters.length).raw(parameters).u32(results.length).raw(results));
    vector(out, Section.import, this.#imports, (s, write) => write(s));
    vector(out, Section.function, this.#functions, (s, { type }) => s.u32(type));
    vector(out, Section.table, this.#tables, (s, limits) => writeLimits(s.byte(FUNCREF), limits));
    vector(out, Section.memory, this.#memory ? [this.#memory] : [], (s, limits) => writeLimits(s, limits));
    vector(out, Section.export, this.#exports, (s, { name, kind, index }) => s.name(name).byte(kind).u32(index));
    vector(out, Section.element, this.#elements, (s, { offset, functions }) => {
      s.u32(0).byte(0x41).s32(offset).byte(0x0b).u32(functions.length);
      for (const f of functions) s.u32(f.index);
    });
    this.#writeHints(out);
    vector(out, Section.code, this.#functions, (s, { code }) => {
      const locals = encodeLocals(code.locals);
      s.u32(locals.length + code.out.length + 1).raw(locals.view()).raw(code.out.view()).byte(0x0b);
    });
    this.#writeNames(out);
    return out.view().slice();
  }

  /** Branch hinting proposal: positions count from the start of the function body, its local declarations included. */
  #writeHints(out: ByteWriter): void {
    const hinted = [...this.#functions.entries()].filter(([, f]) => f.code.hints.length > 0);
    if (hinted.length === 0) return;
    const section = new ByteWriter().name("metadata.code.branch_hint").u32(hinted.length);
    for (const [i, { code }] of hinted) {
      const prologue = encodeLocals(code.locals).length;
      section.u32(this.#importedFunctions + i).u32(code.hints.length);
      for (const { at, likely } of code.hints) section.u32(prologue + at).u32(1).byte(likely ? 1 : 0);
    }
    out.byte(Section.custom).u32(section.length).raw(section.view());
  }

  #writeNames(out: ByteWriter): void {
    const names = new ByteWriter().u32(this.#names.length);
    for (const { index, name } of this.#names) names.u32(index).name(name);
    const section = new ByteWriter().name("name").byte(1).u32(names.length).raw(names.view());
    out.byte(Section.custom).u32(section.length).raw(section.view());
  }
}

function vector<T>(out: ByteWriter, id: number, items: readonly T[], write: (section: ByteWriter, item: T) => void): void {
  if (items.length === 0) return;
  const section = new ByteWriter(1024).u32(items.length);
  for (const item of items) write(section, item);
  out.byte(id).u32(section.length).raw(section.view());
}

function writeLimits(out: ByteWriter, { min, max, shared }: Limits): void {
  if (shared && max === undefined) throw new Error("ModuleWriter: a shared memory needs a maximum");
  out.byte((max === undefined ? 0 : 1) | (shared ? 2 : 0)).u32(min);
  if (max !== undefined) out.u32(max);
}

/** Local declarations are run-length encoded (core spec 5.5.13). */
function encodeLocals(locals: readonly ValueType[]): ByteWriter {
  const runs: [number, ValueType][] = [];
  for (const type of locals) {
    const last = runs.at(-1);
    if (last?.[1] === type) last[0]++;
    else runs.push([1, type]);
  }
  const out = new ByteWriter().u32(runs.length);
  for (const [count, type] of runs) out.u32(count).byte(type);
  return out;
}
