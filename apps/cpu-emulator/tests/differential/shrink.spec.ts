import { decode } from "@polyvisor/isa";
import { describe, expect, it } from "vitest";
import { readProgram, writeProgram } from "./corpus.ts";
import { imageOf, listing, MODES, randomProgram, type Program } from "./random-program.ts";
import { runImage } from "./run-image.ts";
import { shrink } from "./shrink.ts";

const named = (program: Program, name: string): boolean => program.blocks.some(({ words }) => words.some((word) => decode(word)?.instruction.name === name));

describe("shrinking and the corpus", () => {
  it("a failure that one instruction causes is shrunk to that instruction; one that needs others is left as it is", async () => {
    const program = randomProgram(7, 200, MODES[0]!);
    const block = program.blocks.find((each) => each.words.length > 6 && named({ ...program, blocks: [each] }, "xor"))!;
    const small = await shrink(program, block, (candidate) => named(candidate, "xor"));
    const left = listing(small!).map((line) => line.trim().split(/ +/)[2]);
    expect(left.filter((name) => name !== "fence.i")).toEqual(["xor", expect.stringMatching(/ebreak/)]);
    expect(small!.x.filter((value) => value !== 0n)).toHaveLength(3);
    expect(await shrink(program, block, () => false)).toBeUndefined();
  });

  it("a program written to the corpus is the same program when it is read again", () => {
    const program = randomProgram(11, 40, MODES[1]!);
    const one = { ...program, blocks: [program.blocks[17]!] };
    const again = readProgram(writeProgram(one, ["a remark"]));
    expect(imageOf(again).bytes).toEqual(imageOf(one).bytes);
    expect(() => readProgram("mode Z\n")).toThrow(/mode/);
  });

  it("a program runs three times, on what it left: the harness counts rounds, code that changes itself changes", () => {
    const program = randomProgram(3, 60, MODES[0]!);
    const image = imageOf(program);
    const once = runImage(image, "reference");
    // The same block with its three rounds undone one by one cannot leave the same state: at least instret-free counters differ.
    expect(image.difference(once, runImage(image, "interpreter"))).toBeUndefined();
    expect(image.difference(once, image.bytes.slice(image.resultOffset, image.resultOffset + image.resultBytes))).toBeDefined();
  });
});
