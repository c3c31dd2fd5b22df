import { expect, it } from "vitest";
import { Symbols } from "./symbols.ts";

it("an address is named after the function that it lies in; data and far addresses have no name", () => {
  const symbols = new Symbols("ffffffff80001000 T start\nffffffff80001100 t next\nffffffff80001080 D data\nnot a line\n");
  expect([0xffff_ffff_8000_1000n, 0xffff_ffff_8000_1090n, 0xffff_ffff_8000_1104n, 0xffff_ffff_9000_0000n, 5n].map((at) => symbols.name(at))).toEqual([
    "start", "start+0x90", "next+0x4", "", "",
  ]);
});
