import { assemble } from "@polyvisor/isa";
import { describe, expect, it } from "vitest";
import { bareMachine } from "./testing/bare-program.ts";

const UART = 0x1000_0000n;
const FINISHER = 0x10_0000n;
const SYMBOLS = { UART, FINISHER };

/** Prints a string by MMIO in M-mode, then passes. */
const HELLO = `
  la a2, text
  li a3, UART
1: lbu a4, 0(a2)
  beqz a4, 2f
3: lbu a5, 5(a3)      # LSR
  andi a5, a5, 0x20
  beqz a5, 3b
  sb a4, 0(a3)
  addi a2, a2, 1
  j 1b
2: li a3, FINISHER
  li a4, 0x5555
  sw a4, 0(a3)
4: wfi
  j 4b
text: .asciz "hello from hart 0\\n"
`;

for (const engine of ["reference", "interpreter", "dynamic"]) {
  for (const lease of ["shared", "coherent"] as const) {
    describe(`${engine} engine, ${lease} lease`, () => {
      it("runs a program whose MMIO writes reach the device-bus in order, and stops on destroy", async () => {
        const program = assemble(HELLO, { base: 0x8000_0000n, symbols: SYMBOLS });
        const machine = await bareMachine({ program: program.bytes, engine, lease });
        const ended = machine.bus.ended();
        await machine.cpu.runHarts({ machine: machine.id });
        expect(await ended).toBe(0);
        expect(machine.bus.output).toBe("hello from hart 0\n");
        await machine.close();
        expect(machine.bus.openStreams).toBe(0);
      });
    });
  }
}
