import { describe, expect, it } from "vitest";
import { assemble } from "./assemble.ts";
import { decode, matchesCompressed, type Decoded } from "./decode.ts";
import { disassemble } from "./disassemble.ts";
import { encode, encodeCompressed } from "./encode.ts";
import { COMPRESSED_INSTRUCTIONS, INSTRUCTIONS } from "./instructions/table.ts";

/** xorshift32: the same words in every run. */
function* randomWords(count: number): Generator<number> {
  let state = 0x2545_f491;
  for (let n = 0; n < count; n++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    yield state >>> 0;
  }
}

const COMPRESSED_WORDS = Array.from({ length: 65536 }, (_, word) => word).filter((word) => (word & 3) !== 3);

/** Fields without the row objects, to compare encodings that differ in ignored bits only. */
const fields = ({ instruction, compressed, rd, rs1, rs2, rs3, imm, rm }: Decoded) =>
  ({ name: (compressed ?? instruction).name, rd, rs1, rs2, rs3, imm, rm });

describe("instruction table", () => {
  it("no two 32-bit rows match the same word", () => {
    const overlaps = INSTRUCTIONS.flatMap((a, index) => INSTRUCTIONS.slice(index + 1)
      .filter((b) => ((a.match ^ b.match) & a.mask & b.mask) === 0)
      .map((b) => `${a.name} and ${b.name}`));
    expect(overlaps).toEqual([]);
  });

  it("every row's match lies inside its mask, and names are unique", () => {
    const all = [...INSTRUCTIONS, ...COMPRESSED_INSTRUCTIONS];
    expect(all.filter(({ mask, match }) => (match & ~mask) !== 0).map(({ name }) => name)).toEqual([]);
    expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
  });

  it("no two compressed rows match the same halfword", () => {
    const shared = COMPRESSED_WORDS.filter((word) => COMPRESSED_INSTRUCTIONS.filter((row) => matchesCompressed(row, word)).length > 1);
    expect(shared).toEqual([]);
  });

  it("every instruction writes registers only after everything that can fault", () => {
    const mayFault = (value: unknown): boolean =>
      /"kind":"(load|guestLoad|amo|lr|sc|csr)"/.test(JSON.stringify(value, (_key, part: unknown) => (typeof part === "bigint" ? String(part) : part)));
    const wrong = INSTRUCTIONS.filter(({ semantics }) => {
      const firstWrite = semantics.findIndex(({ kind }) => kind === "setX" || kind === "setF" || kind === "jump");
      return firstWrite >= 0 && semantics.slice(firstWrite + 1).some((statement) => mayFault(statement) || statement.kind === "store");
    });
    expect(wrong.map(({ name }) => name)).toEqual([]);
  });
});

describe("decode, compressed", () => {
  it("counts legal and illegal encodings per instruction as the tables of the chapters C and Zc do", () => {
    const counts: Record<string, number> = {};
    for (const word of COMPRESSED_WORDS) {
      const name = decode(word)?.compressed?.name ?? "illegal";
      counts[name] = (counts[name] ?? 0) + 1;
    }
    expect(counts).toEqual({
      "c.addi4spn": 255 * 8, // immediate not 0
      "c.fld": 2048, "c.lw": 2048, "c.ld": 2048, "c.fsd": 2048, "c.sw": 2048, "c.sd": 2048,
      "c.nop": 1, "c.addi": 2047, // with HINTs: rd = x0 or immediate 0
      "c.addiw": 31 * 64, // rd not x0
      "c.li": 2048,
      "c.addi16sp": 63, "c.lui": 31 * 63, // immediate not 0; x2 is c.addi16sp
      "c.srli": 512, "c.srai": 512, "c.andi": 512,
      "c.sub": 64, "c.xor": 64, "c.or": 64, "c.and": 64, "c.subw": 64, "c.addw": 64,
      "c.j": 2048, "c.beqz": 2048, "c.bnez": 2048,
      "c.slli": 2048, "c.fldsp": 2048,
      "c.lwsp": 31 * 64, "c.ldsp": 31 * 64, // rd not x0
      "c.jr": 31, "c.jalr": 31, "c.ebreak": 1, "c.mv": 32 * 31, "c.add": 32 * 31,
      "c.fsdsp": 2048, "c.swsp": 2048, "c.sdsp": 2048,
      // Zcb: 896 of quadrant 0 funct3 100, 112 of the reserved register-register ones
      "c.lbu": 256, "c.lhu": 128, "c.lh": 128, "c.sb": 256, "c.sh": 128,
      "c.mul": 64, "c.zext.b": 8, "c.sext.b": 8, "c.zext.h": 8, "c.sext.h": 8, "c.zext.w": 8, "c.not": 8,
      // addi4spn 8, quadrant 0 funct3 100 2048, addiw 64, addi16sp 1, lui 31, reserved register-register 2 * 64,
      // lwsp and ldsp 64 each, jr 1
      illegal: 8 + (2048 - 896) + 64 + 1 + 31 + (128 - 112) + 64 + 64 + 1,
    });
  });

  it("the all-zero halfword is illegal", () => {
    expect(decode(0)).toBeUndefined();
  });

  it("looks only at the low 16 bits", () => {
    expect(decode(0xffff_0505)).toEqual(decode(0x0505));
    expect(decode(0x0505)?.length).toBe(2);
  });

  it("encodes back to the same halfword", () => {
    for (const word of COMPRESSED_WORDS) {
      const decoded = decode(word);
      if (decoded?.compressed) expect(encodeCompressed(decoded.compressed, decoded)).toBe(word);
    }
  });
});

