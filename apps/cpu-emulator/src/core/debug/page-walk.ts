/**
 * Address translation as a debugger sees it: step by step, ignoring permissions, changing nothing (privileged spec 1.13,
 * section 11.3.2). The harts' own translation is `mmu.ts`.
 */
export interface WalkStep {
  readonly level: number;
  /** Physical address of the entry, and its value. */
  readonly entryAddress: bigint;
  readonly entry: bigint;
  /** What the entry says, in words. */
  readonly text: string;
}
export interface Walk {
  readonly mode: string;
  /** Physical address of the root page table; 0 without translation. */
  readonly root: bigint;
  readonly steps: readonly WalkStep[];
  /** Undefined: the walk ends in `fault`. */
  readonly physical: bigint | undefined;
  readonly fault: string;
  /** Of the page that was found, from its first byte. */
  readonly pageBytes: bigint;
}

export type ReadWord = (address: bigint) => Promise<bigint | undefined>;

const MODES: Readonly<Record<number, { name: string; levels: number }>> = {
  8: { name: "Sv39", levels: 3 }, 9: { name: "Sv48", levels: 4 }, 10: { name: "Sv57", levels: 5 },
};
const FLAGS = ["V", "R", "W", "X", "U", "G", "A", "D"];
const PPN_MASK = (1n << 44n) - 1n;
const BARE = { root: 0n, steps: [], fault: "", pageBytes: 4096n };

/** `satp` 0, or M-mode: the address is physical. */
export async function walkPages(address: bigint, satp: bigint, privilege: number, read: ReadWord): Promise<Walk> {
  if (privilege === 3) return { ...BARE, mode: "M-mode, no translation", physical: address };
  const mode = Number(satp >> 60n);
  if (mode === 0) return { ...BARE, mode: "bare, no translation", physical: address };
  const scheme = MODES[mode];
  const root = (satp & PPN_MASK) << 12n;
  const steps: WalkStep[] = [];
  const fault = (why: string): Walk => ({ mode: scheme?.name ?? `satp.MODE ${mode}`, root, steps, physical: undefined, fault: why, pageBytes: 0n });
  if (!scheme) return fault("a reserved mode");
  const bits = 12 + 9 * scheme.levels;
  if (BigInt.asUintN(64, BigInt.asIntN(bits, address)) !== address) return fault(`not canonical: bits 63:${bits} must equal bit ${bits - 1}`);
  let table = root;
  for (let level = scheme.levels - 1; level >= 0; level--) {
    const entryAddress = table + ((address >> BigInt(12 + 9 * level)) & 511n) * 8n;
    const entry = await read(entryAddress);
    if (entry === undefined) return fault(`the page table at 0x${table.toString(16)} is not in RAM`);
    const step = (text: string): void => void steps.push({ level, entryAddress, entry, text });
    const next = ((entry >> 10n) & PPN_MASK) << 12n;
    const flags = flagsOf(entry);
    if (!(entry & 1n)) {
      step("not valid");
      return fault("page fault: the entry is not valid");
    }
    if ((entry & 6n) === 4n) {
      step(`${flags}, reserved`);
      return fault("page fault: writable but not readable");
    }
    if (!(entry & 10n)) {
      step(`${flags}, table at 0x${next.toString(16)}`);
      table = next;
      continue;
    }
    const pageBytes = 4096n << BigInt(9 * level);
    if (next & (pageBytes - 1n)) {
      step(`${flags}, misaligned superpage`);
      return fault("page fault: a superpage that is not aligned");
    }
    step(`${flags}, ${level === 0 ? "4 KiB" : level === 1 ? "2 MiB" : level === 2 ? "1 GiB" : "512 GiB"} page at 0x${next.toString(16)}`);
    return { mode: scheme.name, root, steps, physical: next | (address & (pageBytes - 1n)), fault: "", pageBytes };
  }
  return fault("page fault: no leaf");
}

function flagsOf(entry: bigint): string {
  const flags = FLAGS.filter((_, bit) => (entry >> BigInt(bit)) & 1n);
  const memory = ["", " NC", " IO", " PBMT=3"][Number((entry >> 61n) & 3n)]!;
  return `${flags.join("")}${memory}${entry >> 63n ? " N" : ""}`;
}

/** One line a step, for people. */
export function walkText(address: bigint, walk: Walk): string[] {
  const hex = (value: bigint): string => `0x${value.toString(16)}`;
  const lines = [`${hex(address)}: ${walk.mode}${walk.root ? `, root table ${hex(walk.root)}` : ""}`];
  for (const step of walk.steps) lines.push(`  level ${step.level}  entry ${hex(step.entryAddress)} = ${hex(step.entry)}  ${step.text}`);
  lines.push(walk.physical === undefined ? `  ${walk.fault}` : `  physical ${hex(walk.physical)}`);
  return lines;
}
