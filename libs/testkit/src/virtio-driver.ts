/**
 * A guest's virtio driver in miniature (virtio 1.2, 3.1 and 4.2), for tests of devices: sets a device up through its
 * registers, puts buffers in split rings, reads the used ring. `memory` is guest RAM.
 */
export interface GuestMemory {
  readonly base: bigint;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}
export interface Registers {
  read(offset: number): number;
  write(offset: number, value: number): void;
}
/** One descriptor: bytes to read for the device, or room for it to write. */
export type Buffer = { read: Uint8Array } | { write: number };
export interface Used {
  /** What the device wrote, over all writable buffers of the chain. */
  data: Uint8Array;
  written: number;
}

const STATUS = 0x70;
const FEATURES_OK = 8;
const SET_UP = 1 | 2;
const DRIVER_OK = 4;
const DESC_NEXT = 1;
const DESC_WRITE = 2;
const DESC_INDIRECT = 4;
export const F_INDIRECT_DESC = 1n << 28n;
export const F_EVENT_IDX = 1n << 29n;
export const F_VERSION_1 = 1n << 32n;

export class VirtioDriver {
  readonly #memory: GuestMemory;
  readonly #registers: Registers;
  #next: number;
  #queues: DriverQueue[] = [];
  features = 0n;

  /** Structures and buffers are placed from `at` (a guest address, page aligned) upwards. */
  constructor(memory: GuestMemory, registers: Registers, at: bigint) {
    this.#memory = memory;
    this.#registers = registers;
    this.#next = Number(at - memory.base);
  }

  get status(): number {
    return this.#registers.read(STATUS);
  }

