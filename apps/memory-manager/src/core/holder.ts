import { ContractError, type Channel } from "@polyvisor/contracts";
import { Access, type LeaseAccess, type LeaseRequest, type LeaseResponse } from "@polyvisor/contracts/memory";
import type { Clock } from "@polyvisor/service-kit";

/** Bytes that one LeaseAccess carries at most; longer DMA goes in several. */
export const MAX_ACCESS_BYTES = 256 * 1024;
/** Pages that one LeaseRecall asks for at most: the answer may carry all of them. */
export const MAX_RECALL_PAGES = 64;

/** One page's part of a DMA segment. */
export interface PageAccess {
  readonly page: number;
  /** Offset in RAM. */
  readonly offset: number;
  readonly length: number;
  readonly write: boolean;
  /** Bytes to write, or where to put the bytes read ... */
  readonly buffer: Uint8Array;
  /** ... at this position. */
  readonly position: number;
}

/** How long a holder may take to answer. */
export interface Deadline {
  readonly clock: Pick<Clock, "after">;
  readonly ms: number;
}

interface RecallRun {
  kind: "recall";
  first: number;
  keep: Access;
  done: (() => void)[]; // one per page
}
interface AccessRun<A extends PageAccess> {
  kind: "access";
  parts: A[];
  bytes: number;
}

/**
 * A holder with a coherent lease, as the space sees it: what was asked of it, and what is about to be. Requests about
 * neighbouring pages made in one turn go out as one message; their order never changes.
 */
export class Holder<A extends PageAccess = PageAccess> {
  readonly name: string;
  readonly index: number;
  readonly firstPage: bigint;
  readonly channel: Channel<LeaseResponse, LeaseRequest>;
  readonly recalls = new Map<bigint, { first: number; keep: Access; done: (() => void)[] }>();
  readonly accesses = new Map<bigint, A[]>();
  readonly #machine: string;
  readonly #ramBase: bigint;
  readonly #deadline: Deadline;
  #stopWatch: (() => void) | undefined;
  #run: RecallRun | AccessRun<A> | undefined;
  #nextId = 1n;
  closed = false;

  constructor(
    identity: { machine: string; name: string; index: number; ramBase: bigint },
    channel: Channel<LeaseResponse, LeaseRequest>,
    deadline: Deadline,
  ) {
    this.#machine = identity.machine;
    this.name = identity.name;
    this.index = identity.index;
    this.#ramBase = identity.ramBase;
    this.firstPage = identity.ramBase >> 12n;
    this.channel = channel;
    this.#deadline = deadline;
  }

  /** Sends after everything asked before. */
  send(message: LeaseResponse["message"]): void {
    this.flush();
    this.channel.send({ machine: this.#machine, message });
  }
  /** Asks for a page back; `done` when the holder has answered or is gone. */
  recall(page: number, keep: Access, done: () => void): void {
    const run = this.#run;
    if (run?.kind === "recall" && run.keep === keep && page === run.first + run.done.length && run.done.length < MAX_RECALL_PAGES) {
      run.done.push(done);
      return;
    }
    this.flush();
    this.#run = { kind: "recall", first: page, keep, done: [done] };
  }
  /** Has the holder read or write bytes of a page that it has for writing. */
  access(part: A): void {
    const run = this.#run;
    const last = run?.kind === "access" ? run.parts[run.parts.length - 1]! : undefined;
    if (
      run?.kind === "access" &&
      last &&
      last.buffer === part.buffer &&
      last.write === part.write &&
      last.position + last.length === part.position &&
      last.offset + last.length === part.offset &&
      run.bytes + part.length <= MAX_ACCESS_BYTES
    ) {
      run.parts.push(part);
      run.bytes += part.length;
      return;
    }
    this.flush();
    this.#run = { kind: "access", parts: [part], bytes: part.length };
  }
  /** Sends what has been collected. (A loop, because the answer to a message may come before `send` returns.) */
  flush(): void {
    for (let run = this.#run; run; run = this.#run) {
      this.#run = undefined;
      const id = this.#nextId++;
      this.#watch();
      if (run.kind === "recall") {
        const pageCount = run.done.length;
        this.recalls.set(id, { first: run.first, done: run.done, keep: run.keep });
        const value = { id, firstPage: this.firstPage + BigInt(run.first), pageCount, keep: run.keep };
        this.channel.send({ machine: this.#machine, message: { $case: "recall", value } });
      } else {
        this.accesses.set(id, run.parts);
        const value = this.#accessMessage(id, run);
        this.channel.send({ machine: this.#machine, message: { $case: "access", value } });
      }
    }
  }
  /** Everything that will never be answered, once the stream is closed. */
  abandon(): { recalled: (() => void)[]; accesses: A[] } {
    this.closed = true;
    const recalled: (() => void)[] = [];
    const accesses: A[] = [];
    this.#stopWatch?.();
    for (const recall of this.recalls.values()) recalled.push(...recall.done);
    for (const parts of this.accesses.values()) accesses.push(...parts);
    if (this.#run?.kind === "recall") recalled.push(...this.#run.done);
    else if (this.#run) accesses.push(...this.#run.parts);
    this.#run = undefined;
    this.recalls.clear();
    this.accesses.clear();
    return { recalled, accesses };
  }

  /** Closes the stream of a holder that leaves a request unanswered; one timer for all of them. */
  #watch(): void {
    if (this.#stopWatch) return;
    const newest = this.#nextId;
    this.#stopWatch = this.#deadline.clock.after(this.#deadline.ms, () => {
      this.#stopWatch = undefined;
      const outstanding = [...this.recalls.keys(), ...this.accesses.keys()];
      if (outstanding.some((id) => id < newest)) {
        const message = `holder ${this.name} left a recall or access unanswered for ${this.#deadline.ms} ms`;
        this.channel.close(new ContractError("timeout", message));
      } else if (outstanding.length > 0) this.#watch();
    });
  }
  #accessMessage(id: bigint, run: AccessRun<A>): LeaseAccess {
    const { offset, position, buffer, write } = run.parts[0]!;
    return {
      id,
      address: this.#ramBase + BigInt(offset),
      readLength: write ? 0 : run.bytes,
      writeData: write ? buffer.subarray(position, position + run.bytes) : new Uint8Array(0),
    };
  }
}
