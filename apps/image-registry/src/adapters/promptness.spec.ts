import { describe, expect, it } from "vitest";
import { Promptness } from "./promptness.ts";

function rig() {
  let clock = 0;
  const turns: (() => void)[] = [];
  const promptness = new Promptness(() => clock, (run) => turns.push(run));
  return {
    take: (ms: number): boolean => promptness.run(() => (clock += ms)),
    pass: (ms: number): void => void (clock += ms),
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
  it("nothing for as long as a slow one took, and for twice that after the next", () => {
    const { take, turn, pass } = rig();
    /** Milliseconds until one of `ms` is done on the spot. */
    const refused = (ms: number): number => {
      let waited = 0;
      for (turn(); !take(ms); turn(), waited++) pass(1);
      return waited;
    };
    expect([refused(5), refused(5), refused(5), refused(5)]).toEqual([0, 5, 10, 20]);
    expect(refused(0.1)).toBe(40);
    expect([refused(2), refused(2)]).toEqual([0, 2]); // a fast one: as at the start
  });
  it("what fails is the caller's to hear, and counts as fast or slow like the rest", () => {
    const { take } = rig();
    const failing = new Promptness(() => 0, () => {});
    expect(() => failing.run(() => { throw new Error("no space"); })).toThrow("no space");
    expect(take(0.1)).toBe(true);
  });
});
