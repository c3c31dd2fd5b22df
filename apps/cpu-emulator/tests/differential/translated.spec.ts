import { describe, expect, it } from "vitest";
import { random } from "./random-program.ts";
import { BareMachine, type BareEngine } from "../../src/core/interpreter/bare-machine.ts";

const A0 = 10;
const FIB = `
    li sp, 0x80200000
    li a0, 18
    call fib
    wfi
  fib: li t0, 2
    blt a0, t0, 1f
    addi sp, sp, -32
    sd ra, 0(sp)
    sd s0, 8(sp)
    sd a0, 16(sp)
    addi a0, a0, -1
    call fib
    mv s0, a0
    ld a0, 16(sp)
    addi a0, a0, -2
    call fib
    add a0, a0, s0
    ld ra, 0(sp)
    ld s0, 8(sp)
    addi sp, sp, 32
  1: ret`;

function ran(source: string, engine: BareEngine, slice = 5000, options = {}): BareMachine {
  const machine = new BareMachine(16 << 20, engine, undefined, options);
  machine.load(source);
  expect(machine.run(20_000_000, slice)).toBe("wfi");
  return machine;
}

/** Registers and instructions retired. */
const state = (machine: BareMachine): bigint[] => [machine.instret, ...Array.from({ length: 31 }, (_, i) => machine.x(i + 1))];

/**
 * A random graph of blocks with conditional branches, jumps, calls, returns and computed jumps to anywhere, spread over
 * `bytes` of code: loops with several entries, recursion, returns to where nothing was called. Ends when its fuel is used up.
 */
function randomGraph(seed: number, blocks: number, padding: number): string {
  const next = random(seed);
  const below = (limit: number): number => next() % limit;
  const label = (): string => `b${below(blocks)}`;
  const register = (): string => `a${below(6)}`;
  const lines = ["li s0, 20000", "li sp, 0x80400000", "la ra, b0", ...Array.from({ length: 6 }, (_, i) => `li a${i}, ${below(1 << 20)}`)];
  for (let block = 0; block < blocks; block++) {
    lines.push(`b${block}:`, "addi s0, s0, -1", "bgez s0, 9f", "j end", "9:");
    for (let i = below(5); i > 0; i--) {
      const [d, a, b] = [register(), register(), register()];
      const slot = below(512) * 8;
      lines.push([`add ${d}, ${a}, ${b}`, `xor ${d}, ${a}, ${b}`, `addiw ${d}, ${a}, ${below(2000) - 1000}`, `mulh ${d}, ${a}, ${b}`,
        `sd ${a}, ${slot - 2048}(sp)`, `ld ${d}, ${slot - 2048}(sp)`, `srl ${d}, ${a}, ${b}`, `csrr ${d}, minstret`][below(8)]!);
    }
    const test = `andi t0, ${register()}, ${1 << below(4)}`;
    switch (below(6)) {
      case 0: lines.push(test, `beqz t0, 8f`, `j ${label()}`, `8: j ${label()}`); break;
      case 1: lines.push(test, `bnez t0, 8f`, `jal ra, ${label()}`, "8:"); break;
      case 2: lines.push(test, "beqz t0, 8f", "ret", "8:"); break;
      case 3: lines.push(`la t1, ${label()}`, test, "beqz t0, 8f", `la t1, ${label()}`, "8: jr t1"); break;
      case 4: lines.push(`call ${label()}`); break;
      default: lines.push(`la t1, ${label()}`, "jalr t1");
    }
    lines.push(`j ${block + 1 < blocks ? `b${block + 1}` : "b0"}`);
    if (padding > 0) lines.push(`.zero ${below(padding) * 4}`);
  }
  lines.push("end: wfi");
  return lines.join("\n");
}

