import { manualClock } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { GoldfishRtc } from "./goldfish-rtc.ts";
import { TestFinisher } from "./test-finisher.ts";

function setup() {
  const clock = manualClock(1_700_000_000_000);
  const levels: boolean[] = [];
  const rtc = new GoldfishRtc(clock, (level) => void levels.push(level));
  const now = () => {
    const low = rtc.read(0, 4)!;
    return (BigInt(rtc.read(4, 4)!) << 32n) | BigInt(low);
  };
  const set = (low: number, high: number, ns: bigint) => {
    rtc.write(high, 4, Number(ns >> 32n));
    rtc.write(low, 4, Number(ns & 0xffff_ffffn));
  };
  return { clock, rtc, levels, now, set };
}

describe("goldfish RTC", () => {
  it("tells nanoseconds since 1970, TIME_HIGH latched by reading TIME_LOW", () => {
    const { now, clock } = setup();
    expect(now()).toBe(1_700_000_000_000_000_000n);
    clock.advance(1500);
    expect(now()).toBe(1_700_000_001_500_000_000n);
  });
  it("can be set", () => {
    const { now, set, clock } = setup();
    set(0, 4, 5_000_000_000n);
    clock.advance(1000);
    expect(now()).toBe(6_000_000_000n);
  });
  it("rings at the alarm when its interrupt is enabled, until cleared", () => {
    const { rtc, set, clock, levels, now } = setup();
    rtc.write(0x10, 4, 1);
    set(0x08, 0x0c, now() + 2_000_000_000n);
    expect(rtc.read(0x18, 4)).toBe(1);
    clock.advance(1999);
    expect(levels.includes(true)).toBe(false);
    clock.advance(1);
    expect(levels.at(-1)).toBe(true);
    expect(rtc.read(0x18, 4)).toBe(0);
    rtc.write(0x1c, 4, 1);
    expect(levels.at(-1)).toBe(false);
  });
  it("does not ring after CLEAR_ALARM, and waits for alarms centuries away", () => {
    const { rtc, set, clock, levels, now } = setup();
    rtc.write(0x10, 4, 1);
    set(0x08, 0x0c, now() + 1_000_000n);
    rtc.write(0x14, 4, 1);
    set(0x08, 0x0c, (1n << 63n) - 1n);
    clock.advance(2 ** 32);
    expect(levels.includes(true)).toBe(false);
  });
});

describe("test finisher", () => {
  it("ends the machine with pass, fail and code, or reset; ignores the rest", () => {
    const events: unknown[] = [];
    const finisher = new TestFinisher({ powerOff: (code) => void events.push(code), reset: () => void events.push("reset") });
    finisher.write(0, 4, 0x5555);
    finisher.write(0, 4, 0x0007_3333);
    finisher.write(0, 4, 0x3333);
    finisher.write(0, 4, 0x7777);
    expect([finisher.write(0, 4, 0x1234), finisher.write(4, 4, 0x5555), finisher.write(0, 1, 0x55)]).toEqual([false, false, false]);
    expect(events).toEqual([0, 7, 1, "reset"]);
  });
});
