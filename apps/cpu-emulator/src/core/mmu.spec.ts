import { describe, expect, it } from "vitest";
import { Cause, type PhysicalAccess, type PrivilegedCore } from "./engine.ts";
import { HartCells } from "./cells.ts";
import {
  GIVEN_UP, HART_AREA_BASE, HART_AREA_BYTES, PRIVILEGE, TLB_SET, TRAP_CAUSE, TRAP_GPA, TRAP_GUEST, TRAP_INSTRUCTION, TRAP_VALUE, VIRTUAL,
} from "./hart-state.ts";
import { Access, DEVICE, FAULT, Mmu } from "./mmu.ts";
import { LOAD_TABLE } from "./tlb.ts";

const RAM = 0x8000_0000;
const OFFSET = HART_AREA_BASE + HART_AREA_BYTES;
const [V, R, W, X, U, A, D] = [1, 2, 4, 8, 16, 64, 128];
const RWXAD = V | R | W | X | A | D;
const ADUE = 1n << 61n; // menvcfg

class Fixture {
  readonly memory = new WebAssembly.Memory({ initial: (OFFSET + (8 << 20)) / 65536, maximum: (OFFSET + (8 << 20)) / 65536, shared: true });
  readonly cells = new HartCells(this.memory.buffer, 0);
  readonly view = new DataView(this.memory.buffer, OFFSET);
  denied = new Set<string>();
  asked = 0;
  onEnsure: (physical: bigint) => boolean = () => true;
  readonly mmu: Mmu;

  constructor(mode: bigint, privilege = 1) {
    this.cells.setCsr(0x180, (mode << 60n) | (BigInt(RAM) >> 12n));
    this.cells.i32[PRIVILEGE >> 2] = privilege;
    this.cells.setCsr(0x30a, ADUE);
    const core = {
      pmpAllows: (physical: bigint, access: string) => {
        this.asked++;
        return !this.denied.has(`${access} ${physical >> 12n}`);
      },
    } as unknown as PrivilegedCore;
    const physical: PhysicalAccess = { ensurePage: (p) => this.onEnsure(p), mmioRead: () => undefined, mmioWrite: () => false };
    this.mmu = new Mmu({ memory: this.memory, cells: this.cells, core, physical, ramBase: RAM, ramBytes: 8 << 20, ramOffset: OFFSET });
  }

  /** Sets entry `index` of the table at RAM page `table`. */
  pte(table: number, index: number, address: bigint, bits: number): void {
    this.view.setBigUint64(table * 4096 + index * 8, (address >> 12n << 10n) | BigInt(bits), true);
  }
  bits(table: number, index: number): number {
    return Number(this.view.getBigUint64(table * 4096 + index * 8, true) & 0x3ffn);
  }
  /** Offset in RAM, or the cause. */
  translate(address: bigint, access: Access = Access.READ): number | string {
    const place = this.mmu.translate(Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(64, address) >> 32n), access);
    if (place === FAULT) {
      expect(this.cells.u64[TRAP_VALUE >> 3]).toBe(BigInt.asUintN(64, address));
      return `cause ${this.cells.i32[TRAP_CAUSE >> 2]}`;
    }
    return place === DEVICE ? `device 0x${this.mmu.devicePhysical.toString(16)}` : place - OFFSET;
  }
}

