import { describe, expect, it } from "vitest";
import { testHarts } from "../testing/test-hart.ts";
import { Csr, MEIP, SEIP, SSIP, STIP } from "./csr.ts";
import { EXTERNAL_PENDING, FFLAGS, INSTRET, PRIVILEGE, TRAP_CAUSE } from "./hart-state.ts";

const one = () => testHarts(1).harts[0]!;
const STCE = 1n << 63n;
const MHPMEVENT3 = 0x323;
const MHPMCOUNTER3 = 0xb03;

describe("CSR access (privileged spec, CSR address mapping conventions)", () => {
  it("a number without a register → illegal instruction, nothing else touched", () => {
    const hart = one();
    expect(hart.read(0x7ff)).toBeUndefined();
    expect(hart.cells.u64[TRAP_CAUSE >> 3]).toBe(2n);
  });
  it("a register of a higher mode → illegal; the same register in its own mode → value", () => {
    const hart = one();
    hart.cells.i32[PRIVILEGE >> 2] = 1;
    expect(hart.read(Csr.MSTATUS)).toBeUndefined();
    expect(hart.read(Csr.SSTATUS)).toBeDefined();
    hart.cells.i32[PRIVILEGE >> 2] = 0;
    expect(hart.read(Csr.SSTATUS)).toBeUndefined();
  });
  it("a write to a read-only number → illegal, a read of it → value", () => {
    const hart = one();
    expect(hart.write(Csr.MHARTID, 1n)).toBeUndefined();
    expect(hart.read(Csr.MHARTID)).toBe(0n);
  });
});

describe("status registers (section 3.1.6)", () => {
  it("sstatus is a view of mstatus: it shows and writes only its fields", () => {
    const hart = one();
    hart.write(Csr.MSTATUS, (1n << 18n) | (1n << 3n) | (3n << 11n));
    expect(hart.read(Csr.SSTATUS)).toBe((2n << 32n) | (1n << 18n));
    hart.write(Csr.SSTATUS, 1n << 1n);
    expect(hart.read(Csr.MSTATUS)).toBe((0xan << 32n) | (3n << 11n) | (1n << 3n) | (1n << 1n));
  });
  it("MPP = 2 is not a mode → keeps its value (WARL)", () => {
    const hart = one();
    hart.write(Csr.MSTATUS, 1n << 11n);
    hart.write(Csr.MSTATUS, 2n << 11n);
    expect((hart.read(Csr.MSTATUS)! >> 11n) & 3n).toBe(1n);
  });
  it("FS = Dirty sets SD; FS = Off makes fcsr illegal; writing fflags makes FS Dirty", () => {
    const hart = one();
    expect(hart.read(Csr.FCSR)).toBeUndefined();
    hart.write(Csr.MSTATUS, 1n << 13n);
    expect(hart.read(Csr.MSTATUS)! >> 63n).toBe(0n);
    hart.write(Csr.FCSR, 0xffn);
    expect(hart.read(Csr.MSTATUS)! >> 63n).toBe(1n);
    expect([hart.read(Csr.FFLAGS), hart.read(Csr.FRM), hart.cells.i32[FFLAGS >> 2]]).toEqual([31n, 7n, 31]);
  });
  it("SUM, MXR, MPRV changes are told to the MMU, others are not", () => {
    const hart = one();
    hart.set(Csr.MSTATUS, 1n << 18n);
    hart.set(Csr.MSTATUS, 1n << 3n);
    expect(hart.translation.contexts).toBe(1);
  });
});

describe("satp (section 11.1.11)", () => {
  it("an unknown mode leaves it as it was; Sv39 and Sv48 are taken without ASID and flush", () => {
    const hart = one();
    hart.write(Csr.SATP, (8n << 60n) | (5n << 44n) | 0x80000n);
    expect(hart.read(Csr.SATP)).toBe((8n << 60n) | 0x80000n);
    hart.write(Csr.SATP, (10n << 60n) | 1n); // Sv57 only with mmu=sv57
    expect(hart.read(Csr.SATP)).toBe((8n << 60n) | 0x80000n);
    hart.write(Csr.SATP, (9n << 60n) | 0x80000n);
    expect(hart.read(Csr.SATP)).toBe((9n << 60n) | 0x80000n);
    expect(hart.translation).toEqual({ contexts: 2, flushes: 2 });
  });
  it("in S-mode with TVM → illegal", () => {
    const hart = one();
    hart.set(Csr.MSTATUS, 1n << 20n);
    hart.cells.i32[PRIVILEGE >> 2] = 1;
    expect(hart.read(Csr.SATP)).toBeUndefined();
  });
});

