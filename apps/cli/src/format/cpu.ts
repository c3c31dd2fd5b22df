import type { CodeLine, HartState, PageWalk, ReadProfileResponse } from "@polyvisor/contracts/cpu";
import { CSR_BY_NUMBER, F_NAMES, X_NAMES } from "@polyvisor/isa";
import type { Symbols } from "../symbols.ts";
import { formatCount } from "./quantity.ts";

const MODES: Readonly<Record<number, string>> = { 0: "U", 1: "S", 3: "M" };
export const modeName = (privilege: number): string => MODES[privilege] ?? `mode ${privilege}`;
const hex16 = (value: bigint): string => value.toString(16).padStart(16, "0");
const csrName = (number: number): string => CSR_BY_NUMBER.get(number)?.name ?? `0x${number.toString(16)}`;
/** Those that say where a hart stands. */
const MAIN_CSRS = ["satp", "sstatus", "sepc", "scause", "stval", "stvec", "sie", "sip", "mstatus", "mepc", "mcause", "mtval"];

/** Aligned columns of "name value", four in a line. */
function columns(cells: readonly (readonly [string, bigint])[]): string[] {
  const width = Math.max(...cells.map(([name]) => name.length));
  const texts = cells.map(([name, value]) => `${name.padEnd(width)} ${hex16(value)}`);
  return Array.from({ length: Math.ceil(texts.length / 4) }, (_, n) => texts.slice(n * 4, (n + 1) * 4).join("  "));
}

export function registersText(state: HartState, symbols: Symbols, what: { fp: boolean; csr: boolean }): string {
  const name = symbols.name(state.pc);
  const csrs = [...state.csr].filter(([number]) => what.csr || MAIN_CSRS.includes(csrName(number)));
  return [
    `hart ${state.hart}: ${state.status}, ${modeName(state.privilege)}-mode, ${formatCount(state.instructions)} instructions`,
    `pc   ${hex16(state.pc)}${name ? `  ${name}` : ""}`,
    ...columns(X_NAMES.slice(1).map((each, n) => [each, state.x[n + 1]!] as const)),
    ...(what.fp ? columns(F_NAMES.map((each, n) => [each, state.f[n]!] as const)) : []),
    ...columns(csrs.map(([number, value]) => [csrName(number), value] as const)),
  ].join("\n");
}

/** A hart's state for programs: registers by name. */
export function registersJson(state: HartState): unknown {
  const named = (names: readonly string[], values: readonly bigint[]) => Object.fromEntries(names.map((name, n) => [name, `0x${values[n]!.toString(16)}`]));
  return {
    hart: state.hart, status: state.status, privilege: modeName(state.privilege), instructions: Number(state.instructions),
    pc: `0x${state.pc.toString(16)}`, x: named(X_NAMES, state.x), f: named(F_NAMES, state.f),
    csr: Object.fromEntries([...state.csr].map(([number, value]) => [csrName(number), `0x${value.toString(16)}`])),
  };
}

export function codeText(lines: readonly CodeLine[], symbols: Symbols, pc?: bigint): string {
  return lines
    .flatMap(({ address, word, text }) => {
      const name = symbols.name(address);
      const label = name && !name.includes("+") ? [`${name}:`] : [];
      const bytes = word.toString(16).padStart((word & 3) === 3 ? 8 : 4, "0");
      return [...label, `${address === pc ? "=>" : "  "} ${hex16(address)}  ${bytes.padEnd(8)}  ${text}`];
    })
    .join("\n");
}

export function pageWalkText(address: bigint, walk: PageWalk): string {
  const hex = (value: bigint): string => `0x${value.toString(16)}`;
  const lines = [`${hex(address)}: ${walk.mode}${walk.root ? `, root table ${hex(walk.root)}` : ""}`];
  for (const step of walk.steps) lines.push(`  level ${step.level}  entry ${hex(step.entryAddress)} = ${hex(step.entry)}  ${step.text}`);
  lines.push(walk.fault ? `  ${walk.fault}` : `  physical ${hex(walk.physical)}`);
  return lines.join("\n");
}

const percent = (part: bigint, whole: bigint): string => `${((Number(part) / Math.max(1, Number(whole))) * 100).toFixed(1)} %`;

/** `code`: so many of the hottest spots with their instructions. */
export function profileText(profile: ReadProfileResponse, symbols: Symbols, code: number): string {
  const all = [...profile.samplesByPrivilege.values()].reduce((sum, each) => sum + each, 0n);
  if (all === 0n) return `no samples yet (engine ${profile.engineName}); samples are taken while the guest computes`;
  const modes = [3, 1, 0].map((mode) => `${modeName(mode)} ${percent(profile.samplesByPrivilege.get(mode) ?? 0n, all)}`);
  const numbers = [...profile.engine].filter(([, count]) => count > 0n).toSorted(([a], [b]) => a.localeCompare(b));
  const lines = [
    `engine ${profile.engineName}, ${formatCount(all)} samples by mode: ${modes.join(", ")}`,
    ...numbers.map(([name, count]) => `  ${name.padEnd(28)} ${formatCount(count)}`),
    "",
    "share    mode  64 bytes at",
  ];
  for (const [n, spot] of profile.spots.entries()) {
    lines.push(`${percent(spot.samples, all).padStart(7)}  ${modeName(spot.privilege)}     ${hex16(spot.address)}  ${symbols.name(spot.address)}`.trimEnd());
    if (n < code) lines.push(spot.code.length > 0 ? codeText(spot.code, symbols) : "     (not mapped now)");
  }
  return lines.join("\n");
}