describe("senseless page tables (section 11.3.2; H, Two-Stage Address Translation)", () => {
  it("a table that points to itself ends at the last level, in each format", () => {
    for (const [mode, address] of [[8n, 0n], [9n, 0n], [10n, 0n]] as const) {
      const f = new Fixture(mode);
      f.pte(0, 0, 0x8000_0000n, V);
      expect(f.translate(address)).toBe(`cause ${Cause.LOAD_PAGE}`);
    }
  });
  it("non-canonical addresses fault in each format, canonical ones of the next do not reach memory", () => {
    for (const [mode, first] of [[8n, 1n << 38n], [9n, 1n << 47n], [10n, 1n << 56n]] as const) {
      const f = new Fixture(mode);
      for (let index = 0; index < 512; index++) f.pte(0, index, 0n, RWXAD);
      expect(f.translate(first)).toBe(`cause ${Cause.LOAD_PAGE}`);
      expect(f.translate(-first - 1n, Access.EXECUTE)).toBe(`cause ${Cause.INSTRUCTION_PAGE}`);
    }
  });
  it("a leaf of 256 TiB must be aligned to all of it, also in its upper bits (Sv57)", () => {
    const f = new Fixture(10n);
    f.pte(0, 0, 0n, RWXAD);
    expect(f.translate(0x8000_0008n)).toBe(8);
    f.view.setBigUint64(0, (1n << 32n << 10n) | BigInt(RWXAD), true); // 2^44: a multiple of 512 GiB only
    expect(f.translate(0x8000_0008n)).toBe(`cause ${Cause.LOAD_PAGE}`);
    f.view.setBigUint64(0, (1n << 36n << 10n) | BigInt(RWXAD), true);
    expect(f.translate(0x8000_0008n)).toBe(`cause ${Cause.LOAD_ACCESS}`);
  });
  it("tables in devices and beyond memory are access faults of the access's own kind", () => {
    for (const root of [0x1000_0000n, 0x9000_0000n, 1n << 50n]) {
      const f = new Fixture(8n);
      f.cells.setCsr(0x180, (8n << 60n) | (root >> 12n));
      expect([Access.READ, Access.WRITE, Access.EXECUTE].map((access) => f.translate(0n, access))).toEqual([Cause.LOAD_ACCESS, Cause.STORE_ACCESS, Cause.INSTRUCTION_ACCESS].map((cause) => `cause ${cause}`));
    }
  });
});

