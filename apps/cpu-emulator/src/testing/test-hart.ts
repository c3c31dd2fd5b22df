import { HartCells, MachineCells } from "../core/cells.ts";
import type { CpuFeatures } from "../core/cpu-features.ts";
import { GuestTime } from "../core/guest-time.ts";
import { HART_AREA_BASE, HART_AREA_BYTES } from "../core/hart-state.ts";
import { HartMailbox, HostMailbox } from "../core/mailbox.ts";
import type { GuestMemory } from "../core/physical.ts";
import { Privileged } from "../core/privileged.ts";

export interface TestHart {
  readonly core: Privileged;
  readonly cells: HartCells;
  readonly mailbox: HartMailbox;
  readonly host: HostMailbox;
  /** How often the core reported each. */
  readonly translation: { contexts: number; flushes: number };
  /** csrrw / csrrs / csrrc, answering the old value; undefined = illegal instruction. */
  write(number: number, value: bigint): bigint | undefined;
  set(number: number, value: bigint): bigint | undefined;
  clear(number: number, value: bigint): bigint | undefined;
  read(number: number): bigint | undefined;
}

/** Harts without threads, engine or MMU: the privileged core over its cells, with a clock set by hand. */
export function testHarts(count: number, features?: CpuFeatures): { harts: TestHart[]; time: GuestTime; clock: { ms: number }; memory: GuestMemory } {
  const buffer = new SharedArrayBuffer(HART_AREA_BASE + (count - 1) * HART_AREA_BYTES + 0x1_0000);
  const clock = { ms: 0 };
  const machine = new MachineCells(buffer);
  const time = new GuestTime(machine, () => clock.ms);
  time.reset();
  time.thaw();
  const bytes = new Uint8Array(4096);
  const memory: GuestMemory = {
    read: (address, into) => address + BigInt(into.length) <= 4096n && (into.set(bytes.subarray(Number(address), Number(address) + into.length)), true),
    write: (address, from) => address + BigInt(from.length) <= 4096n && (bytes.set(from, Number(address)), true),
  };
  const harts = Array.from({ length: count }, (_, hart): TestHart => {
    const cells = new HartCells(buffer, hart);
    const core = new Privileged(cells, time, features);
    const translation = { contexts: 0, flushes: 0 };
    core.reset(0x8000_0000n, BigInt(hart), 0n);
    core.translation = { contextChanged: () => void translation.contexts++, flushTlb: () => void translation.flushes++ };
    return {
      core, cells, translation,
      mailbox: new HartMailbox(cells, machine),
      host: new HostMailbox(cells),
      write: (number, value) => core.csr(number, "write", value, true, true),
      set: (number, value) => core.csr(number, "set", value, true, true),
      clear: (number, value) => core.csr(number, "clear", value, true, true),
      read: (number) => core.csr(number, "set", 0n, true, false),
    };
  });
  return { harts, time, clock, memory };
}
