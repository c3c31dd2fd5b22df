import { describe, expect, it } from "vitest";
import { testHarts, type TestHart } from "../testing/test-hart.ts";
import { Csr } from "./csr.ts";
import { Cause, ExitReason } from "./engine.ts";
import { PC, PRIVILEGE, TRAP_CAUSE, TRAP_GPA, TRAP_GUEST, TRAP_INSTRUCTION, TRAP_VALUE, VIRTUAL } from "./hart-state.ts";

const STVEC = 0x8000_1000n;
const VSTVEC = 0xffff_ffff_8000_2000n;
const MTVEC = 0x8000_3000n;
const SPV = 1n << 7n;
const SPVP = 1n << 8n;
const GVA = 1n << 6n;
const MPV = 1n << 39n;

/** A hart with vectors of its own in each mode, delegating everything to HS-mode as firmware does. */
function hart(privilege = 1, virtual = false): TestHart {
  const made = testHarts(1).harts[0]!;
  const { core, cells } = made;
  core.writeOne(Csr.MTVEC, MTVEC);
  core.writeOne(Csr.STVEC, STVEC);
  core.writeOne(Csr.VSTVEC, VSTVEC);
  core.writeOne(Csr.MEDELEG, ~(1n << 9n));
  core.writeOne(Csr.MIDELEG, ~0n);
  core.writeOne(Csr.MENVCFG, ~(2n << 4n));
  core.writeOne(Csr.MCOUNTEREN, 7n);
  cells.u64[PC >> 3] = 0x8000_0100n;
  core.setVirtual(virtual);
  core.setPrivilege(privilege);
  return made;
}
const mode = ({ cells }: TestHart) => ({ privilege: cells.i32[PRIVILEGE >> 2], virtual: cells.i32[VIRTUAL >> 2] === 1, pc: cells.u64[PC >> 3] });
const system = (made: TestHart, op: Parameters<TestHart["core"]["system"]>[0]) => made.core.system(op, 0x1234_5678, 0n, 0n, 4);
const cause = ({ cells }: TestHart): number => cells.i32[TRAP_CAUSE >> 2]!;
function fault(made: TestHart, number: number, value: bigint, guest = true): void {
  made.cells.u64[TRAP_CAUSE >> 3] = BigInt(number);
  made.cells.u64[TRAP_VALUE >> 3] = value;
  made.cells.i32[TRAP_GUEST >> 2] = guest ? 1 : 0;
  made.cells.u64[TRAP_GPA >> 3] = 0x2000_0400n;
  made.cells.i32[TRAP_INSTRUCTION >> 2] = 0x3000;
  made.core.takeTrap();
}

describe("virtual supervisor registers (H, Virtual Supervisor CSRs)", () => {
  it("a guest's s* registers are the vs* ones; the hypervisor finds its own again after the trap", () => {
    const made = hart();
    made.write(Csr.SSCRATCH, 1n);
    made.write(Csr.VSSCRATCH, 2n);
    made.core.setVirtual(true);
    expect(made.read(Csr.SSCRATCH)).toBe(2n);
    made.write(Csr.SSCRATCH, 3n);
    fault(made, Cause.LOAD_GUEST_PAGE, 0x1000n);
    expect([made.read(Csr.SSCRATCH), made.read(Csr.VSSCRATCH)]).toEqual([1n, 3n]);
  });
  it("vsstatus has the guest's interrupt enable, SUM, MXR and FS", () => {
    const made = hart();
    made.write(Csr.SSTATUS, (1n << 18n) | (1n << 13n));
    made.write(Csr.VSSTATUS, (1n << 19n) | (1n << 1n));
    made.core.setVirtual(true);
    expect(made.read(Csr.SSTATUS)).toBe((2n << 32n) | (1n << 19n) | (1n << 1n));
    made.core.setVirtual(false);
    expect(made.read(Csr.SSTATUS)).toBe((2n << 32n) | (1n << 18n) | (1n << 13n));
  });
  it("floating point needs FS of the guest and of the hypervisor, and makes both Dirty", () => {
    const made = hart();
    made.write(Csr.VSSTATUS, 1n << 13n);
    made.core.setVirtual(true);
    expect(made.core.fpEnabled()).toBe(false);
    made.core.setVirtual(false);
    made.write(Csr.SSTATUS, 1n << 13n);
    made.core.setVirtual(true);
    expect(made.core.fpEnabled()).toBe(true);
    made.core.fpDirty();
    made.core.setVirtual(false);
    expect([made.read(Csr.SSTATUS)! >> 63n, made.read(Csr.VSSTATUS)! >> 63n]).toEqual([1n, 1n]);
  });
  it("readAll and writeOne name the hypervisor's registers by s* while a guest runs, and change nothing by reading", () => {
    const made = hart();
    made.write(Csr.SSCRATCH, 1n);
    made.write(Csr.VSSCRATCH, 2n);
    made.write(Csr.VSSTATUS, 3n << 13n);
    const before = made.core.readAll();
    made.core.setVirtual(true);
    const cells = made.cells.u8.slice();
    expect(made.core.readAll()).toEqual(before);
    expect(made.cells.u8).toEqual(cells);
    made.core.writeOne(Csr.SSCRATCH, 7n);
    made.core.setVirtual(false);
    expect([made.read(Csr.SSCRATCH), made.read(Csr.VSSCRATCH)]).toEqual([7n, 2n]);
  });
});

