import { ContractError, type Channel } from "@polyvisor/contracts";
import {
  Access, GrantStatus, LeaseKind,
  type GrantedRange, type LeaseGrant, type LeaseOpened, type LeaseRecall, type LeaseRequest, type LeaseResponse, type MapMemory, type MemoryPort, type PageData, type SharedMemorySource,
} from "@polyvisor/contracts/memory";
import { holderReserveBytes, PAGE_BYTES } from "@polyvisor/machine";
import { PAGE_STATES } from "./hart-state.ts";
import { PageState, type RamLayout } from "./physical.ts";

const WASM_PAGE = 65536;
/** wasm32: all of a machine's memory lies below 4 GiB. */
const MOST_BYTES = 2 ** 32;

/** Read-ahead in pages: of scattered misses, and as far as it grows over sequential ones (256 KiB of data a grant). */
const LEAST_AHEAD = 16;
const MOST_AHEAD = 64;
/** After a grant of zero pages, which cost nothing on the wire; the manager caps it. */
const ZERO_AHEAD = 1024;

export interface LeaseOptions {
  readonly machine: string;
  readonly harts: number;
  readonly ramBase: bigint;
  readonly ramBytes: bigint;
  readonly memory: MemoryPort;
  /** Set when the memory-manager is in this process: SHARED leases are accepted. */
  readonly sharedMemory: SharedMemorySource | undefined;
  /** Set where memory of other processes can be mapped: MAPPED leases are accepted. */
  readonly mapMemory: MapMemory | undefined;
  /** Makes every hart forget its translations; resolves when none can use an old one any more. */
  readonly flushHarts: () => Promise<void>;
  readonly onClose: (reason: string) => void;
}

interface Waiter {
  readonly page: number;
  readonly write: boolean;
  readonly done: (held: boolean) => void;
}

interface Asked {
  readonly first: number;
  readonly count: number;
  readonly write: boolean;
  readonly waiters: Waiter[];
}

/**
 * The machine's page lease (memory.proto, Lease). SHARED and MAPPED: RAM is the memory-manager's own memory, of this process
 * or mapped into it, and there is nothing more to do. COHERENT: RAM is ours, pages come when a hart asks for them and go when they are recalled;
 * a byte per page says what may be done with it (PAGE_STATES, read by the harts).
 */
export class PageLease {
  readonly kind: LeaseKind;
  readonly memory: WebAssembly.Memory;
  readonly ram: RamLayout;
  pagesAcquired = 0;
  readonly #options: LeaseOptions;
  readonly #channel: Channel<LeaseRequest, LeaseResponse>;
  readonly #states: Uint8Array;
  readonly #bytes: Uint8Array;
  /** Pages whose bytes here may differ from zero. */
  readonly #touched: Uint8Array;
  readonly #asked = new Map<bigint, Asked>();
  #nextId = 1n;
  #ahead = LEAST_AHEAD;
  #expected = -1; // the page after the last grant
  /** The request that is on its way ahead of the harts; see #fetchOn. */
  #fetching: bigint | undefined;
  #closed = false;