describe("two stages (H)", () => {
  /** A guest with Sv39 at guest-physical 0, over Sv39x4 with its root at RAM page 4 and 4 KiB leaves from page 9 on. */
  function guest(): Fixture {
    const f = new Fixture(8n);
    f.cells.i32[VIRTUAL >> 2] = 1;
    f.cells.setCsr(0x180, 8n << 60n); // the guest's satp while V = 1
    f.cells.setCsr(0x680, (8n << 60n) | (BigInt(RAM) >> 12n) + 4n);
    f.cells.setCsr(0x60a, ADUE);
    f.pte(4, 0, 0x8000_8000n, V);
    f.pte(8, 0, 0x8000_9000n, V);
    f.pte(9, 0, 0x8001_0000n, RWXAD | U); // guest page 0: its root table, RAM page 16
    f.pte(9, 1, 0x8001_1000n, RWXAD | U);
    f.pte(16, 0, 0x1000n, V);
    f.pte(17, 0, 0x1000n, V);
    f.pte(17, 5, 0x3000n, V | R | W | X); // guest page 3
    f.pte(9, 3, 0x8002_0000n, V | R | W | X | U);
    return f;
  }
  const gpa = (f: Fixture): bigint => f.cells.u64[TRAP_GPA >> 3]! << 2n;

  it("an address goes through the guest's tables and the hypervisor's; A and D are set in both", () => {
    const f = guest();
    expect(f.translate(0x5008n, Access.WRITE)).toBe(0x2_0008);
    expect([f.bits(17, 5) & (A | D), f.bits(9, 3) & (A | D)]).toEqual([A | D, A | D]);
  });
  it("a guest has TLB sets of its own", () => {
    const f = guest();
    f.mmu.contextChanged();
    const set = f.cells.i32[TLB_SET >> 2];
    f.cells.i32[VIRTUAL >> 2] = 0;
    f.mmu.contextChanged();
    expect(f.cells.i32[TLB_SET >> 2]).not.toBe(set);
  });
  it("the guest's own page fault stays one; G-stage's tells the guest-physical address", () => {
    const f = guest();
    expect(f.translate(0x6000n)).toBe(`cause ${Cause.LOAD_PAGE}`);
    f.pte(9, 3, 0x8002_0000n, V | R | A | U);
    expect(f.translate(0x5018n, Access.WRITE)).toBe(`cause ${Cause.STORE_GUEST_PAGE}`);
    expect([gpa(f), f.cells.i32[TRAP_INSTRUCTION >> 2], f.cells.i32[TRAP_GUEST >> 2]]).toEqual([0x3018n, 0, 1]);
    f.pte(9, 3, 0x8002_0000n, RWXAD); // not for user mode
    expect(f.translate(0x5018n)).toBe(`cause ${Cause.LOAD_GUEST_PAGE}`);
  });
  it("a guest's page table that G-stage refuses is a guest-page fault of an implicit access: read, and write for A and D", () => {
    const f = guest();
    f.pte(9, 1, 0x8001_1000n, V | R | A | U);
    expect(f.translate(0x5000n, Access.EXECUTE)).toBe(`cause ${Cause.INSTRUCTION_GUEST_PAGE}`);
    expect([gpa(f), f.cells.i32[TRAP_INSTRUCTION >> 2]]).toEqual([0x1028n, 0x3020]);
    expect(f.bits(17, 5) & A).toBe(0);
    f.pte(9, 1, 0x8001_1000n, V | X | A | U);
    expect(f.translate(0x5000n)).toBe(`cause ${Cause.LOAD_GUEST_PAGE}`);
    expect([gpa(f), f.cells.i32[TRAP_INSTRUCTION >> 2]]).toEqual([0x1000n, 0x3000]);
  });
  it("guest-physical addresses beyond 41 bits fault; the root has 2048 entries", () => {
    const f = guest();
    f.cells.setCsr(0x180, 0n); // bare: the address is guest-physical
    f.view.setBigUint64(4 * 4096 + 2047 * 8, (0x8_0000n << 10n) | BigInt(RWXAD | U), true); // in the fourth page of the root
    expect(f.translate((2047n << 30n) + 0x123n)).toBe(0x123);
    expect(f.translate(1n << 41n)).toBe(`cause ${Cause.LOAD_GUEST_PAGE}`);
    expect(f.translate(-8n)).toBe(`cause ${Cause.LOAD_GUEST_PAGE}`);
  });
  it("HLV acts as the guest without touching the TLB; HLVX needs execute permission, not read", () => {
    const f = guest();
    f.cells.i32[VIRTUAL >> 2] = 0; // the hypervisor runs: the guest's root is in vsatp
    f.cells.setCsr(0x280, 8n << 60n);
    f.cells.setCsr(0x180, 0n);
    f.mmu.contextChanged();
    f.pte(17, 5, 0x3000n, V | X | A);
    f.pte(9, 3, 0x8002_0000n, V | X | A | U);
    const hlv = (execute: boolean) => f.mmu.asGuest(1, execute, () => f.translate(0x5010n));
    expect([hlv(true), hlv(false)]).toEqual([0x2_0010, `cause ${Cause.LOAD_PAGE}`]);
    expect(f.translate(0x8000_0000n)).toBe(0);
  });
});