describe("translated code", () => {
  it("keeps recursion in one region: the result and INSTRET are those of the interpreter", () => {
    const [interpreted, translated] = [ran(FIB, "interpreter"), ran(FIB, "translated")];
    expect(translated.x(A0)).toBe(2584n);
    expect(state(translated)).toEqual(state(interpreted));
    expect(Number(translated.events()["translated-returns"])).toBeLessThan(200);
  });

  for (const [name, blocks, padding] of [["in a page", 24, 0], ["over several pages", 60, 120]] as const) {
    it(`does what the interpreter does in random graphs of jumps, calls and returns ${name}, whatever the slices`, { timeout: 60_000 }, () => {
      const first = Math.floor(Math.random() * 2 ** 31);
      for (let seed = first; seed < first + 2; seed++) {
        const source = randomGraph(seed, blocks, padding);
        const expected = state(ran(source, "interpreter"));
        for (const [engine, slice] of [["translated", 5000], ["dynamic", 4500], ["static", 5000], ["static", 4500]] as const) {
          expect(state(ran(source, engine, slice, engine === "dynamic" ? { hotAfter: 20 } : {})), `seed ${seed}, ${engine}, slices of ${slice}`).toEqual(expected);
        }
      }
    });
  }

  it("is used when it was made ahead, in another machine and at another address; the results are the same", () => {
    const recorder = ran(FIB, "recording");
    const machine = new BareMachine(16 << 20, "static", undefined, { hotAfter: 60_000 });
    machine.ahead(recorder.hot!.recorded);
    const base = BigInt(BareMachine.RAM_BASE) + 0x5000n;
    machine.load(FIB, base);
    machine.pc = base;
    expect(machine.run(20_000_000, 5000)).toBe("wfi");
    expect(state(machine)[10]).toBe(2584n);
    expect(machine.instret).toBe(recorder.instret);
    expect(machine.events()["ahead-placed"]).toBeGreaterThan(0);
    expect(machine.events()["regions-made"]).toBe(0);
    expect(machine.events()["translated-instructions"]).toBeGreaterThan(Number(machine.instret) / 2);
  });

  it("is forgotten when fence.i finds other bytes, and only then (Zifencei)", () => {
    const machine = ran(`
      la t0, patch
      la t1, replacement
      lw t1, 0(t1)
      li s0, 3
    again: call function
      mv s1, a0
      sw t1, 0(t0)
      call function
      mv s2, a0
      fence.i
      call function
      mv s3, a0
      wfi
    function: li t3, 30
    1: addi t3, t3, -1
      bnez t3, 1b
      .align 2
    patch: addi a0, zero, 1
      ret
      .align 2
    replacement: addi a0, zero, 2`, "translated");
    expect([machine.x(9), machine.x(18), machine.x(19)]).toEqual([1n, 1n, 2n]);
    expect(machine.events()["regions-invalidated"]).toBeGreaterThan(0);
  });

  it("is bounded when new code never ends: all regions are given up when their places are used up", { timeout: 60_000 }, () => {
    // 64 functions of 2 instructions each, with a loop in each: more than there is room for.
    const functions = Array.from({ length: 64 }, (_, i) => `f${i}: li t0, 3\n1: addi t0, t0, -1\n bnez t0, 1b\n addi a0, a0, ${i}\n ret\n`).join("");
    const calls = Array.from({ length: 64 }, (_, i) => `la t1, f${i}\n jalr t1`).join("\n");
    const machine = ran(`li s0, 6\n2: ${calls}\n addi s0, s0, -1\n bnez s0, 2b\n wfi\n${functions}`, "translated", 5000, { mostRegions: 16 });
    expect(machine.x(A0)).toBe(BigInt(6 * (63 * 64) / 2));
    expect(machine.events()["regions-flushed"]).toBeGreaterThan(0);
    expect(machine.events()["regions"]).toBeLessThan(16);
  });

  it("leaves nothing behind when another engine takes over", () => {
    const machine = new BareMachine(16 << 20, "translated");
    machine.load(FIB);
    expect(machine.run(20_000, 5000)).toBe("limit");
    expect(machine.events()["regions"]).toBeGreaterThan(0);
    machine.engine.leave!();
    expect(machine.events()["regions"]).toBe(0);
    for (let budget = 5000; machine.interpreter!.run(budget) !== 2; );
    expect(machine.x(A0)).toBe(2584n);
  });
});
