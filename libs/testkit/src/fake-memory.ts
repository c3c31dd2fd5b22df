import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import {
  Access, GrantStatus, LeaseKind, MEMORY,
  type LeaseAcquire, type LeaseRequest, type LeaseResponse, type SharedMemorySource,
} from "@polyvisor/contracts/memory";

const PAGE = 4096;
const NO_DATA = new Uint8Array(0);

interface Space {
  readonly base: bigint;
  readonly bytes: Uint8Array;
  readonly memory: WebAssembly.Memory;
  readonly ramOffset: number;
  /** Pages that the holder has (COHERENT): 0, READ or WRITE. */
  readonly held: Uint8Array;
  channel?: Channel<LeaseResponse, LeaseRequest>;
  kind: LeaseKind;
  readonly waiting: Map<bigint, (message: NonNullable<LeaseRequest["message"]>) => void>;
  /** Recalls that were not answered yet; while there are any, acquires wait in `acquires`, oldest first. */
  recalls: number;
  readonly acquires: (() => void)[];
  nextId: bigint;
}

/**
 * A small honest memory-manager for tests of its clients: one holder per space, SHARED and COHERENT leases, coherent
 * reads and writes, and `recall` to take pages back. No blobs, no grants, no DMA stream.
 */
export class FakeMemory implements SharedMemorySource {
  /** When set, a lease on a machine without a space makes this one: for suites that only see the cpu-emulator's port. */
  template: { ramBase: bigint; ramBytes: number; program: Uint8Array } | undefined;
  readonly #spaces = new Map<string, Space>();
  /** Lease requests received, newest last. */
  readonly requests: LeaseRequest[] = [];

