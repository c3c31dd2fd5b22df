import { describe, expect, it } from "vitest";
import { testHarts } from "../../testing/test-hart.ts";
import { Csr, SSIP, STIP } from "../csr.ts";
import { ExitReason } from "../engine.ts";
import { INSTRET, PC, PRIVILEGE, REQUESTS, X } from "../hart-state.ts";
import { ExitKind, HSM_ADDRESS, HSM_STATE, Request, RUN_STATE, RunState } from "../mailbox.ts";
import { HartState } from "./hsm.ts";
import type { CpuFeatures } from "../cpu-features.ts";
import { enterSupervisor, supervisorCalls } from "./sbi.ts";

const i64 = (value: bigint): bigint => BigInt.asIntN(64, value);

function machine(count = 2, features?: CpuFeatures) {
  const { harts, clock, memory } = testHarts(count, features);
  const fences = { i: 0, tlb: 0 };
  const own = harts[0]!;
  enterSupervisor(own.core, 0x8020_0000n, 0n, 0x8300_0000n);
  for (const other of harts.slice(1)) other.cells.i32[HSM_STATE >> 2] = HartState.STOPPED;
  const calls = supervisorCalls({
    core: own.core, harts: harts.map(({ cells }) => cells), mailbox: own.mailbox, memory,
    fenceI: () => void fences.i++, flushTlb: () => void fences.tlb++,
  });
  const call = (eid: number, fid: number, ...args: bigint[]) => {
    const x = own.cells.u64;
    args.forEach((value, n) => (x[(X >> 3) + 10 + n] = value));
    for (let n = args.length; n < 6; n++) x[(X >> 3) + 10 + n] = 0n;
    x[(X >> 3) + 16] = BigInt(fid);
    x[(X >> 3) + 17] = BigInt(eid);
    const leave = calls();
    return { error: i64(x[(X >> 3) + 10]!), value: x[(X >> 3) + 11]!, leave };
  };
  return { harts, own, call, fences, clock, memory };
}

const TIME = 0x5449_4d45;
const IPI = 0x73_5049;
const RFENCE = 0x5246_4e43;
const HSM = 0x48_534d;
const SRST = 0x5352_5354;
const DBCN = 0x4442_434e;
const PMU = 0x50_4d55;
const SUSP = 0x5355_5350;
const ALL = (1n << 64n) - 1n;
/** Not a hart, not RAM, neither. */
const HOSTILE = [ALL, 1n << 63n, 0x1_0000n, 0xffff_ffffn, 0x1234_5678_9abc_def1n] as const;

