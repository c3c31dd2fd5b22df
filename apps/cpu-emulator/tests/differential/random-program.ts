import { randomWords } from "./random-words.ts";
import {
  assemble, COMPRESSED_INSTRUCTIONS, decode, disassemble, encode, FORMATS, INSTRUCTIONS, matchesCompressed, usesFloatState,
  type Compressed, type Instruction,
} from "@polyvisor/isa";

/**
 * Images of many short random programs (*blocks*) that run on any RV64GC machine: a harness loads all registers of a
 * block, jumps into its code in the block's mode, and stores all registers and the trap that ended it. Two machines
 * agree when they leave the same bytes in the block area.
 */
export const RAM = 0x8000_0000;
const BLOCKS = RAM + 0x20_0000; // the second 2 MiB: paged by 4 KiB in the modes with translation
const TABLES = RAM + 0x60_0000;
/** The harness writes DONE_MARK here when all blocks have run (QEMU 7.2 hangs when the test finisher is used under QMP). */
export const DONE = TABLES + 0xfff8;
export const DONE_MARK = 0x5555;
const GVA = 1n << 38n; // mstatus
const SUPERVISOR_ONLY = ["Zicsr", "H", "Privileged"] as const;
const AMO_FAULTS: ReadonlyMap<bigint, bigint> = new Map([[13n, 15n], [21n, 23n]]);
const GUEST_ROOT = TABLES + 0x8000;
/** Addresses of the blocks to run, in order; behind the harness. And where in it the harness is. */
const LIST = RAM + 0x1f_0000;
const CURSOR = RAM + 0x1f_8000;
const BLOCK_BYTES = 0xa00; // not a divisor of a page: data areas of some blocks cross pages
/** Offsets in a block. */
const AT = { x: 0, f: 0x100, fcsr: 0x200, cause: 0x208, epc: 0x210, tval: 0x218, entry: 0x220, mode: 0x228, status: 0x230, tval2: 0x238, data: 0x400 } as const;
/** Registers that code must not change: stack and data pointers into the block's data. */
const SP = 2;
const DATA = 30; // anywhere, also misaligned and at the end of a page
const ATOMIC = 29; // a multiple of 8
const FIXED: ReadonlySet<number> = new Set([SP, DATA, ATOMIC]);

export interface Mode {
  readonly name: string;
  readonly privilege: 0 | 1 | 3;
  /** Sv39 with random permissions on the data pages. */
  readonly paged: boolean;
  /** As a guest (H): Sv39x4 below, with random permissions too. */
  readonly virtual?: boolean;
}
export const MODES: readonly Mode[] = [
  { name: "M", privilege: 3, paged: false },
  { name: "S, Sv39", privilege: 1, paged: true },
  { name: "U, Sv39", privilege: 0, paged: true },
  { name: "VS, Sv39 over Sv39x4", privilege: 1, paged: true, virtual: true },
  { name: "VU, Sv39 over Sv39x4", privilege: 0, paged: true, virtual: true },
  { name: "VS, bare over Sv39x4", privilege: 1, paged: false, virtual: true },
];

export interface RandomImage {
  readonly bytes: Uint8Array;
  /** Where the results lie, from the start of RAM. */
  readonly resultOffset: number;
  readonly resultBytes: number;
  /** Compares two result areas; a description of the first difference. */
  difference(expected: Uint8Array, actual: Uint8Array): string | undefined;
  /** The block of the first difference; undefined when there is none, or when it lies in the page tables. */
  differentBlock(expected: Uint8Array, actual: Uint8Array): Block | undefined;
}

/** xorshift128+-like generator on 32-bit words (sfc32 by Chris Doty-Humphrey): the same numbers everywhere. */
export function random(seed: number): () => number {
  let [a, b, c, d] = [seed | 0, 0x9e37_79b9, 0x243f_6a88, 1];
  const next = (): number => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}

