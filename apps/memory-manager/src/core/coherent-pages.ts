import { ContractError, type Channel } from "@polyvisor/contracts";
import {
  Access,
  GrantStatus,
  type GrantedRange,
  type LeaseAccessed,
  type LeaseAcquire,
  type LeaseRecalled,
  type LeaseRelease,
  type LeaseRequest,
  type LeaseResponse,
  type PageData,
} from "@polyvisor/contracts/memory";
import { PAGE_BYTES, pagePieces } from "@polyvisor/guest-memory";
import { Holder, type Deadline, type PageAccess } from "./holder.ts";
import { MAX_HOLDERS, PageDirectory } from "./page-directory.ts";
import { PageGates } from "./page-gates.ts";
import type { Ram } from "./ram.ts";
import type { SpaceCounters } from "./stats.ts";

/** Bytes of RAM to read or write, as one part of a DMA request or of a coherent read or write. */
export interface AccessSegment {
  readonly offset: number; // in RAM
  readonly write: boolean;
  /** Bytes to write, or where the bytes read go; its length is the segment's. */
  readonly buffer: Uint8Array;
}

export interface CoherentLimits {
  /** Pages in one grant at most, however many were asked for. */
  readonly grantPages: number;
  /** Bytes of page data in one grant at most (at least the one page asked for). */
  readonly grantDataBytes: number;
  /** Acquires of one holder that wait at a time. */
  readonly waitingAcquires: number;
}

/** A page's part of an access, on its way. */
interface Part extends PageAccess {
  readonly order: number;
  readonly whole: { left: number; failed: boolean; done: (ok: boolean) => void };
  attempts: number;
}

const NO_DATA = new Uint8Array(0);
/** How often an access is repeated, 1 ms apart, while its holder says it does not hold what the directory says it does. */
const ACCESS_ATTEMPTS = 100;

/**
 * The page protocol of one space: who holds which page, and the messages that move pages between holders. It keeps
 * the single-writer invariant: a page is held for writing by one holder, or for reading by any number.
 *
 * Every method may send, and a peer may answer before `send` returns, so state is always changed before sending.
 * Each entry point ends with `#flush`, which sends what the holders' outboxes have collected.
 */
export class CoherentPages {
  readonly holders = new Map<number, Holder<Part>>();
  /** Why nothing can be trusted any more: a holder went away with pages that it may have written. */
  failed: string | undefined;
  readonly #machine: string;
  readonly #ram: Ram;
  readonly #limits: CoherentLimits;
  readonly #deadline: Deadline;
  readonly #counters: SpaceCounters;
  readonly #directory: PageDirectory;
  readonly #gates: PageGates;
  readonly #waiting = new Map<Holder, number>();
  #order = 0;

  constructor(machine: string, ram: Ram, limits: CoherentLimits, deadline: Deadline, counters: SpaceCounters) {
    this.#machine = machine;
    this.#ram = ram;
    this.#limits = limits;
    this.#deadline = deadline;
    this.#counters = counters;
    this.#directory = new PageDirectory(ram.pages);
    this.#gates = new PageGates((page) => this.#directory.writer(page));
  }