describe("CSR access of guests (H, Virtual Instruction Exception)", () => {
  it("a guest's access to the hypervisor's registers is a virtual instruction, to M-mode's an illegal one", () => {
    const made = hart(1, true);
    for (const number of [Csr.HSTATUS, Csr.VSSCRATCH, Csr.HGATP]) {
      expect(made.read(number)).toBeUndefined();
      expect(cause(made)).toBe(Cause.VIRTUAL_INSTRUCTION);
    }
    expect(made.read(Csr.MSCRATCH)).toBeUndefined();
    expect(cause(made)).toBe(Cause.ILLEGAL_INSTRUCTION);
  });
  it("a guest's user mode gets a virtual instruction for supervisor registers; without V it is illegal", () => {
    for (const [virtual, expected] of [[true, Cause.VIRTUAL_INSTRUCTION], [false, Cause.ILLEGAL_INSTRUCTION]] as const) {
      const made = hart(0, virtual);
      expect(made.read(Csr.SSCRATCH)).toBeUndefined();
      expect(cause(made)).toBe(expected);
    }
  });
  it("time needs hcounteren.TM and adds htimedelta; VTVM keeps satp from the guest", () => {
    const { harts, clock } = testHarts(1);
    const made = harts[0]!;
    clock.ms = 1;
    made.core.writeOne(Csr.MCOUNTEREN, 7n);
    made.core.writeOne(Csr.HTIMEDELTA, -4000n);
    made.core.setVirtual(true);
    made.core.setPrivilege(1);
    expect(made.read(Csr.TIME)).toBeUndefined();
    expect(cause(made)).toBe(Cause.VIRTUAL_INSTRUCTION);
    made.core.writeOne(Csr.HCOUNTEREN, 2n);
    expect(made.read(Csr.TIME)).toBe(6000n);
    expect(made.read(Csr.SATP)).toBe(0n);
    made.core.writeOne(Csr.HSTATUS, 1n << 20n);
    expect(made.read(Csr.SATP)).toBeUndefined();
    expect(cause(made)).toBe(Cause.VIRTUAL_INSTRUCTION);
  });
  it("without H none of its registers exists, misa lacks the bit, and fields of others read zero", () => {
    const made = testHarts(1, { hypervisor: false, paging: "sv48" }).harts[0]!;
    for (const number of [Csr.HSTATUS, Csr.VSSCRATCH, Csr.MTVAL2, Csr.MTINST, 0xe12]) expect(made.read(number)).toBeUndefined();
    expect(made.read(Csr.MISA)! & (1n << 7n)).toBe(0n);
    made.write(Csr.MEDELEG, ~0n);
    made.write(Csr.MIDELEG, ~0n);
    made.write(Csr.MSTATUS, ~0n);
    expect([made.read(Csr.MEDELEG), made.read(Csr.MIDELEG), made.read(Csr.MSTATUS)! & (3n << 38n)]).toEqual([0xb3ffn, 0x222n, 0n]);
    expect([...made.core.readAll().keys()].filter((number) => ((number >> 8) & 3) === 2)).toEqual([]);
  });
});

