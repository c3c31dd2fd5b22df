import { describe, expect, it } from "vitest";
import { assemble } from "./assemble.ts";
import { CSR_BY_NUMBER, CSRS } from "./csr.ts";
import { decode, type Decoded } from "./decode.ts";
import { evaluate, HartTrap, type CsrAccess, type Environment } from "./evaluate.ts";
import type { AmoOp, Bytes, CacheBlockOp, SystemOp } from "./ir.ts";
import { FLAG, ROUNDING } from "./softfloat.ts";

const BASE = 0x8000_0000n;
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** A hart with 4 KiB at BASE + 0x1000, which records what it is asked. */
class TestHart implements Environment {
  pc = BASE;
  readonly x = Array.from({ length: 32 }, () => 0n);
  readonly f = Array.from({ length: 32 }, () => 0n);
  readonly memory = new DataView(new ArrayBuffer(4096));
  readonly csrAccesses: CsrAccess[] = [];
  readonly systemOps: SystemOp[] = [];
  readonly cacheBlocks: CacheBlockOp[] = [];
  readonly guestAccesses: string[] = [];
  refuses = false;
  fences = 0;
  flags = 0;
  mode: number = ROUNDING.RNE;
  fpOn = true;
  reserved = true;

  readX(register: number): bigint { return this.x[register] ?? 0n; }
  writeX(register: number, value: bigint): void { this.x[register] = value; }
  readF(register: number): bigint { return this.f[register] ?? 0n; }
  writeF(register: number, value: bigint): void { this.f[register] = value; }
  fpEnabled(): boolean { return this.fpOn; }
  frm(): number { return this.mode; }
  accrue(flags: number): void { this.flags |= flags; }

  load(address: bigint, bytes: Bytes, signed: boolean): bigint {
    const offset = this.#offset(address, bytes, 13);
    let value = 0n;
    for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.memory.getUint8(offset + i));
    return signed ? u64(BigInt.asIntN(8 * bytes, value)) : value;
  }
  store(address: bigint, bytes: Bytes, value: bigint): void {
    const offset = this.#offset(address, bytes, 15);
    for (let i = 0; i < bytes; i++) this.memory.setUint8(offset + i, Number((value >> BigInt(8 * i)) & 255n));
  }
  amo(op: AmoOp, address: bigint, bytes: 4 | 8, value: bigint): bigint {
    const old = this.load(address, bytes, true);
    const result = op === "add" ? old + value : op === "swap" ? value : old | value;
    this.store(address, bytes, result);
    return old;
  }
  lr(address: bigint, bytes: 4 | 8): bigint { return this.load(address, bytes, true); }
  sc(address: bigint, bytes: 4 | 8, value: bigint): boolean {
    if (this.reserved) this.store(address, bytes, value);
    return this.reserved;
  }
  csr(access: CsrAccess): bigint {
    this.csrAccesses.push(access);
    return 0x55n;
  }
  system(op: SystemOp): bigint | undefined {
    this.systemOps.push(op);
    return op === "mret" ? 0x1234n : undefined;
  }
  fence(): void { this.fences++; }
  require(): void {
    if (this.refuses) throw new HartTrap(2, 0n);
  }
  guestLoad(address: bigint, bytes: Bytes, signed: boolean, execute: boolean): bigint {
    this.guestAccesses.push(`load ${bytes}${execute ? " execute" : ""}`);
    return this.load(address, bytes, signed);
  }
  guestStore(address: bigint, bytes: Bytes, value: bigint): void {
    this.guestAccesses.push(`store ${bytes}`);
    this.store(address, bytes, value);
  }
  cacheBlock(op: CacheBlockOp): void { this.cacheBlocks.push(op); }

  #offset(address: bigint, bytes: number, cause: number): number {
    const offset = address - BASE - 0x1000n;
    if (offset < 0n || offset + BigInt(bytes) > 4096n) throw new HartTrap(cause, address);
    return Number(offset);
  }
}

function decodeOne(source: string): Decoded {
  const { bytes } = assemble(source, { base: BASE });
  const view = new DataView(bytes.buffer);
  const decoded = decode(bytes.length === 2 ? view.getUint16(0, true) : view.getUint32(0, true));
  if (!decoded) throw new Error(`${source}: does not decode`);
  return decoded;
}

