import { ContractError, type Channel } from "@polyvisor/contracts";
import {
  LeaseKind,
  type CreateSpaceRequest,
  type LeaseRequest,
  type LeaseResponse,
  type ReadSpaceStatsResponse,
} from "@polyvisor/contracts/memory";
import { PAGE_BYTES, pageAligned } from "@polyvisor/guest-memory";
import { CoherentPages, type AccessSegment, type CoherentLimits } from "./coherent-pages.ts";
import { DeviceGrants } from "./grants.ts";
import type { Deadline, Holder } from "./holder.ts";
import { MEMORY_LIMIT_BYTES, Ram, WASM_PAGE_BYTES, type Backing } from "./ram.ts";
import { newCounters } from "./stats.ts";

/** What a space was created with; the same again is the same space. */
export interface SpaceSpec {
  readonly machine: string;
  readonly base: bigint;
  readonly bytes: number;
  readonly reserveBytes: number;
  /** Kinds as which it may be leased, the best first. */
  readonly kinds: readonly LeaseKind[];
}

const KINDS_BEST_FIRST = [LeaseKind.SHARED, LeaseKind.MAPPED, LeaseKind.COHERENT] as const;
const KIND_NAMES = new Map<LeaseKind, string>([[LeaseKind.SHARED, "shared"], [LeaseKind.MAPPED, "mapped"], [LeaseKind.COHERENT, "coherent"]]);

const nameOf = (kind: LeaseKind): string => KIND_NAMES.get(kind) ?? "none";

/** Checks a request to the letter: everything behind this line may rely on it. */
export function parseSpec(request: CreateSpaceRequest): SpaceSpec {
  const { machine, ram, holderReserveBytes, leaseKinds } = request;
  const refuse = (what: string) => new ContractError("invalid", `createSpace ${machine}: ${what}`);
  if (machine.length === 0 || machine.length > 128) throw refuse("the machine id must have 1 to 128 characters");
  if (!ram || ram.bytes === 0n) throw refuse("no RAM; give a base and a size");
  if (!pageAligned(ram.base) || !pageAligned(ram.bytes)) throw refuse("base and bytes of RAM must be multiples of 4096");
  if (holderReserveBytes % BigInt(WASM_PAGE_BYTES) !== 0n) {
    throw refuse(`holder_reserve_bytes is ${holderReserveBytes}; it must be a multiple of ${WASM_PAGE_BYTES}`);
  }
  const total = ram.bytes + holderReserveBytes;
  if (total > BigInt(MEMORY_LIMIT_BYTES)) {
    throw refuse(`RAM and reserve are ${total} bytes together; at most ${MEMORY_LIMIT_BYTES} (one WebAssembly memory)`);
  }
  if (ram.base + ram.bytes > 1n << 56n) throw refuse("RAM ends beyond 2^56, the end of RISC-V physical addresses (Sv39, 4.4)");
  if (leaseKinds.some((kind) => !KIND_NAMES.has(kind))) throw refuse(`lease_kinds ${leaseKinds.join(", ")}; there are ${[...KIND_NAMES.keys()].join(", ")}`);
  const kinds = KINDS_BEST_FIRST.filter((kind) => leaseKinds.length === 0 || leaseKinds.includes(kind));
  return { machine, base: ram.base, bytes: Number(ram.bytes), reserveBytes: Number(holderReserveBytes), kinds };
}

export function sameSpec(a: SpaceSpec, b: SpaceSpec): boolean {
  return a.base === b.base && a.bytes === b.bytes && a.reserveBytes === b.reserveBytes && a.kinds.join() === b.kinds.join();
}

/** One machine's guest-physical memory: backing, leases, grants, counters. */
export class Space {
  readonly spec: SpaceSpec;
  readonly ram: Ram;
  readonly grants = new DeviceGrants();
  readonly counters = newCounters();
  readonly #backing: Backing;
  /** What a SHARED lease is redeemed with; never used for another space. */
  readonly token: string;
  readonly #offers: readonly LeaseKind[];
  readonly #limits: CoherentLimits;
  readonly #deadline: Deadline;
  readonly #leases = new Set<Channel<LeaseResponse, LeaseRequest>>();
  #coherent: CoherentPages | undefined;
  #kind: LeaseKind = LeaseKind.UNSPECIFIED;
  destroyed = false;

  constructor(spec: SpaceSpec, backing: Backing, token: string, sharedLeases: boolean, limits: CoherentLimits, deadline: Deadline) {
    this.spec = spec;
    this.token = token;
    this.#backing = backing;
    this.#limits = limits;
    this.#deadline = deadline;
    this.ram = new Ram(spec.base, spec.bytes, spec.reserveBytes, backing.memory);
    const possible = { [LeaseKind.SHARED]: sharedLeases, [LeaseKind.MAPPED]: backing.token !== undefined, [LeaseKind.COHERENT]: true };
    this.#offers = spec.kinds.filter((kind) => possible[kind as keyof typeof possible]);
  }

