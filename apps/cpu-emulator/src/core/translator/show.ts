import { disassemble, type ir } from "@polyvisor/isa";
import { I32, I64, ModuleWriter, wasmText } from "@polyvisor/wasm-encoder";
import { HART_AREA_BASE } from "../hart-state.ts";
import { defineArithmetic, defineMinMax } from "../interpreter/arithmetic.ts";
import type { Helpers } from "../interpreter/frame.ts";
import { REGION_TYPE } from "../interpreter/module.ts";
import { FlatSource } from "./flat-source.ts";
import { RegionWriter } from "./lower-region.ts";
import { type Block, discover, type Target } from "./region.ts";

/**
 * A region as people read it: its blocks in RISC-V, each instruction with its meaning in IR, and the WebAssembly function
 * made from them. `code` lies at the virtual address `base`; the region begins at `at`. Undefined: nothing to translate there.
 */
export function showTranslation(code: Uint8Array, base: bigint, at: bigint): string | undefined {
  const page = at & ~0xfffn;
  const source = new FlatSource(code, Number(base - page));
  const region = discover(source, Number(at - page));
  if (!region) return undefined;
  const module = new ModuleWriter();
  const helpers: Helpers = {
    loadSlow: module.importFunction("engine", "loadSlow", { parameters: [I64, I32], results: [I64] }),
    storeSlow: module.importFunction("engine", "storeSlow", { parameters: [I64, I64, I32], results: [I32] }),
    translateSlow: module.importFunction("engine", "translateSlow", { parameters: [I64, I32], results: [I32] }),
    arithmetic: defineArithmetic(module),
    minMax: defineMinMax(module),
  };
  const f = module.function("region", REGION_TYPE);
  const writer = new RegionWriter(module, f.code, region, source, { hart: HART_AREA_BASE, fused: { f64: true, f32: true }, helpers });
  writer.write();
  const callees = new Map([...["loadSlow", "storeSlow", "translateSlow"].entries(), ...[...helpers.arithmetic, ...helpers.minMax].map(([name, { index }]) => [index, name] as const)]);
  const name = (offset: number): string => `0x${(page + BigInt(offset)).toString(16)}`;
  const blocks = region.blocks.flatMap((block) => [`${name(block.offset)}:${region.entries.includes(block) ? "  (entry)" : ""}`, ...blockText(block, page, name)]);
  const wasm = wasmText(f.code.out.view(), (local) => writer.localName(local), (index) => callees.get(index) ?? `function ${index}`);
  return [`${region.blocks.length} blocks, ${region.instructions} instructions`, ...blocks, "", "wasm:", ...wasm.map((line) => `  ${line}`), ""].join("\n");
}

function blockText({ instructions, terminator }: Block, page: bigint, name: (offset: number) => string): string[] {
  const last = "instruction" in terminator ? [terminator.instruction] : [];
  const lines = [...instructions, ...last].map(({ offset, decoded }) =>
    `  ${disassemble(decoded, page + BigInt(offset)).padEnd(28)} ; ${decoded.instruction.semantics.map(statementText).join("; ")}`);
  const to = (target: Target): string => `${name(target.offset)}${target.kind === "exit" ? " (leaves)" : ""}`;
  switch (terminator.kind) {
    case "jump": case "call": lines.push(`  -> ${to(terminator.target)}`); break;
    case "branch": lines.push(`  -> ${to(terminator.taken)} or ${to(terminator.next)}`); break;
    case "indirect": lines.push(`  -> ${[...terminator.expected.map(to), "elsewhere (leaves)"].join(" or ")}`); break;
    case "slow": lines.push(`  -> TypeScript executes ${terminator.word.toString(16)}, leaves`);
  }
  return lines;
}

function statementText(statement: ir.Stmt): string {
  switch (statement.kind) {
    case "let": return `${statement.name} = ${expressionText(statement.value)}`;
    case "setX": return `x[rd] = ${expressionText(statement.value)}`;
    case "setF": return `f[rd] = ${expressionText(statement.value)}`;
    case "store": return `mem${statement.bytes * 8}[${expressionText(statement.address)}] = ${expressionText(statement.value)}`;
    case "branch": return `if ${expressionText(statement.cond)} goto pc + imm`;
    case "jump": return `goto ${expressionText(statement.target)}`;
    default: return statement.kind;
  }
}

function expressionText(expr: ir.Expr): string {
  switch (expr.kind) {
    case "const": return String(expr.value);
    case "x": case "f": return `${expr.kind}[${expr.reg}]`;
    case "local": return expr.name;
    case "unary": return `${expr.op}(${expressionText(expr.a)})`;
    case "binary": return `${expr.op}(${expressionText(expr.a)}, ${expressionText(expr.b)})`;
    case "select": return `(${expressionText(expr.cond)} ? ${expressionText(expr.then)} : ${expressionText(expr.else)})`;
    case "load": return `mem${expr.bytes * 8}${expr.signed ? "s" : "u"}[${expressionText(expr.address)}]`;
    case "fp": return `${expr.op}.${expr.format}(${expr.args.map(expressionText).join(", ")})`;
    case "amo": case "sc": return `${expr.kind}(${expressionText(expr.address)}, ${expressionText(expr.value)})`;
    case "lr": return `lr(${expressionText(expr.address)})`;
    default: return expr.kind;
  }
}