/** Runs one instruction with a1 and a2 set; gives a0 and the next pc. */
function run(source: string, a1 = 0n, a2 = 0n, hart = new TestHart()): { a0: bigint; next: bigint; hart: TestHart } {
  hart.x[11] = u64(a1);
  hart.x[12] = u64(a2);
  const next = evaluate(decodeOne(source), hart);
  return { a0: hart.x[10] ?? 0n, next, hart };
}

const MIN = -(1n << 63n);
const MIN32 = -(1n << 31n);

describe("evaluate, cache blocks (CMO)", () => {
  it("cbo.zero clears the 64 bytes around its address, and nothing when it is refused", () => {
    const hart = new TestHart();
    for (let i = 0; i < 256; i++) hart.memory.setUint8(i, 0xff);
    hart.refuses = true;
    expect(() => run("cbo.zero (a1)", BASE + 0x1050n, 0n, hart)).toThrow(HartTrap);
    expect(hart.memory.getUint8(0x50)).toBe(0xff);
    hart.refuses = false;
    run("cbo.zero (a1)", BASE + 0x1050n, 0n, hart);
    expect(Array.from({ length: 256 }, (_, i) => i).filter((i) => hart.memory.getUint8(i) === 0)).toEqual(Array.from({ length: 64 }, (_, i) => 64 + i));
  });
  it("cbo.inval, cbo.clean and cbo.flush are told apart; prefetches do nothing", () => {
    const hart = new TestHart();
    for (const op of ["inval", "clean", "flush"]) run(`cbo.${op} (a1)`, BASE, 0n, hart);
    run("ori zero,a1,32", 0n, 0n, hart); // prefetch.i
    expect(hart.cacheBlocks).toEqual(["inval", "clean", "flush"]);
  });
});

describe("evaluate, hypervisor loads and stores (H)", () => {
  it("go through the guest's translation with the width, sign and permission of their names", () => {
    const hart = new TestHart();
    run("hsv.w a2,(a1)", BASE + 0x1008n, 0x8000_8181n, hart);
    const loads = ["hlv.b", "hlv.bu", "hlv.h", "hlv.hu", "hlvx.hu", "hlv.w", "hlvx.wu"].map((name) => run(`${name} a0,(a1)`, BASE + 0x1008n, 0n, hart).a0);
    expect(loads).toEqual([-127n, 0x81n, -0x7e7fn, 0x8181n, 0x8181n, -0x7fff_7e7fn, 0x8000_8181n].map(u64));
    expect(hart.guestAccesses).toEqual(["store 4", "load 1", "load 1", "load 2", "load 2", "load 2 execute", "load 4", "load 4 execute"]);
  });
});