describe("counters and time (sections 3.1.10, 3.1.11, Sstc)", () => {
  it("user counters need mcounteren and, in U-mode, scounteren", () => {
    const hart = one();
    hart.cells.i32[PRIVILEGE >> 2] = 1;
    expect(hart.read(Csr.TIME)).toBeUndefined();
    hart.core.writeOne(Csr.MCOUNTEREN, 2n);
    expect(hart.read(Csr.TIME)).toBe(0n);
    expect(hart.read(Csr.CYCLE)).toBeUndefined();
    hart.cells.i32[PRIVILEGE >> 2] = 0;
    expect(hart.read(Csr.TIME)).toBeUndefined();
    hart.core.writeOne(Csr.SCOUNTEREN, 2n);
    expect(hart.read(Csr.TIME)).toBe(0n);
  });
  it("minstret counts what retired; a written value holds from the next instruction on", () => {
    const hart = one();
    hart.cells.u64[INSTRET >> 3] = 100n;
    expect(hart.read(Csr.MINSTRET)).toBe(100n);
    hart.write(Csr.MINSTRET, 5n);
    hart.cells.u64[INSTRET >> 3] = 101n; // the write itself retired
    expect(hart.read(Csr.INSTRET)).toBe(5n);
  });
  it("time runs at 10 MHz", () => {
    const { harts, clock } = testHarts(1);
    clock.ms = 1.5;
    expect(harts[0]!.read(Csr.TIME)).toBe(15_000n);
  });
  it("stimecmp below M-mode needs menvcfg.STCE and mcounteren.TM; it drives STIP", () => {
    const { harts, clock } = testHarts(1);
    const hart = harts[0]!;
    hart.write(Csr.MENVCFG, STCE);
    hart.cells.i32[PRIVILEGE >> 2] = 1;
    expect(hart.write(Csr.STIMECMP, 10n)).toBeUndefined();
    hart.core.writeOne(Csr.MCOUNTEREN, 2n);
    hart.write(Csr.STIMECMP, 10_000n);
    hart.core.writeOne(Csr.MIDELEG, ~0n);
    expect(hart.read(Csr.SIP)).toBe(0n);
    clock.ms = 1;
    expect(hart.read(Csr.SIP)).toBe(BigInt(STIP));
  });
});

describe("counters (sections 3.1.11, 3.1.12)", () => {
  it("mcountinhibit stops a counter and lets it go on from there; a stopped one holds what is written", () => {
    const hart = one();
    const now = (value: bigint): void => void (hart.cells.u64[INSTRET >> 3] = value);
    now(100n);
    hart.write(Csr.MCOUNTINHIBIT, ~0n & 0xffff_ffffn);
    expect(hart.read(Csr.MCOUNTINHIBIT)).toBe(0x7fdn);
    now(200n);
    expect([hart.read(Csr.MINSTRET), hart.read(Csr.MCYCLE)]).toEqual([100n, 100n]);
    hart.write(Csr.MINSTRET, 7n);
    hart.write(Csr.MCOUNTINHIBIT, 1n);
    now(210n);
    expect([hart.read(Csr.MINSTRET), hart.read(Csr.MCYCLE)]).toEqual([17n, 100n]);
  });
  it("an hpm counter counts its event from when it is chosen; an event that there is not counts nothing", () => {
    const hart = one();
    hart.core.trap(2, 0n);
    hart.write(MHPMEVENT3, 0x2_0001n);
    expect(hart.read(MHPMCOUNTER3)).toBe(0n);
    hart.core.trap(2, 0n);
    hart.core.trap(5, 0n);
    expect(hart.read(MHPMCOUNTER3)).toBe(2n);
    hart.write(MHPMEVENT3, 0xdead_beef_0002_0001n);
    hart.core.trap(2, 0n);
    expect([hart.read(MHPMEVENT3), hart.read(MHPMCOUNTER3)]).toEqual([0n, 2n]);
    hart.write(MHPMCOUNTER3, (1n << 64n) - 1n);
    hart.write(MHPMEVENT3, 0x2_0001n);
    hart.core.trap(2, 0n);
    expect(hart.read(MHPMCOUNTER3)).toBe(0n);
    for (const number of [0xb0b, 0x32b, 0xb1f]) expect([hart.write(number, 5n), hart.read(number)]).toEqual([0n, 0n]); // no such counter
  });
  it("lower modes read the counters that mcounteren and scounteren grant", () => {
    const hart = one();
    hart.cells.i32[PRIVILEGE >> 2] = 1;
    expect(hart.read(0xc03)).toBeUndefined();
    hart.core.writeOne(Csr.MCOUNTEREN, ~0n);
    expect([hart.read(0xc03), hart.read(0xc0a), hart.read(0xc0b)]).toEqual([0n, 0n, undefined]);
    hart.cells.i32[PRIVILEGE >> 2] = 0;
    expect(hart.read(0xc03)).toBeUndefined();
    hart.core.writeOne(Csr.SCOUNTEREN, 8n);
    expect([hart.read(0xc03), hart.read(0xc04)]).toEqual([0n, undefined]);
  });
});

