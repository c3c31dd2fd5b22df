import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { assemble } from "./assemble.ts";
import { PSEUDO_NAMES } from "./assembler/pseudo.ts";
import { decode } from "./decode.ts";
import { disassemble } from "./disassemble.ts";
import { evaluate, type Environment } from "./evaluate.ts";

const BASE = 0x8000_0000n;

function listing(source: string, base = BASE): string[] {
  const { bytes } = assemble(source, { base });
  const view = new DataView(bytes.buffer);
  const lines: string[] = [];
  for (let offset = 0; offset < bytes.length;) {
    const low = view.getUint16(offset, true);
    const decoded = decode((low & 3) === 3 ? view.getUint32(offset, true) : low);
    if (!decoded) throw new Error(`illegal instruction at ${offset}`);
    lines.push(disassemble(decoded, base + BigInt(offset)));
    offset += decoded.length;
  }
  return lines;
}

const data = (source: string): number[] => [...assemble(source, { base: BASE }).bytes];

/** What a straight line of integer instructions leaves in a0. */
function run(source: string): bigint {
  const { bytes } = assemble(source, { base: BASE });
  const view = new DataView(bytes.buffer);
  const x = new Map<number, bigint>();
  let pc = BASE;
  while (pc - BASE < bytes.length) {
    const decoded = decode(view.getUint32(Number(pc - BASE), true));
    if (!decoded) throw new Error("illegal instruction");
    const env = { pc, readX: (n: number) => x.get(n) ?? 0n, writeX: (n: number, value: bigint) => void x.set(n, value) };
    pc = evaluate(decoded, env as unknown as Environment);
  }
  return x.get(10) ?? 0n;
}