describe("evaluate, integers", () => {
  it.each<[string, bigint, bigint, bigint]>([
    ["add a0,a1,a2", (1n << 64n) - 1n, 2n, 1n],
    ["sub a0,a1,a2", 0n, 1n, -1n],
    ["clmul a0,a1,a2", 0xfn, 0xfn, 0x55n],
    ["clmul a0,a1,a2", MIN, 3n, MIN],
    ["clmulh a0,a1,a2", MIN, 6n, 3n],
    ["clmulh a0,a1,a2", -1n, -1n, 0x5555_5555_5555_5555n],
    ["clmulr a0,a1,a2", MIN, 3n, 3n],
    ["czero.eqz a0,a1,a2", 7n, 0n, 0n],
    ["czero.eqz a0,a1,a2", 7n, 1n, 7n],
    ["czero.nez a0,a1,a2", 7n, 0n, 7n],
    ["czero.nez a0,a1,a2", 7n, MIN, 0n],
    ["addw a0,a1,a2", 0x7fff_ffffn, 1n, MIN32],
    ["subw a0,a1,a2", 0n, 1n, -1n],
    ["addiw a0,a1,-1", 0x1_0000_0000n, 0n, -1n],
    ["sll a0,a1,a2", 1n, 65n, 2n],
    ["srl a0,a1,a2", -1n, 60n, 15n],
    ["sra a0,a1,a2", MIN, 63n, -1n],
    ["sllw a0,a1,a2", 1n, 63n, MIN32],
    ["srlw a0,a1,a2", -1n, 0n, -1n],
    ["srlw a0,a1,a2", -1n, 1n, 0x7fff_ffffn],
    ["sraw a0,a1,a2", 0x8000_0000n, 4n, -(1n << 27n)],
    ["srliw a0,a1,31", 0xffff_ffffn, 0n, 1n],
    ["slti a0,a1,-1", -2n, 0n, 1n],
    ["sltiu a0,a1,-1", -2n, 0n, 1n],
    ["sltu a0,a1,a2", 1n, -1n, 1n],
    ["slt a0,a1,a2", 1n, -1n, 0n],
    ["mulh a0,a1,a2", -1n, -1n, 0n],
    ["mulhu a0,a1,a2", -1n, -1n, -2n],
    ["mulhsu a0,a1,a2", -1n, -1n, -1n],
    ["mulw a0,a1,a2", 0x1_0001_0000n, 0x8000n, MIN32],
    // M, table "Semantics for division by zero and division overflow"
    ["div a0,a1,a2", 7n, 0n, -1n],
    ["divu a0,a1,a2", 7n, 0n, -1n],
    ["rem a0,a1,a2", 7n, 0n, 7n],
    ["remu a0,a1,a2", 7n, 0n, 7n],
    ["div a0,a1,a2", MIN, -1n, MIN],
    ["rem a0,a1,a2", MIN, -1n, 0n],
    ["div a0,a1,a2", -7n, 2n, -3n],
    ["rem a0,a1,a2", -7n, 2n, -1n],
    ["divw a0,a1,a2", MIN32, -1n, MIN32],
    ["remw a0,a1,a2", MIN32, -1n, 0n],
    ["divuw a0,a1,a2", 7n, 0n, -1n],
    ["remuw a0,a1,a2", 0x8000_0000n, 0n, MIN32],
    ["add.uw a0,a1,a2", -1n, 1n, 0x1_0000_0000n],
    ["sh3add a0,a1,a2", 2n, 5n, 21n],
    ["sh1add.uw a0,a1,a2", -1n, 0n, 0x1_ffff_fffen],
    ["slli.uw a0,a1,4", -1n, 0n, 0xf_ffff_fff0n],
    ["andn a0,a1,a2", 15n, 5n, 10n],
    ["orn a0,a1,a2", 0n, 5n, -6n],
    ["xnor a0,a1,a2", 15n, 5n, -11n],
    ["clz a0,a1", 0n, 0n, 64n],
    ["clz a0,a1", 1n, 0n, 63n],
    ["ctz a0,a1", 0n, 0n, 64n],
    ["ctz a0,a1", 8n, 0n, 3n],
    ["cpop a0,a1", -1n, 0n, 64n],
    ["clzw a0,a1", 0x1_0000_0000n, 0n, 32n],
    ["ctzw a0,a1", 0x1_0000_0000n, 0n, 32n],
    ["cpopw a0,a1", -1n, 0n, 32n],
    ["min a0,a1,a2", -1n, 1n, -1n],
    ["minu a0,a1,a2", -1n, 1n, 1n],
    ["max a0,a1,a2", -1n, 1n, 1n],
    ["maxu a0,a1,a2", -1n, 1n, -1n],
    ["sext.b a0,a1", 0x180n, 0n, -128n],
    ["sext.h a0,a1", 0x18000n, 0n, -32768n],
    ["zext.h a0,a1", -1n, 0n, 0xffffn],
    ["rol a0,a1,a2", MIN, 1n, 1n],
    ["rol a0,a1,a2", 5n, 64n, 5n],
    ["ror a0,a1,a2", 1n, 1n, MIN],
    ["rori a0,a1,4", 0x1fn, 0n, -0xfff_ffff_ffff_ffffn],
    ["rolw a0,a1,a2", 0x8000_0000n, 1n, 1n],
    ["rorw a0,a1,a2", 1n, 1n, MIN32],
    ["roriw a0,a1,0", 0x8000_0000n, 0n, MIN32],
    ["orc.b a0,a1", 0x0100_8000_7f00_00ffn, 0n, -0xff_00ff_00ff_ff01n],
    ["orc.b a0,a1", -1n, 0n, -1n],
    ["rev8 a0,a1", 0x0102_0304_0506_0708n, 0n, 0x0807_0605_0403_0201n],
    ["bclr a0,a1,a2", -1n, 64n, -2n],
    ["bexti a0,a1,63", MIN, 0n, 1n],
    ["binvi a0,a1,3", 8n, 0n, 0n],
    ["bseti a0,a1,63", 0n, 0n, MIN],
    ["c.lui a0,0xfffff", 0n, 0n, -4096n],
    ["c.li a0,-32", 0n, 0n, -32n],
    ["c.mv a0,a1", 5n, 0n, 5n],
  ])("%s of %i and %i is %i", (source, a1, a2, expected) => {
    expect(run(source, a1, a2).a0).toBe(u64(expected));
  });

  it("x0 reads zero and is never written", () => {
    const hart = new TestHart();
    expect(run("addi x0, a1, 1", 4n, 0n, hart).hart.x[0]).toBe(0n);
  });
});

