import { describe, expect, it } from "vitest";
import { firstSeed } from "./first-seed.ts";
import { MODES, randomImage } from "./random-program.ts";
import { runImage } from "./run-image.ts";

describe("generated interpreter against the reference evaluator", () => {
  for (const mode of MODES) {
    it(`leaves the same registers, flags, memory and traps after random programs in ${mode.name}`, () => {
      const seed = firstSeed;
      console.log(`random programs, mode ${mode.name}: seed ${seed}`);
      const image = randomImage(seed, 300, mode);
      const expected = runImage(image, "reference");
      expect(image.difference(expected, runImage(image, "interpreter"))).toBeUndefined();
      // Slices this small use the variant that counts every instruction.
      expect(image.difference(expected, runImage(image, "interpreter", 7))).toBeUndefined();
      expect(image.difference(expected, runImage(image, "translated"))).toBeUndefined();
    });
  }
});