const INTEGER_CORNERS = [
  0n, 1n, 2n, 7n, 31n, 32n, 63n, 64n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn,
  0x1_0000_0000n, 0x7fff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n, 0xffff_ffff_8000_0000n, 0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_fffen,
];
const D_CORNERS = [
  0n, 0x8000_0000_0000_0000n, 0x3ff0_0000_0000_0000n, 0xbff0_0000_0000_0000n, 0x3ff8_0000_0000_0000n, 0x4008_0000_0000_0000n,
  0x7ff0_0000_0000_0000n, 0xfff0_0000_0000_0000n, 0x7ff8_0000_0000_0000n, 0x7ff0_0000_0000_0001n, 0xfff8_0000_0000_1234n, 1n,
  0x000f_ffff_ffff_ffffn, 0x0010_0000_0000_0000n, 0x0010_0000_0000_0001n, 0x7fef_ffff_ffff_ffffn, 0x3fef_ffff_ffff_ffffn,
  0x41e0_0000_0000_0000n, 0xc1e0_0000_0000_0000n, 0x41df_ffff_ffe0_0000n, 0x43e0_0000_0000_0000n, 0x43f0_0000_0000_0000n,
  0x3fe0_0000_0000_0000n, 0x36a0_0000_0000_0000n, 0x3810_0000_0000_0000n, 0x47ef_ffff_e000_0000n, 0x1ff0_0000_0000_0000n,
];
const S_CORNERS = [
  0n, 0x8000_0000n, 0x3f80_0000n, 0xbf80_0000n, 0x3fc0_0000n, 0x4040_0000n, 0x7f80_0000n, 0xff80_0000n, 0x7fc0_0000n, 0x7f80_0001n,
  1n, 0x007f_ffffn, 0x0080_0000n, 0x0080_0001n, 0x7f7f_ffffn, 0x3f7f_ffffn, 0x4f00_0000n, 0xcf00_0000n, 0x4eff_ffffn, 0x5f00_0000n, 0x5f80_0000n, 0x3f00_0000n,
];

// QEMU's wrs gives the reservation up, which Zawrs neither asks for nor forbids.
const EXCLUDED = new Set(["wfi", "mret", "sret", "sfence.vma", "sinval.vma", "ebreak", "wrs.nto", "wrs.sto"]);
const CANDIDATES = INSTRUCTIONS.filter((i) => !EXCLUDED.has(i.name));
/** Compressed rows whose memory operand, if any, is relative to sp, and which do not jump or stop. */
const COMPRESSED = COMPRESSED_INSTRUCTIONS.filter((c) => !["jal", "jalr", "ebreak"].includes(c.expands) && (!c.operands.includes("mem") || c.registers.rs1 === SP) && !c.name.startsWith("c.b"));
/** CSRs that behave the same everywhere and do not disturb the harness. */
const CSRS_USED = [0x001, 0x002, 0x003, 0x140, 0x142, 0x143, 0x343, 0xfff];

