import { ADDRESS_MAP } from "@polyvisor/machine";
import { describe, expect, it } from "vitest";
import { boardRequest, rig, settle as turn, TestHart } from "../testing/rig.ts";

const MACHINE = "m";
const DEVICES = [{ kind: "rng", id: "rng0" }, { kind: "blk", id: "disk0", backend: "d" }];
const END = 0xffff_ffff_ffff_ffffn;
const EPOCH_MS = Date.UTC(2026, 0, 1);
const rtc = ADDRESS_MAP.rtc.base;

async function board(deterministic = true) {
  const all = await rig();
  all.images.disks.set("d", Uint8Array.from({ length: 8192 }, (_, index) => index >> 9));
  const { deviceTree } = await all.port.createBoard({ ...boardRequest(MACHINE, DEVICES), deterministic });
  const hart = new TestHart(all.port, MACHINE);
  const settle = (time: bigint) => hart.ask({ $case: "settle", value: { time } }).value;
  return { ...all, deviceTree, hart, settle };
}

describe("a deterministic board (DEV-19)", () => {
  it("has the same random numbers in every run, in its device tree and from its entropy device", async () => {
    const run = async (deterministic: boolean) => {
      const { deviceTree, hart, memory } = await board(deterministic);
      const { data } = await hart.driver(memory, 0).start().request(0, [{ write: 32 }]);
      return [deviceTree, data];
    };
    expect(await run(true)).toEqual(await run(true));
    const [one, other] = [await run(false), await run(false)];
    expect(one[0]).not.toEqual(other[0]);
    expect(one[1]).not.toEqual(other[1]);
  });

  it("its RTC shows the time that the hart tells; an alarm is answered as the time to come back at, and rings then", async () => {
    const { hart, settle } = await board();
    const milliseconds = () => {
      const low = hart.read(rtc, 4)!;
      return Number(((hart.read(rtc + 4n, 4)! << 32n) | low) / 1_000_000n);
    };
    hart.say({ $case: "settle", value: { time: 25_000n } });
    expect(milliseconds()).toBe(EPOCH_MS + 2.5 - 0.5);
    expect(settle(50_000n)).toBe(0n);
    expect(milliseconds()).toBe(EPOCH_MS + 5);
    const alarm = BigInt(EPOCH_MS + 8) * 1_000_000n;
    hart.write(rtc + 0x10n, 4, 1n);
    hart.write(rtc + 0xcn, 4, alarm >> 32n);
    hart.write(rtc + 8n, 4, alarm & 0xffff_ffffn);
    expect(settle(60_000n)).toBe(80_000n);
    expect(settle(79_999n)).toBe(80_000n);
    expect(hart.read(rtc + 0x18n, 4)).toBe(1n);
    expect(settle(80_000n)).toBe(0n);
    expect(hart.read(rtc + 0x18n, 4)).toBe(0n);
  });

  it("answers when requests are done, one after another, and the harts have acknowledged the interrupt", async () => {
    const { hart, memory, images } = await board();
    const header = (sector: number) => ({ read: Uint8Array.from({ length: 16 }, (_, index) => (index === 8 ? sector : 0)) });
    const driver = hart.driver(memory, 1).start();
    images.hold = true;
    const heads = [1, 2].map((sector) => driver.offer(0, [header(sector), { write: 512 }, { write: 1 }]));
    driver.notify(0);
    expect(images.requests.filter(({ operation }) => operation?.$case === "read")).toHaveLength(1);
    let answered = false;
    hart.channel.onMessage(({ id }) => void (answered ||= id === 77n));
    hart.channel.send({ machine: MACHINE, hart: 0, id: 77n, exit: { $case: "settle", value: { time: 0n } } });
    for (let n = 0; n < 5; n++) await turn();
    expect(answered).toBe(false);
    images.release();
    await expect.poll(() => answered).toBe(true);
    for (const [index, head] of heads.entries()) expect((await driver.queue(0).waitFor(head)).data[0]).toBe(index + 1);
  });

  it("tells the hart that the machine is at its end", async () => {
    const { hart, settle } = await board();
    expect(settle(1n)).toBe(0n);
    hart.write(ADDRESS_MAP.testFinisher.base, 4, 0x5555n);
    expect(settle(2n)).toBe(END);
  });
});
