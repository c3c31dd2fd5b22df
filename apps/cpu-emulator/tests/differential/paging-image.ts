import { assemble } from "@polyvisor/isa";
import { DONE, DONE_MARK, RAM, random, type RandomImage } from "./random-program.ts";

/**
 * Random page tables and accesses. A pool of table pages holds entries of every kind, also senseless ones (cycles, reserved bits,
 * misaligned superpages, addresses without memory); each case takes roots from the pool and makes one access to one address:
 * a load or a store by MPRV, a fetch, or a hypervisor load or store through both stages. Cause, addresses, values, and what the
 * accesses leave in tables and data must be the same on two machines.
 */
const HARNESS = RAM + 0x30_0000;
const POOL = RAM + 0x40_0000;
const POOL_PAGES = 32;
const CASES = RAM + 0x50_0000;
const CASE_BYTES = 128;
const DATA = RAM + 0x80_0000;
const END = RAM + 0x100_0000;
const AT = { satp: 0, vsatp: 8, hgatp: 16, status: 24, hstatus: 32, address: 40, kind: 48, value: 56, cause: 64, tval: 72, tval2: 80, result: 88, tinst: 96 } as const;

export const KINDS = ["load", "store", "fetch", "hlv", "hsv", "hlvx"] as const;
export type Kind = (typeof KINDS)[number];

const [MPRV, SUM, MXR] = [1n << 17n, 1n << 18n, 1n << 19n];
const SPVP = 1n << 8n;
/** Halfwords that end a fetch at once: c.ebreak and an illegal one. */
const ENDS = [0x9002n, 0n];

export interface PagingOptions {
  readonly kinds?: readonly Kind[];
  /** Causes that the other machine may give (first) where ours are right (second). */
  readonly tolerated?: ReadonlyMap<bigint, bigint>;
  /** Only entries that mean something: no reserved bits, N or PBMT, tables in memory. */
  readonly sane?: boolean;
}

