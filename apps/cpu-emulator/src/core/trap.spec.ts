import { describe, expect, it } from "vitest";
import { testHarts, type TestHart } from "../testing/test-hart.ts";
import { Csr, MEIP, MSIP, MTIP, SEIP, SSIP } from "./csr.ts";
import { Cause, ExitReason } from "./engine.ts";
import { EXTERNAL_PENDING, INSTRET, PC, PRIVILEGE, TRAP_CAUSE, TRAP_VALUE } from "./hart-state.ts";

const MTVEC = 0x8000_1000n;
const STVEC = 0xffff_ffff_8000_2000n;
const SIE = 1n << 1n;
const MIE = 1n << 3n;

function hartAt(privilege: number): TestHart {
  const hart = testHarts(1).harts[0]!;
  hart.core.writeOne(0x305, MTVEC);
  hart.core.writeOne(0x105, STVEC);
  hart.cells.i32[PRIVILEGE >> 2] = privilege;
  hart.cells.u64[PC >> 3] = 0x8000_0100n;
  return hart;
}
const state = ({ cells }: TestHart) => ({ pc: cells.u64[PC >> 3], privilege: cells.i32[PRIVILEGE >> 2] });
const system = (hart: TestHart, op: Parameters<TestHart["core"]["system"]>[0], bits = 0x1234_5678) => hart.core.system(op, bits, 0n, 0n, 4);

describe("exceptions (privileged spec, section 3.1.8)", () => {
  it("delegated, from U → S-mode with sepc, scause, stval and the status stack", () => {
    const hart = hartAt(0);
    hart.core.writeOne(Csr.MEDELEG, ~0n);
    hart.core.writeOne(Csr.MSTATUS, SIE);
    hart.cells.u64[TRAP_CAUSE >> 3] = BigInt(Cause.LOAD_PAGE);
    hart.cells.u64[TRAP_VALUE >> 3] = 0xdead_0000_beefn;
    hart.core.takeTrap();
    expect(state(hart)).toEqual({ pc: STVEC, privilege: 1 });
    expect([0x141, 0x142, 0x143].map((n) => hart.cells.csr(n))).toEqual([0x8000_0100n, 13n, 0xdead_0000_beefn]);
    const status = hart.cells.csr(Csr.MSTATUS);
    expect([(status >> 1n) & 1n, (status >> 5n) & 1n, (status >> 8n) & 1n]).toEqual([0n, 1n, 0n]); // SIE SPIE SPP
  });
  it("delegated, but raised in M-mode → M-mode", () => {
    const hart = hartAt(3);
    hart.core.writeOne(Csr.MEDELEG, ~0n);
    system(hart, "illegal");
    expect(state(hart)).toEqual({ pc: MTVEC, privilege: 3 });
    expect([hart.cells.csr(0x342), hart.cells.csr(0x343), (hart.cells.csr(Csr.MSTATUS) >> 11n) & 3n]).toEqual([2n, 0x1234_5678n, 3n]);
  });
  it("ecall → cause by mode, value 0, and it does not retire", () => {
    for (const [privilege, cause] of [[0, 8n], [1, 9n], [3, 11n]] as const) {
      const hart = hartAt(privilege);
      expect(system(hart, "ecall")).toBe(-1);
      expect([hart.cells.csr(0x342), hart.cells.csr(0x343), hart.cells.u64[INSTRET >> 3]]).toEqual([cause, 0n, 0n]);
    }
  });
});

