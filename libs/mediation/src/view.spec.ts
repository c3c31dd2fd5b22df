import { describe, expect, it } from "vitest";
import { assignField, parsePath } from "./view.ts";

describe("assignField", () => {
  it("replaces one byte in a copy; the original stays as it was", () => {
    const data = new Uint8Array([1, 2, 3]);
    expect(assignField({ data }, parsePath("data[1]"), 255n)).toEqual({ data: new Uint8Array([1, 255, 3]) });
    expect(data[1]).toBe(2);
  });

  it.each([
    ["data[3]", 1n],
    ["data[0]", 256n],
    ["data[0]", "x"],
    ["data[0].x", 1n],
  ])("refuses %s = %s", (path, value) => {
    expect(() => assignField({ data: new Uint8Array(3) }, parsePath(path), value)).toThrow();
  });
});
