import { readdirSync, readFileSync } from "node:fs";
import { assemble } from "@polyvisor/isa";
import { describe, expect, it } from "vitest";
import { showTranslation } from "../src/core/translator/show.ts";

const directory = new URL("./golden/", import.meta.url);
const BASE = 0x8000_0000n;

/** Reviewed text: `vitest -u` writes it anew; read the difference before it is committed. */
describe("translation of", () => {
  for (const file of readdirSync(directory).filter((name) => name.endsWith(".s"))) {
    it(`${file} is what was reviewed`, async () => {
      const { bytes } = assemble(readFileSync(new URL(file, directory), "utf8"), { base: BASE });
      await expect(showTranslation(bytes, BASE, BASE)).toMatchFileSnapshot(`./golden/${file.replace(".s", ".txt")}`);
    });
  }
});
