import { expect, it } from "vitest";
import { manualClock } from "./manual-clock.ts";

it("advance runs what falls due, in order of time, also what a timer starts", () => {
  const clock = manualClock(1000);
  const seen: [string, number][] = [];
  const note = (name: string) => () => void seen.push([name, clock.monotonic()]);
  clock.after(20, note("b"));
  clock.after(10, () => {
    note("a")();
    clock.after(5, note("nested"));
  });
  clock.after(30, note("late"));
  const cancel = clock.after(1, note("cancelled"));
  cancel();
  clock.advance(20);
  expect(seen).toEqual([["a", 10], ["nested", 15], ["b", 20]]);
  expect([clock.now(), clock.pending]).toEqual([1020, 1]);
});
