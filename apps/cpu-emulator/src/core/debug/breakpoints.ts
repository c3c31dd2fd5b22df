import type { Privileged } from "../privileged.ts";
import { DebugKind, MOST_ENTRIES, type DebugEntry } from "./debug-table.ts";
import type { GuestView } from "./guest-view.ts";
import type { DebugTarget } from "./target.ts";

const EBREAK = Uint8Array.of(0x73, 0x00, 0x10, 0x00);
const C_EBREAK = Uint8Array.of(0x02, 0x90);

interface Planted extends DebugEntry {
  readonly original: Uint8Array;
}

/**
 * What a debugger has set. A software breakpoint is an ebreak over the first bytes of the instruction in guest memory: it
 * costs nothing until it is reached, and works in every engine. What the debugger reads there is the instruction.
 */
export class Breakpoints {
  readonly #target: DebugTarget;
  readonly #view: GuestView;
  #soft: Planted[] = [];
  #others: DebugEntry[] = [];

  constructor(target: DebugTarget, view: GuestView) {
    this.#target = target;
    this.#view = view;
  }

  /** Tells the harts, which stand still. */
  publish(): void {
    this.#target.setTable([...this.#soft, ...this.#others]);
  }

  async add(hart: Privileged, kind: DebugKind, address: bigint, length: number): Promise<"ok" | "full" | "unmapped"> {
    if (this.#find(kind, address, length)) return "ok";
    if (this.#soft.length + this.#others.length >= MOST_ENTRIES) return "full";
    if (kind !== DebugKind.SOFT) this.#others.push({ kind, address, length, physical: 0n });
    else {
      const planted = await this.#plant(hart, address, length);
      if (!planted) return "unmapped";
      this.#soft.push(planted);
    }
    this.publish();
    return "ok";
  }

  async remove(kind: DebugKind, address: bigint, length: number): Promise<void> {
    const found = this.#find(kind, address, length);
    if (!found) return;
    if (kind === DebugKind.SOFT) {
      this.#soft = this.#soft.filter((each) => each !== found);
      await this.#unplant(found as Planted);
    } else this.#others = this.#others.filter((each) => each !== found);
    this.publish();
  }

  async clear(): Promise<void> {
    const planted = this.#soft;
    this.#soft = [];
    this.#others = [];
    for (const each of planted) await this.#unplant(each);
    this.publish();
  }

  /** Runs `action` without the ebreaks at this physical address. */
  async without(physical: bigint, action: () => Promise<void>): Promise<void> {
    const here = this.#soft.filter((each) => each.physical === physical);
    for (const each of here) await this.#unplant(each);
    await action();
    for (const each of here) await this.#target.writePhysical(each.physical, ebreakOf(each.original.length));
  }

  /** Puts the instructions back into what was read from memory. `hart` undefined: `address` is physical. */
  async conceal(hart: Privileged | undefined, address: bigint, data: Uint8Array): Promise<void> {
    for (const { physical, original } of this.#soft) {
      for (let n = 0; n < original.length; n++) {
        const at = await this.#offsetOf(hart, address, data.length, physical + BigInt(n));
        if (at !== undefined) data[at] = original[n]!;
      }
    }
  }
  /** A write through the debugger: over a breakpoint it changes the instruction that is kept for it. Answers what to write. */
  async reveal(hart: Privileged | undefined, address: bigint, data: Uint8Array): Promise<Uint8Array> {
    const result = data.slice();
    for (const { physical, original } of this.#soft) {
      const ebreak = ebreakOf(original.length);
      for (let n = 0; n < original.length; n++) {
        const at = await this.#offsetOf(hart, address, data.length, physical + BigInt(n));
        if (at === undefined) continue;
        original[n] = data[at]!;
        result[at] = ebreak[n]!;
      }
    }
    return result;
  }

  /** Where in [address, address + length) a physical address shows, if it does. */
  async #offsetOf(hart: Privileged | undefined, address: bigint, length: number, physical: bigint): Promise<number | undefined> {
    for (let done = 0; done < length; ) {
      const at = BigInt.asUintN(64, address + BigInt(done));
      const part = Math.min(length - done, 4096 - Number(at & 4095n));
      const base = hart ? (await this.#view.walk(hart, at)).physical : at;
      if (base !== undefined && physical >= base && physical < base + BigInt(part)) return done + Number(physical - base);
      done += part;
    }
    return undefined;
  }
  #find(kind: DebugKind, address: bigint, length: number): DebugEntry | undefined {
    const list: readonly DebugEntry[] = kind === DebugKind.SOFT ? this.#soft : this.#others;
    return list.find((each) => each.kind === kind && each.address === address && (each.length === length || kind <= DebugKind.HARD));
  }

  async #plant(hart: Privileged, address: bigint, length: number): Promise<Planted | undefined> {
    const { physical } = await this.#view.walk(hart, address);
    if (physical === undefined) return undefined;
    const original = await this.#view.read(hart, address, length);
    // The two halves of an instruction that crosses a page need not lie together: a c.ebreak over the first is enough.
    const patch = (physical & 4095n) + BigInt(length) > 4096n ? C_EBREAK : ebreakOf(length);
    if (original.length < patch.length || !(await this.#target.writePhysical(physical, patch))) return undefined;
    return { kind: DebugKind.SOFT, address, length, physical, original: original.slice(0, patch.length) };
  }
  /** Only what is still ours: the guest may have given the page to something else meanwhile. */
  async #unplant({ physical, original }: Planted): Promise<void> {
    const now = await this.#target.readPhysical(physical, original.length);
    const ours = ebreakOf(original.length);
    if (now?.every((byte, n) => byte === ours[n])) await this.#target.writePhysical(physical, original);
  }
}

function ebreakOf(length: number): Uint8Array {
  return length === 2 ? C_EBREAK : EBREAK;
}