describe("built-in SBI (SBI 2.0)", () => {
  it("base: version 2.0; probes what there is and what is not", () => {
    const { call } = machine();
    expect(call(0x10, 0)).toMatchObject({ error: 0n, value: 2n << 24n });
    for (const id of [0x10, TIME, IPI, RFENCE, HSM, SRST, DBCN, PMU, SUSP]) expect(call(0x10, 3, BigInt(id)).value).toBe(1n);
    for (const id of [0x4e41_434c, 0x4350_5043]) expect(call(0x10, 3, BigInt(id)).value).toBe(0n); // NACL, CPPC
    expect(call(0x10, 3, 0xffff_ffff_0000_0010n).value).toBe(1n); // ids are 32 bits
  });
  it("an unknown extension or function → not supported", () => {
    const { call } = machine();
    expect(call(0x1234, 0).error).toBe(-2n);
    expect(call(0x10, 99).error).toBe(-2n);
    expect(call(RFENCE, 7, 1n, 0n).error).toBe(-2n);
  });
  it("set_timer raises STIP at its time and clears a pending one", () => {
    const { call, own, clock } = machine();
    call(TIME, 0, 10_000n);
    own.core.refreshTimers();
    expect(own.core.pending() & STIP).toBe(0);
    clock.ms = 1;
    own.core.refreshTimers();
    expect(own.core.pending() & STIP).toBe(STIP);
    call(TIME, 0, ~0n & 0xffff_ffff_ffff_ffffn);
    expect(own.core.pending() & STIP).toBe(0);
  });
  it("send_ipi by mask and to all; a hart that does not exist → invalid param", () => {
    const { call, harts } = machine(3);
    call(IPI, 0, 0b1n, 2n);
    expect(harts.map(({ core }) => core.pending() & SSIP)).toEqual([0, 0, SSIP]);
    call(IPI, 0, 0n, (1n << 64n) - 1n);
    expect(harts.map(({ core }) => core.pending() & SSIP)).toEqual([SSIP, SSIP, SSIP]);
    expect(call(IPI, 0, 0b1000n, 0n).error).toBe(-3n);
  });
  it("hypervisor fences flush as the others do; without the H extension they do not exist", () => {
    const { call, fences } = machine(1);
    for (const fid of [3, 4, 5, 6]) expect(call(RFENCE, fid, 1n, 0n).error).toBe(0n);
    expect(fences).toEqual({ i: 0, tlb: 4 });
    expect(machine(1, { hypervisor: false, paging: "sv48" }).call(RFENCE, 3, 1n, 0n).error).toBe(-2n);
  });
  it("remote fences: own at once, sleeping harts by request, stopped ones not at all", () => {
    const { call, harts, fences } = machine(3);
    harts[1]!.cells.i32[HSM_STATE >> 2] = HartState.STARTED;
    harts[1]!.cells.i32[RUN_STATE >> 2] = RunState.BLOCKED;
    expect(call(RFENCE, 1, 0b111n, 0n, 0n, 0n).error).toBe(0n);
    expect(call(RFENCE, 0, 0b001n, 0n).error).toBe(0n);
    expect(fences).toEqual({ i: 1, tlb: 1 });
    expect(harts.map(({ cells }) => cells.i32[REQUESTS >> 2])).toEqual([0, Request.FLUSH_TLB, 0]);
  });
  it("HSM: starts a stopped hart once, tells states, stops the caller", () => {
    const { call, harts, own } = machine();
    expect(call(HSM, 2, 1n).value).toBe(1n);
    expect(call(HSM, 0, 1n, 0x100n, 7n).error).toBe(0n);
    expect([harts[1]!.cells.i32[HSM_STATE >> 2], harts[1]!.cells.u64[HSM_ADDRESS >> 3]]).toEqual([HartState.START_PENDING, 0x100n]);
    expect(call(HSM, 0, 1n, 0x100n, 7n).error).toBe(-6n);
    expect(call(HSM, 0, 9n, 0x100n, 7n).error).toBe(-3n);
    expect(call(HSM, 1).leave).toBe(ExitReason.CORE);
    expect(own.cells.i32[HSM_STATE >> 2]).toBe(HartState.STOPPED);
  });
  it("a start address that is not RAM, or between instructions → invalid address; the hart stays stopped", () => {
    const { call, harts } = machine();
    for (const address of [0x9_0000n, 0xfffn, 0x101n, ...HOSTILE]) expect(call(HSM, 0, 1n, address, 0n).error).toBe(-5n);
    expect(harts[1]!.cells.i32[HSM_STATE >> 2]).toBe(HartState.STOPPED);
  });
  it("HSM suspend: retentive or to an address; status 4; reserved types and a platform's → invalid param", () => {
    const { call, own } = machine();
    for (const type of [1n, 0x0fff_ffffn, 0x1000_0000n, 0x8000_0001n, 0x9000_0000n, 0xffff_ffffn]) expect(call(HSM, 3, type, 0x100n).error).toBe(-3n);
    expect(call(HSM, 3, 0x8000_0000n, 0x101n).error).toBe(-5n);
    expect(call(HSM, 3, 0xffff_ffff_0000_0000n).leave).toBe(ExitReason.CORE); // types are 32 bits
    expect(call(HSM, 2, 0n).value).toBe(4n);
    expect(call(HSM, 3, 0x8000_0000n, 0x100n, 5n).leave).toBe(ExitReason.CORE);
    expect([call(HSM, 2, 0n).value, own.cells.u64[HSM_ADDRESS >> 3]]).toEqual([4n, 0x100n]);
  });
  it("SUSP: only with the other harts stopped; other types → invalid param, bad addresses → invalid address", () => {
    const { call, harts, own } = machine();
    for (const type of [1n, 0x8000_0000n, 0xffff_ffffn]) expect(call(SUSP, 0, type, 0x100n).error).toBe(-3n);
    for (const address of HOSTILE) expect(call(SUSP, 0, 0n, address).error).toBe(-5n);
    harts[1]!.cells.i32[HSM_STATE >> 2] = HartState.SUSPENDED;
    expect(call(SUSP, 0, 0n, 0x100n, 7n).error).toBe(-4n);
    harts[1]!.cells.i32[HSM_STATE >> 2] = HartState.STOPPED;
    expect(call(SUSP, 0, 0n, 0x100n, 7n).leave).toBe(ExitReason.CORE);
    expect([own.cells.i32[HSM_STATE >> 2], own.cells.u64[HSM_ADDRESS >> 3]]).toEqual([HartState.SUSPENDED_TO_RESUME, 0x100n]);
    expect(call(SUSP, 1).error).toBe(-2n);
  });
  it("reset posts an exit and stops the hart; reserved types and reasons, and vendors' → invalid param", () => {
    const { call, own } = machine();
    for (const [type, reason] of [[3n, 0n], [0xf000_0000n, 0n], [0n, 2n], [0n, 0xe000_0000n], [0n, 0xffff_ffffn]] as const) expect(call(SRST, 0, type, reason).error).toBe(-3n);
    expect(call(SRST, 0, 1n, 1n).leave).toBe(ExitReason.CORE);
    expect(own.host.take()).toMatchObject({ kind: ExitKind.SYSTEM_RESET, address: 1n, value: 1n });
    expect(own.host.take()).toBeUndefined();
  });
  it("console: a byte is posted; a buffer that is not RAM → invalid param", () => {
    const { call, own } = machine();
    expect(call(DBCN, 2, 0x141n).error).toBe(0n);
    expect(own.host.take()).toMatchObject({ kind: ExitKind.CONSOLE_BYTE, value: 0x41n, sequence: 0 });
    expect(call(DBCN, 0, 16n, 0x9_0000n, 0n).error).toBe(-3n);
    expect(call(DBCN, 0, 0n, 0n, 0n)).toMatchObject({ error: 0n, value: 0n });
    for (const fid of [0, 1]) expect([call(DBCN, fid, ALL, 0xf00n, 0n).error, call(DBCN, fid, 1n, 0n, 1n).error, call(DBCN, fid, 1n, ALL, 0n).error]).toEqual([-3n, -3n, -3n]);
    expect(own.host.take()).toBeUndefined(); // nothing was asked of the host for them
  });
  it("hart masks: any bits of any base that are no hart → invalid param, nobody is interrupted; none → success", () => {
    const { call, harts } = machine(3);
    for (const base of HOSTILE.filter((each) => each !== ALL)) {
      expect(call(IPI, 0, 1n, base).error).toBe(-3n);
      expect(call(RFENCE, 1, ALL, base, 0n, ALL).error).toBe(-3n);
      expect(call(IPI, 0, 0n, base).error).toBe(0n);
    }
    expect(call(IPI, 0, 0b1001n, 0n).error).toBe(-3n);
    expect(harts.map(({ core }) => core.pending() & SSIP)).toEqual([0, 0, 0]);
  });

  describe("PMU", () => {
    it("counts, configures, starts and stops; what is running or stopped already says so", () => {
      const { call, own } = machine();
      expect(call(PMU, 0).value).toBe(10n);
      expect([call(PMU, 1, 0n).value, call(PMU, 1, 1n).value, call(PMU, 1, 2n).value]).toEqual([0x3fc00n, 0x3fc02n, 0x3fc03n]);
      expect(call(PMU, 3, 0n, 0b10n, 0n).error).toBe(-7n); // instret runs from the beginning
      expect(call(PMU, 4, 0n, 0b11n, 0n).error).toBe(0n);
      expect(call(PMU, 4, 0n, 0b11n, 0n).error).toBe(-8n);
      own.cells.u64[INSTRET >> 3] = 1000n;
      expect(call(PMU, 3, 0n, 0b10n, 1n, 50n).error).toBe(0n); // from 50
      own.cells.u64[INSTRET >> 3] = 1007n;
      expect(own.core.readOne(Csr.INSTRET)).toBe(57n);
      // The first of all counters that can take the event: instructions fit instret, which runs, and hpmcounter3.
      expect(call(PMU, 2, 0n, 0x3ffn, 0b110n, 2n)).toMatchObject({ error: 0n, value: 2n });
      expect(call(PMU, 2, 0n, 0x3f8n, 0b110n, 0x2_0000n, 0x2_0001n)).toMatchObject({ error: 0n, value: 3n });
      own.core.trap(2, 0n);
      own.cells.u64[INSTRET >> 3] = 1010n;
      expect([own.core.readOne(0xc03), own.core.readOne(0xc04)]).toEqual([3n, 1n]);
    });
    it("events that there are not → not supported; counters that there are not → invalid param", () => {
      const { call } = machine();
      for (const event of [0n, 3n, 0x1_0000n, 0x2_0000n, 0xf_0005n, 0xffff_ffffn]) expect(call(PMU, 2, 0n, 0x3ffn, 0n, event, 99n).error).toBe(-2n);
      expect(call(PMU, 2, 0n, 0b01n, 0n, 2n).error).toBe(-2n); // cycle does not count instructions
      for (const hostile of HOSTILE) {
        for (const fid of [2, 3, 4]) expect(call(PMU, fid, hostile, 1n, 0n, 1n).error).toBe(-3n);
        for (const fid of [1, 5, 6]) expect(call(PMU, fid, hostile).error).toBe(-3n);
      }
      expect([call(PMU, 2, 0n, 1n << 10n, 0n, 1n).error, call(PMU, 3, 0n, 1n, 4n).error, call(PMU, 4, 0n, 1n, 4n).error]).toEqual([-3n, -3n, -3n]);
      expect([call(PMU, 3, 0n, 0b100n, 2n).error, call(PMU, 4, 0n, 0b100n, 2n).error, call(PMU, 7, 0n, 0n, 0n).error, call(PMU, 8).error]).toEqual([-9n, -9n, -2n, -2n]);
    });
  });
  it("enters S-mode as firmware would: delegation, counters, stimecmp, memory open", () => {
    const { own } = machine();
    expect([own.cells.u64[PC >> 3], own.cells.i32[PRIVILEGE >> 2]]).toEqual([0x8020_0000n, 1]);
    expect(own.cells.csr(Csr.MEDELEG)).toBe(0xf0_b7ffn & ~(1n << 9n));
    expect(own.write(Csr.STIMECMP, 5n)).toBeDefined();
    expect(own.core.pmpAllows(0x8000_0000n, "write", 0)).toBe(true);
  });
});
