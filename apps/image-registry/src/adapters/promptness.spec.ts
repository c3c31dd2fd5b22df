import { describe, expect, it } from "vitest";
import { Promptness } from "./promptness.ts";

function rig() {
  let clock = 0;
  const turns: (() => void)[] = [];
  const promptness = new Promptness(() => clock, (run) => turns.push(run));
  return {
    take: (ms: number): boolean => promptness.run(() => (clock += ms)),
    turn: (): void => turns.splice(0).forEach((run) => run()),
    turns,
  };
}

describe("what is done on the spot", () => {
  it("everything that is fast, up to 2 ms in one turn", () => {
    const { take, turn, turns } = rig();
    expect(Array.from({ length: 6 }, () => take(0.5))).toEqual([true, true, true, true, false, false]);
    expect(turns).toHaveLength(1);
    turn();
    expect(take(0.5)).toBe(true);
  });
  it("nothing for a while after a slow one, and for twice as long after the next", () => {
    const { take, turn } = rig();
    const refused = (): number => {
      let count = 0;
      for (turn(); !take(5); turn()) count++;
      return count;
    };
    expect([refused(), refused(), refused(), refused()]).toEqual([0, 32, 64, 128]);
    let count = 0;
    for (turn(); !take(0.1); turn()) count++;
    expect(count).toBe(256);
    expect([refused(), refused()]).toEqual([0, 32]); // a fast one: as at the start
  });
  it("what fails is the caller's to hear, and counts as fast or slow like the rest", () => {
    const { take } = rig();
    const failing = new Promptness(() => 0, () => {});
    expect(() => failing.run(() => { throw new Error("no space"); })).toThrow("no space");
    expect(take(0.1)).toBe(true);
  });
});