  get failed(): string | undefined {
    return this.destroyed ? "the space is destroyed" : this.#coherent?.failed;
  }
  contains(base: bigint, bytes: bigint): boolean {
    return base >= this.spec.base && base + bytes <= this.spec.base + BigInt(this.spec.bytes);
  }
  /** Offset in RAM. Throws "out-of-range". */
  offsetOf(operation: string, address: bigint, byteLength: number): number {
    if (!this.contains(address, BigInt(byteLength))) {
      const { base, bytes } = this.spec;
      throw new ContractError(
        "out-of-range",
        `${operation} ${this.spec.machine}: 0x${address.toString(16)} + ${byteLength} is not inside RAM ` +
          `0x${base.toString(16)} .. 0x${(base + BigInt(bytes)).toString(16)}`,
      );
    }
    return Number(address - this.spec.base);
  }

  /** Joins the space's lease group with the best kind that both sides have; kinds never meet on one space. */
  join(channel: Channel<LeaseResponse, LeaseRequest>, accepts: readonly LeaseKind[]): LeaseKind {
    const { machine } = this.spec;
    const present = this.#kind;
    const kind = this.#offers.find((offered) => accepts.includes(offered) && (present === LeaseKind.UNSPECIFIED || present === offered));
    if (kind === undefined && present !== LeaseKind.UNSPECIFIED) {
      throw new ContractError("conflict", `lease: ${machine} is leased as ${nameOf(present)}, which the opener does not accept`);
    }
    if (kind === undefined) {
      throw new ContractError("precondition", `lease: ${machine} is offered as ${this.#offers.map((offered) => nameOf(offered)).join(", ") || "nothing"}; the opener accepts none of it`);
    }
    this.#kind = kind;
    this.#leases.add(channel);
    if (kind !== LeaseKind.COHERENT) this.ram.sharedOut = true;
    return kind;
  }
  /** What the holder of a lease of this kind finds RAM with. */
  tokenOf(kind: LeaseKind): string {
    return kind === LeaseKind.SHARED ? this.token : kind === LeaseKind.MAPPED ? this.#backing.token! : "";
  }
  leave(channel: Channel<LeaseResponse, LeaseRequest>): void {
    if (this.#leases.delete(channel) && this.#leases.size === 0) this.#kind = LeaseKind.UNSPECIFIED;
  }
  /** The page protocol; made when the first coherent holder comes. */
  coherent(): CoherentPages {
    const { machine } = this.spec;
    return (this.#coherent ??= new CoherentPages(machine, this.ram, this.#limits, this.#deadline, this.counters));
  }
  openHolder(name: string, channel: Channel<LeaseResponse, LeaseRequest>): Holder {
    return this.coherent().open(name, channel);
  }

  /** False: all of it reads as zero. Spares looking at (and asking for) what nobody has ever written. */
  mayHoldData(offset: number, byteLength: number): boolean {
    if (this.ram.sharedOut) return true;
    const last = Math.floor((offset + byteLength - 1) / PAGE_BYTES);
    for (let page = Math.floor(offset / PAGE_BYTES); page <= last; page++) {
      if (this.ram.touched.has(page) || this.#coherent?.held(page)) return true;
    }
    return false;
  }
  /** Reads and writes wherever the pages are; see CoherentPages.access for the order. All segments are inside RAM. */
  access(segments: readonly AccessSegment[], done: (ok: boolean) => void): void {
    if (this.failed) return done(false);
    if (this.#kind === LeaseKind.COHERENT) return this.coherent().access(segments, done);
    for (const { offset, write, buffer } of segments) {
      if (write) this.ram.write(offset, buffer);
      else this.ram.read(offset, buffer);
      this.ram.fence();
    }
    done(true);
  }
  /** The same as a promise; rejects when the space has failed. */
  accessed(operation: string, segments: readonly AccessSegment[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.access(segments, (ok) => {
        if (ok) resolve();
        else reject(new ContractError("corrupt", `${operation} ${this.spec.machine}: ${this.failed ?? "the page's holder does not answer"}`));
      });
    });
  }

  destroy(): void {
    this.destroyed = true;
    this.#coherent?.fail("the space is destroyed");
    for (const channel of this.#leases) channel.close(); // each leaves the set as it closes: allowed while iterating a Set
    this.#backing.close?.();
  }

  stats(): ReadSpaceStatsResponse {
    const big = (n: number) => BigInt(n);
    const c = this.counters;
    return {
      ramBytes: big(this.spec.bytes),
      touchedPages: big(this.ram.touched.count),
      grantedDataPages: big(c.grantedDataPages),
      grantedZeroPages: big(c.grantedZeroPages),
      recalledPages: big(c.recalledPages),
      writtenBackPages: big(c.writtenBackPages),
      dmaReads: big(c.dmaReads),
      dmaWrites: big(c.dmaWrites),
      dmaBytes: big(c.dmaBytes),
      dmaDenied: big(c.dmaDenied),
      forwardedAccesses: big(c.forwardedAccesses),
      leaseKind: nameOf(this.#kind),
    };
  }
}
