import fc from "fast-check";
import { manualClock } from "@polyvisor/testkit";
import { describe, expect, it } from "vitest";
import { Console } from "./console.ts";
import { Uart16550 } from "./uart16550.ts";

function setup() {
  const clock = manualClock();
  const console = new Console({ machine: "m", name: "serial0", ringBytes: 1024, inputBytes: 64, after: (ms, run) => clock.after(ms, run) });
  const levels: boolean[] = [];
  const uart = new Uart16550(console, (level) => void levels.push(level));
  let output = "";
  console.attach(
    { send: ({ data }) => ((output += new TextDecoder().decode(data)), true), onDrain: () => {}, onClose: () => {}, close: () => {}, closed: false },
    true,
  );
  const read = (offset: number) => uart.read(offset, 1);
  const write = (offset: number, value: number) => uart.write(offset, 1, value);
  const type = (text: string) => console.input(new TextEncoder().encode(text));
  return { uart, console, levels, read, write, type, output: () => (console.flush(), output) };
}

describe("16550A UART (PC16550D data sheet)", () => {
  it("sends what is written to THR and is always ready for more", () => {
    const t = setup();
    for (const byte of new TextEncoder().encode("hi\n")) t.write(0, byte);
    expect(t.output()).toBe("hi\n");
    expect(t.read(5)).toBe(0x60);
  });
  it("keeps divisor latch and interrupt enable apart by DLAB", () => {
    const t = setup();
    t.write(3, 0x83);
    t.write(0, 0x12);
    t.write(1, 0x34);
    expect([t.read(0), t.read(1)]).toEqual([0x12, 0x34]);
    t.write(3, 0x03);
    expect(t.read(1)).toBe(0);
    expect(t.output()).toBe("");
  });
  it("interrupts when THRI is enabled with THR empty, until IIR is read; and again when enabled again (Linux' THRE test)", () => {
    const t = setup();
    t.write(1, 2);
    expect(t.levels).toEqual([true]);
    expect(t.read(2)).toBe(0x02);
    expect(t.levels).toEqual([true, false]);
    expect(t.read(2)).toBe(0x01);
    t.write(1, 0);
    t.write(1, 2);
    expect(t.read(2)).toBe(0x02);
  });
  it("interrupts after each byte sent", () => {
    const t = setup();
    t.write(1, 2);
    t.read(2);
    t.write(0, 65);
    expect(t.read(2)).toBe(0x02);
  });
  it("says with a receive interrupt that input came, higher than THRE, until it is read", () => {
    const t = setup();
    t.write(2, 1);
    t.write(1, 3);
    t.type("ab");
    expect(t.read(2)).toBe(0xc4);
    t.read(0);
    expect(t.read(2)).toBe(0xc4);
    t.read(0);
    expect(t.read(2)).toBe(0xc2);
  });
  it("detects as a 16550A: FIFO bits in IIR once FCR enables them", () => {
    const t = setup();
    expect(t.read(2)).toBe(0x01);
    t.write(2, 0xc1);
    expect(t.read(2)).toBe(0xc1);
    t.write(2, 0);
    expect(t.read(2)).toBe(0x01);
  });
  it("gives all input in order, 16 bytes at a time, the rest waiting outside", () => {
    const t = setup();
    t.write(2, 1);
    t.type("0123456789abcdefghij");
    expect(t.console.inputLength).toBe(4);
    let text = "";
    while ((t.read(5) & 1) !== 0) text += String.fromCharCode(t.read(0));
    expect(text).toBe("0123456789abcdefghij");
  });
  it("reports data below the trigger level as a timeout, at it as received", () => {
    const t = setup();
    t.write(2, 0x41); // trigger at 4
    t.write(1, 1);
    t.type("abc");
    expect(t.read(2)).toBe(0xcc);
    t.type("d");
    expect(t.read(2)).toBe(0xc4);
  });
  it("drops input beyond its bound and counts it", () => {
    const t = setup();
    t.type("x".repeat(100));
    expect([t.console.inputBytesTaken, t.console.inputBytesDropped]).toEqual([64, 36]);
  });
  it("loops bytes and modem lines back in loopback mode", () => {
    const t = setup();
    t.write(4, 0x10 | 0x0b); // RTS, DTR, OUT2
    expect(t.read(6) & 0xf0).toBe(0xb0);
    t.write(4, 0x10);
    expect(t.read(6) & 0xf0).toBe(0x00);
    t.write(0, 0x5a);
    expect(t.read(5) & 1).toBe(1);
    expect(t.read(0)).toBe(0x5a);
    expect(t.output()).toBe("");
    t.write(0, 1);
    t.write(0, 2);
    expect(t.read(5) & 2).toBe(2); // overrun
  });
  it("remembers the scratch register and reads 0 beyond the eighth", () => {
    const t = setup();
    t.write(7, 0xa5);
    expect([t.read(7), t.read(9)]).toEqual([0xa5, 0]);
    expect(t.write(9, 1)).toBe(false);
  });
  it("answers a byte for any sequence of accesses, and its wire follows IIR", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(8), fc.nat(255), fc.boolean(), fc.boolean()), { maxLength: 80 }), (steps) => {
        const t = setup();
        for (const [offset, value, isWrite, input] of steps) {
          if (input) t.type(String.fromCharCode(value & 0x7f));
          if (isWrite) t.write(offset, value);
          else {
            const level = t.levels.at(-1) ?? false;
            const answer = t.read(offset);
            expect(answer >= 0 && answer <= 255).toBe(true);
            if (offset === 2) expect((answer & 1) === 0).toBe(level);
          }
        }
      }),
    );
  });
});