describe("evaluate, control transfer", () => {
  it("a taken branch goes to pc + offset, one not taken to the next instruction", () => {
    expect(run("beq a1, a2, . - 8", 1n, 1n).next).toBe(BASE - 8n);
    expect(run("beq a1, a2, . - 8", 1n, 2n).next).toBe(BASE + 4n);
    expect(run("bltu a1, a2, . + 8", 1n, -1n).next).toBe(BASE + 8n);
    expect(run("blt a1, a2, . + 8", 1n, -1n).next).toBe(BASE + 4n);
  });

  it("jalr with rd = rs1 jumps to the old value, with bit 0 cleared, and links", () => {
    const { next, hart } = run("jalr a1, 3(a1)", 0x1000n);
    expect(next).toBe(0x1002n);
    expect(hart.x[11]).toBe(BASE + 4n);
  });

  it("a compressed jump links the address two bytes on", () => {
    const { next, hart } = run("c.jalr a1", 0x2000n);
    expect(next).toBe(0x2000n);
    expect(hart.x[1]).toBe(BASE + 2n);
  });
});

describe("evaluate, memory", () => {
  const at = BASE + 0x1000n;

  it("loads extend, stores truncate", () => {
    const hart = new TestHart();
    run("sd a2, 8(a1)", at, 0x8182_8384_8586_8788n, hart);
    expect(run("lb a0, 8(a1)", at, 0n, hart).a0).toBe(u64(-0x78n));
    expect(run("lhu a0, 8(a1)", at, 0n, hart).a0).toBe(0x8788n);
    expect(run("lw a0, 8(a1)", at, 0n, hart).a0).toBe(u64(-0x7a79_7878n));
    expect(run("lwu a0, 9(a1)", at, 0n, hart).a0).toBe(0x8485_8687n);
    run("sb a2, 8(a1)", at, 0x1ffn, hart);
    expect(run("ld a0, 8(a1)", at, 0n, hart).a0).toBe(0x8182_8384_8586_87ffn);
  });

  it("a faulting load leaves its destination alone", () => {
    const hart = new TestHart();
    hart.x[10] = 99n;
    expect(() => run("ld a0, 0(a1)", 0n, 0n, hart)).toThrow(HartTrap);
    expect(hart.x[10]).toBe(99n);
  });

  it("sc gives 0 when it stored and 1 when not", () => {
    const hart = new TestHart();
    expect(run("sc.w a0, a2, (a1)", at, 7n, hart).a0).toBe(0n);
    hart.reserved = false;
    expect(run("sc.w a0, a2, (a1)", at, 8n, hart).a0).toBe(1n);
    expect(run("lr.w a0, (a1)", at, 0n, hart).a0).toBe(7n);
    expect(run("amoadd.w a0, a2, (a1)", at, -8n, hart).a0).toBe(7n);
    expect(run("lw a0, (a1)", at, 0n, hart).a0).toBe(u64(-1n));
  });

  it("fences reach the environment", () => {
    expect(run("fence rw,w").hart.fences).toBe(1);
    expect(run("fence.i").hart.systemOps).toEqual(["fence.i"]);
  });
});

describe("evaluate, CSRs and system", () => {
  it.each<[string, Partial<CsrAccess>]>([
    ["csrrw a0, mscratch, a1", { op: "write", operand: 7n, reads: true, writes: true }],
    ["csrrw x0, mscratch, a1", { reads: false, writes: true }],
    ["csrrs a0, mscratch, x0", { op: "set", reads: true, writes: false }],
    ["csrrs x0, mscratch, a1", { reads: true, writes: true }],
    ["csrrci a0, mscratch, 0", { op: "clear", reads: true, writes: false }],
    ["csrrwi x0, mscratch, 0", { op: "write", operand: 0n, reads: false, writes: true }],
    ["csrrsi a0, mscratch, 31", { op: "set", operand: 31n, reads: true, writes: true }],
  ])("%s reads and writes as Zicsr's table says", (source, expected) => {
    const { hart } = run(source, 7n);
    expect(hart.csrAccesses).toEqual([expect.objectContaining({ number: 0x340, ...expected })]);
  });

  it("system operations may choose the next pc", () => {
    expect(run("mret").next).toBe(0x1234n);
    expect(run("wfi").next).toBe(BASE + 4n);
    expect(run("c.ebreak")).toMatchObject({ next: BASE + 2n, hart: { systemOps: ["ebreak"] } });
  });
});

