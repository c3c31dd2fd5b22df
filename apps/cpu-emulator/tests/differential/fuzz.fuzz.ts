import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { readProgram } from "./corpus.ts";
import { fuzz } from "./fuzz.ts";
import { firstSeed } from "./first-seed.ts";
import { QEMU_ERRATA, qemuMissing, runOnQemu } from "./qemu.ts";
import { imageOf } from "./random-program.ts";
import { runImage } from "./run-image.ts";

/** POLYVISOR_FUZZ_SECONDS: 60, in CI 300. By hand: `npm run fuzz -- --minutes N`. */
const seconds = Number(process.env["POLYVISOR_FUZZ_SECONDS"] ?? (process.env["CI"] ? 300 : 60));
const corpus = fileURLToPath(new URL("./corpus/", import.meta.url));

describe("past failures", () => {
  for (const file of readdirSync(corpus).filter((name) => name.endsWith(".txt"))) {
    it(`${file}: all engines agree now`, { timeout: 60_000 }, async () => {
      const image = imageOf(readProgram(readFileSync(`${corpus}${file}`, "utf8")), QEMU_ERRATA);
      const expected = qemuMissing() ? runImage(image, "reference") : await runOnQemu(image);
      for (const engine of ["reference", "interpreter", "translated"] as const) {
        expect(image.difference(expected, runImage(image, engine)), engine).toBeUndefined();
      }
      expect(image.difference(expected, runImage(image, "translated", 13))).toBeUndefined();
    });
  }
});

describe("random programs", () => {
  it(`leave the same state on every engine and QEMU, for ${seconds} s`, { timeout: (seconds + 300) * 1000 }, async () => {
    console.log(`POLYVISOR_SEED=${firstSeed}`);
    const result = await fuzz({ seconds, firstSeed, directory: undefined, note: (line) => console.log(line) });
    const judged = [...result.oracles].map(([oracle, count]) => `${count} by ${oracle}`).join(", ");
    console.log(`${result.programs} programs in ${result.seconds.toFixed(0)} s, ${(result.programs / result.seconds).toFixed(0)}/s; judged: ${judged}`);
    expect(result.failures.join("\n\n")).toBe("");
    expect(result.programs).toBeGreaterThan(0);
  });
});
