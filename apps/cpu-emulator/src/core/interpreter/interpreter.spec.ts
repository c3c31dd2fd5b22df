import { describe, expect, it } from "vitest";
import { encode, instructionNamed } from "@polyvisor/isa";
import { FRAMES } from "../decode-cache.ts";
import { ExitReason } from "../engine.ts";
import { BareMachine } from "./bare-machine.ts";

const A0 = 10;
const A1 = 11;
const A2 = 12;

for (const engine of ["interpreter", "translated", "static"] as const) describe(`engine ${engine}`, () => {
  function ran(source: string, prepare: (machine: BareMachine) => void = () => {}): BareMachine {
    const machine = new BareMachine(16 << 20, engine);
    prepare(machine);
    machine.load(source);
    expect(machine.run(1_000_000)).not.toBe("limit");
    return machine;
  }

  describe("budget and INSTRET", () => {
    const endless = "1: addi a0, a0, 1\n j 1b";

    it("stops exactly at a small budget, wherever it ends", () => {
      const machine = new BareMachine(16 << 20, engine);
      machine.load(endless);
      for (const budget of [1, 2, 3, 100]) {
        const before = machine.instret;
        expect(machine.engine.run(budget)).toBe(ExitReason.BUDGET);
        expect(machine.instret - before).toBe(BigInt(budget));
      }
      expect(machine.x(A0)).toBe((machine.instret + 1n) / 2n);
    });

    it("never exceeds a large budget, also in a page of straight code", () => {
      const machine = new BareMachine(16 << 20, engine);
      machine.load(`1:\n${"c.addi a0, 1\n".repeat(2000)} j 1b`);
      for (const budget of [5000, 10_000, 4096]) {
        const before = machine.instret;
        expect(machine.engine.run(budget)).toBe(ExitReason.BUDGET);
        const used = Number(machine.instret - before);
        expect(used).toBeLessThanOrEqual(budget);
        expect(used).toBeGreaterThan(budget - 2 * 2048 - 1);
        expect(machine.x(A0)).toBe(machine.instret - machine.instret / 2001n);
      }
    });

    it("does not count an instruction that traps", () => {
      const machine = ran("nop\nnop\n.word 0\n");
      expect(machine.traps).toEqual([[2, 0n, 0x8000_0008n]]);
      expect(machine.instret).toBe(2n);
    });

    it("shows minstret including the instructions before the read", () => {
      const machine = ran("nop\nnop\ncsrr a0, minstret\nnop\ncsrr a1, minstret\nwfi");
      expect([machine.x(A0), machine.x(A1)]).toEqual([2n, 4n]);
    });
  });

  describe("instruction fetch", () => {
    it("executes a 4-byte instruction whose halves lie in different pages", () => {
      const machine = new BareMachine(16 << 20, engine);
      machine.load("c.j 1f\n1: j 2f\n.org 0x80000ffe\n2: li a1, 77\nli a0, 5\nwfi");
      expect(machine.run()).toBe("wfi");
      expect([machine.x(A1), machine.x(A0), machine.instret]).toEqual([77n, 5n, 5n]);
    });

    it("takes a branch that begins in one page and ends in the next, both ways", () => {
      const machine = ran("li a0, 3\nj 2f\n.org 0x80000ff0\n1: addi a1, a1, 1\naddi a0, a0, -1\nnop\nc.nop\n2: bnez a0, 1b\nwfi");
      expect([machine.x(A0), machine.x(A1)]).toEqual([0n, 3n]);
    });

    it("reports an instruction access fault with the address when the pc leaves memory", () => {
      const machine = ran("li t0, 0x10000\njr t0");
      expect(machine.traps).toEqual([[1, 0x1_0000n, 0x1_0000n]]);
    });

    it("runs old code until fence.i and new code after it (Zifencei)", () => {
      const machine = ran(`
        la t0, target
        la t1, replacement
        lw t1, 0(t1)
        call target
        mv a1, a0
        sw t1, 0(t0)
        fence.i
        call target
        mv a2, a0
        wfi
      target: li a0, 1
        ret
      replacement: li a0, 2`);
      expect([machine.x(A1), machine.x(A2)]).toEqual([1n, 2n]);
      expect(machine.events()["decode-again"]).toBeGreaterThan(0);
    });

    it("sees new code after fence.i in each of as many pages as were fetched from, few or many (ADR 2)", () => {
      for (const pages of [3, 60]) {
        const machine = new BareMachine(16 << 20, engine);
        const addi = encode(instructionNamed("addi"), { rd: A0, rs1: A0, imm: 1 });
        const jump = encode(instructionNamed("jal"), { rd: 0, imm: 4096 - 4 });
        machine.load(`
          li s2, 3
        1: la ra, 2f
          j 0x80001000
        2: li t0, 0x80001000
          li t1, ${pages}
          li t2, 0x00100000
        3: lw t3, 0(t0)
          add t3, t3, t2
          sw t3, 0(t0)
          li t4, 4096
          add t0, t0, t4
          addi t1, t1, -1
          bnez t1, 3b
          fence.i
          addi s2, s2, -1
          bnez s2, 1b
          wfi`);
        for (let page = 1; page <= pages; page++) {
          machine.view.setUint32(page * 4096, addi, true);
          machine.view.setUint32(page * 4096 + 4, page < pages ? jump : encode(instructionNamed("jalr"), { rd: 0, rs1: 1, imm: 0 }), true);
        }
        expect(machine.run(1_000_000)).toBe("wfi");
        expect(machine.x(A0)).toBe(BigInt(pages * (1 + 2 + 3)));
      }
    });

    it("sees after fence.i that only the second half of an instruction changed, also across a page end", () => {
      const machine = ran(`
        la t0, target
        call target
        mv a1, a0
        lh t1, 2(t0)
        addi t1, t1, 0x7f0
        addi t1, t1, -0x700
        sh t1, 2(t0)
        fence.i
        call target
        wfi
      .org 0x80000ffe
      target: addi a0, zero, 16
        ret`);
      expect(machine.x(A1)).toBe(16n);
      expect(machine.x(A0)).toBe(BigInt.asUintN(64, BigInt.asIntN(12, 16n + 0xfn)));
    });
  });

  describe("decode cache", () => {
    it("runs code on more pages than there are frames, twice", () => {
      const machine = new BareMachine(16 << 20, engine);
      const pages = FRAMES + 200;
      const jump = encode(instructionNamed("jal"), { rd: 0, imm: 4096 });
      for (let page = 0; page < pages; page++) machine.view.setUint32(page * 4096 + 0x100, jump, true);
      machine.load("j 2f\n1: addi a0, a0, -1\nbeqz a0, 3f\n2: j . + 0xf4\n3: wfi".replace("j 2f", "li a0, 2\nj 2f").replace(". + 0xf4", "0x80000100"));
      machine.load("la t0, 1f\njr t0".replace("1f", "0x80000008"), BigInt(BareMachine.RAM_BASE + pages * 4096 + 0x100));
      expect(machine.run()).toBe("wfi");
      const { evict, "decode-page": made } = machine.events();
      expect(evict).toBeGreaterThan(2);
      expect(made).toBeGreaterThan(2 * 1000);
    });

    it("drops a page-crossing instruction when either half changes or another page is mapped behind it", () => {
      const machine = ran(`
        li s0, 2
      1: call target
        mv a1, a2
        mv a2, a0
        la t0, target
        lhu t1, 2(t0)
        addi t1, t1, 0x100
        sh t1, 2(t0)
        fence.i
        addi s0, s0, -1
        bnez s0, 1b
        call target
        wfi
      .org 0x80000ffe
      target: addi a0, zero, 16
        ret`);
      expect([machine.x(A1), machine.x(A2), machine.x(A0)]).toEqual([16n, 32n, 48n]);
    });
  });

  describe("supervisor status", () => {
    it("reads sstatus and switches SIE inline with the same answers as the core", () => {
      const machine = ran(`
        li t0, 0x6000
        csrs mstatus, t0
        csrr a0, sstatus
        csrrsi a1, sstatus, 2
        csrrci a2, sstatus, 2
        csrr a3, sstatus
        li t1, 0x8003
        csrw sepc, t1
        csrrw a4, sepc, zero
        wfi`);
      const sstatus = (1n << 63n) | (2n << 32n) | 0x6000n;
      expect([machine.x(10), machine.x(11), machine.x(12), machine.x(13), machine.x(14)]).toEqual([sstatus, sstatus, sstatus | 2n, sstatus, 0x8002n]);
    });
  });

  describe("memory accesses", () => {
    it("loads and stores misaligned values, within a page and across its end", () => {
      const machine = ran(`
        li t0, 0x80010ffd
        li t1, 0x1122334455667788
        sd t1, 0(t0)
        ld a0, 0(t0)
        lwu a1, 1(t0)
        lh a2, 2(t0)
        li t0, 0x80012001
        sw t1, 0(t0)
        lw a3, 0(t0)
        wfi`);
      expect([machine.x(A0), machine.x(A1), machine.x(A2), machine.x(13)]).toEqual([0x1122_3344_5566_7788n, 0x4455_6677n, 0x5566n, 0x5566_7788n]);
    });

    it("reads and writes devices with the access's width and sign", () => {
      const machine = ran("li t0, 0x10000000\nli t1, -2\nsb t1, 5(t0)\nlb a0, 4(t0)\nlbu a1, 4(t0)\nwfi", (m) => {
        m.deviceReads.set(0x1000_0004n, 0xf1n).set(0x1000_0005n, 0n);
      });
      expect(machine.deviceWrites).toEqual([[0x1000_0005n, 1, 0xfen]]);
      expect([machine.x(A0), machine.x(A1)]).toEqual([0xffff_ffff_ffff_fff1n, 0xf1n]);
    });

    it("raises access faults where there is neither RAM nor a device, without changing rd", () => {
      const machine = ran("li a0, 9\nli t0, 0x1234\nld a0, 0(t0)");
      expect(machine.traps).toEqual([[5, 0x1234n, 0x8000_000cn]]);
      expect(machine.x(A0)).toBe(9n);
      expect(ran("lui t0, 1\nsd t0, 8(t0)").traps).toEqual([[7, 0x1008n, 0x8000_0004n]]);
    });

    it("raises a misaligned exception for atomics only", () => {
      expect(ran("li t0, 0x80010002\nlr.w a0, (t0)").traps[0]?.slice(0, 2)).toEqual([4, 0x8001_0002n]);
      expect(ran("li t0, 0x80010004\namoadd.d a0, a0, (t0)").traps[0]?.slice(0, 2)).toEqual([6, 0x8001_0004n]);
    });

    it("raises an access fault when a page lease is refused", () => {
      const machine = ran("li t0, 0x80010010\nsd t0, 0(t0)", (m) => m.withheld.add(0x8001_0000n));
      expect(machine.traps[0]?.slice(0, 2)).toEqual([7, 0x8001_0010n]);
    });

    it("fails sc after a store by someone else and succeeds without one", () => {
      const machine = ran(`
        li t0, 0x80010000
        lr.d a0, (t0)
        li t1, 5
        sc.d a1, t1, (t0)
        lr.d a0, (t0)
        li t1, 6
        sd t1, 0(t0)
        sc.d a2, t1, (t0)
        sc.d a3, t1, (t0)
        wfi`);
      expect([machine.x(A0), machine.x(A1), machine.x(A2), machine.x(13)]).toEqual([5n, 0n, 1n, 1n]);
    });
  });

  describe("two harts", () => {
    it("lose no increment made with amoadd or lr and sc, however they interleave", () => {
      const first = new BareMachine(16 << 20, engine);
      const second = new BareMachine(16 << 20, engine, first);
      first.load(`
        li s0, 300
        li t0, 0x80010000
      1: li t1, 1
        amoadd.d zero, t1, (t0)
        addi t2, t0, 8
      2: lr.w t3, (t2)
        addi t3, t3, 1
        sc.w t4, t3, (t2)
        bnez t4, 2b
        addi s0, s0, -1
        bnez s0, 1b
        wfi`);
      const harts = [first, second];
      const ended = [false, false];
      for (let turn = 0; !(ended[0] && ended[1]); turn++) {
        const which = turn & 1;
        if (!ended[which]) ended[which] = harts[which]!.engine.run(1 + ((turn * 7) % 11)) === ExitReason.WFI;
      }
      expect([first.word(0x8001_0000), first.word(0x8001_0008)]).toEqual([600n, 600n]);
      expect(first.x(29) | second.x(29)).toBe(0n);
      expect(first.instret + second.instret).toBeGreaterThan(2n * (300n * 9n + 4n)); // some sc failed
    });
  });

  describe("floating point", () => {
    const on = "li t0, 0x6000\ncsrs mstatus, t0\n";

    it("is illegal while mstatus.FS is Off, with the instruction in mtval", () => {
      expect(ran("fadd.d fa0, fa1, fa2").traps).toEqual([[2, 0x02c5_f553n, 0x8000_0000n]]);
      expect(ran("fmv.x.d zero, fa0").traps[0]?.[0]).toBe(2);
    });

    it("makes FS Dirty when a register is written and leaves it Clean for stores", () => {
      const clean = "li t0, 0x4000\ncsrs mstatus, t0\nli t1, 0x80010000\n";
      expect(ran(`${clean}fsd fa0, 0(t1)\ncsrr a0, mstatus\nwfi`).x(A0) & 0x6000n).toBe(0x4000n);
      expect(ran(`${clean}fld fa0, 0(t1)\ncsrr a0, mstatus\nwfi`).x(A0) & 0x6000n).toBe(0x6000n);
    });

    it("a zero over an infinity is exact, in both precisions (found by the fuzz lane)", () => {
      const machine = ran(`${on}
        li t1, 0xff800000
        fmv.w.x fa0, t1
        li t1, 0x80000000
        fmv.w.x fa1, t1
        fdiv.s fa2, fa1, fa0
        fcvt.d.s fa3, fa0
        fcvt.d.s fa4, fa1
        fdiv.d fa5, fa4, fa3
        frflags a0
        fmv.x.w a1, fa2
        wfi`);
      expect([machine.x(A0), machine.x(A1)]).toEqual([0n, 0n]);
    });

    it("keeps NX clear for exact results and sets it for the first inexact one, on the fast path", () => {
      const machine = ran(`${on}
        li t1, 3
        fcvt.d.w fa0, t1
        fadd.d fa1, fa0, fa0
        fmul.d fa1, fa1, fa0
        fdiv.d fa2, fa1, fa0
        fsub.d fa3, fa0, fa0
        frflags a0
        fdiv.d fa4, fa0, fa1
        fdiv.d fa4, fa0, fa2
        fadd.d fa4, fa4, fa4
        li t1, 7
        fcvt.d.w fa5, t1
        fdiv.d fa4, fa0, fa5
        frflags a1
        wfi`);
      expect([machine.x(A0), machine.x(A1)]).toEqual([0n, 1n]);
      expect(machine.events()["slow-instruction"]).toBeLessThan(8);
    });
  });

  describe("Sv39", () => {
    /** Tables at 0x80100000; virtual 0x4000_0000 + page * 4096 -> 0x80200000 + page * 4096 with `bits[page]`. */
    function paged(privilege: number, bits: readonly number[], source: string, status = 0): BareMachine {
      const machine = new BareMachine(16 << 20, engine);
      const pte = (address: number, flags: number): bigint => (BigInt(address) >> 12n << 10n) | BigInt(flags);
      machine.setWord(0x8010_0000 + 2 * 8, pte(0x8000_0000, 0xcf | (privilege === 0 ? 0x10 : 0))); // 1 GiB identity: code
      machine.setWord(0x8010_0000 + 1 * 8, pte(0x8010_1000, 1));
      machine.setWord(0x8010_1000, pte(0x8010_2000, 1));
      for (const [page, flags] of bits.entries()) machine.setWord(0x8010_2000 + page * 8, pte(0x8020_0000 + page * 4096, flags));
      machine.load(`
        li t0, ${(8n << 60n) | 0x80100n}
        csrw satp, t0
        li t0, -1
        csrw pmpaddr0, t0
        li t0, 0x1f
        csrw pmpcfg0, t0
        li t0, 0x1800
        csrc mstatus, t0
        li t0, ${(privilege << 11) | status}
        csrs mstatus, t0
        la t0, 1f
        csrw mepc, t0
        mret
      1: li s0, 0x40000000
        ${source}`);
      machine.run(200_000);
      return machine;
    }
    const [V, R, W, X, U, A, D] = [1, 2, 4, 8, 16, 64, 128];
    const ALL = V | R | W | A | D;

    it("translates loads and stores and sets accessed and dirty bits", () => {
      const machine = paged(1, [V | R | W, V | R], "li a0, 7\nsd a0, 8(s0)\nld a1, 8(s0)\nli t1, 0x40001000\nld a2, 0(t1)\nwfi");
      expect(machine.traps).toEqual([]);
      expect([machine.x(A1), machine.word(0x8020_0008)]).toEqual([7n, 7n]);
      expect([Number(machine.word(0x8010_2000) & 0xffn), Number(machine.word(0x8010_2008) & 0xffn)]).toEqual([V | R | W | A | D, V | R | A]);
    });

    it.each([
      ["load from an invalid page", 1, 0, "ld a0, 16(s0)", 13],
      ["store to a read-only page", 1, V | R | A, "sd a0, 16(s0)", 15],
      ["load from an execute-only page", 1, V | X | A, "ld a0, 16(s0)", 13],
      ["reserved W without R", 1, V | W | A | D, "sd a0, 16(s0)", 15],
      ["S-mode load from a U page without SUM", 1, ALL | U, "ld a0, 16(s0)", 13],
      ["U-mode load from an S page", 0, ALL, "ld a0, 16(s0)", 13],
      ["amo on a read-only page", 1, V | R | A, "addi s0, s0, 16\namoadd.w a0, a0, (s0)", 15],
      ["jump into a page without X", 1, ALL, "addi s0, s0, 16\njr s0", 12],
      ["non-canonical address", 1, ALL, "li t1, 0x8000000000\nadd s0, s0, t1\nld a0, 16(s0)", 13],
    ])("%s raises a page fault with the address and without effects", (_, privilege, bits, source, cause) => {
      const machine = paged(privilege, [bits], source);
      expect(machine.traps[0]?.[0]).toBe(cause);
      expect(machine.traps[0]![1] & 0xff_ffff_ffffn).toBe(source.includes("0x8000000000") ? 0x80_4000_0010n : 0x4000_0010n);
      expect(Number(machine.word(0x8010_2000) & 0xffn)).toBe(bits);
    });

    it("lets S-mode reach U pages with SUM and execute-only pages with MXR", () => {
      const machine = paged(1, [ALL | U, V | X | A], "sd s0, 0(s0)\nli t1, 0x40001000\nld a0, 0(t1)\nwfi", (1 << 18) | (1 << 19));
      expect(machine.traps).toEqual([]);
      expect(machine.word(0x8020_0000)).toBe(0x4000_0000n);
    });

    it("writes nothing and marks nothing dirty when the second half of a crossing store faults", () => {
      const machine = paged(1, [V | R | W, 0], "li t1, 0x40000ffc\nli a0, -1\nsd a0, 0(t1)");
      expect(machine.traps[0]?.slice(0, 2)).toEqual([15, 0x4000_1000n]);
      expect(machine.word(0x8020_0ff8)).toBe(0n);
      expect(Number(machine.word(0x8010_2000) & 0xffn)).toBe(V | R | W);
    });

    it("reports the second page's address when an instruction crosses into a page that faults", () => {
      const machine = paged(1, [V | R | W | X | A | D, 0], "li t1, 0x40000ffe\nli t2, 0x0513\nsh t2, 0(t1)\nfence.i\njr t1");
      expect(machine.traps[0]).toEqual([12, 0x4000_1000n, 0x4000_0ffen]);
    });

    it("keeps a stale translation at most until sfence.vma", () => {
      const machine = paged(1, [ALL, ALL], `
        li a0, 1
        sd a0, 0(s0)
        li t1, 0x80102000
        ld t2, 8(t1)
        sd t2, 0(t1)
        sfence.vma
        ld a1, 0(s0)
        wfi`);
      expect(machine.x(A1)).toBe(0n);
    });

    it("two pages that share a TLB entry, in turns → one walk each; loads, stores and atomics", () => {
      const machine = paged(1, [ALL], `
        li s1, 0x80200000
        li s2, 300
      1: sd s2, 8(s0)
        ld a0, 8(s1)
        amoadd.d zero, a0, (s1)
        ld a1, 8(s0)
        sd a1, 16(s1)
        addi s2, s2, -1
        bnez s2, 1b
        wfi`);
      expect([machine.word(0x8020_0000), machine.word(0x8020_0010)]).toEqual([45_150n, 1n]);
      expect(machine.events()["tlb-miss"]).toBeLessThan(30);
    });

    it.each([["sfence.vma of the address", "s0"], ["sfence.vma", "zero"]])("a page mapped elsewhere 4,500 times, each time followed by %s → each seen", (_, operand) => {
      const machine = paged(1, [ALL, ALL], `
        li s1, 0x80102000
        ld s2, 0(s1)
        ld s3, 8(s1)
        li t1, 0x80201000
        sd t1, 0(t1)
        li t2, 0x80200000
        sd zero, 0(t2)
        li s4, 4500
      1: sd s3, 0(s1)
        sfence.vma ${operand}
        ld t3, 0(s0)
        bne t3, t1, 2f
        ld t4, 0(t2)
        sd s2, 0(s1)
        sfence.vma ${operand}
        ld t3, 0(s0)
        bnez t3, 2f
        ld t4, 0(t2)
        addi s4, s4, -1
        bnez s4, 1b
      2: mv a0, s4
        wfi`);
      expect([machine.traps, machine.x(A0)]).toEqual([[], 0n]);
    });

    it("refuses page tables outside RAM and pages withheld with an access fault", () => {
      const machine = new BareMachine(16 << 20, engine);
      machine.load(`
        li t0, ${(8n << 60n) | 0x10000n}
        csrw satp, t0
        li t0, 0x20800
        csrs mstatus, t0
        li t1, 0x1000
        csrc mstatus, t1
        ld a0, 0(zero)`);
      machine.run(1000);
      expect(machine.traps[0]?.[0]).toBe(5);
      expect(machine.x(A2)).toBe(0n);
    });
  });
});