  readonly implementation: Implementation<typeof MEMORY.definition> = {
    createSpace: ({ machine, ram, holderReserveBytes }) => {
      if (this.#spaces.has(machine)) throw new ContractError("already-exists", `createSpace: ${machine} exists`);
      if (!ram) throw new ContractError("invalid", "createSpace: no ram");
      const ramOffset = Number(holderReserveBytes);
      const length = Number(ram.bytes);
      const pages = Math.ceil((ramOffset + length) / 65536);
      const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
      this.#spaces.set(machine, {
        base: ram.base, memory, ramOffset, bytes: new Uint8Array(memory.buffer, ramOffset, length),
        held: new Uint8Array(length / PAGE), kind: LeaseKind.UNSPECIFIED, waiting: new Map(), recalls: 0, acquires: [], nextId: 1n,
      });
      return {};
    },
    destroySpace: ({ machine }) => {
      this.#spaces.get(machine)?.channel?.close();
      this.#spaces.delete(machine);
      return {};
    },
    populate: ({ machine, address, source }) => {
      if (source?.$case !== "data") throw new ContractError("unimplemented", "populate: the fake takes inline bytes only");
      const space = this.#space(machine);
      space.bytes.set(source.value, this.#offset(space, address, source.value.length));
      return { bytes: BigInt(source.value.length) };
    },
    readMemory: async ({ machine, address, length }) => ({ data: await this.#access(machine, address, length, NO_DATA) }),
    writeMemory: async ({ machine, address, data }) => {
      await this.#access(machine, address, 0, data);
      return {};
    },
    lease: (channel) => {
      let space: Space | undefined;
      channel.onMessage((request) => {
        this.requests.push(request);
        try {
          if (request.message?.$case === "open") space = this.#open(request.machine, channel, request.message.value.accepts);
          else if (space && request.message) this.#lease(request.machine, space, request.message);
        } catch (error) {
          channel.close(error instanceof ContractError ? error : new ContractError("internal", String(error)));
        }
      });
    },
  };

  shared(token: string): { memory: WebAssembly.Memory; ramOffset: number; ramBytes: number } | undefined {
    const space = this.#spaces.get(token);
    return space && { memory: space.memory, ramOffset: space.ramOffset, ramBytes: space.bytes.length };
  }

  /** Takes pages back from the holder; resolves with how many came back written. */
  recall(machine: string, address: bigint, pages: number, keep: Access = Access.NONE): Promise<number> {
    const space = this.#space(machine);
    const first = this.#offset(space, address, pages * PAGE) / PAGE;
    space.recalls++;
    return this.#ask(machine, space, (id) => ({
      $case: "recall",
      value: { id, firstPage: address >> 12n, pageCount: pages, keep },
    })).then((answer) => {
      if (answer.$case !== "recalled") throw new ContractError("invalid", `recall was answered by ${answer.$case}`);
      for (const { page, data } of answer.value.dirty) space.bytes.set(data, Number(page - (space.base >> 12n)) * PAGE);
      space.held.fill(keep === Access.READ ? 1 : 0, first, first + pages);
      if (--space.recalls === 0) for (const acquire of space.acquires.splice(0)) acquire();
      return answer.value.dirty.length;
    });
  }
  /** Ends the lease as a crashed memory-manager would. */
  breakLease(machine: string): void {
    this.#space(machine).channel?.close(new ContractError("unavailable", "the memory-manager is gone"));
  }

  #open(machine: string, channel: Channel<LeaseResponse, LeaseRequest>, accepts: readonly LeaseKind[]): Space {
    if (this.template && !this.#spaces.has(machine)) {
      const { ramBase, ramBytes, program } = this.template;
      const space: Space = {
        base: ramBase, bytes: new Uint8Array(ramBytes), memory: new WebAssembly.Memory({ initial: 0 }), ramOffset: 0,
        held: new Uint8Array(ramBytes / PAGE), kind: LeaseKind.UNSPECIFIED, waiting: new Map(), recalls: 0, acquires: [], nextId: 1n,
      };
      space.bytes.set(program);
      this.#spaces.set(machine, space);
    }
    const space = this.#space(machine);
    space.kind = accepts.includes(LeaseKind.SHARED) ? LeaseKind.SHARED : LeaseKind.COHERENT;
    space.channel = channel;
    const sharedToken = space.kind === LeaseKind.SHARED ? machine : "";
    const ram = { base: space.base, bytes: BigInt(space.bytes.length) };
    channel.send({ machine, message: { $case: "opened", value: { kind: space.kind, ram, sharedToken } } });
    return space;
  }
  #lease(machine: string, space: Space, message: NonNullable<LeaseRequest["message"]>): void {
    if (message.$case === "recalled" || message.$case === "accessed") {
      space.waiting.get(message.value.id)?.(message);
      space.waiting.delete(message.value.id);
      return;
    }
    if (message.$case === "release") {
      const from = Number(message.value.firstPage - (space.base >> 12n));
      space.held.fill(0, from, from + message.value.pageCount);
      return;
    }
    if (message.$case !== "acquire") throw new ContractError("invalid", `the fake does not take ${message.$case}`);
    const { value } = message;
    // Before a recalled page is back, nobody here knows what is in it.
    if (space.recalls > 0) space.acquires.push(() => this.#acquire(machine, space, value));
    else this.#acquire(machine, space, value);
  }
  #acquire(machine: string, space: Space, { id, firstPage, pageCount }: LeaseAcquire): void {
    const first = Number(firstPage - (space.base >> 12n));
    const send = (status: GrantStatus, ranges: { page: number; zero: boolean; upgrade: boolean }[]): void => {
      const grants = ranges.map(({ page, zero, upgrade }) => ({
        firstPage: (space.base >> 12n) + BigInt(page), pageCount: 1, access: Access.WRITE, upgrade,
        data: zero || upgrade ? NO_DATA : space.bytes.slice(page * PAGE, (page + 1) * PAGE),
      }));
      space.channel?.send({ machine, message: { $case: "grant", value: { id, status, ranges: grants } } });
    };
    if (first < 0 || first >= space.held.length) return send(GrantStatus.OUT_OF_RANGE, []);
    const ranges = [];
    for (let page = first; page < Math.min(first + pageCount, space.held.length); page++) {
      if (page > first && space.held[page]) break;
      const zero = !space.bytes.subarray(page * PAGE, (page + 1) * PAGE).some((byte) => byte !== 0);
      ranges.push({ page, zero, upgrade: space.held[page] !== 0 });
      space.held[page] = 2;
    }
    send(GrantStatus.OK, ranges);
  }

  async #access(machine: string, address: bigint, readLength: number, writeData: Uint8Array): Promise<Uint8Array> {
    const space = this.#space(machine);
    const length = readLength || writeData.length;
    const start = this.#offset(space, address, length);
    const data = new Uint8Array(readLength);
    for (let done = 0; done < length; ) {
      const at = start + done;
      const part = Math.min(length - done, PAGE - (at % PAGE));
      const bytes = writeData.subarray(done, done + part);
      if (space.kind === LeaseKind.COHERENT && space.held[Math.floor(at / PAGE)] === 2 && space.channel && !space.channel.closed) {
        const answer = await this.#ask(machine, space, (id) => ({
          $case: "access",
          value: { id, address: address + BigInt(done), readLength: readLength ? part : 0, writeData: bytes },
        }));
        if (answer.$case !== "accessed" || !answer.value.held) {
          await new Promise((resolve) => setTimeout(resolve, 1)); // it went back meanwhile
          continue;
        }
        data.set(answer.value.data, done);
      } else if (readLength) data.set(space.bytes.subarray(at, at + part), done);
      else space.bytes.set(bytes, at);
      done += part;
    }
    return data;
  }
  #ask(machine: string, space: Space, message: (id: bigint) => LeaseResponse["message"]): Promise<NonNullable<LeaseRequest["message"]>> {
    const id = space.nextId++;
    return new Promise((resolve) => {
      space.waiting.set(id, resolve);
      space.channel?.send({ machine, message: message(id) });
    });
  }
  #space(machine: string): Space {
    const space = this.#spaces.get(machine);
    if (!space) throw new ContractError("not-found", `there is no space ${machine}`);
    return space;
  }
  #offset(space: Space, address: bigint, length: number): number {
    const offset = Number(address - space.base);
    if (offset < 0 || offset + length > space.bytes.length) throw new ContractError("out-of-range", `0x${address.toString(16)} + ${length} is not in RAM`);
    return offset;
  }
}