describe("evaluate, floating point", () => {
  const withF = (fa1: bigint, fa2 = 0n): TestHart => {
    const hart = new TestHart();
    hart.f[11] = fa1;
    hart.f[12] = fa2;
    return hart;
  };
  const ONE_S = 0xffff_ffff_3f80_0000n;

  it("single results are NaN-boxed, moves and loads too", () => {
    expect(run("fadd.s fa0,fa1,fa2", 0n, 0n, withF(ONE_S, ONE_S)).hart.f[10]).toBe(0xffff_ffff_4000_0000n);
    expect(run("fmv.w.x fa0,a1", 0x1_3f80_0000n).hart.f[10]).toBe(ONE_S);
    expect(run("fmv.x.w a0,fa1", 0n, 0n, withF(0x1234_5678_8000_0000n)).a0).toBe(u64(MIN32));
    const hart = new TestHart();
    hart.store(BASE + 0x1000n, 4, 0x3f80_0000n);
    expect(run("flw fa0,0(a1)", BASE + 0x1000n, 0n, hart).hart.f[10]).toBe(ONE_S);
  });

  it("flags accrue, and rm 7 takes frm", () => {
    const third = (source: string, mode: number): TestHart => {
      const hart = withF(0x3ff0_0000_0000_0000n, 0x4008_0000_0000_0000n);
      hart.mode = mode;
      return run(source, 0n, 0n, hart).hart;
    };
    expect(third("fdiv.d fa0,fa1,fa2", ROUNDING.RUP).f[10]).toBe(0x3fd5_5555_5555_5556n);
    expect(third("fdiv.d fa0,fa1,fa2,rtz", ROUNDING.RUP).f[10]).toBe(0x3fd5_5555_5555_5555n);
    expect(third("fdiv.d fa0,fa1,fa2", ROUNDING.RNE).flags).toBe(FLAG.NX);
  });

  it("a reserved frm is an illegal instruction when it is used, and only then", () => {
    const hart = withF(ONE_S, ONE_S);
    hart.mode = 5;
    expect(() => run("fadd.s fa0,fa1,fa2", 0n, 0n, hart)).toThrow(expect.objectContaining({ cause: 2 }));
    expect(() => run("fadd.s fa0,fa1,fa2,rne", 0n, 0n, hart)).not.toThrow();
    expect(() => run("fmin.s fa0,fa1,fa2", 0n, 0n, hart)).not.toThrow();
  });

  it("with mstatus.FS Off every F and D instruction is illegal, loads and compressed ones too", () => {
    for (const source of ["fadd.s fa0,fa1,fa2", "fld fa0,0(a1)", "c.fsdsp fa0,0(sp)", "fmv.x.d a0,fa0"]) {
      const hart = new TestHart();
      hart.fpOn = false;
      expect(() => run(source, BASE + 0x1000n, 0n, hart), source).toThrow(expect.objectContaining({ cause: 2 }));
    }
  });
});

describe("CSR table", () => {
  it("numbers and names are unique; writable and reset bits are readable", () => {
    expect(CSR_BY_NUMBER.size).toBe(CSRS.length);
    expect(new Set(CSRS.map(({ name }) => name)).size).toBe(CSRS.length);
    expect(CSRS.filter(({ readMask, writeMask }) => (writeMask & ~readMask) !== 0n).map(({ name }) => name)).toEqual([]);
    expect(CSRS.filter(({ readMask, reset }) => (reset & ~readMask) !== 0n).map(({ name }) => name)).toEqual([]);
  });

  it("privilege and read-only follow from the number (privileged manual, CSR Address Mapping Conventions)", () => {
    expect(CSR_BY_NUMBER.get(0xc01)).toMatchObject({ name: "time", privilege: 0, readOnly: true, writeMask: 0n });
    expect(CSR_BY_NUMBER.get(0x180)).toMatchObject({ name: "satp", privilege: 1, readOnly: false });
    expect(CSR_BY_NUMBER.get(0xf14)).toMatchObject({ name: "mhartid", privilege: 3, readOnly: true });
  });
});
