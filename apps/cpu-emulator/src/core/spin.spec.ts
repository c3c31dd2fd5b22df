import { describe, expect, it } from "vitest";
import { HaltPoll } from "./spin.ts";

describe("looking before a sleep (halt polling)", () => {
  it("grows with waits that it would have spared, up to 0.2 ms, and ends with one that it would not", () => {
    const poll = new HaltPoll();
    const windows = [0.005, 0.03, 0.08, 0.15, 0.19, 0.21, 0.1].map((ms) => {
      poll.waited(ms);
      return poll.windowMs;
    });
    expect(windows).toEqual([0.02, 0.06, 0.16, 0.16, 0.2, 0, 0.2]);
  });
  it("pauses where others need the core: a look that took long is a thread that was put off it", () => {
    const poll = new HaltPoll();
    poll.waited(0.1);
    expect([poll.looked(0.001), poll.windowMs]).toEqual([true, 0.2]);
    expect([poll.looked(2), poll.windowMs]).toEqual([false, 0]);
    for (let wait = 0; wait < 500; wait++) poll.waited(0.05);
    expect(poll.windowMs).toBe(0);
    poll.waited(0.05);
    expect(poll.windowMs).toBe(0.1);
  });
});
