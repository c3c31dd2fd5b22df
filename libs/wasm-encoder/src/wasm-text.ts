import { Atomic, Mem, Op, Sat, Simd } from "./opcodes.ts";

const names = (table: Record<string, number>): Map<number, string> => new Map(Object.entries(table).map(([name, code]) => [code, dotted(name)]));
const OPS = names(Op);
const MEM = names(Object.fromEntries(Object.entries(Mem).map(([name, [code]]) => [name, code])));
const ATOMIC = names(Object.fromEntries(Object.entries(Atomic).map(([name, [code]]) => [`atomic ${name}`, code])));
const SIMD = names(Simd);
const SAT = names(Sat);
const BLOCKS = new Map([[0x02, "block"], [0x03, "loop"], [0x04, "if"]]);
const BLOCK_TYPES = new Map([[0x40, ""], [0x7f, " i32"], [0x7e, " i64"], [0x7d, " f32"], [0x7c, " f64"]]);

/** i64ExtendI32S -> i64.extend_i32_s */
function dotted(name: string): string {
  const [, type, rest] = /^(atomic i(?:32|64)|[if]\d\d(?:x\d)?|v128)(.*)$/.exec(name) ?? [];
  const snake = (text: string): string => text.replace(/([a-z])([A-Z\d])/g, "$1_$2").replace(/(\d)([A-Z])/g, "$1_$2").toLowerCase();
  return type ? `${type}.${snake(rest!)}` : snake(name);
}

/**
 * One function's instructions as text, one per line, nested blocks indented: to be read by people (`hv translate`), not by
 * a parser. `local` and `callee` name what has names.
 */
export function wasmText(code: Uint8Array, local: (index: number) => string, callee: (index: number) => string): string[] {
  const lines: string[] = [];
  let at = 0;
  let depth = 0;
  const integer = (signed: boolean): bigint => {
    let value = 0n;
    for (let shift = 0n; ; ) {
      const byte = code[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      shift += 7n;
      if (byte & 0x80) continue;
      return signed && byte & 0x40 ? value - (1n << shift) : value;
    }
  };
  const u32 = (): number => Number(integer(false));
  const memory = (name: string): string => {
    u32(); // alignment
    const offset = u32();
    return offset === 0 ? name : `${name} offset=0x${offset.toString(16)}`;
  };
  const line = (text: string): void => void lines.push("  ".repeat(depth) + text);
  const float = (bytes: 4 | 8): number => {
    const view = new DataView(code.buffer, code.byteOffset + at, bytes);
    at += bytes;
    return bytes === 4 ? view.getFloat32(0, true) : view.getFloat64(0, true);
  };
  while (at < code.length) {
    const op = code[at++]!;
    const block = BLOCKS.get(op);
    if (block) {
      line(block + BLOCK_TYPES.get(code[at++]!)!);
      depth++;
      continue;
    }
    switch (op) {
      case 0x05: depth--; line("else"); depth++; continue;
      case 0x0b: depth--; line("end"); continue;
      case 0x0c: line(`br ${u32()}`); continue;
      case 0x0d: line(`br_if ${u32()}`); continue;
      case 0x0e: line(`br_table ${Array.from({ length: u32() + 1 }, u32).join(" ")}`); continue;
      case 0x10: line(`call ${callee(u32())}`); continue;
      case 0x11: case 0x13: line(`${op === 0x11 ? "" : "return_"}call_indirect type ${u32()} table ${u32()}`); continue;
      case 0x20: line(`local.get ${local(u32())}`); continue;
      case 0x21: line(`local.set ${local(u32())}`); continue;
      case 0x22: line(`local.tee ${local(u32())}`); continue;
      case 0x41: line(`i32.const ${integer(true)}`); continue;
      case 0x42: line(`i64.const ${integer(true)}`); continue;
      case 0x43: line(`f32.const ${float(4)}`); continue;
      case 0x44: line(`f64.const ${float(8)}`); continue;
      case 0xfc: line(SAT.get(u32()) ?? "?"); continue;
      case 0xfd: {
        const simd = u32();
        if (simd === 0) line(memory("v128.load"));
        else if (simd === 0x1f || simd === 0x21) line(`${simd === 0x1f ? "f32x4" : "f64x2"}.extract_lane ${code[at++]}`);
        else line(SIMD.get(simd) ?? `simd 0x${simd.toString(16)}`);
        continue;
      }
      case 0xfe: {
        const atomic = u32();
        if (atomic === 3) line(`atomic.fence${code[at++] === 0 ? "" : " ?"}`);
        else line(memory(ATOMIC.get(atomic) ?? `atomic 0x${atomic.toString(16)}`));
        continue;
      }
    }
    const access = MEM.get(op);
    line(access ? memory(access) : (OPS.get(op) ?? `0x${op.toString(16)}`));
  }
  return lines;
}