describe("Sv39", () => {
  it("maps a 2 MiB and a 1 GiB superpage, upper half included", () => {
    const f = new Fixture(8n);
    f.pte(0, 1, 0x8000_1000n, V);
    f.pte(1, 3, 0x8040_0000n, RWXAD);
    f.pte(0, 511, 0x8000_0000n, RWXAD);
    expect(f.translate(0x4060_0000n + 0x12_3456n)).toBe(0x52_3456);
    expect(f.translate(0xffff_ffff_c012_3456n)).toBe(0x12_3456);
    expect(f.translate(0xffff_ffff_c012_3456n, Access.EXECUTE)).toBe(0x12_3456);
  });

  it("faults on misaligned superpages, reserved bits, pointers with A, D or U, and a leaf that never comes", () => {
    const f = new Fixture(8n);
    f.pte(0, 0, 0x8000_1000n, RWXAD);
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_PAGE}`);
    for (const extra of [A, D, U]) {
      f.pte(0, 0, 0x8000_1000n, V | extra);
      expect(f.translate(0n, Access.WRITE)).toBe(`cause ${Cause.STORE_PAGE}`);
    }
    f.pte(0, 0, 0x8000_1000n, V);
    f.pte(1, 0, 0x8000_2000n, V);
    f.pte(2, 0, 0x8000_3000n, V);
    expect(f.translate(0n, Access.EXECUTE)).toBe(`cause ${Cause.INSTRUCTION_PAGE}`);
    f.view.setBigUint64(2 * 4096, (0x8_0003n << 10n) | BigInt(RWXAD) | (1n << 61n), true); // PBMT without menvcfg.PBMTE
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_PAGE}`);
    f.cells.setCsr(0x30a, ADUE | (1n << 62n));
    expect(f.translate(0n)).toBe(0x3000);
    f.view.setBigUint64(2 * 4096, (0x8_0003n << 10n) | BigInt(RWXAD) | (3n << 61n), true); // PBMT 3 is reserved
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_PAGE}`);
    f.view.setBigUint64(2 * 4096, (0x8_0003n << 10n) | BigInt(RWXAD) | (1n << 54n), true);
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_PAGE}`);
  });

  it("faults without A, or without D on a store, when menvcfg.ADUE is clear (Svade), and changes nothing", () => {
    const f = new Fixture(8n);
    f.cells.setCsr(0x30a, 0n);
    f.pte(0, 0, 0x8000_0000n, V | R | W | X);
    expect(f.translate(0x1000n)).toBe(`cause ${Cause.LOAD_PAGE}`);
    expect(f.translate(0x1000n, Access.EXECUTE)).toBe(`cause ${Cause.INSTRUCTION_PAGE}`);
    f.pte(0, 0, 0x8000_0000n, V | R | W | X | A);
    expect(f.translate(0x1000n)).toBe(0x1000);
    expect(f.translate(0x1000n, Access.WRITE)).toBe(`cause ${Cause.STORE_PAGE}`);
    expect(f.bits(0, 0)).toBe(V | R | W | X | A);
  });

  it("maps 64 KiB by one NAPOT entry; other sizes and superpages with N fault (Svnapot)", () => {
    const f = new Fixture(8n);
    const N = 1n << 63n;
    f.pte(0, 0, 0x8000_1000n, V);
    f.pte(1, 0, 0x8000_2000n, V);
    for (let i = 0; i < 16; i++) f.view.setBigUint64(2 * 4096 + i * 8, (0x8_0028n << 10n) | BigInt(RWXAD) | N, true);
    expect(f.translate(0x5123n)).toBe(0x2_5123);
    expect(f.translate(0xf123n)).toBe(0x2_f123);
    f.view.setBigUint64(2 * 4096, (0x8_0024n << 10n) | BigInt(RWXAD) | N, true);
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_PAGE}`);
    f.view.setBigUint64(4096, (0x8_0008n << 10n) | BigInt(RWXAD) | N, true);
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_PAGE}`);
  });

  it("takes an access fault for tables and pages outside memory and for what PMP denies", () => {
    const f = new Fixture(8n);
    f.pte(0, 0, 0x1000n, V);
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_ACCESS}`);
    f.view.setBigUint64(0, (1n << 43n << 10n) | BigInt(RWXAD), true);
    expect(f.translate(0n)).toBe(`cause ${Cause.LOAD_ACCESS}`);
    f.pte(0, 0, 0n, RWXAD);
    expect(f.translate(0x1000_0000n)).toBe("device 0x10000000");
    f.pte(0, 0, 0x8000_0000n, RWXAD);
    f.denied.add(`write ${0x8000_5000n >> 12n}`);
    expect(f.translate(0x5008n)).toBe(0x5008);
    expect(f.translate(0x5008n, Access.WRITE)).toBe(`cause ${Cause.STORE_ACCESS}`);
    f.denied.add(`read ${0x8000_0000n >> 12n}`);
    f.cells.setCsr(0x3a0, 1n); // some PMP register changed
    f.mmu.flushTlb();
    expect(f.translate(0x6000n)).toBe(`cause ${Cause.LOAD_ACCESS}`);
  });

  it("asks PMP once per page until a PMP register changes", () => {
    const f = new Fixture(8n);
    f.pte(0, 0, 0x8000_0000n, RWXAD);
    f.translate(0x5000n);
    const { asked } = f;
    f.mmu.flushTlb();
    f.translate(0x5000n);
    expect(f.asked).toBe(asked);
  });

  it("sets no bits when it probes", () => {
    const f = new Fixture(8n);
    f.pte(0, 0, 0x8000_0000n, V | R | W);
    expect(f.mmu.translate(0x5000, 0, Access.WRITE, true)).toBe(OFFSET + 0x5000);
    expect(f.bits(0, 0)).toBe(V | R | W);
    f.translate(0x5000n, Access.WRITE);
    expect(f.bits(0, 0)).toBe(V | R | W | A | D);
  });

  it("walks again when pages were given up while a page was fetched", () => {
    const f = new Fixture(8n);
    f.pte(0, 0, 0x8000_1000n, V);
    f.pte(1, 0, 0x8000_2000n, V);
    f.pte(2, 5, 0x8000_5000n, RWXAD);
    let first = true;
    f.onEnsure = (physical) => {
      if (physical === 0x8000_5000n && first) {
        first = false;
        f.pte(2, 5, 0x8000_6000n, RWXAD);
        f.cells.i32[GIVEN_UP >> 2]!++;
      }
      return true;
    };
    expect(f.translate(0x5010n)).toBe(0x6010);
  });
});

describe("Sv48", () => {
  it("walks four levels and refuses non-canonical addresses", () => {
    const f = new Fixture(9n);
    f.pte(0, 256, 0x8000_1000n, V);
    f.pte(1, 2, 0x8000_2000n, V);
    f.pte(2, 3, 0x8000_3000n, V);
    f.pte(3, 4, 0x8000_7000n, RWXAD);
    expect(f.translate(0xffff_8000_8060_4008n)).toBe(0x7008);
    expect(f.translate(0x0000_8000_8060_4008n)).toBe(`cause ${Cause.LOAD_PAGE}`);
  });
});

describe("flushing", () => {
  /** Low half of the tag in the load table for a virtual page. */
  const tag = (f: Fixture, page: number): number =>
    new Int32Array(f.memory.buffer)[(f.cells.i32[TLB_SET >> 2]! + LOAD_TABLE + page * 16) >> 2]!;

  it("drops one 4 KiB page on sfence.vma of its address and everything where superpages were seen", () => {
    const f = new Fixture(8n);
    f.pte(0, 0, 0x8000_1000n, V);
    f.pte(1, 0, 0x8000_2000n, V);
    for (const page of [5, 6]) f.pte(2, page, 0x8000_0000n + BigInt(page << 12), RWXAD);
    f.pte(1, 1, 0x8020_0000n, RWXAD);
    f.translate(0x5000n);
    f.translate(0x6000n);
    const flushes = f.mmu.flushes;
    expect([tag(f, 5), tag(f, 6)]).toEqual([0x5000, 0x6000]);
    f.mmu.flushPage(0x5000n);
    expect([tag(f, 5), tag(f, 6)]).toEqual([-1, 0x6000]);
    expect([f.mmu.flushes, f.mmu.pageFlushes]).toEqual([flushes, 1]);
    f.translate(0x20_3000n); // through the superpage
    f.mmu.flushPage(0x20_0000n);
    expect(f.mmu.flushes).toBe(flushes + 1);
  });
});