describe("traps of guests (H, Trap Entry)", () => {
  it("a guest-page fault goes to HS-mode with GVA, SPV, SPVP, htval and htinst", () => {
    const made = hart(1, true);
    fault(made, Cause.STORE_GUEST_PAGE, 0xdead_0000n);
    expect(mode(made)).toEqual({ privilege: 1, virtual: false, pc: STVEC });
    expect([made.read(Csr.SCAUSE), made.read(Csr.STVAL), made.read(Csr.HTVAL), made.read(Csr.HTINST)]).toEqual([23n, 0xdead_0000n, 0x2000_0400n, 0x3000n]);
    expect(made.read(Csr.HSTATUS)! & (SPV | SPVP | GVA)).toBe(SPV | SPVP | GVA);
  });
  it("what hedeleg passes on goes to the guest's supervisor and leaves hstatus alone", () => {
    const made = hart();
    made.write(Csr.HEDELEG, 1n << 13n);
    made.core.setVirtual(true);
    made.core.setPrivilege(0);
    fault(made, Cause.LOAD_PAGE, 0x5000n);
    expect(mode(made)).toEqual({ privilege: 1, virtual: true, pc: VSTVEC });
    expect([made.read(Csr.SCAUSE), made.read(Csr.STVAL)]).toEqual([13n, 0x5000n]);
    made.core.setVirtual(false);
    expect(made.read(Csr.HSTATUS)! & (SPV | GVA)).toBe(0n);
  });
  it("a fault of the hypervisor itself clears SPV and GVA and keeps SPVP", () => {
    const made = hart();
    made.write(Csr.HSTATUS, SPV | SPVP | GVA);
    fault(made, Cause.LOAD_PAGE, 0x5000n, false);
    expect(made.read(Csr.HSTATUS)! & (SPV | SPVP | GVA)).toBe(SPVP);
    expect(made.read(Csr.HTVAL)).toBe(0n);
  });
  it("undelegated, to M-mode with MPV, GVA and mtval2; mret goes back to the guest", () => {
    const made = hart();
    made.core.writeOne(Csr.MEDELEG, 0n);
    made.core.setVirtual(true);
    made.core.setPrivilege(0);
    fault(made, Cause.LOAD_GUEST_PAGE, 0x7000n);
    expect(mode(made)).toEqual({ privilege: 3, virtual: false, pc: MTVEC });
    expect([made.read(Csr.MTVAL2), made.read(Csr.MSTATUS)! & (3n << 38n)]).toEqual([0x2000_0400n, 3n << 38n]);
    system(made, "mret");
    expect(mode(made)).toEqual({ privilege: 0, virtual: true, pc: 0x8000_0100n });
    made.core.setVirtual(false);
    made.core.setPrivilege(3);
    expect(made.read(Csr.MSTATUS)! & MPV).toBe(0n);
  });
  it("ecall from VS has cause 10; from VU cause 8", () => {
    for (const [privilege, expected] of [[1, 10n], [0, 8n]] as const) {
      const made = hart(privilege, true);
      system(made, "ecall");
      expect([made.read(Csr.SCAUSE), mode(made).virtual]).toEqual([expected, false]);
    }
  });
  it("sret with SPV enters the guest with its own sepc left alone", () => {
    const made = hart();
    made.write(Csr.HSTATUS, SPV);
    made.write(Csr.SEPC, 0x4000n);
    made.write(Csr.VSEPC, 0x6000n);
    made.write(Csr.SSTATUS, 1n << 8n);
    system(made, "sret");
    expect(mode(made)).toEqual({ privilege: 1, virtual: true, pc: 0x4000n });
    expect(made.read(Csr.SEPC)).toBe(0x6000n);
    system(made, "sret"); // the guest's own
    expect(mode(made)).toEqual({ privilege: 0, virtual: true, pc: 0x6000n });
  });
});

