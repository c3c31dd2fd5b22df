import {
  assemble, COMPRESSED_INSTRUCTIONS, decode, disassemble, encode, FORMATS, INSTRUCTIONS, matchesCompressed,
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
const BLOCK_BYTES = 0xa00; // not a divisor of a page: data areas of some blocks cross pages
/** Offsets in a block. */
const AT = { x: 0, f: 0x100, fcsr: 0x200, cause: 0x208, epc: 0x210, tval: 0x218, entry: 0x220, mode: 0x228, status: 0x230, tval2: 0x238, data: 0x400 } as const;
/** Registers that code must not change: stack and data pointers into the block's data. */
const SP = 2;
const DATA = 30; // anywhere, also misaligned and at the end of a page
const ATOMIC = 29; // a multiple of 8
const FIXED: ReadonlySet<number> = new Set([SP, DATA, ATOMIC]);
const MAX_LENGTH = 8;

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

class Generator {
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
    if (operands.includes("mem") && name !== "jalr") Object.assign(fields, { rs1: DATA, imm: this.below(480) - 240 });
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
      const fp = decoded.instruction.extension === "D" || decoded.instruction.extension === "F";
      if (!fp && FIXED.has(decoded.rd) && decoded.instruction.format !== "store" && decoded.instruction.format !== "B") continue;
      return word;
    }
  }
}

interface Block {
  readonly address: number;
  readonly code: number;
  readonly words: readonly number[];
}

const lengthOf = (word: number): number => ((word & 3) === 3 ? 4 : 2);

/** `without`: instructions that the machines to compare are known to disagree on. */
export function randomImage(seed: number, count: number, mode: Mode, without: ReadonlySet<string> = new Set()): RandomImage {
  const generator = new Generator(seed, without);
  const end = BLOCKS + count * BLOCK_BYTES;
  const harness = assemble(harnessSource(end, mode), { base: BigInt(RAM) });
  const image = new Uint8Array(TABLES + 0x1_0000 - RAM);
  const view = new DataView(image.buffer);
  image.set(harness.bytes);

  const blocks: Block[] = [];
  let code = RAM + 0x1000;
  for (let n = 0; n < count; n++) {
    const address = BLOCKS + n * BLOCK_BYTES;
    const words = program(generator);
    blocks.push({ address, code, words });
    const at = address - RAM;
    for (let i = 1; i < 32; i++) view.setBigUint64(at + AT.x + i * 8, generator.integer(), true);
    view.setBigUint64(at + AT.x + SP * 8, BigInt(address + AT.data + 0x80), true);
    view.setBigUint64(at + AT.x + ATOMIC * 8, BigInt(address + AT.data + 8 * generator.below(64)), true);
    view.setBigUint64(at + AT.x + DATA * 8, BigInt(address + AT.data + 0x100 + generator.below(0x400)), true);
    for (let i = 0; i < 32; i++) view.setBigUint64(at + AT.f + i * 8, generator.float(), true);
    const frm = generator.below(4) ? 0 : generator.below(6);
    view.setBigUint64(at + AT.fcsr, BigInt((frm << 5) | (generator.below(2) ? 0 : generator.below(32))), true);
    view.setBigUint64(at + AT.entry, BigInt(code), true);
    view.setBigUint64(at + AT.mode, BigInt(mode.privilege << 11), true);
    for (let i = AT.data; i < BLOCK_BYTES; i += 8) view.setBigUint64(at + i, generator.below(2) ? generator.integer() : generator.float(), true);
    for (const word of words) {
      if (lengthOf(word) === 4) view.setUint32(code - RAM, word, true);
      else view.setUint16(code - RAM, word, true);
      code += lengthOf(word);
    }
    if (code > BLOCKS - 0x100) throw new Error("random image: too many blocks for the code area");
  }
  if (end > TABLES) throw new Error("random image: too many blocks for the block area");
  if (mode.paged) pageTables(view, generator, mode);
  if (mode.virtual) guestTables(view, generator, !without.has(GUEST_TABLE_FAULTS));
  return {
    bytes: image,
    resultOffset: BLOCKS - RAM,
    resultBytes: TABLES + 0x1_0000 - BLOCKS,
    difference: (expected, actual) => describe(blocks, expected, actual, seed, mode),
  };
}

/** Random instructions with jumps forward to instruction boundaries, ending in ebreak. */
function program(generator: Generator): number[] {
  const groups = Array.from({ length: 1 + generator.below(MAX_LENGTH) }, () => generator.instruction());
  const words = groups.flat();
  const EBREAK = generator.below(2) ? 0x0010_0073 : 0x9002;
  words.push(EBREAK);
  for (let i = 0; i < words.length - 1; i++) {
    const decoded = decode(words[i]!);
    if (!decoded || decoded.length !== 4) continue;
    const target = i + 1 + generator.below(words.length - i - 1);
    const distance = words.slice(i, target).reduce((sum, word) => sum + lengthOf(word), 0);
    const { instruction, rd, rs1, rs2 } = decoded;
    if (instruction.format === "B" || instruction.format === "J") words[i] = encode(instruction, { rd, rs1, rs2, imm: distance });
    else if (instruction.name === "jalr") {
      // auipc x31, 0; jalr rd, distance + 4(x31) would change lengths: use jal instead, jalr is in the harness's returns.
      words[i] = encode(INSTRUCTIONS.find((row) => row.name === "jal")!, { rd, imm: distance });
    }
  }
  return words;
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

function harnessSource(end: number, mode: Mode): string {
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
    li t0, ${BLOCKS}
    csrw mscratch, t0
  next:
    csrr t6, mscratch
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
    li t0, ${BLOCK_BYTES}
    add t6, t6, t0
    csrw mscratch, t6
    li t1, ${end}
    bltu t6, t1, next
    li t0, ${DONE}
    li t1, ${DONE_MARK}
    sw t1, 0(t0)
  end:
    wfi
    j end`;
}

function describe(blocks: readonly Block[], expected: Uint8Array, actual: Uint8Array, seed: number, mode: Mode): string | undefined {
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
  if (BLOCKS + first >= TABLES) return `seed ${seed}, mode ${mode.name}: page table word 0x${(BLOCKS + first).toString(16)} is 0x${at(got, first).toString(16)}, expected 0x${at(want, first).toString(16)}`;
  const block = blocks[Math.floor(first / BLOCK_BYTES)]!;
  const start = block.address - BLOCKS;
  let pc = block.code;
  const listing = block.words.map((word) => {
    const decoded = decode(word);
    const line = `  ${pc.toString(16)}: ${word.toString(16).padStart(8)}  ${decoded ? disassemble(decoded, BigInt(pc)) : "illegal"}`;
    pc += lengthOf(word);
    return line;
  });
  const changes = different.filter((offset) => offset >= start && offset < start + BLOCK_BYTES).map((offset) =>
    `  ${place(offset - start)}: got 0x${at(got, offset).toString(16)}, expected 0x${at(want, offset).toString(16)}`);
  return [`seed ${seed}, mode ${mode.name}, block ${block.address.toString(16)}:`, ...listing, ...changes,
    `  ended by cause ${at(got, start + AT.cause)} at ${at(got, start + AT.epc).toString(16)}; expected ${at(want, start + AT.cause)} at ${at(want, start + AT.epc).toString(16)}`].join("\n");
}

/** Whether the block ended at an instruction of this extension. */
function endedBy(extension: Instruction["extension"], blocks: readonly Block[], offset: number, epc: bigint): boolean {
  const block = blocks[Math.floor(offset / BLOCK_BYTES)]!;
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
