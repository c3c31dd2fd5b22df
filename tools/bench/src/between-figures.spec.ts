import { describe, expect, it } from "vitest";
import { measured } from "./between-figures.ts";

const REPORT = [["interrupt-busy", 50, 20], ["interrupt-waiting", 900, 300], ["asked", 1_000_000, 20_000], ["posted", 500_000, 100_000], ["tlb-miss", 800_000, 512_000], ["tlb-hit", 20_000, 512_000], ["fence", 40_000, 512_000]] as const;
const printed = REPORT.map(([name, a, b]) => `${name} ${[a, b].map((value) => value.toString(16).padStart(16, "0")).join(" ")}\r\n`);

describe("what between.s prints", () => {
  it("becomes microseconds, exits per second, and the time of a miss less that of a hit and of the fence", () => {
    const figures = measured(printed.join(""));
    expect(figures.get("timer interrupt, computing: latency p99 (us)")).toBe(5);
    expect(figures.get("timer interrupt, in WFI: latency median (us)")).toBe(30);
    expect(figures.get("exits that wait (thousand per s)")).toBeCloseTo(200);
    expect(figures.get("exits that are posted (thousand per s)")).toBeCloseTo(2000);
    expect(figures.get("TLB miss, Sv39 (ns)")).toBeCloseTo(740_000 * 100 / 512_000);
  });

  it("is refused when a part is missing", () => {
    expect(() => measured(printed.slice(1).join(""))).toThrow(/interrupt-busy/);
  });
});