describe("privileged instructions of guests (H)", () => {
  it.each([["sret", 22n], ["wfi", 21n], ["sfence.vma", 20n]] as const)("%s is a virtual instruction when hstatus says so, and in VU-mode", (op, bit) => {
    const made = hart();
    made.write(Csr.HSTATUS, 1n << bit);
    made.core.setVirtual(true);
    system(made, op);
    expect([made.read(Csr.SCAUSE), made.read(Csr.STVAL)]).toEqual([22n, 0x1234_5678n]);
    const user = hart(0, true);
    system(user, op);
    expect(user.read(Csr.SCAUSE)).toBe(22n);
  });
  it("hfence and HLV are virtual instructions of a guest and illegal in U-mode unless hstatus.HU allows HLV", () => {
    const guest = hart(1, true);
    expect(guest.core.refuseGuestAccess()).toBe(Cause.VIRTUAL_INSTRUCTION);
    system(guest, "hfence.gvma");
    expect(guest.read(Csr.SCAUSE)).toBe(22n);
    const user = hart(0);
    expect(user.core.refuseGuestAccess()).toBe(Cause.ILLEGAL_INSTRUCTION);
    user.core.writeOne(Csr.HSTATUS, 1n << 9n);
    expect(user.core.refuseGuestAccess()).toBe(0);
    system(user, "hfence.vvma");
    expect(user.read(Csr.SCAUSE)).toBe(2n);
  });
  it("cbo.zero of a guest needs henvcfg.CBZE too", () => {
    const made = hart(1, true);
    expect(made.core.refuseCacheBlock("zero")).toBe(Cause.VIRTUAL_INSTRUCTION);
    made.core.writeOne(Csr.HENVCFG, 0x80n);
    expect(made.core.refuseCacheBlock("zero")).toBe(0);
  });
});

describe("interrupts of guests (H, Virtual Interrupts)", () => {
  const VSTI = 1n << 6n;
  it("hvip with hideleg: taken in the guest as its supervisor's, when its SIE lets it", () => {
    const made = hart();
    made.write(Csr.HIDELEG, ~0n);
    made.write(Csr.HIE, ~0n);
    made.write(Csr.HVIP, 1n << 10n);
    expect(made.core.takeInterrupt()).toBe(false); // not while the hypervisor runs
    made.core.setVirtual(true);
    expect([made.read(Csr.SIP), made.read(Csr.SIE)]).toEqual([1n << 9n, 0x222n]);
    expect(made.core.takeInterrupt()).toBe(false);
    made.set(Csr.SSTATUS, 2n);
    expect(made.core.leave).toBe(true);
    expect(made.core.takeInterrupt()).toBe(true);
    expect([mode(made), made.read(Csr.SCAUSE)]).toEqual([{ privilege: 1, virtual: true, pc: VSTVEC }, (1n << 63n) | 9n]);
  });
  it("not delegated: the hypervisor's, with its own number, whatever the guest's SIE", () => {
    const made = hart();
    made.write(Csr.HIE, ~0n);
    made.write(Csr.HVIP, 1n << 2n);
    made.core.setVirtual(true);
    expect(made.core.takeInterrupt()).toBe(true);
    expect([mode(made).virtual, made.read(Csr.SCAUSE)]).toEqual([false, (1n << 63n) | 2n]);
  });
  it("vstimecmp against time + htimedelta drives VSTIP; the guest's stimecmp is vstimecmp", () => {
    const { harts, clock } = testHarts(1);
    const made = harts[0]!;
    const { core } = made;
    core.writeOne(Csr.MENVCFG, 1n << 63n);
    core.writeOne(Csr.HENVCFG, 1n << 63n);
    core.writeOne(Csr.MCOUNTEREN, 2n);
    core.writeOne(Csr.HCOUNTEREN, 2n);
    core.writeOne(Csr.HTIMEDELTA, 1000n);
    core.setVirtual(true);
    core.setPrivilege(1);
    made.write(Csr.STIMECMP, 11_000n);
    core.setVirtual(false);
    core.writeOne(Csr.HIE, VSTI);
    expect([made.read(Csr.HIP), core.nextTimer()]).toEqual([0n, 10_000]);
    clock.ms = 1;
    expect(made.read(Csr.HIP)).toBe(VSTI);
    expect(made.read(Csr.STIMECMP)).toBe((1n << 64n) - 1n);
  });
  it("a wfi of the guest leaves guest code like any other", () => {
    expect(system(hart(1, true), "wfi")).toBe(ExitReason.WFI);
  });
});
