import { describe, expect, it } from "vitest";
import { firstSeed } from "./first-seed.ts";
import { QEMU_ERRATA, qemuMissing, runOnQemu } from "./qemu.ts";
import { MODES, randomImage } from "./random-program.ts";
import { runImage } from "./run-image.ts";

/** POLYVISOR_SEED repeats a run; POLYVISOR_IMAGES sets how many images a mode gets (default 4, a few seconds each). */
const missing = qemuMissing();
if (missing) console.log(`differential tests skipped: ${missing}`);
const images = Number(process.env["POLYVISOR_IMAGES"] ?? 4);

describe.skipIf(missing)("generated code against QEMU", () => {
  for (const mode of MODES) {
    it(`leaves the same registers, flags, memory, page tables and traps after random programs in ${mode.name}`, { timeout: 60_000 }, async () => {
      for (let seed = firstSeed; seed < firstSeed + images; seed++) {
        console.log(`mode ${mode.name}: POLYVISOR_SEED=${seed}`);
        const image = randomImage(seed, 800, mode, QEMU_ERRATA);
        const expected = await runOnQemu(image);
        expect(image.difference(expected, runImage(image, "interpreter"))).toBeUndefined();
        expect(image.difference(expected, runImage(image, "translated"))).toBeUndefined();
      }
    });
  }
});