export function pagingImage(seed: number, count: number, { kinds = KINDS, tolerated = new Map(), sane = false }: PagingOptions = {}): Omit<RandomImage, "differentBlock"> {
  const next = random(seed);
  const below = (limit: number): number => next() % limit;
  const pick = <T>(items: readonly T[]): T => items[below(items.length)]!;
  const chance = (odds: number): boolean => below(odds) === 0;
  const image = new Uint8Array(END - RAM);
  const view = new DataView(image.buffer);
  const set = (address: number, value: bigint): void => view.setBigUint64(address - RAM, BigInt.asUintN(64, value), true);

  const ends = (): bigint => pick(ENDS) | (pick(ENDS) << 16n) | (pick(ENDS) << 32n) | (pick(ENDS) << 48n);
  for (let address = DATA; address < END; address += 8) set(address, ends());

  const poolPage = (): bigint => BigInt(POOL / 4096 + below(POOL_PAGES));
  // Where it is an entry for 512 GiB or more, page 0 leads to memory; elsewhere to what differs from machine to machine.
  const aligned = new Set([0, 1, 255, 256, 511]);
  const entry = (index: number): bigint => {
    if (!sane && chance(24)) return (BigInt(next()) << 32n) | BigInt(next());
    let bits = 1n;
    let page: bigint;
    if (below(5) < 2) page = poolPage();
    else {
      bits |= 0xcen | (chance(2) ? 0x10n : 0n); // R W X A D, U
      page = pick([BigInt(DATA / 4096 + below(2048)), BigInt(DATA / 4096 + 512 * below(4)), BigInt(RAM / 4096), aligned.has(index) ? 0n : 1n << 27n, sane ? BigInt(DATA / 4096) : 0x18_0000n]);
      if (!sane && chance(8)) page = (page & ~15n) | 8n;
      if (!sane && chance(8)) bits |= 1n << 63n; // N
      if (!sane && chance(16)) bits |= BigInt(below(4)) << 61n; // PBMT
    }
    for (let i = below(4); i > 1; i--) bits ^= 1n << BigInt(pick([0, 1, 2, 3, 4, 5, 6, 7, 6, 7, 2, 8, 9]));
    if (!sane && chance(32)) bits |= 1n << BigInt(54 + below(7)); // reserved
    return (page << 10n) | bits;
  };
  for (let address = POOL; address < POOL + POOL_PAGES * 4096; address += 8) set(address, entry((address >> 3) & 511));

  const root = (mode: bigint, aligned = 1): bigint => {
    if (mode === 0n) return 0n;
    const page = !sane && chance(40) ? 0x18_0000n : BigInt(POOL / 4096 + aligned * below(POOL_PAGES / aligned));
    return (mode << 60n) | page;
  };
  const mode = (): bigint => pick([8n, 9n, 10n, 8n, 9n, 10n, 0n]);
  const address = (): bigint => {
    // Indices whose superpages lie in the data, above what other machines have at low addresses.
    const indices = [16 + below(240), 4 + below(4), chance(6) ? 32 + below(480) : 2, pick([0, 1, 255, 256, 511, below(512)]), pick([0, 255, 256, 511, below(512)])];
    let value = indices.reduce((sum, index, level) => sum | (BigInt(index) << BigInt(12 + 9 * level)), BigInt(below(512) * 8));
    const width = pick([39, 48, 57]);
    value = chance(12) ? value | (BigInt(next()) << 40n) : BigInt.asUintN(64, BigInt.asIntN(width, value)); // canonical for one of the formats
    return BigInt.asUintN(64, value);
  };
  for (let n = 0; n < count; n++) {
    const at = CASES + n * CASE_BYTES;
    const kind = pick(kinds);
    const privilege = pick([0n, 1n]);
    const roots = { satp: root(mode()), vsatp: root(mode()), hgatp: root(mode(), 4) };
    set(at + AT.satp, roots.satp);
    set(at + AT.vsatp, roots.vsatp);
    set(at + AT.hgatp, roots.hgatp);
    // Untranslated addresses must be memory: what else there is differs from machine to machine.
    const bare = kind.startsWith("h") ? roots.vsatp === 0n && roots.hgatp === 0n : roots.satp === 0n;
    const mprv = kind === "load" || kind === "store" ? MPRV : 0n;
    set(at + AT.status, (privilege << 11n) | mprv | (chance(2) ? SUM : 0n) | (chance(3) ? MXR : 0n));
    set(at + AT.hstatus, chance(2) ? SPVP : 0n);
    set(at + AT.address, bare ? BigInt(DATA + below(0x10_0000) * 8) : address());
    set(at + AT.kind, BigInt(KINDS.indexOf(kind)));
    set(at + AT.value, ends());
    set(at + AT.cause, 99n);
  }
  // Stores may reach the first page of RAM: the harness lies where no entry leads.
  image.set(assemble(`li t0, ${HARNESS}\n jr t0`, { base: BigInt(RAM) }).bytes);
  image.set(assemble(harness(CASES + count * CASE_BYTES), { base: BigInt(HARNESS) }).bytes, HARNESS - RAM);

  return {
    bytes: image, resultOffset: POOL - RAM, resultBytes: END - POOL,
    difference: (expected, actual) => difference(expected, actual, { count, seed, tolerated, stages: kinds.some((kind) => kind.startsWith("h")) ? 2 : 1 }),
  };
}

