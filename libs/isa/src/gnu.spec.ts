/** The table against the GNU assembler and disassembler, instruction by instruction. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assemble, BY_NAME, COMPRESSED_INSTRUCTIONS, CSR_BY_NUMBER, decode, disassemble, INSTRUCTIONS, type Decoded } from "./index.ts";

const AS = "riscv64-linux-gnu-as";
const OBJCOPY = "riscv64-linux-gnu-objcopy";
const OBJDUMP = "riscv64-linux-gnu-objdump";

function available(): boolean {
  try {
    for (const tool of [AS, OBJCOPY, OBJDUMP]) execFileSync(tool, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    console.log(`skipped: ${AS}, ${OBJCOPY} and ${OBJDUMP} are needed on PATH (Debian: binutils-riscv64-linux-gnu)`);
    return false;
  }
}

/** xorshift32: the same words in every run. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Extensions beside rv64gc that this assembler may not know yet: binutils 2.41 has Zicond and Zfa, 2.42 Zcb. */
const NEWER = ["zicond", "zcb", "h", "zfa"];
function accepted(): readonly string[] {
  return NEWER.filter((name) => {
    try {
      execFileSync(AS, [`-march=rv64gc_${name}`, "-o", "/dev/null", "-"], { input: "", stdio: ["pipe", "ignore", "ignore"] });
      return true;
    } catch {
      console.log(`left out: ${AS} does not know ${name}`);
      return false;
    }
  });
}

