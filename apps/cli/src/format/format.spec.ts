import { describe, expect, it } from "vitest";
import { UsageError } from "../cli-error.ts";
import { toJson } from "./json.ts";
import { formatBytes, formatDuration, parseBytes, parseCount, parseSeconds } from "./quantity.ts";
import { table } from "./table.ts";

describe("amounts", () => {
  it.each([
    ["512M", 512n << 20n],
    ["2g", 2n << 30n],
    ["64KiB", 65536n],
    ["65536", 65536n],
  ])("%s is read as bytes", (text, bytes) => expect(parseBytes(text)).toBe(bytes));

  it.each(["", "M", "-1", "1.5G", "1T", "0x10", "9".repeat(16)])("%j is refused", (text) => expect(() => parseBytes(text)).toThrow(UsageError));

  it("bytes and times are shown in the unit that keeps them short", () => {
    expect([0n, 1536n, 256n << 20n].map(formatBytes)).toEqual(["0 B", "1.5 KiB", "256 MiB"]);
    expect([12.3, 3400, 125_000, 10_920_000].map(formatDuration)).toEqual(["12 ms", "3.4 s", "2 min 5 s", "3 h 2 min"]);
  });

  it("counts and seconds outside their range are refused with the range", () => {
    expect(() => parseCount("9", "--cpus", 1, 8)).toThrow("--cpus \"9\"; expected a whole number from 1 to 8");
    expect(parseSeconds("0.5")).toBe(0.5);
    expect(() => parseSeconds("soon")).toThrow(UsageError);
  });
});

describe("table", () => {
  it("pads words to the right and numbers to the left, whatever their colour", () => {
    expect(table(["a", "count"], [["\u001b[31mlong\u001b[39m", 5], ["x", 1234n]])).toBe("A     COUNT\n\u001b[31mlong\u001b[39m      5\nx     1,234");
  });
});

describe("toJson", () => {
  it("writes what JSON lacks: 64-bit integers, bytes, maps", () => {
    const value = { small: 7n, large: 1n << 60n, bytes: new Uint8Array([1, 2]), buffer: Buffer.from("hi"), map: new Map([["k", 1n]]) };
    expect(JSON.parse(toJson(value))).toEqual({ small: 7, large: "1152921504606846976", bytes: "AQI=", buffer: "aGk=", map: { k: 1 } });
  });
});