  /** A new holder, holding nothing. */
  open(name: string, channel: Channel<LeaseResponse, LeaseRequest>): Holder {
    let index = 0;
    while (this.holders.has(index)) index++;
    if (index >= MAX_HOLDERS) {
      throw new ContractError("exhausted", `lease: ${MAX_HOLDERS} holders have leases on ${this.#machine} already`);
    }
    const identity = { machine: this.#machine, name, index, ramBase: this.#ram.view.base };
    const holder = new Holder<Part>(identity, channel, this.#deadline);
    this.holders.set(index, holder);
    return holder;
  }

  /** Somebody has the page for writing: what is in it only the holder knows. */
  held(page: number): boolean {
    return this.#directory.writer(page) !== undefined;
  }

  acquire(holder: Holder, { id, firstPage, pageCount, access }: LeaseAcquire): void {
    const page = this.#index(holder, firstPage, 1);
    if (page === undefined) {
      return holder.send({ $case: "grant", value: { id, status: GrantStatus.OUT_OF_RANGE, ranges: [] } });
    }
    if (access !== Access.READ && access !== Access.WRITE) {
      throw new ContractError("invalid", `lease: acquire ${id} asks for access ${access}; ask for READ or WRITE`);
    }
    const waiting = (this.#waiting.get(holder) ?? 0) + 1;
    if (waiting > this.#limits.waitingAcquires) {
      throw new ContractError("exhausted", `lease: more than ${this.#limits.waitingAcquires} acquires waiting; wait for grants`);
    }
    this.#waiting.set(holder, waiting);
    const start = () => this.#startAcquire(holder, id, { page, count: Math.max(1, pageCount), write: access === Access.WRITE });
    this.#gates.enter({ order: this.#order++, page, forwards: false, start });
    this.#flush();
  }

  release(holder: Holder, { firstPage, pageCount, dirty }: LeaseRelease): void {
    const first = this.#index(holder, firstPage, pageCount);
    if (first === undefined || pageCount < 1) throw this.#violation(holder, `releases ${pageCount} pages from ${firstPage}`);
    this.#writeBack(holder, dirty, first, pageCount);
    for (let page = first; page < first + pageCount; page++) this.#directory.reduce(page, holder.index, false);
    for (let page = first; page < first + pageCount; page++) this.#gates.advance(page);
    this.#flush();
  }

  recalled(holder: Holder, { id, dirty }: LeaseRecalled): void {
    const recall = holder.recalls.get(id);
    if (!recall) throw this.#violation(holder, `answers recall ${id}, which is not open`);
    this.#writeBack(holder, dirty, recall.first, recall.done.length);
    holder.recalls.delete(id);
    for (let i = 0; i < recall.done.length; i++) {
      this.#directory.reduce(recall.first + i, holder.index, recall.keep === Access.READ);
    }
    for (const done of recall.done) done();
    this.#flush();
  }

  accessed(holder: Holder, { id, held, data }: LeaseAccessed): void {
    const parts = holder.accesses.get(id) as Part[] | undefined;
    if (!parts) throw this.#violation(holder, `answers access ${id}, which is not open`);
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    if (held && !parts[0]!.write && data.length !== bytes) {
      throw this.#violation(holder, `answers access ${id} with ${data.length} bytes instead of ${bytes}`);
    }
    holder.accesses.delete(id);
    for (const part of parts) this.#gates.leaveForward(part.page);
    let at = 0;
    for (const part of parts) {
      if (held && !part.write) part.buffer.set(data.subarray(at, at + part.length), part.position);
      at += part.length;
      if (held) this.#finish(part, true);
      else this.#repeat(part, holder);
    }
    for (const part of parts) this.#gates.advance(part.page);
    this.#flush();
  }

  /** The holder's stream is closed: what it had for writing is lost. Answers how many pages that are. */
  close(holder: Holder): number {
    if (holder.closed) return 0;
    const { recalled, accesses } = holder.abandon();
    this.holders.delete(holder.index);
    this.#waiting.delete(holder);
    const lost = this.#directory.forget(holder.index);
    if (lost > 0) this.fail(`holder ${holder.name} went away with ${lost} pages that it had for writing`);
    const parts = accesses as Part[];
    for (const part of parts) this.#gates.leaveForward(part.page);
    for (const part of parts) this.#gates.enter(this.#operation(part));
    for (const done of recalled) done();
    for (const part of parts) this.#gates.advance(part.page);
    this.#flush();
    return lost;
  }

  /** Refuses everything from now on; what waits is refused when its turn comes. */
  fail(reason: string): void {
    this.failed ??= reason;
  }

  /**
   * Reads and writes bytes wherever the pages are. Everything starts in the order of the segments, and of the calls:
   * who sees the effect of a later one cannot miss that of an earlier one. Ownership does not change, except that
   * readers give up a page that is written.
   */
  access(segments: readonly AccessSegment[], done: (ok: boolean) => void): void {
    const whole = { left: 1, failed: false, done };
    for (const { offset, write, buffer } of segments) {
      for (const piece of pagePieces(offset, buffer.length)) {
        whole.left++;
        const { page, length, position } = piece;
        const at = offset + position;
        const order = this.#order++;
        const part: Part = { page, offset: at, length, write, buffer, position, order, whole, attempts: 0 };
        this.#gates.enter(this.#operation(part));
      }
    }
    this.#flush();
    if (--whole.left === 0) done(!whole.failed);
  }

  #operation(part: Part) {
    return { order: part.order, page: part.page, forwards: true, start: () => this.#startAccess(part) };
  }
  #startAccess(part: Part): void {
    const { page } = part;
    if (this.failed) return this.#finish(part, false);
    const writer = this.#directory.writer(page);
    if (writer !== undefined) {
      this.#gates.enterForward(page, writer);
      this.#counters.forwardedAccesses++;
      this.holders.get(writer)!.access(part);
    } else if (part.write && this.#directory.hasReaders(page)) {
      this.#recall(page, this.#directory.readers(page), Access.NONE, () => this.#accessLocally(part));
    } else this.#accessLocally(part);
  }
  #accessLocally(part: Part): void {
    if (this.failed) return this.#finish(part, false);
    const bytes = part.buffer.subarray(part.position, part.position + part.length);
    if (part.write) this.#ram.write(part.offset, bytes);
    else this.#ram.read(part.offset, bytes);
    this.#finish(part, true);
  }
  /** The holder gave the page up before the access reached it: where is the page now? */
  #repeat(part: Part, holder: Holder): void {
    if (this.#directory.writer(part.page) !== holder.index) return this.#gates.enter(this.#operation(part));
    if (++part.attempts > ACCESS_ATTEMPTS) return this.#finish(part, false);
    this.#deadline.clock.after(1, () => {
      this.#gates.enter(this.#operation(part));
      this.#flush();
    });
  }
  #finish(part: Part, ok: boolean): void {
    const { whole } = part;
    if (!ok) whole.failed = true;
    if (--whole.left === 0) whole.done(!whole.failed);
  }

  #startAcquire(holder: Holder, id: bigint, want: { page: number; count: number; write: boolean }): void {
    const { page, write } = want;
    const writer = this.#directory.writer(page);
    const others = writer === undefined ? (write ? this.#directory.readers(page) : []) : [writer];
    this.#recall(
      page,
      others.filter((index) => index !== holder.index),
      write ? Access.NONE : Access.READ,
      () => {
        if (holder.closed) return;
        this.#waiting.set(holder, this.#waiting.get(holder)! - 1);
        const status = this.failed ? GrantStatus.DENIED : GrantStatus.OK;
        const ranges = this.failed ? [] : this.#grant(holder, want);
        holder.send({ $case: "grant", value: { id, status, ranges } });
      },
    );
  }
  /** Locks the page, takes it from these holders, then runs `then` and unlocks. At once when there are none. */
  #recall(page: number, from: number[], keep: Access, then: () => void): void {
    let left = from.length;
    if (left === 0) return then();
    this.#gates.lock(page);
    this.#counters.recalledPages += left;
    const done = () => {
      if (--left > 0) return;
      then();
      this.#gates.unlock(page);
    };
    for (const index of from) {
      const holder = this.holders.get(index);
      if (holder) holder.recall(page, keep, done);
      else done(); // closed meanwhile: an earlier recall of this loop was answered at once
    }
  }

  /**
   * The page asked for, and behind it what can be had without asking anybody. A lone holder gets pages for writing
   * even when it asks to read: nobody else could mind, and it saves the upgrade.
   */
  #grant(holder: Holder, want: { page: number; count: number; write: boolean }): GrantedRange[] {
    const ranges: GrantedRange[] = [];
    const starts: number[] = []; // where the data ranges come from
    const end = Math.min(want.page + Math.min(want.count, this.#limits.grantPages), this.#ram.pages);
    let dataBytes = 0;
    for (let page = want.page; page < end; page++) {
      const asked = page === want.page;
      if (!asked && !this.#gates.idle(page)) continue;
      const writer = this.#directory.writer(page);
      const reads = this.#directory.reads(page, holder.index);
      const held = writer === holder.index || (reads && !want.write);
      if (!asked && (held || writer !== undefined || (want.write && this.#sharedWithOthers(page, holder)))) continue;
      const upgrade = held || reads;
      const data = !upgrade && !this.#ram.isZero(page);
      if (data) {
        if (!asked && dataBytes + PAGE_BYTES > this.#limits.grantDataBytes) break;
        dataBytes += PAGE_BYTES;
        this.#counters.grantedDataPages++;
      } else if (!upgrade) this.#counters.grantedZeroPages++;
      const alone = this.holders.size === 1;
      const access = want.write || writer === holder.index || (alone && !reads) ? Access.WRITE : Access.READ;
      if (access === Access.WRITE) this.#directory.setWriter(page, holder.index);
      else this.#directory.addReader(page, holder.index);

      const last = ranges[ranges.length - 1];
      const firstPage = holder.firstPage + BigInt(page);
      const joins =
        last &&
        last.firstPage + BigInt(last.pageCount) === firstPage &&
        last.access === access &&
        last.upgrade === upgrade &&
        (starts[ranges.length - 1] !== undefined) === data;
      if (joins) last.pageCount++;
      else {
        if (data) starts[ranges.length] = page;
        ranges.push({ firstPage, pageCount: 1, access, data: NO_DATA, upgrade });
      }
    }
    ranges.forEach((range, i) => {
      if (starts[i] !== undefined) range.data = this.#ram.copyPages(starts[i], range.pageCount);
    });
    return ranges;
  }
  #sharedWithOthers(page: number, holder: Holder): boolean {
    return this.#directory.readers(page).some((index) => index !== holder.index);
  }

  /** Takes dirty pages into the backing; they must be held for writing and inside the range they come with. */
  #writeBack(holder: Holder, dirty: readonly PageData[], first: number, count: number): void {
    for (const { page, data } of dirty) {
      const index = this.#index(holder, page, 1);
      if (index === undefined || index < first || index >= first + count || data.length !== PAGE_BYTES) {
        throw this.#violation(holder, `gives back page ${page} (${data.length} bytes) outside what it answers for`);
      }
      if (this.#directory.writer(index) !== holder.index) {
        throw this.#violation(holder, `gives back page ${page}, which it does not hold for writing`);
      }
    }
    for (const { page, data } of dirty) {
      this.#ram.write(Number(page - holder.firstPage) * PAGE_BYTES, data);
      this.#counters.writtenBackPages++;
    }
  }
  /** Index of a page in RAM, or undefined when not all of the range is in RAM. */
  #index(holder: Holder, firstPage: bigint, count: number): number | undefined {
    const first = firstPage - holder.firstPage;
    return first >= 0n && first + BigInt(count) <= BigInt(this.#ram.pages) ? Number(first) : undefined;
  }
  #violation(holder: Holder, what: string): ContractError {
    return new ContractError("invalid", `lease: holder ${holder.name} ${what}; its lease ends here (CONTRACT.md, MEM-9)`);
  }
  #flush(): void {
    for (const holder of this.holders.values()) holder.flush();
  }
}