describe("decode, 32 bits", () => {
  it("a word is decoded to the row that matches it, found by linear search", () => {
    let legal = 0;
    for (const random of randomWords(20_000)) {
      const word = (random | 3) >>> 0;
      const row = (word & 0x1c) === 0x1c ? undefined : INSTRUCTIONS.find(({ mask, match }) => (word & mask) >>> 0 === match);
      const decoded = decode(word);
      if (decoded) legal++;
      if (decoded || !row) expect(decoded?.instruction).toBe(row);
      else expect([5, 6]).toContain((word >>> 12) & 7); // reserved rounding mode
    }
    expect(legal).toBeGreaterThan(5000);
  });

  it.each([5, 6])("rounding mode %i is reserved, hence illegal", (rm) => {
    expect(decode(0x0000_0053 | (rm << 12))).toBeUndefined();
    expect(decode(0x0000_0043 | (rm << 12))).toBeUndefined();
    expect(decode(0x0000_7053)?.rm).toBe(7);
  });

  it.each([
    ["48-bit prefix", 0x0000_001f], ["64-bit prefix", 0x0000_003f], ["all ones", 0xffff_ffff],
    ["lr with rs2 not 0", 0x1010_202f], ["slliw with shamt 32", 0x0200_101b], ["fmt q of fadd", 0x0600_0053],
    ["ecall with rd", 0x0000_00f3], ["branch funct3 2", 0x0000_2063], ["load funct3 7", 0x0000_7003],
  ])("%s is illegal", (_title, word) => {
    expect(decode(word)).toBeUndefined();
  });

  it("fields are what the manual draws", () => {
    expect(decode(0xfe42_8ae3)).toMatchObject({ instruction: { name: "beq" }, rs1: 5, rs2: 4, imm: -12 });
    expect(decode(0x8000_00ef)).toMatchObject({ instruction: { name: "jal" }, rd: 1, imm: -0x10_0000 });
    expect(decode(0xffff_f537)).toMatchObject({ instruction: { name: "lui" }, rd: 10, imm: -4096 });
    expect(decode(0x43f5_d593)).toMatchObject({ instruction: { name: "srai" }, imm: 63 });
    expect(decode(0xc01f_e573)).toMatchObject({ instruction: { name: "csrrsi" }, rd: 10, rs1: 31, imm: 0xc01 });
  });

  it("assembling the disassembly gives the same instruction", () => {
    const pc = 0x8000_0000n;
    const words = [...randomWords(8000)].map((word, index) => {
      const row = INSTRUCTIONS[index % INSTRUCTIONS.length];
      return row ? ((word & ~row.mask) | row.match) >>> 0 : word;
    });
    for (const word of [...words, ...COMPRESSED_WORDS.filter((_, index) => index % 7 === 0)]) {
      const decoded = decode(word);
      if (!decoded) continue;
      const text = disassemble(decoded, pc);
      const { bytes } = assemble(text, { base: pc });
      const view = new DataView(bytes.buffer);
      const again = decode(bytes.length === 2 ? view.getUint16(0, true) : view.getUint32(0, true));
      const ignored = decoded.instruction.format === "fence" ? { rd: 0, rs1: 0, imm: decoded.imm & 0xff } : {};
      expect(again && fields(again), text).toEqual({ ...fields(decoded), ...ignored });
    }
  });

  it("encode is the inverse of decode", () => {
    for (const row of INSTRUCTIONS) {
      for (const random of randomWords(20)) {
        const decoded = decode(((random & ~row.mask) | row.match) >>> 0);
        if (!decoded) continue;
        const again = decode(encode(row, { ...decoded, ordering: (decoded.word >>> 25) & 3 }));
        expect(again && fields(again)).toEqual(fields(decoded));
      }
    }
  });
});