  /** Negotiates `features` (with VERSION_1), sets all queues up with `queueSize` entries, sets DRIVER_OK. */
  start(features = 0n, queueSize = 8): this {
    const { read, write } = this.#registers;
    this.features = features | F_VERSION_1;
    write(STATUS, 0);
    write(STATUS, SET_UP);
    for (const half of [0, 1]) {
      write(0x24, half);
      write(0x20, Number((this.features >> BigInt(32 * half)) & 0xffff_ffffn));
    }
    write(STATUS, SET_UP | FEATURES_OK);
    if ((read(STATUS) & FEATURES_OK) === 0) throw new Error("the device refuses the features");
    this.#queues = [];
    for (let index = 0; ; index++) {
      write(0x30, index);
      if (read(0x34) === 0) break;
      const queue = new DriverQueue(this.#memory, queueSize, this.allocate(16 * queueSize + 4096, 4096));
      write(0x38, queueSize);
      for (const [register, address] of [[0x80, queue.descriptors], [0x90, queue.available], [0xa0, queue.used]] as const) {
        write(register, Number(address & 0xffff_ffffn));
        write(register + 4, Number(address >> 32n));
      }
      write(0x44, 1);
      this.#queues.push(queue);
    }
    write(STATUS, SET_UP | FEATURES_OK | DRIVER_OK);
    return this;
  }

  queue(index: number): DriverQueue {
    return this.#queues[index]!;
  }

  /** Room for `byteLength` bytes; answers its guest address. */
  allocate(byteLength: number, alignment = 16): bigint {
    this.#next = Math.ceil(this.#next / alignment) * alignment;
    const at = this.#next;
    this.#next += byteLength;
    if (this.#next > this.#memory.bytes.length) throw new Error("the test's guest memory is full");
    return this.#memory.base + BigInt(at);
  }

  /** Makes a chain available without telling the device; answers its head. */
  offer(queueIndex: number, buffers: readonly Buffer[], indirect = false): number {
    const descriptors = buffers.map((buffer) => {
      const byteLength = "read" in buffer ? buffer.read.length : buffer.write;
      const address = this.allocate(Math.max(byteLength, 1));
      if ("read" in buffer) this.#memory.bytes.set(buffer.read, Number(address - this.#memory.base));
      return { address, byteLength, flags: "read" in buffer ? 0 : DESC_WRITE };
    });
    const queue = this.queue(queueIndex);
    if (!indirect) return queue.offer(descriptors);
    const table = this.allocate(16 * descriptors.length);
    queue.writeTable(table, descriptors, 0);
    const head = queue.offer([{ address: table, byteLength: 16 * descriptors.length, flags: DESC_INDIRECT }]);
    queue.chains.set(head, descriptors);
    return head;
  }

  notify(queueIndex: number): void {
    this.#registers.write(0x50, queueIndex);
  }

  /** Offers, notifies and waits until the device has used the chain. */
  async request(queueIndex: number, buffers: readonly Buffer[], indirect = false): Promise<Used> {
    const head = this.offer(queueIndex, buffers, indirect);
    this.notify(queueIndex);
    return this.queue(queueIndex).waitFor(head);
  }
}

interface Descriptor {
  address: bigint;
  byteLength: number;
  flags: number;
}

export class DriverQueue {
  readonly descriptors: bigint;
  readonly available: bigint;
  readonly used: bigint;
  readonly chains = new Map<number, Descriptor[]>();
  readonly #memory: GuestMemory;
  readonly #size: number;
  readonly #free: number[];
  readonly #done = new Map<number, Used>();
  #availableIndex = 0;
  #usedIndex = 0;

  constructor(memory: GuestMemory, size: number, at: bigint) {
    this.#memory = memory;
    this.#size = size;
    this.descriptors = at;
    this.available = at + BigInt(16 * size);
    this.used = at + BigInt(16 * size + Math.ceil((6 + 2 * size) / 4) * 4);
    this.#free = Array.from({ length: size }, (_, index) => size - 1 - index);
    const start = Number(at - memory.base);
    memory.bytes.fill(0, start, start + 16 * size + 4096); // rings begin empty (2.7)
  }

  offer(chain: readonly Descriptor[]): number {
    if (chain.length > this.#free.length) throw new Error(`the queue has ${this.#free.length} free descriptors, the chain ${chain.length}`);
    const indices = chain.map(() => this.#free.pop()!);
    for (const [position, index] of indices.entries()) {
      const next = indices[position + 1];
      this.writeDescriptor(this.descriptors, index, chain[position]!, next);
    }
    const head = indices[0]!;
    this.chains.set(head, [...chain]);
    this.publish(head);
    return head;
  }

  /** Writes the ring entry, then the index. */
  publish(head: number): void {
    const { view, base } = this.#memory;
    const at = Number(this.available - base);
    view.setUint16(at + 4 + 2 * (this.#availableIndex % this.#size), head, true);
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
    view.setUint16(at + 2, this.#availableIndex, true);
  }

  writeTable(table: bigint, chain: readonly Descriptor[], first: number): void {
    for (const [position, descriptor] of chain.entries()) {
      const last = position === chain.length - 1;
      this.writeDescriptor(table, first + position, descriptor, last ? undefined : first + position + 1);
    }
  }

  writeDescriptor(table: bigint, index: number, { address, byteLength, flags }: Descriptor, next: number | undefined): void {
    const { view, base } = this.#memory;
    const at = Number(table - base) + 16 * index;
    view.setBigUint64(at, address, true);
    view.setUint32(at + 8, byteLength, true);
    view.setUint16(at + 12, flags | (next === undefined ? 0 : DESC_NEXT), true);
    view.setUint16(at + 14, next ?? 0, true);
  }

  get usedIndex(): number {
    return this.#memory.view.getUint16(Number(this.used - this.#memory.base) + 2, true);
  }

  /** Takes what the device has used since the last call. */
  collect(): void {
    const { view, base, bytes } = this.#memory;
    const at = Number(this.used - base);
    for (; this.#usedIndex !== this.usedIndex; this.#usedIndex = (this.#usedIndex + 1) & 0xffff) {
      const element = at + 4 + 8 * (this.#usedIndex % this.#size);
      const head = view.getUint32(element, true);
      const written = view.getUint32(element + 4, true);
      const chain = this.chains.get(head);
      if (!chain) throw new Error(`the device used ${head}, which it does not have`);
      this.chains.delete(head);
      const parts = chain.filter(({ flags }) => (flags & DESC_WRITE) !== 0);
      const data = new Uint8Array(parts.reduce((sum, { byteLength }) => sum + byteLength, 0));
      let filled = 0;
      for (const { address, byteLength } of parts) {
        data.set(bytes.subarray(Number(address - base), Number(address - base) + byteLength), filled);
        filled += byteLength;
      }
      this.#release(head);
      this.#done.set(head, { data, written });
    }
  }

  async waitFor(head: number, turns = 1000): Promise<Used> {
    for (let turn = 0; turn < turns; turn++) {
      this.collect();
      const used = this.#done.get(head);
      if (used) {
        this.#done.delete(head);
        return used;
      }
      // Now and then a turn of the event loop: a device may leave it to others.
      await new Promise<void>((resolve) => void (turn % 50 === 49 ? setImmediate(resolve) : queueMicrotask(resolve)));
    }
    throw new Error(`the device has not used chain ${head}`);
  }

  #release(head: number): void {
    const { view, base } = this.#memory;
    let index = head;
    for (;;) {
      const at = Number(this.descriptors - base) + 16 * index;
      this.#free.push(index);
      if ((view.getUint16(at + 12, true) & DESC_NEXT) === 0) return;
      index = view.getUint16(at + 14, true);
    }
  }
}
