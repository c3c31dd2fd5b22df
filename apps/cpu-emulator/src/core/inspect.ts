import { ContractError } from "@polyvisor/contracts";
import type { CodeLine, PageWalk, ReadProfileResponse } from "@polyvisor/contracts/cpu";
import { decode, disassemble } from "@polyvisor/isa";
import { GuestView } from "./debug/guest-view.ts";
import type { DebugTarget } from "./debug/target.ts";
import { PC } from "./hart-state.ts";
import { SPOT_BYTES, spotsOf } from "./profile.ts";
import type { Privileged } from "./privileged.ts";

const MOST_LINES = 1024;
const DEFAULT_SPOTS = 20;
const MOST_SPOTS = 1000;

/** What can be asked about harts while they run; of a running hart it is as of some recent moment. */
export class Inspector {
  readonly #target: DebugTarget;
  readonly #view: GuestView;
  constructor(target: DebugTarget) {
    this.#target = target;
    this.#view = new GuestView(target);
  }

  async walk(hart: Privileged, address: bigint): Promise<PageWalk> {
    const walk = await this.#view.walk(hart, BigInt.asUintN(64, address));
    return { ...walk, physical: walk.physical ?? 0n, steps: [...walk.steps] };
  }

  /** `address` undefined: the hart's pc. */
  async code(hart: Privileged, address: bigint | undefined, count: number): Promise<CodeLine[]> {
    if (count > MOST_LINES) throw new ContractError("invalid", `readCode: ${count} instructions; at most ${MOST_LINES}`);
    const start = BigInt.asUintN(64, address ?? hart.cells.u64[PC >> 3]!);
    return this.#lines(hart, start, count * 4, count);
  }

  async profile(entries: Iterable<readonly [number, number]>, most: number): Promise<Pick<ReadProfileResponse, "spots" | "samplesByPrivilege">> {
    const all = spotsOf(entries);
    const samplesByPrivilege = new Map<number, bigint>();
    for (const { privilege, samples } of all) samplesByPrivilege.set(privilege, (samplesByPrivilege.get(privilege) ?? 0n) + BigInt(samples));
    const spots = [];
    for (const { address, privilege, samples } of all.slice(0, Math.min(most || DEFAULT_SPOTS, MOST_SPOTS))) {
      // The hart that is in the same mode now has the best chance to have it mapped; a program's pages may be gone.
      const hart = this.#target.harts.find((each) => each.privilege === privilege) ?? this.#target.harts[0]!;
      spots.push({ address, privilege, samples: BigInt(samples), code: await this.#spotCode(hart, address) });
    }
    return { spots, samplesByPrivilege };
  }

  /** 64 bytes of code may begin in the middle of an instruction: of the two readings the one that makes more sense. */
  async #spotCode(hart: Privileged, address: bigint): Promise<CodeLine[]> {
    const illegal = (lines: readonly CodeLine[]): number => lines.filter(({ text }) => text.startsWith("illegal")).length;
    const even = await this.#lines(hart, address, SPOT_BYTES, SPOT_BYTES / 2);
    const odd = await this.#lines(hart, address + 2n, SPOT_BYTES - 2, SPOT_BYTES / 2);
    return illegal(odd) < illegal(even) ? odd : even;
  }

  async #lines(hart: Privileged, start: bigint, bytes: number, most: number): Promise<CodeLine[]> {
    const data = await this.#view.read(hart, start & ~1n, bytes);
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    const lines: CodeLine[] = [];
    for (let at = 0; at + 2 <= data.length && lines.length < most; ) {
      const low = view.getUint16(at, true);
      const long = (low & 3) === 3;
      if (long && at + 4 > data.length) break;
      const word = long ? view.getUint32(at, true) : low;
      const address = (start & ~1n) + BigInt(at);
      const decoded = decode(word);
      lines.push({ address, word, text: decoded ? disassemble(decoded, address) : `illegal 0x${word.toString(16)}` });
      at += long ? 4 : 2;
    }
    return lines;
  }
}