function harness(end: number): string {
  return `
    la t0, trap
    csrw mtvec, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    li t0, ${(1n << 61n) | (1n << 62n)} # ADUE, PBMTE
    csrw menvcfg, t0
    csrw henvcfg, t0
    li a0, ${CASES}
  next:
    ld t0, ${AT.satp}(a0)
    csrw satp, zero # an unknown mode leaves it as it was
    csrw satp, t0
    ld t0, ${AT.vsatp}(a0)
    csrw vsatp, zero
    csrw vsatp, t0
    ld t0, ${AT.hgatp}(a0)
    csrw hgatp, zero
    csrw hgatp, t0
    sfence.vma
    hfence.vvma zero, zero
    hfence.gvma zero, zero
    ld t0, ${AT.hstatus}(a0)
    csrw hstatus, t0
    ld a1, ${AT.address}(a0)
    ld a2, ${AT.value}(a0)
    ld a3, ${AT.kind}(a0)
    ld t0, ${AT.status}(a0)
    li t5, ${(3n << 11n) | MPRV | SUM | MXR}
    csrc mstatus, t5
    csrw mepc, a1
    li t1, 1
    beq a3, t1, store
    li t1, 2
    beq a3, t1, fetch
    li t1, 3
    beq a3, t1, hlv
    li t1, 4
    beq a3, t1, hsv
    li t1, 5
    beq a3, t1, hlvx
    csrs mstatus, t0
    ld a2, 0(a1)
    j done
  store:
    csrs mstatus, t0
    sd a2, 0(a1)
    j done
  fetch:
    csrs mstatus, t0
    mret
  hlv:
    csrs mstatus, t0
    hlv.d a2, (a1)
    j done
  hsv:
    csrs mstatus, t0
    hsv.d a2, (a1)
    j done
  hlvx:
    csrs mstatus, t0
    hlvx.wu a2, (a1)
  done:
    csrc mstatus, t5
    sd a2, ${AT.result}(a0)
    sd zero, ${AT.cause}(a0)
    j advance
    .align 2
  trap:
    csrc mstatus, t5
    csrr t0, mcause
    sd t0, ${AT.cause}(a0)
    csrr t0, mtval
    sd t0, ${AT.tval}(a0)
    csrr t0, mtval2
    sd t0, ${AT.tval2}(a0)
    csrr t0, mtinst
    sd t0, ${AT.tinst}(a0)
  advance:
    addi a0, a0, ${CASE_BYTES}
    li t0, ${end}
    bltu a0, t0, next
    li t0, ${DONE}
    li t1, ${DONE_MARK}
    sw t1, 0(t0)
  end:
    wfi
    j end`;
}

interface Run {
  readonly count: number;
  readonly seed: number;
  readonly tolerated: ReadonlyMap<bigint, bigint>;
  readonly stages: 1 | 2;
}

/** htinst of a fault that setting A or D in a guest's page table raised: QEMU sets them without asking the second stage. */
const PSEUDO_WRITE = 0x3020n;

function difference(expected: Uint8Array, actual: Uint8Array, { count, seed, tolerated, stages }: Run): string | undefined {
  const [want, got] = [expected, actual].map((bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)) as [DataView, DataView];
  const text = (view: DataView, offset: number): string => `0x${view.getBigUint64(offset, true).toString(16)}`;
  for (let n = 0; n < count; n++) {
    const at = CASES - POOL + n * CASE_BYTES;
    const cause = want.getBigUint64(at + AT.cause, true);
    if (tolerated.get(cause) === got.getBigUint64(at + AT.cause, true) || got.getBigUint64(at + AT.tinst, true) === PSEUDO_WRITE) continue;
    for (const [name, offset] of Object.entries(AT)) {
      if (name === "tval" && (cause === 2n || cause === 3n)) continue; // may be zero
      if (name === "tinst") continue; // QEMU transforms more
      if (name === "tval2" && ![20n, 21n, 23n].includes(cause)) continue; // QEMU leaves an earlier one
      if (want.getBigUint64(at + offset, true) === got.getBigUint64(at + offset, true)) continue;
      const fields = Object.entries(AT).map(([field, o]) => `${field} ${text(got, at + o)}`).join(", ");
      return `seed ${seed}, case ${n} (${KINDS[Number(want.getBigUint64(at + AT.kind, true))]}): ${name} is ${text(got, at + offset)}, expected ${text(want, at + offset)}; ${fields}`;
    }
  }
  const cases = { from: CASES - POOL, to: CASES - POOL + count * CASE_BYTES };
  for (let offset = 0; offset + 8 <= expected.length; offset += 8) {
    if (offset >= cases.from && offset < cases.to) continue; // compared above
    const changed = want.getBigUint64(offset, true) ^ got.getBigUint64(offset, true);
    // QEMU sets A and D before it looks at the size that N gives.
    if (changed === 0n || ((changed & ~0xc0n) === 0n && (stages === 2 || want.getBigUint64(offset, true) >> 63n))) continue;
    return `seed ${seed}: memory at 0x${(POOL + offset).toString(16)} is ${text(got, offset)}, expected ${text(want, offset)}`;
  }
  return undefined;
}