  /** Opens the best kind of lease there is: what cannot be mapped from here (MEM-7) is leased by messages. */
  static async open(options: LeaseOptions): Promise<PageLease> {
    try {
      return await PageLease.#open(options);
    } catch (error) {
      if (!(error instanceof MappingFailed)) throw error;
      return PageLease.#open({ ...options, mapMemory: undefined });
    }
  }
  static #open(options: LeaseOptions): Promise<PageLease> {
    const channel = options.memory.lease();
    return new Promise((resolve, reject) => {
      let lease: PageLease | undefined;
      let failed: unknown;
      channel.onClose((error) => {
        const reason = error?.message ?? "the memory-manager ended the page lease";
        if (lease) lease.#ended(reason);
        else reject(failed ?? error ?? new ContractError("unavailable", `createHarts: ${reason}`));
      });
      channel.onMessage((response) => {
        try {
          if (lease) return lease.#receive(response);
          if (response.message?.$case !== "opened") throw new ContractError("invalid", "page lease: first answer is not `opened`");
          lease = new PageLease(options, channel, response.message.value);
          resolve(lease);
        } catch (error) {
          failed = error;
          if (error instanceof MappingFailed) return channel.close();
          // What a peer sends must not take the process down: the lease ends, and with it the machine.
          channel.close(error instanceof ContractError ? error : new ContractError("internal", `page lease: ${String(error)}`));
        }
      });
      const accepts: LeaseKind[] = [LeaseKind.COHERENT];
      if (options.mapMemory) accepts.unshift(LeaseKind.MAPPED);
      if (options.sharedMemory) accepts.unshift(LeaseKind.SHARED);
      channel.send({ machine: options.machine, message: { $case: "open", value: { holder: "cpu-emulator", accepts } } });
    });
  }

  private constructor(options: LeaseOptions, channel: Channel<LeaseRequest, LeaseResponse>, { kind, sharedToken }: LeaseOpened) {
    this.#options = options;
    this.#channel = channel;
    this.kind = kind;
    const ramBytes = Number(options.ramBytes);
    const { memory, offset } = memoryOf(options, kind, sharedToken);
    this.memory = memory;
    this.ram = { base: options.ramBase, bytes: ramBytes, offset, shared: kind !== LeaseKind.COHERENT };
    this.#states = new Uint8Array(this.memory.buffer, PAGE_STATES, ramBytes / PAGE_BYTES);
    this.#bytes = new Uint8Array(this.memory.buffer, this.ram.offset, ramBytes);
    this.#touched = new Uint8Array(kind === LeaseKind.COHERENT ? ramBytes / PAGE_BYTES : 0);
  }

  /** Gets a page for a hart; `done(false)`: it cannot be had (access fault). Page 0 is the first of RAM. */
  acquire(page: number, write: boolean, done: (held: boolean) => void): void {
    if (this.#closed || page < 0 || page >= this.#states.length) return done(false);
    const waiter = { page, write, done };
    if (this.#holds(waiter)) return done(true);
    for (const request of this.#asked.values()) {
      if (page >= request.first && page < request.first + request.count && (request.write || !write)) {
        request.waiters.push(waiter);
        return;
      }
    }
    this.#ask(waiter);
  }
  /** Gives everything up, without data: whoever destroys the harts has no more use for what they wrote. */
  close(): void {
    if (!this.#closed && this.kind === LeaseKind.COHERENT) this.#releaseAll();
    this.#closed = true;
    this.#channel.close();
  }
  #releaseAll(): void {
    for (let first = 0; first < this.#states.length; first++) {
      if (this.#states[first] === PageState.NONE) continue;
      let end = first + 1;
      while (end < this.#states.length && this.#states[end] !== PageState.NONE) end++;
      this.#states.fill(PageState.NONE, first, end);
      this.#send({ $case: "release", value: { firstPage: this.#pageNumber(first), pageCount: end - first, dirty: [] } });
      first = end;
    }
  }

  #ask(waiter: Waiter): void {
    const { page, write } = waiter;
    if (this.#ahead !== ZERO_AHEAD) {
      this.#ahead = page === this.#expected ? Math.min(this.#ahead * 2, MOST_AHEAD) : Math.max(this.#ahead >> 1, LEAST_AHEAD);
    }
    this.#request(page, this.#ahead, write, [waiter]);
  }
  #request(first: number, pages: number, write: boolean, waiters: Waiter[]): bigint {
    const count = Math.min(pages, this.#states.length - first);
    const id = this.#nextId++;
    this.#asked.set(id, { first, count, write, waiters });
    this.#send({
      $case: "acquire",
      value: { id, firstPage: this.#pageNumber(first), pageCount: count, access: write ? Access.WRITE : Access.READ },
    });
    return id;
  }
  /**
   * Asks for what follows a grant of data while the harts run on, one request at a time, until pages that are zero or
   * held already. A booting kernel reads nearly all of what was loaded; each wait of a hart for it costs a round trip.
   * Only while no other holder has pages of this space: an acquire would take them from it.
   */
  #fetchOn(page: number): void {
    if (this.#fetching !== undefined || page >= this.#states.length || this.#states[page] !== PageState.NONE) return;
    for (const { first, count } of this.#asked.values()) if (page >= first && page < first + count) return;
    this.#fetching = this.#request(page, MOST_AHEAD, false, []);
  }
  #holds({ page, write }: Waiter): boolean {
    return Atomics.load(this.#states, page) >= (write ? PageState.WRITE : PageState.READ);
  }

  #receive({ message }: LeaseResponse): void {
    switch (message?.$case) {
      case "grant": return this.#granted(message.value);
      case "recall": return void this.#recall(message.value).catch((error: unknown) => this.#channel.close(new ContractError("internal", String(error))));
      case "access": return this.#access(message.value.id, message.value.address, message.value.readLength, message.value.writeData);
      default: throw new ContractError("invalid", `page lease: unexpected ${message?.$case ?? "empty"} message`);
    }
  }

  #granted({ id, status, ranges }: LeaseGrant): void {
    const request = this.#asked.get(id);
    if (!request) throw new ContractError("invalid", `page lease: grant ${id} was not asked for`);
    this.#asked.delete(id);
    const fetched = id === this.#fetching;
    if (fetched) this.#fetching = undefined;
    for (const range of ranges) this.#apply(range);
    const last = ranges[ranges.length - 1];
    const alone = !request.write && last?.access === Access.WRITE; // the manager gave more than was asked for
    if (alone && last.data.length > 0) this.#fetchOn(this.#index(last.firstPage, last.pageCount) + last.pageCount);
    if (last && !fetched) {
      this.#expected = this.#index(last.firstPage, last.pageCount) + last.pageCount;
      if (!last.upgrade && last.data.length === 0) this.#ahead = ZERO_AHEAD;
      else if (this.#ahead === ZERO_AHEAD) this.#ahead = LEAST_AHEAD;
    }
    for (const waiter of request.waiters) {
      if (status !== GrantStatus.OK) waiter.done(false);
      else if (this.#holds(waiter) || waiter.page === request.first) waiter.done(true); // gone again? the hart asks again
      else this.#ask(waiter); // read-ahead stopped short of it
    }
  }
  #apply({ firstPage, pageCount, access, data, upgrade }: GrantedRange): void {
    const first = this.#index(firstPage, pageCount);
    if (data.length !== 0 && data.length !== pageCount * PAGE_BYTES) {
      throw new ContractError("invalid", `page lease: ${data.length} bytes for ${pageCount} pages; send all of them or none`);
    }
    if (access !== Access.READ && access !== Access.WRITE) throw new ContractError("invalid", `page lease: grant of access ${access}`);
    this.pagesAcquired += pageCount;
    if (data.length > 0) this.#bytes.set(data, first * PAGE_BYTES);
    for (let page = first; page < first + pageCount; page++) {
      if (data.length === 0 && !upgrade && this.#touched[page]) this.#bytes.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      // A page that harts may write, or that came with data, is not known to be zero here any more.
      if (data.length > 0 || access === Access.WRITE) this.#touched[page] = 1;
      Atomics.store(this.#states, page, access === Access.WRITE ? PageState.WRITE : PageState.READ);
    }
  }

  /** Pages go back: first no hart can reach them, then their bytes are read and sent. */
  async #recall({ id, firstPage, pageCount, keep }: LeaseRecall): Promise<void> {
    const first = this.#index(firstPage, pageCount);
    const left = keep === Access.READ ? PageState.READ : PageState.NONE;
    const written: number[] = [];
    for (let page = first; page < first + pageCount; page++) {
      const state = Atomics.load(this.#states, page);
      if (state === PageState.WRITE) written.push(page);
      if (state > left) Atomics.store(this.#states, page, left);
    }
    await this.#options.flushHarts();
    const dirty: PageData[] = written.map((page) => ({ page: this.#pageNumber(page), data: this.#bytes.slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES) }));
    this.#send({ $case: "recalled", value: { id, dirty } });
  }

  /** DMA of somebody else to pages that are here for writing. */
  #access(id: bigint, address: bigint, readLength: number, writeData: Uint8Array): void {
    const length = readLength > 0 ? readLength : writeData.length;
    const start = Number(address - this.ram.base);
    let held = address >= this.ram.base && start + length <= this.ram.bytes;
    for (let page = Math.floor(start / PAGE_BYTES); held && page * PAGE_BYTES < start + length; page++) {
      held = Atomics.load(this.#states, page) === PageState.WRITE;
    }
    let data: Uint8Array = new Uint8Array(0);
    if (held && readLength > 0) data = this.#bytes.slice(start, start + length);
    else if (held) this.#bytes.set(writeData, start);
    this.#send({ $case: "accessed", value: { id, held, data } });
  }

  #pageNumber(page: number): bigint {
    return (this.ram.base >> 12n) + BigInt(page);
  }
  #index(firstPage: bigint, count: number): number {
    const first = firstPage - (this.ram.base >> 12n);
    if (count < 1 || first < 0n || first + BigInt(count) > BigInt(this.#states.length)) {
      throw new ContractError("invalid", `page lease: pages ${firstPage} + ${count} are outside RAM`);
    }
    return Number(first);
  }
  #send(message: LeaseRequest["message"]): void {
    this.#channel.send({ machine: this.#options.machine, message });
  }
  #ended(reason: string): void {
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    const expected = this.#closed;
    this.#closed = true;
    for (const request of asked) for (const waiter of request.waiters) waiter.done(false);
    if (!expected) this.#options.onClose(reason);
  }
}

/** The space is offered as MAPPED, but this process cannot reach it. */
class MappingFailed extends Error {}

/** The memory that a lease of this kind gives, and where RAM begins in it: behind the harts' state. */
function memoryOf(options: LeaseOptions, kind: LeaseKind, token: string): { memory: WebAssembly.Memory; offset: number } {
  const bytes = Number(options.ramBytes);
  const reserve = holderReserveBytes(options.harts);
  if (kind === LeaseKind.SHARED) {
    const shared = options.sharedMemory?.shared(token);
    if (!shared) throw new ContractError("precondition", "page lease: the shared memory of this token is not in this process; offer COHERENT only");
    if (shared.ramOffset < reserve || shared.ramBytes < bytes) {
      throw new ContractError(
        "precondition",
        `page lease: the space reserves ${shared.ramOffset} bytes for the holder and has ${shared.ramBytes} of RAM, but ` +
          `${options.harts} harts need ${reserve} and ${bytes}; create it with holder_reserve_bytes of libs/machine`,
      );
    }
    return { memory: shared.memory, offset: shared.ramOffset };
  }
  const total = reserve + bytes;
  if (total > MOST_BYTES) {
    throw new ContractError("out-of-range", `createHarts: RAM (${bytes}) and ${options.harts} harts' state (${reserve}) exceed 4 GiB`);
  }
  if (kind === LeaseKind.MAPPED && options.mapMemory) {
    try {
      return { memory: options.mapMemory(token, { offset: reserve, bytes }), offset: reserve };
    } catch (cause) {
      throw new MappingFailed(String(cause), { cause });
    }
  }
  if (kind !== LeaseKind.COHERENT) throw new ContractError("invalid", `page lease: opened as ${kind}, which was not asked for`);
  const pages = Math.ceil(total / WASM_PAGE);
  return { memory: new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }), offset: reserve };
}