export class Generator {
  readonly #next: () => number;
  readonly #candidates: readonly Instruction[];
  readonly #compressedCandidates: readonly Compressed[];
  constructor(seed: number, without: ReadonlySet<string>) {
    this.#next = random(seed);
    // sc.w after lr.d may fail or succeed: one width per image.
    const otherWidth = seed & 1 ? /^(lr|sc)\.w$/ : /^(lr|sc)\.d$/;
    this.#compressedCandidates = COMPRESSED.filter((row) => !without.has(row.name));
    this.#candidates = CANDIDATES.filter((row) => !without.has(row.name) && !otherWidth.test(row.name));
  }
  below(limit: number): number {
    return this.#next() % limit;
  }
  bits(): number {
    return this.#next();
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
  word64(): bigint {
    return (BigInt(this.#next()) << 32n) | BigInt(this.#next());
  }
  integer(): bigint {
    return this.below(3) ? this.pick(INTEGER_CORNERS) : this.word64() >> BigInt(this.below(64));
  }
  float(): bigint {
    switch (this.below(6)) {
      case 0: return this.pick(D_CORNERS);
      case 1: return (this.word64() & 0x800f_ffff_ffff_ffffn) | (BigInt(1023 - 30 + this.below(60)) << 52n); // moderate exponent
      case 2: return 0xffff_ffff_0000_0000n | this.pick(S_CORNERS);
      case 3: return 0xffff_ffff_0000_0000n | BigInt(((this.bits() & 0x807f_ffff) | ((127 - 20 + this.below(40)) << 23)) >>> 0);
      case 4: return BigInt.asUintN(64, BigInt(new BigUint64Array(new Float64Array([this.below(2000) - 1000]).buffer)[0]!));
      default: return this.word64();
    }
  }

  /** One random instruction, or two when they belong together. Jump targets are filled in by the caller. */
  instruction(): number[] {
    if (this.below(4) === 0) return [this.#compressed()];
    const instruction = this.pick(this.#candidates);
    return this.#encode(instruction);
  }

  #destination(): number {
    for (;;) {
      const rd = this.below(32);
      if (!FIXED.has(rd)) return rd;
    }
  }

  #encode(instruction: Instruction): number[] {
    const { name } = instruction;
    const operands: readonly string[] = FORMATS[instruction.format].operands;
    const fields = {
      rd: operands.includes("fd") ? this.below(32) : this.#destination(),
      rs1: this.below(32), rs2: this.below(32), rs3: this.below(32),
      rm: this.pick([0, 1, 2, 3, 4, 7, 7, 7, 7, 7]),
      ordering: this.below(4),
      imm: 0,
    };
    const immediate = FORMATS[instruction.format] as { immediate?: { bits: number; signed: boolean; align: number } };
    if (operands.includes("mem") && name !== "jalr") Object.assign(fields, { rs1: DATA, imm: this.below(2) ? this.below(16) - 8 : this.below(480) - 240 });
    else if (operands.includes("base") || instruction.extension === "A") fields.rs1 = ATOMIC;
    else if (operands.includes("csr")) {
      fields.imm = this.pick(CSRS_USED);
    } else if (operands.includes("target") || name === "jalr") fields.imm = 0;
    else if (immediate.immediate) {
      const { bits, signed, align } = immediate.immediate;
      const raw = this.bits();
      fields.imm = signed ? (raw << (32 - bits)) >> (32 - bits) : raw & (2 ** bits - 1);
      fields.imm -= ((fields.imm % align) + align) % align;
    }
    if (name === "jalr") return [encode(instruction, { rd: fields.rd, rs1: 31, imm: fields.imm })]; // never jumps where it should: see build
    const word = encode(instruction, fields);
    if (!name.startsWith("sc.")) return [word];
    if (this.below(3) === 0) return [word];
    const lr = INSTRUCTIONS.find((i) => i.name === name.replace("sc", "lr"))!;
    return [encode(lr, { ...fields, rd: this.#destination() }), word];
  }

  #compressed(): number {
    for (;;) {
      const row: Compressed = this.pick(this.#compressedCandidates);
      const word = (row.match | (this.bits() & ~row.mask & 0xffff)) & 0xffff;
      if (!matchesCompressed(row, word)) continue;
      const decoded = decode(word);
      if (!decoded) continue;
      const fp = usesFloatState(decoded.instruction);
      if (!fp && FIXED.has(decoded.rd) && decoded.instruction.format !== "store" && decoded.instruction.format !== "B") continue;
      return word;
    }
  }
}

/** One program with the registers and data that it starts with: all that is needed to run it again. */
export interface Block {
  /** Its place in the block area, which decides what its data pages allow. */
  readonly index: number;
  /** Address of its first instruction. */
  readonly code: number;
  readonly words: readonly number[];
  readonly x: readonly bigint[];
  readonly f: readonly bigint[];
  readonly fcsr: number;
  readonly dataSeed: number;
}
/** Page tables and the like are made from `tableSeed`. */
export interface Program {
  readonly mode: Mode;
  readonly tableSeed: number;
  readonly blocks: readonly Block[];
}

export const lengthOf = (word: number): number => ((word & 3) === 3 ? 4 : 2);
const addressOf = (index: number): number => BLOCKS + index * BLOCK_BYTES;
/** Every program runs so often, on the registers and data that it left: code that changed itself, and what was translated. */
const ROUNDS = 3;
const ROUND = TABLES + 0xffe0;

/** `without`: instructions that the machines to compare are known to disagree on. */
export function randomProgram(seed: number, count: number, mode: Mode, without: ReadonlySet<string> = new Set()): Program {
  const generator = new Generator(seed, without);
  const blocks: Block[] = [];
  let code = RAM + 0x1000;
  for (let index = 0; index < count; index++) {
    const words = randomWords(generator);
    const data = addressOf(index) + AT.data;
    const x = Array.from({ length: 32 }, (_, i) => (i === 0 ? 0n : generator.integer()));
    x[SP] = BigInt(data + 0x80);
    x[ATOMIC] = BigInt(data + 8 * generator.below(64));
    x[DATA] = BigInt(dataPointer(generator, data));
    const f = Array.from({ length: 32 }, () => generator.float());
    const frm = generator.below(4) ? 0 : generator.below(6);
    const fcsr = (frm << 5) | (generator.below(2) ? 0 : generator.below(32));
    blocks.push({ index, code, words, x, f, fcsr, dataSeed: generator.bits() });
    for (const word of words) code += lengthOf(word);
    if (code > LIST - 0x100) throw new Error("random program: too many blocks for the code area");
  }
  if (addressOf(count) > TABLES) throw new Error("random program: too many blocks for the block area");
  return { mode, tableSeed: seed, blocks };
}

export function randomImage(seed: number, count: number, mode: Mode, without: ReadonlySet<string> = new Set()): RandomImage {
  return imageOf(randomProgram(seed, count, mode, without), without);
}

/** Anywhere in the block's data, often around the end of a page: what crosses it is rare otherwise. */
function dataPointer(generator: Generator, data: number): number {
  const [low, high] = [data + 0x100, data + 0x500];
  const pageEnd = Math.ceil(low / 4096) * 4096;
  return pageEnd < high && generator.below(2) ? pageEnd - generator.below(12) : low + generator.below(0x400);
}

/** Lays a program out; blocks may be any of those that were made together. */
export function imageOf(program: Program, without: ReadonlySet<string> = new Set()): RandomImage {
  const { mode, blocks } = program;
  const harness = assemble(harnessSource(blocks.map(({ index }) => addressOf(index)), mode), { base: BigInt(RAM) });
  const image = new Uint8Array(TABLES + 0x1_0000 - RAM);
  const view = new DataView(image.buffer);
  if (harness.bytes.length > 0x1000) throw new Error("random program: the harness is too long");
  image.set(harness.bytes);
  blocks.forEach((block, n) => {
    view.setBigUint64(LIST - RAM + n * 8, BigInt(addressOf(block.index)), true);
    placeBlock(view, block, mode);
  });
  const generator = new Generator(program.tableSeed ^ 0x5a5a_5a5a, without);
  if (mode.paged) pageTables(view, generator, mode);
  if (mode.virtual) guestTables(view, generator, !without.has(GUEST_TABLE_FAULTS));
  return {
    bytes: image,
    resultOffset: BLOCKS - RAM,
    resultBytes: TABLES + 0x1_0000 - BLOCKS,
    difference: (expected, actual) => describe(program, expected, actual)?.text,
    differentBlock: (expected, actual) => describe(program, expected, actual)?.block,
  };
}

function placeBlock(view: DataView, block: Block, mode: Mode): void {
  const at = addressOf(block.index) - RAM;
  const data = new Generator(block.dataSeed, new Set());
  block.x.forEach((value, i) => view.setBigUint64(at + AT.x + i * 8, value, true));
  block.f.forEach((value, i) => view.setBigUint64(at + AT.f + i * 8, value, true));
  view.setBigUint64(at + AT.fcsr, BigInt(block.fcsr), true);
  view.setBigUint64(at + AT.entry, BigInt(block.code), true);
  view.setBigUint64(at + AT.mode, BigInt(mode.privilege << 11), true);
  for (let i = AT.data; i < BLOCK_BYTES; i += 8) view.setBigUint64(at + i, data.below(2) ? data.integer() : data.float(), true);
  let code = block.code - RAM;
  for (const word of block.words) {
    if (lengthOf(word) === 4) view.setUint32(code, word, true);
    else view.setUint16(code, word, true);
    code += lengthOf(word);
  }
}

/** Identity map of 4 MiB from RAM: code as one superpage, data by 4 KiB pages of which some lack a permission. */
function pageTables(view: DataView, generator: Generator, mode: Mode): void {
  const [root, middle, leaves] = [TABLES, TABLES + 0x1000, TABLES + 0x2000];
  const set = (table: number, index: number, address: number, bits: number): void =>
    view.setBigUint64(table - RAM + index * 8, (BigInt(address >>> 0) >> 12n << 10n) | BigInt(bits), true);
  const user = mode.privilege === 0 ? 0x10 : 0;
  set(root, 2, middle, 1);
  set(middle, 0, RAM, 0xcf | user); // V R W X A D
  for (const [half, table] of [[1, leaves], [2, leaves + 0x1000]] as const) {
    set(middle, half, table, 1);
    for (let page = 0; page < 512; page++) {
      const address = RAM + half * 0x20_0000 + page * 4096;
      let bits = 0xc7 | user; // V R W A D
      if (generator.below(4) === 0) bits &= ~(1 << generator.pick([0, 1, 2, 4, 6, 7, 7, 6]));
      if (generator.below(16) === 0) bits ^= 0x10;
      set(table, page, address, bits);
    }
  }
}

/** In `without`: faults of accesses to a guest's page tables are not compared. */
export const GUEST_TABLE_FAULTS = "guest-table-faults";

/** G-stage tables: identity, everything for user mode; the guest's page tables lack a permission now and then. */
function guestTables(view: DataView, generator: Generator, damageTables: boolean): void {
  const [root, middle, data, tables] = [GUEST_ROOT, GUEST_ROOT + 0x4000, GUEST_ROOT + 0x5000, GUEST_ROOT + 0x6000];
  const set = (table: number, index: number, address: number, bits: number): void =>
    view.setBigUint64(table - RAM + index * 8, (BigInt(address >>> 0) >> 12n << 10n) | BigInt(bits), true);
  const ALL = 0xdf; // V R W X U A D
  set(root, 2, middle, 1);
  set(middle, 0, RAM, ALL);
  set(middle, 2, RAM + 0x40_0000, ALL);
  set(middle, 1, data, 1);
  set(middle, 3, tables, 1);
  for (let page = 0; page < 512; page++) {
    const damaged = (odds: number, bits: readonly number[]): number => (generator.below(odds) === 0 ? ALL & ~(1 << generator.pick(bits)) : ALL);
    set(data, page, BLOCKS + page * 4096, damaged(4, [0, 1, 2, 4, 6, 7, 7, 6]));
    // Not W and D: QEMU sets A and D in page tables that their guest may not write.
    set(tables, page, TABLES + page * 4096, page < 4 && damageTables ? damaged(10, [0, 1, 4, 6]) : ALL);
  }
}

function harnessSource(blocks: readonly number[], mode: Mode): string {
  const each = (from: number, line: (i: number) => string): string => Array.from({ length: 32 - from }, (_, i) => line(i + from)).join("\n");
  return `
    li t0, 0x6000
    csrs mstatus, t0
    li t0, ${(1n << 61n) | 0xf0n} # ADUE and the cache-block fields
    csrw menvcfg, t0
    csrw senvcfg, t0
    la t0, trap
    csrw mtvec, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    ${mode.paged ? `li t0, ${(8n << 60n) | (BigInt(TABLES) >> 12n)}\n csrw ${mode.virtual ? "vsatp" : "satp"}, t0\n sfence.vma` : ""}
    ${mode.virtual ? `li t0, ${(8n << 60n) | (BigInt(GUEST_ROOT) >> 12n)}\n csrw hgatp, t0\n hfence.gvma zero, zero\n li t0, 0x6000\n csrw vsstatus, t0\n li t0, ${(1n << 61n) | 0xf0n}\n csrw henvcfg, t0` : ""}
  round:
    li t1, ${LIST}
    li t0, ${CURSOR}
    sd t1, 0(t0)
  next:
    li t0, ${CURSOR}
    ld t1, 0(t0)
    ld t6, 0(t1)
    csrw mscratch, t6
    sc.d t0, zero, (t6)
    ld t0, ${AT.entry}(t6)
    csrw mepc, t0
    li t0, 0x1800
    csrc mstatus, t0
    ld t0, ${AT.mode}(t6)
    csrs mstatus, t0
    ${mode.virtual ? `csrr t0, mepc\n csrw sepc, t0\n li t0, 0x100\n ${mode.privilege === 1 ? "csrs" : "csrc"} sstatus, t0 # SPP\n li t0, 0x80\n csrs hstatus, t0 # SPV
    csrw vsscratch, zero\n csrw vscause, zero\n csrw vstval, zero` : "csrw sepc, zero"}
    csrw scause, zero
    csrw stval, zero
    csrw sscratch, zero
    csrw mtval, zero
    ld t0, ${AT.fcsr}(t6)
    csrw fcsr, t0
    ${each(0, (i) => `fld f${i}, ${AT.f + i * 8}(t6)`)}
    ${each(1, (i) => `ld x${i}, ${AT.x + i * 8}(t6)`)}
    ${mode.virtual ? "sret" : "mret"}
    .align 2
  trap:
    csrrw t6, mscratch, t6
    ${each(1, (i) => (i === 31 ? "" : `sd x${i}, ${AT.x + i * 8}(t6)`))}
    csrr t0, mscratch
    sd t0, ${AT.x + 31 * 8}(t6)
    ${each(0, (i) => `fsd f${i}, ${AT.f + i * 8}(t6)`)}
    csrr t0, fcsr
    sd t0, ${AT.fcsr}(t6)
    csrr t0, mcause
    sd t0, ${AT.cause}(t6)
    csrr t0, mepc
    sd t0, ${AT.epc}(t6)
    csrr t0, mtval
    sd t0, ${AT.tval}(t6)
    csrr t0, mstatus
    sd t0, ${AT.status}(t6)
    csrr t0, mtval2
    sd t0, ${AT.tval2}(t6)
    li t0, ${CURSOR}
    ld t1, 0(t0)
    addi t1, t1, 8
    sd t1, 0(t0)
    li t2, ${LIST + blocks.length * 8}
    bltu t1, t2, next
    li t0, ${ROUND}
    ld t1, 0(t0)
    addi t1, t1, 1
    sd t1, 0(t0)
    li t2, ${ROUNDS}
    bltu t1, t2, round
    li t0, ${DONE}
    li t1, ${DONE_MARK}
    sw t1, 0(t0)
  end:
    wfi
    j end`;
}

interface Difference {
  readonly text: string;
  readonly block: Block | undefined;
}

function describe({ blocks: all, mode, tableSeed: seed }: Program, expected: Uint8Array, actual: Uint8Array): Difference | undefined {
  const blocks: readonly (Block | undefined)[] = Array.from({ length: Math.max(...all.map(({ index }) => index)) + 1 }, (_, n) => all.find(({ index }) => index === n));
  const [want, got] = [new DataView(expected.buffer, expected.byteOffset, expected.length), new DataView(actual.buffer, actual.byteOffset, actual.length)];
  const at = (view: DataView, offset: number): bigint => view.getBigUint64(offset, true);
  const different: number[] = [];
  for (let offset = 0; offset + 8 <= Math.min(expected.length, actual.length) && different.length < 24; offset += 8) {
    if (at(want, offset) === at(got, offset)) continue;
    const inBlock = offset % BLOCK_BYTES;
    const start = offset - inBlock;
    // mtval of ebreak is the address or zero, as the implementation likes.
    if (inBlock === AT.tval && BLOCKS + start < TABLES && at(want, start + AT.cause) === 3n) continue;
    // "mtval … may be zero" for illegal and virtual instructions: QEMU does so when a helper finds out, or leaves another's.
    if (inBlock === AT.tval && BLOCKS + start < TABLES && [2n, 22n].includes(at(want, start + AT.cause)) && (at(want, offset) === 0n || endedBy("H", blocks, offset, at(got, start + AT.epc)))) continue;
    // GVA: QEMU 7.2 leaves the last fault's in other traps, QEMU 10 does not set it for ebreak.
    if (inBlock === AT.status && BLOCKS + start < TABLES && (at(want, offset) ^ at(got, offset)) === GVA && [2n, 3n, 8n, 10n, 22n].includes(at(want, start + AT.cause))) continue;
    // "AMOs never raise load page-fault exceptions" (privileged spec, section 11.3.2); QEMU 7.2 does on unreadable pages.
    // QEMU 7.2 finds what a guest's user mode may not do illegal; H says virtual instruction.
    if (inBlock === AT.cause && at(want, offset) === 2n && at(got, offset) === 22n && SUPERVISOR_ONLY.some((extension) => endedBy(extension, blocks, offset, at(got, start + AT.epc)))) continue;
    // Of an AMO's two stages, QEMU asks both for reading before it asks the first for writing.
    if ([AT.cause, AT.tval2].some((at) => at === inBlock) && [21n, 23n].includes(at(want, start + AT.cause)) && at(got, start + AT.cause) === 15n && endedBy("A", blocks, offset, at(got, start + AT.epc))) continue;
    if (inBlock === AT.cause && AMO_FAULTS.get(at(want, offset)) === at(got, offset) && endedBy("A", blocks, offset, at(got, start + AT.epc))) continue;
    // An AMO that one stage refuses may have set A and D in the other.
    if (mode.virtual && BLOCKS + offset >= TABLES && ((at(want, offset) ^ at(got, offset)) & ~0xc0n) === 0n) continue;
    different.push(offset);
  }
  const first = different[0];
  if (first === undefined) return undefined;
  const block = BLOCKS + first < TABLES ? blocks[Math.floor(first / BLOCK_BYTES)] : undefined;
  if (!block) return { block, text: `seed ${seed}, mode ${mode.name}: word 0x${(BLOCKS + first).toString(16)} is 0x${at(got, first).toString(16)}, expected 0x${at(want, first).toString(16)}` };
  const start = block.index * BLOCK_BYTES;
  const changes = different.filter((offset) => offset >= start && offset < start + BLOCK_BYTES).map((offset) =>
    `  ${place(offset - start)}: got 0x${at(got, offset).toString(16)}, expected 0x${at(want, offset).toString(16)}`);
  const text = [`seed ${seed}, mode ${mode.name}, block ${block.index}:`, ...listing(block), ...changes,
    `  ended by cause ${at(got, start + AT.cause)} at ${at(got, start + AT.epc).toString(16)}; expected ${at(want, start + AT.cause)} at ${at(want, start + AT.epc).toString(16)}`].join("\n");
  return { block, text };
}

const NOPS: ReadonlySet<number> = new Set([0x13, 0x01]);
/** The instructions of a block, without the nops that shrinking put in. */
export function listing(block: Block): string[] {
  let pc = block.code;
  return block.words.flatMap((word) => {
    const decoded = decode(word);
    const line = `  ${pc.toString(16)}: ${word.toString(16).padStart(8)}  ${decoded ? disassemble(decoded, BigInt(pc)) : "illegal"}`;
    pc += lengthOf(word);
    return NOPS.has(word) ? [] : [line];
  });
}

/** Whether the block ended at an instruction of this extension. */
function endedBy(extension: Instruction["extension"], blocks: readonly (Block | undefined)[], offset: number, epc: bigint): boolean {
  const block = blocks[Math.floor(offset / BLOCK_BYTES)];
  if (!block) return false;
  let pc = block.code;
  for (const word of block.words) {
    if (BigInt(pc) === epc) return decode(word)?.instruction.extension === extension;
    pc += lengthOf(word);
  }
  return false;
}

function place(offset: number): string {
  if (offset < AT.f) return `x${offset / 8}`;
  if (offset < AT.fcsr) return `f${(offset - AT.f) / 8}`;
  if (offset >= AT.data) return `data+0x${(offset - AT.data).toString(16)}`;
  return Object.entries(AT).find(([, at]) => at === offset)?.[0] ?? `+0x${offset.toString(16)}`;
}