describe.skipIf(!available())("the instruction table and GNU binutils", () => {
  let directory = "";
  const newer = accepted();
  const known = INSTRUCTIONS.filter(({ extension }) => !NEWER.includes(extension.toLowerCase()) || newer.includes(extension.toLowerCase()));
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "polyvisor-isa-"));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  function gnuAssemble(source: string): Uint8Array {
    const file = (name: string): string => join(directory, name);
    writeFileSync(file("a.s"), source);
    execFileSync(AS, [`-march=${["rv64gc_zba_zbb_zbc_zbs_zicbom_zicboz_zawrs_svinval", ...newer].join("_")}`, "-mno-relax", "-o", file("a.o"), file("a.s")]);
    execFileSync(OBJCOPY, ["-O", "binary", "-j", ".text", file("a.o"), file("a.bin")]);
    return readFileSync(file("a.bin"));
  }

  /** Address to text, for raw code. */
  function gnuDisassemble(code: Uint8Array): Map<number, string> {
    const path = join(directory, "d.bin");
    writeFileSync(path, code);
    const output = execFileSync(OBJDUMP, ["-D", "-z", "-b", "binary", "-m", "riscv:rv64", "-M", "no-aliases", path], {
      encoding: "utf8", maxBuffer: 1 << 28,
    });
    const lines = new Map<number, string>();
    for (const line of output.split("\n")) {
      const match = /^\s*([0-9a-f]+):\t[0-9a-f ]+\t(.*)$/.exec(line);
      if (match) lines.set(Number.parseInt(match[1] ?? "", 16), normalise(match[2] ?? ""));
    }
    return lines;
  }

  /** One spelling: no comments, RV64C names for shifts by 0 (objdump: the RV128C c.slli64) and for c.nop. */
  const normalise = (text: string): string =>
    text.replace(/\s*[#<].*$/, "").replace(/\s+/g, " ").trim()
      .replace(/^(c\.s[lr][al]i)64 (\w+)$/, "$1 $2,0x0").replace(/^c\.addi zero,0$/, "c.nop");

  /** c.addi16sp with immediate 0 is reserved (C, Integer Register-Immediate Operations); objdump names it. */
  const RESERVED_BUT_NAMED: ReadonlySet<number> = new Set([0x6101]);

  /** Assembly text with a target relative to `.`, as both assemblers read it. */
  function text(decoded: Decoded): string {
    const plain = disassemble(decoded, 0n);
    const operands: readonly string[] = decoded.compressed?.operands ?? [];
    const jumps = decoded.instruction.format === "B" || decoded.instruction.format === "J" || operands.includes("target");
    return jumps ? plain.replace(/[^, ]+$/, `. + (${decoded.imm})`) : plain;
  }

  /** binutils 2.40 refuses a rounding mode on exact conversions and empty fence sets; both are legal encodings. */
  function gnuAccepts({ instruction, rm, imm }: Decoded): boolean {
    if (instruction.defaultRm === 0 && rm !== 0) return false;
    return instruction.format !== "fence" || ((imm & 0xf) !== 0 && (imm & 0xf0) !== 0);
  }

  it("every 32-bit instruction with random operands assembles to the same word as by GNU as", () => {
    const random = generator(1);
    const samples = known.flatMap((row) => {
      const found: Decoded[] = [];
      while (found.length < 24) {
        const free = row.name === "fence" ? 0x0ff0_0000 : row.name === "fence.i" ? 0 : ~row.mask; // other bits are ignored, not printed
        const decoded = decode((random() & free) | row.match);
        if (decoded && gnuAccepts(decoded)) found.push(decoded);
      }
      return found;
    });
    const lines = samples.map(text);
    const gnu = gnuAssemble(`.option norvc\n${lines.join("\n")}\n`);
    const ours = assemble(lines.join("\n"), { base: 0n }).bytes;
    const words = (bytes: Uint8Array): string[] => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      return lines.map((line, index) => `${line} = ${view.getUint32(4 * index, true).toString(16)}`);
    };
    expect(new Set(samples.map(({ instruction }) => instruction))).toEqual(new Set(known));
    expect(words(ours)).toEqual(words(gnu));
    expect(words(ours)).toEqual(samples.map(({ word }, index) => `${lines[index] ?? ""} = ${word.toString(16)}`));
  });

  it("all compressed encodings are legal, illegal and named as by objdump", () => {
    const halfwords = Array.from({ length: 65536 }, (_, word) => word).filter((word) => (word & 3) !== 3);
    const code = new Uint8Array(2 * halfwords.length);
    const view = new DataView(code.buffer);
    halfwords.forEach((word, index) => view.setUint16(2 * index, word, true));
    const gnu = gnuDisassemble(code);
    const differences = halfwords.flatMap((word, index) => {
      const theirs = gnu.get(2 * index) ?? "nothing";
      const decoded = decode(word);
      const ours = decoded ? disassemble(decoded, BigInt(2 * index)) : "illegal";
      const theirsIllegal = /^(\.2byte|c\.unimp|\.short|\.half)/.test(theirs);
      if (decoded?.compressed?.extension === "Zcb" && theirsIllegal) return []; // raw files are read as rv64gc
      return (decoded ? ours === theirs : theirsIllegal || RESERVED_BUT_NAMED.has(word)) ? [] : [`${word.toString(16)}: ours ${ours}, objdump ${theirs}`];
    });
    expect(differences.slice(0, 50)).toEqual([]);
    expect(COMPRESSED_INSTRUCTIONS.every(({ expands }) => BY_NAME.has(expands))).toBe(true);
  });

  /** Fields that the manual tells implementations to ignore: fm, rd, rs1 of fences; rm of exact conversions. */
  function objdumpIsStricter({ instruction, rm }: Decoded): boolean {
    return instruction.format === "fence" || instruction.format === "fenceI" || (instruction.defaultRm === 0 && rm !== 0);
  }

  /** All that objdump reads in raw files. */
  const READ_RAW: ReadonlySet<string> = new Set(["I", "M", "A", "F", "D", "Zicsr", "Zifencei", "Privileged"]);

  it("random 32-bit words are named as by objdump", () => {
    const random = generator(7);
    const rv64gc = INSTRUCTIONS.filter(({ extension }) => READ_RAW.has(extension));
    const words = Array.from({ length: 40_000 }, (_, index) => {
      const row = rv64gc[index % rv64gc.length];
      const word = random();
      // Half of them near a real instruction, so that few are rejected by their major opcode.
      return ((index & 1) === 0 || !row ? word | 3 : (word & ~row.mask) | row.match) >>> 0;
    }).filter((word) => (word & 0x1f) !== 0x1f);
    const code = new Uint8Array(4 * words.length);
    const view = new DataView(code.buffer);
    words.forEach((word, index) => view.setUint32(4 * index, word, true));
    const gnu = gnuDisassemble(code);
    const differences = words.flatMap((word, index) => {
      const theirs = gnu.get(4 * index) ?? "nothing";
      const decoded = decode(word);
      if (decoded && !rv64gc.includes(decoded.instruction)) return [];
      if (!decoded) return BY_NAME.has(theirs.split(" ")[0] ?? "") && !theirs.endsWith(",unknown") ? [`${word.toString(16)}: ours illegal, objdump ${theirs}`] : [];
      if (decoded.instruction.extension === "Zicsr" && !CSR_BY_NUMBER.has(decoded.imm)) return []; // binutils knows more CSRs
      const ours = disassemble(decoded, BigInt(4 * index));
      const strict = theirs.startsWith(".4byte") && objdumpIsStricter(decoded);
      return ours === theirs || strict ? [] : [`${word.toString(16)}: ours ${ours}, objdump ${theirs}`];
    });
    expect(differences.slice(0, 50)).toEqual([]);
  });
});