describe("interrupts (sections 3.1.9, 10.1.3)", () => {
  const pend = (hart: TestHart, bits: number): void => void Atomics.or(hart.cells.i32, EXTERNAL_PENDING >> 2, bits);

  it("machine interrupts are taken below M whatever MIE says, and in M only with MIE", () => {
    const low = hartAt(1);
    low.core.writeOne(Csr.MIE, BigInt(MEIP));
    pend(low, MEIP);
    expect(low.core.takeInterrupt()).toBe(true);
    expect(low.cells.csr(0x342)).toBe((1n << 63n) | 11n);
    const high = hartAt(3);
    high.core.writeOne(Csr.MIE, BigInt(MEIP));
    pend(high, MEIP);
    expect(high.core.takeInterrupt()).toBe(false);
    high.core.writeOne(Csr.MSTATUS, MIE);
    expect(high.core.takeInterrupt()).toBe(true);
  });
  it("delegated interrupts are taken in U always, in S with SIE, in M never", () => {
    for (const [privilege, status, taken] of [[0, 0n, true], [1, 0n, false], [1, SIE, true], [3, SIE | MIE, false]] as const) {
      const hart = hartAt(privilege);
      hart.core.writeOne(Csr.MIDELEG, ~0n);
      hart.core.writeOne(Csr.MIE, BigInt(SEIP));
      hart.core.writeOne(Csr.MSTATUS, status);
      pend(hart, SEIP);
      expect(hart.core.takeInterrupt()).toBe(taken);
      if (taken) expect(state(hart)).toEqual({ pc: STVEC, privilege: 1 });
    }
  });
  it("priority MEI, MSI, MTI, SEI, SSI", () => {
    const hart = hartAt(1);
    hart.core.writeOne(Csr.MIE, ~0n);
    pend(hart, MEIP | MSIP | SEIP | SSIP);
    const taken: bigint[] = [];
    for (const bit of [MEIP, MSIP, SEIP, SSIP]) {
      hart.cells.i32[PRIVILEGE >> 2] = 1;
      hart.core.takeInterrupt();
      taken.push(hart.cells.csr(0x342) & 63n);
      Atomics.and(hart.cells.i32, EXTERNAL_PENDING >> 2, ~bit);
    }
    expect(taken).toEqual([11n, 3n, 9n, 1n]);
    expect(MTIP).toBe(1 << 7);
  });
  it("vectored mode: interrupts at base + 4 × cause, exceptions at base", () => {
    const hart = hartAt(1);
    hart.core.writeOne(0x305, MTVEC | 1n);
    hart.core.writeOne(Csr.MIE, BigInt(MSIP));
    pend(hart, MSIP);
    hart.core.takeInterrupt();
    expect(state(hart).pc).toBe(MTVEC + 12n);
    system(hart, "ebreak");
    expect(state(hart).pc).toBe(MTVEC);
  });
});

describe("returns and privileged instructions (sections 3.1.6, 3.3)", () => {
  it("mret goes to MPP, restores MIE, clears MPRV below M and retires", () => {
    const hart = hartAt(3);
    hart.core.writeOne(Csr.MSTATUS, (1n << 7n) | (1n << 11n) | (1n << 17n));
    hart.core.writeOne(0x341, 0x8000_0200n);
    expect(system(hart, "mret")).toBe(-1);
    expect(state(hart)).toEqual({ pc: 0x8000_0200n, privilege: 1 });
    const status = hart.cells.csr(Csr.MSTATUS);
    expect([(status >> 3n) & 1n, (status >> 7n) & 1n, (status >> 11n) & 3n, (status >> 17n) & 1n]).toEqual([1n, 1n, 0n, 0n]);
    expect(hart.cells.u64[INSTRET >> 3]).toBe(1n);
  });
  it("sret that enables a pending interrupt leaves guest code", () => {
    const hart = hartAt(1);
    hart.core.writeOne(Csr.MIDELEG, ~0n);
    hart.core.writeOne(Csr.MIE, BigInt(SEIP));
    Atomics.or(hart.cells.i32, EXTERNAL_PENDING >> 2, SEIP);
    expect(system(hart, "sret")).toBe(ExitReason.CORE);
    expect(state(hart).privilege).toBe(0);
  });
  it("TSR, TW and TVM make sret, wfi and sfence.vma illegal in S-mode", () => {
    for (const [op, bit] of [["sret", 22n], ["wfi", 21n], ["sfence.vma", 20n]] as const) {
      const hart = hartAt(1);
      hart.core.writeOne(Csr.MSTATUS, 1n << bit);
      expect(system(hart, op)).toBe(-1);
      expect([hart.cells.csr(0x342), state(hart).privilege]).toEqual([2n, 3]);
    }
  });
  it("mret in S-mode and sret, sfence.vma, wfi in U-mode are illegal", () => {
    for (const [privilege, op] of [[1, "mret"], [0, "sret"], [0, "sfence.vma"], [0, "wfi"]] as const) {
      const hart = hartAt(privilege);
      system(hart, op);
      expect(hart.cells.csr(0x342)).toBe(2n);
    }
  });
  it("wfi retires and leaves; sfence.vma flushes and goes on", () => {
    const hart = hartAt(1);
    expect(system(hart, "wfi")).toBe(ExitReason.WFI);
    expect(state(hart).pc).toBe(0x8000_0104n);
    expect(system(hart, "sfence.vma")).toBe(-1);
    expect(hart.translation.flushes).toBe(1);
  });
});
