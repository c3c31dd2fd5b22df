import { decode, encode, INSTRUCTIONS } from "@polyvisor/isa";
import { lengthOf, type Generator } from "./random-program.ts";

/**
 * The code of one block: a sequence of groups. Most are a random instruction; others are what translators get wrong: loops,
 * calls, code that changes itself. Random jumps lead forward, to the beginning of a group, so every block ends.
 */
const MOST_GROUPS = 8;
const LINK = 1;
const COUNTER = 28;
const [T1, T2, PLACE] = [26, 27, 31];

interface Group {
  readonly words: number[];
  /** Its jumps lead where they should. */
  readonly fixed: boolean;
}

const word = (name: string, fields: Parameters<typeof encode>[1]): number => encode(INSTRUCTIONS.find((row) => row.name === name)!, fields);
const bytesOf = (words: readonly number[]): number => words.reduce((sum, each) => sum + lengthOf(each), 0);

export function randomWords(generator: Generator): number[] {
  const groups = Array.from({ length: 1 + generator.below(MOST_GROUPS) }, () => randomGroup(generator));
  groups.push({ words: [generator.below(2) ? 0x0010_0073 : 0x9002], fixed: true }); // ebreak
  groups.forEach((group, at) => {
    if (group.fixed) return;
    group.words.forEach((each, n) => {
      const decoded = decode(each);
      if (!decoded || decoded.length !== 4) return;
      const { instruction, rd, rs1, rs2 } = decoded;
      const jumps = instruction.format === "B" || instruction.format === "J" || instruction.name === "jalr";
      if (!jumps) return;
      const target = at + 1 + generator.below(groups.length - at - 1);
      const imm = bytesOf(group.words.slice(n)) + bytesOf(groups.slice(at + 1, target).flatMap(({ words }) => words));
      group.words[n] = instruction.format === "B" ? encode(instruction, { rd, rs1, rs2, imm }) : word("jal", { rd, imm });
    });
  });
  return groups.flatMap(({ words }) => words);
}

function randomGroup(generator: Generator): Group {
  switch (generator.below(12)) {
    case 0: return { words: loop(generator), fixed: true };
    case 1: return { words: call(generator), fixed: true };
    case 2: return { words: selfModifying(generator), fixed: true };
    default: return { words: generator.instruction(), fixed: false };
  }
}

/** Extensions about which QEMU and we are of one mind in every respect: no exceptions are made for them (`describe`). */
const AGREED: ReadonlySet<string> = new Set(["I", "M", "F", "D", "Zba", "Zbb", "Zbs"]);

/** Instructions that go on with the next one, unless they trap, and leave these registers alone. `long`: one, of 4 bytes. */
function straight(generator: Generator, spared: readonly number[], long = false): number[] {
  for (;;) {
    const words = generator.instruction();
    const usable = words.every((each) => {
      const decoded = decode(each);
      if (!decoded || (long && decoded.length !== 4)) return false;
      const { format, name, extension } = decoded.instruction;
      if (long && !AGREED.has(extension)) return false;
      return format !== "B" && format !== "J" && name !== "jalr" && !spared.includes(decoded.rd);
    });
    if (usable && !(long && words.length > 1)) return words;
  }
}
function body(generator: Generator, spared: readonly number[]): number[] {
  return Array.from({ length: 1 + generator.below(4) }, () => straight(generator, spared)).flat();
}

function loop(generator: Generator): number[] {
  const inside = body(generator, [COUNTER]);
  return [
    word("addi", { rd: COUNTER, rs1: 0, imm: 1 + generator.below(6) }),
    ...inside,
    word("addi", { rd: COUNTER, rs1: COUNTER, imm: -1 }),
    word("bne", { rs1: COUNTER, rs2: 0, imm: -(bytesOf(inside) + 4) }),
  ];
}

/** A function behind the place where it is called from, with a return that is sometimes compressed. */
function call(generator: Generator): number[] {
  const inside = body(generator, [LINK]);
  const back = generator.below(2) ? 0x8082 : word("jalr", { rd: 0, rs1: LINK, imm: 0 });
  return [word("jal", { rd: LINK, imm: 8 }), word("jal", { rd: 0, imm: 4 + bytesOf(inside) + lengthOf(back) }), ...inside, back];
}

/** An instruction that becomes another one, and back again the next time, with fence.i before it is executed. */
function selfModifying(generator: Generator): number[] {
  const spared = [T1, T2, PLACE];
  const [before] = straight(generator, spared, true);
  const [after] = straight(generator, spared, true);
  const change = (before! ^ after!) | 0;
  const low = (change << 20) >> 20;
  const head = [
    word("lui", { rd: T1, imm: (change - low) | 0 }),
    word("addiw", { rd: T1, rs1: T1, imm: low }),
  ];
  const slot = 4 * 5;
  return [
    ...head,
    word("auipc", { rd: PLACE, imm: 0 }),
    word("lw", { rd: T2, rs1: PLACE, imm: slot }),
    word("xor", { rd: T2, rs1: T2, rs2: T1 }),
    word("sw", { rs1: PLACE, rs2: T2, imm: slot }),
    word("fence.i", {}),
    before!,
  ];
}