describe("assemble", () => {
  it("labels are addresses; branches and jumps reach backwards and forwards", () => {
    expect(listing("start: beqz a0, end\n j start\nend: call start\n c.j start")).toEqual([
      "beq a0,zero,0x80000008", "jal zero,0x80000000", "jal ra,0x80000000", "c.j 0x80000000",
    ]);
  });

  it("local labels 1b and 1f are the nearest ones", () => {
    expect(listing("1: j 1f\n1: j 1b\n j 1b\n j 1f\n1: nop")).toEqual([
      "jal zero,0x80000004", "jal zero,0x80000004", "jal zero,0x80000004", "jal zero,0x80000010", "addi zero,zero,0",
    ]);
  });

  it("li gives any 64-bit value", () => {
    const interesting = fc.oneof(
      fc.bigInt(-(1n << 63n), (1n << 64n) - 1n),
      fc.tuple(fc.integer({ min: 0, max: 63 }), fc.integer({ min: -2049, max: 2049 })).map(([shift, delta]) =>
        BigInt.asIntN(64, (1n << BigInt(shift)) + BigInt(delta))),
    );
    fc.assert(fc.property(interesting, (value) => {
      expect(run(`li a0, ${value}`)).toBe(BigInt.asUintN(64, value));
    }), { numRuns: 500 });
  });

  it("li of a 32-bit value takes at most two instructions", () => {
    expect(listing("li a0, 0x12345678")).toEqual(["lui a0,0x12345", "addiw a0,a0,1656"]);
    expect(listing("li a0, -2048")).toEqual(["addi a0,zero,-2048"]);
    expect(listing("li a0, 0x7ffff800")).toEqual(["lui a0,0x80000", "addiw a0,a0,-2048"]);
  });

  it("la is relative to the pc, in both directions", () => {
    expect(run("la a0, end\nend:")).toBe(BASE + 8n);
    expect(run("la a0, 0x80000000")).toBe(BASE);
    expect(run("nop\n la a0, 0x7ffff804")).toBe(0x7fff_f804n);
    expect(run("la a0, 0x80012800")).toBe(0x8001_2800n);
    expect(() => data("la a0, 0x180000000")).toThrow(/2 GiB/);
  });

  it("%hi and %lo add up", () => {
    expect(run("lui a0, %hi(0x12345fff)\n addi a0, a0, %lo(0x12345fff)")).toBe(0x1234_5fffn);
  });

  it("data directives are little-endian and take several values", () => {
    expect(data(".byte 1, -1\n.half 0x0203\n.word 0x04050607\n.dword 0x08090a0b0c0d0e0f")).toEqual([
      1, 255, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8,
    ]);
  });

  it("strings may contain comment and separator characters, and escapes", () => {
    expect(data('.asciz "a;#,\\n\\x41" # comment')).toEqual([97, 59, 35, 44, 10, 65, 0]);
    expect(data('.ascii "é//", "b" // comment')).toEqual([0xc3, 0xa9, 47, 47, 98]);
    expect(data(".byte 'a', '\\n', '#', ','")).toEqual([97, 10, 35, 44]);
  });

  it("alignment fills with no-operations, so that code runs through it", () => {
    expect(listing("c.nop\n.align 3\n nop")).toEqual(["c.nop", "c.nop", "addi zero,zero,0", "addi zero,zero,0"]);
    expect(data(".byte 1\n.balign 4\n.byte 2")).toEqual([1, 0, 1, 0, 2]);
  });

  it("org, space, equ and expressions place things", () => {
    const { bytes, labels } = assemble(
      ".equ SIZE, 4 * (1 + 1)\nLIMIT = SIZE << 2 | 1\n.space SIZE - 6, 0xaa\n.org 0x80000004\nhere: .byte LIMIT, . - here, 7 % 4",
      { base: BASE },
    );
    expect([...bytes]).toEqual([0xaa, 0xaa, 0, 0, 33, 0, 3]);
    expect(labels.get("here")).toBe(BASE + 4n);
    expect(labels.get("SIZE")).toBe(8n);
  });

  it("operators bind as in C", () => {
    const value = (expression: string): number => data(`.byte ${expression}`)[0] ?? -1;
    expect(value("1 + 2 * 3")).toBe(7);
    expect(value("10 - 3 - 2")).toBe(5);
    expect(value("1 << 2 + 1")).toBe(8);
    expect(value("6 & 3 | 8 ^ 1")).toBe(11);
    expect(value("-(2 - 5)")).toBe(3);
    expect(value("~0 & 0b101")).toBe(5);
  });

  it("acquire and release are bits 26 and 25", () => {
    expect(listing("lr.w.aq a0, (a1)\nsc.d.rl a0, a2, (a1)\namoswap.w.aqrl a0, a2, 0(a1)")).toEqual([
      "lr.w.aq a0,(a1)", "sc.d.rl a0,a2,(a1)", "amoswap.w.aqrl a0,a2,(a1)",
    ]);
  });

  it("pseudo-instructions expand as the assembly manual says", () => {
    expect(listing("mv a0,a1; not a0,a1; neg a0,a1; sext.w a0,a1; seqz a0,a1; snez a0,a1; ret; jr a0; jalr a0; jalr ra, a0, 4")).toEqual([
      "addi a0,a1,0", "xori a0,a1,-1", "sub a0,zero,a1", "addiw a0,a1,0", "sltiu a0,a1,1", "sltu a0,zero,a1",
      "jalr zero,0(ra)", "jalr zero,0(a0)", "jalr ra,0(a0)", "jalr ra,4(a0)",
    ]);
    expect(listing("csrr a0, mstatus; csrw satp, a0; csrwi fcsr, 3; rdtime t0; fence; sfence.vma; fmv.d fa0, fa1; fneg.s ft0, ft1")).toEqual([
      "csrrs a0,mstatus,zero", "csrrw zero,satp,a0", "csrrwi zero,fcsr,3", "csrrs t0,time,zero", "fence iorw,iorw",
      "sfence.vma zero,zero", "fsgnj.d fa0,fa1,fa1", "fsgnjn.s ft0,ft1,ft1",
    ]);
    expect(PSEUDO_NAMES.length).toBeGreaterThan(40);
  });

  it.each([
    ["nop\n addi a0, a1", /line 2: addi a0, a1: expected operands rd, rs1, imm, got 2/],
    ["addi a0, a1, 2048", /line 1: .*immediate 2048: expected -2048\.\.2047/],
    ["addi a0, q1, 1", /operand q1: expected an integer register/],
    ["fadd.d fa0, a0, fa1", /operand a0: expected an FP register/],
    ["frobnicate a0", /unknown instruction/],
    [".frobnicate", /unknown directive/],
    ["j nowhere", /symbol nowhere is not defined/],
    ["li a0, later\nlater:", /not defined above this line \(use la/],
    ["a: nop\na: nop", /symbol a is already defined/],
    [".byte 256", /value 256: expected 8 bits/],
    ["c.lw a0, 0(t0)", /expected x8\.\.x15/],
    ["c.addi4spn a0, sp, 0", /reserved/],
    ["c.lw a0, 2(a1)", /multiple of 4/],
    ["lw a0, a1", /expected offset\(register\)/],
    [".space 1 << 40", /expected 0\.\./],
    [".org 0", /behind the current address/],
    ["mv a0", /expected 2 operands, got 1/],
    ["fadd.s fa0, fa1, fa2, up", /expected rne, rtz/],
    ["beq a0, a1, . + 4096", /expected -4096\.\.4094/],
    [".byte 1 +", /expected a value/],
    ["csrr a0, nosuch", /symbol nosuch is not defined/],
  ])("%s: the error says the line and what was expected", (source, message) => {
    expect(() => assemble(source, { base: BASE })).toThrow(message);
  });
});