describe("envcfg registers (section 3.1.18; CMO, Control and Status Register Support)", () => {
  it("hold their fields; the reserved CBIE = 2 leaves the field as it was", () => {
    const hart = one();
    hart.write(Csr.MENVCFG, ~0n);
    expect(hart.read(Csr.MENVCFG)).toBe((7n << 61n) | 0xf1n);
    hart.write(Csr.SENVCFG, ~0n);
    expect(hart.read(Csr.SENVCFG)).toBe(0xf1n);
    hart.write(Csr.SENVCFG, 2n << 4n);
    expect(hart.read(Csr.SENVCFG)).toBe(0x30n);
  });
  it("switching ADUE or PBMTE flushes translations", () => {
    const hart = one();
    hart.write(Csr.MENVCFG, 0n);
    expect(hart.translation.flushes).toBe(1);
    hart.write(Csr.MENVCFG, 1n << 62n);
    expect(hart.translation.flushes).toBe(2);
    hart.write(Csr.MENVCFG, (1n << 62n) | 1n);
    expect(hart.translation.flushes).toBe(2);
  });
  it("cache-block operations are refused below M-mode without their grants", () => {
    const hart = one();
    const refused = (): number[] => (["zero", "inval", "clean", "flush"] as const).map((op) => hart.core.refuseCacheBlock(op));
    expect(refused()).toEqual([0, 0, 0, 0]);
    hart.cells.i32[PRIVILEGE >> 2] = 1;
    expect(refused()).toEqual([2, 2, 2, 2]);
    hart.core.writeOne(Csr.MENVCFG, 0x90n);
    expect(refused()).toEqual([0, 0, 2, 2]);
    hart.core.writeOne(Csr.MENVCFG, 0xf0n);
    hart.cells.i32[PRIVILEGE >> 2] = 0;
    expect(refused()).toEqual([2, 2, 2, 2]);
    hart.core.writeOne(Csr.SENVCFG, 0x40n);
    expect(refused()).toEqual([2, 2, 0, 0]);
  });
});

describe("interrupt registers (section 3.1.9)", () => {
  it("csrrs and csrrc of mip see only the software SEIP: clearing others does not latch the external one", () => {
    const hart = one();
    Atomics.or(hart.cells.i32, EXTERNAL_PENDING >> 2, SEIP);
    expect(hart.read(Csr.MIP)).toBe(BigInt(SEIP));
    hart.clear(Csr.MIP, BigInt(SSIP));
    Atomics.and(hart.cells.i32, EXTERNAL_PENDING >> 2, ~SEIP);
    expect(hart.read(Csr.MIP)).toBe(0n);
  });
  it("sie shows what is delegated and writes only that", () => {
    const hart = one();
    hart.write(Csr.MIE, BigInt(MEIP | SEIP));
    expect(hart.read(Csr.SIE)).toBe(0n);
    hart.write(Csr.MIDELEG, ~0n);
    hart.write(Csr.SIE, BigInt(STIP));
    expect(hart.read(Csr.MIE)).toBe(BigInt(MEIP | STIP));
  });
  it("unmasking a pending interrupt asks the engine to leave", () => {
    const hart = one();
    Atomics.or(hart.cells.i32, EXTERNAL_PENDING >> 2, MEIP);
    hart.write(Csr.MIE, BigInt(MEIP));
    expect(hart.core.leave).toBe(false);
    hart.set(Csr.MSTATUS, 1n << 3n);
    expect(hart.core.leave).toBe(true);
  });
});
