import type { Channel, ContractError } from "@polyvisor/contracts";
import { Access, GrantStatus, LeaseKind, type LeaseRequest, type LeaseResponse } from "@polyvisor/contracts/memory";

const PAGE = 4096;

/** One end of a stream whose messages arrive when the test says so: `deliver` hands over the oldest one. */
export class SlowStream {
  readonly toManager: LeaseRequest[] = [];
  readonly toHolder: LeaseResponse[] = [];
  #manager: (message: LeaseRequest) => void = () => {};
  #closed: ((error?: ContractError) => void)[] = [];
  closed = false;
  error: ContractError | undefined;

  readonly managerEnd: Channel<LeaseResponse, LeaseRequest>;
  constructor() {
    const isClosed = () => this.closed;
    this.managerEnd = {
      send: (message) => (this.toHolder.push(message), true),
      onDrain: () => {},
      slow: () => {},
      onMessage: (listener) => void (this.#manager = listener),
      onClose: (listener) => void this.#closed.push(listener),
      close: (error) => this.close(error),
      get closed() {
        return isClosed();
      },
    };
  }
  close(error?: ContractError): void {
    if (this.closed) return;
    this.closed = true;
    this.error = error;
    for (const listener of this.#closed) listener(error);
  }
  deliverToManager(): void {
    const message = this.toManager.shift();
    if (message && !this.closed) this.#manager(message);
  }
}

/** A holder that follows CONTRACT.md to the letter; for tests of the page protocol. */
export class HolderModel {
  readonly stream = new SlowStream();
  readonly pages = new Map<number, { bytes: Uint8Array; access: Access; dirty: boolean }>();
  /** Pages of acquires without an answer, with what to do when it comes. */
  readonly waiting = new Map<bigint, { page: number; count: number; act: () => void }>();
  readonly statuses: GrantStatus[] = [];
  readonly #machine: string;
  readonly #basePage: number;
  #id = 0n;
  /** Called when a forwarded write has been done here. */
  onAccess: (page: number, offset: number, bytes: Uint8Array) => void = () => {};

  constructor(machine: string, base: bigint, name: string) {
    this.#machine = machine;
    this.#basePage = Number(base >> 12n);
    this.#send({ $case: "open", value: { holder: name, accepts: [LeaseKind.COHERENT] } });
  }
  has(page: number, access: Access): boolean {
    return (this.pages.get(page)?.access ?? Access.NONE) >= access;
  }
  acquire(page: number, count: number, access: Access, act: () => void = () => {}): void {
    const id = ++this.#id;
    this.waiting.set(id, { page, count, act });
    this.#send({
      $case: "acquire",
      value: { id, firstPage: BigInt(this.#basePage + page), pageCount: count, access },
    });
  }
  /** False: the page is part of an acquire on its way, so it must stay (MEM-10). */
  release(page: number): boolean {
    for (const { page: first, count } of this.waiting.values()) if (page >= first && page < first + count) return false;
    const dirty = this.#take(page);
    this.pages.delete(page);
    this.#send({ $case: "release", value: { firstPage: BigInt(this.#basePage + page), pageCount: 1, dirty } });
    return true;
  }
  write(page: number, offset: number, bytes: Uint8Array): void {
    const held = this.pages.get(page)!;
    held.bytes.set(bytes, offset);
    held.dirty = true;
  }
  /** Handles the oldest message from the manager. */
  deliver(): void {
    const message = this.stream.toHolder.shift()?.message;
    if (message?.$case === "grant") {
      this.statuses.push(message.value.status);
      for (const range of message.value.ranges) {
        for (let i = 0; i < range.pageCount; i++) {
          const page = Number(range.firstPage) - this.#basePage + i;
          const held = this.pages.get(page);
          if (range.upgrade) {
            if (!held) throw new Error(`upgrade of page ${page}, which the holder does not have`);
            held.access = Math.max(held.access, range.access) as Access;
          } else {
            if (held) throw new Error(`page ${page} granted again`);
            const bytes = range.data.length > 0 ? range.data.slice(i * PAGE, (i + 1) * PAGE) : new Uint8Array(PAGE);
            this.pages.set(page, { bytes, access: range.access, dirty: false });
          }
        }
      }
      const waiting = this.waiting.get(message.value.id);
      this.waiting.delete(message.value.id);
      if (message.value.status === GrantStatus.OK) waiting!.act();
    } else if (message?.$case === "recall") {
      const { id, firstPage, pageCount, keep } = message.value;
      const dirty = [];
      for (let page = Number(firstPage) - this.#basePage, i = 0; i < pageCount; i++, page++) {
        dirty.push(...this.#take(page));
        const held = this.pages.get(page);
        if (keep === Access.READ && held) held.access = Access.READ;
        else this.pages.delete(page);
      }
      this.#send({ $case: "recalled", value: { id, dirty } });
    } else if (message?.$case === "access") {
      const { id, address, readLength, writeData } = message.value;
      const start = Number(address) - this.#basePage * PAGE;
      const length = readLength + writeData.length;
      const data = new Uint8Array(readLength);
      let held = true;
      for (let at = start; at < start + length; at++) held &&= this.has(Math.floor(at / PAGE), Access.WRITE);
      for (let i = 0; held && i < length; i++) {
        const page = Math.floor((start + i) / PAGE);
        const offset = (start + i) % PAGE;
        if (readLength > 0) data[i] = this.pages.get(page)!.bytes[offset]!;
        else this.write(page, offset, writeData.subarray(i, i + 1));
      }
      if (held && readLength === 0) this.onAccess(Math.floor(start / PAGE), start % PAGE, writeData);
      this.#send({ $case: "accessed", value: { id, held, data: held ? data : new Uint8Array(0) } });
    }
  }
  #take(page: number) {
    const held = this.pages.get(page);
    if (!held?.dirty) return [];
    held.dirty = false;
    return [{ page: BigInt(this.#basePage + page), data: held.bytes.slice() }];
  }
  #send(message: LeaseRequest["message"]): void {
    this.stream.toManager.push({ machine: this.#machine, message });
  }
}

/** Delivers everything until nothing is on its way. Throws when it does not end. */
export function settle(holders: readonly HolderModel[]): void {
  for (let turn = 0; turn < 10_000; turn++) {
    let idle = true;
    for (const holder of holders) {
      const { toManager, toHolder } = holder.stream;
      if (toManager.length + toHolder.length > 0) idle = false;
      if (toManager.length > 0) holder.stream.deliverToManager();
      if (toHolder.length > 0) holder.deliver();
    }
    if (idle) return;
  }
  throw new Error("messages go round for ever");
}
