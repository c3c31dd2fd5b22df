import assert from "node:assert/strict";
import { ContractError, type Channel, type Condition } from "@polyvisor/contracts";
import {
  Access,
  DmaStatus,
  GrantStatus,
  LeaseKind,
  MEMORY,
  type DmaSegment,
  type LeaseRequest,
  type LeaseResponse,
  type MemoryPort,
} from "@polyvisor/contracts/memory";
import type { ConformanceCase, ConformanceEnvironment, ConformanceSuite } from "../suite.ts";

const BASE = 0x8000_0000n;
const PAGE = 4096;
const RAM_PAGES = 64;
const NO_BYTES = new Uint8Array(0);
const RAM = { base: BASE, bytes: BigInt(RAM_PAGES * PAGE) };
const pageNumber = (index: number) => (BASE >> 12n) + BigInt(index);
const addressOf = (page: number, offset = 0) => BASE + BigInt(page * PAGE + offset);

type Answer = NonNullable<LeaseResponse["message"]>;
type Of<K extends Answer["$case"]> = Extract<Answer, { $case: K }>["value"];

/** A stream whose messages are awaited in order. */
class Inbox<S, R> {
  readonly channel: Channel<S, R>;
  readonly #queue: R[] = [];
  readonly #waiting: { resolve: (message: R) => void; reject: (error: unknown) => void }[] = [];
  readonly #environment: ConformanceEnvironment;
  readonly closed: Promise<ContractError | undefined>;
  #ended = false;

  constructor(channel: Channel<S, R>, environment: ConformanceEnvironment) {
    this.channel = channel;
    this.#environment = environment;
    this.closed = new Promise((resolve) =>
      channel.onClose((error) => {
        this.#ended = true;
        for (const { reject } of this.#waiting.splice(0)) reject(error ?? new Error("the stream ended"));
        resolve(error);
      }),
    );
    channel.onMessage((message) => {
      const waiter = this.#waiting.shift();
      if (waiter) waiter.resolve(message);
      else this.#queue.push(message);
    });
  }
  next(what: string): Promise<R> {
    const message = this.#queue.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (this.#ended) return Promise.reject(new Error(`the stream ended before ${what}`));
    const promise = new Promise<R>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    return this.#environment.within(5000, promise, what);
  }
}

/** A holder driven by hand. */
class TestHolder extends Inbox<LeaseRequest, LeaseResponse> {
  readonly machine: string;
  #id = 0n;
  constructor(port: MemoryPort, environment: ConformanceEnvironment, machine: string) {
    super(port.lease(), environment);
    this.machine = machine;
  }
  say(message: LeaseRequest["message"]): void {
    this.channel.send({ machine: this.machine, message });
  }
  async expect<K extends Answer["$case"]>(kind: K): Promise<Of<K>> {
    const { message } = await this.next(`a ${kind} for ${this.machine}`);
    assert.equal(message?.$case, kind);
    return message!.value as Of<K>;
  }
  async open(accepts: LeaseKind[] = [LeaseKind.COHERENT]): Promise<Of<"opened">> {
    this.say({ $case: "open", value: { holder: "conformance", accepts } });
    return await this.expect("opened");
  }
  ask(page: number, pageCount: number, access: Access): bigint {
    const id = ++this.#id;
    this.say({ $case: "acquire", value: { id, firstPage: pageNumber(page), pageCount, access } });
    return id;
  }
  async acquire(page: number, pageCount: number, access: Access): Promise<Of<"grant">> {
    const id = this.ask(page, pageCount, access);
    const grant = await this.expect("grant");
    assert.equal(grant.id, id);
    return grant;
  }
  release(page: number, pageCount: number, dirty: Map<number, Uint8Array> = new Map()): void {
    const list = [...dirty].map(([index, data]) => ({ page: pageNumber(index), data }));
    this.say({ $case: "release", value: { firstPage: pageNumber(page), pageCount, dirty: list } });
  }
}

/** The bytes of one page out of a grant; undefined when the grant does not have it. */
function granted(grant: Of<"grant">, page: number): { access: Access; upgrade: boolean; data: Uint8Array } | undefined {
  for (const range of grant.ranges) {
    const at = Number(pageNumber(page) - range.firstPage);
    if (at < 0 || at >= range.pageCount) continue;
    const data = range.data.length > 0 ? range.data.subarray(at * PAGE, (at + 1) * PAGE) : new Uint8Array(PAGE);
    return { access: range.access, upgrade: range.upgrade, data };
  }
  return undefined;
}

async function fails(promise: Promise<unknown>, ...conditions: Condition[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof ContractError, `not a ContractError: ${String(error)}`);
    assert.ok(conditions.includes(error.condition), `${error.condition}: ${error.message}`);
    return true;
  });
}
const read = (address: bigint, readLength: number): DmaSegment => ({ address, readLength, writeData: NO_BYTES });
const write = (address: bigint, ...bytes: number[]): DmaSegment => ({ address, readLength: 0, writeData: Uint8Array.from(bytes) });

/** A case that gets a fresh space, destroyed afterwards. */
function onSpace(
  requirement: string,
  title: string,
  run: (port: MemoryPort, machine: string, environment: ConformanceEnvironment) => Promise<void>,
): ConformanceCase<typeof MEMORY.definition> {
  return {
    requirement,
    title,
    async run(port, environment) {
      const machine = environment.unique("mem");
      await port.createSpace({ machine, ram: RAM, holderReserveBytes: 0n, leaseKinds: [] });
      try {
        await run(port, machine, environment);
      } finally {
        await port.destroySpace({ machine });
      }
    },
  };
}
async function dma(port: MemoryPort, environment: ConformanceEnvironment, machine: string, segments: DmaSegment[], device = "dev") {
  const stream = new Inbox(port.dma(), environment);
  stream.channel.send({ machine, device, id: 7n, segments });
  const answer = await stream.next("a DMA answer");
  assert.equal(answer.id, 7n);
  stream.channel.close();
  return answer;
}
const grantAll = (port: MemoryPort, machine: string) =>
  port.setGrants({ machine, device: "dev", grants: [{ range: RAM, write: true }] });
const readU8 = async (port: MemoryPort, machine: string, page: number) =>
  (await port.readMemory({ machine, address: addressOf(page), length: 1 })).data[0];

export const MEMORY_SUITE: ConformanceSuite<typeof MEMORY.definition> = {
  contract: MEMORY,
  cases: [
    onSpace("MEM-1", "createSpace again with the same shape → the same space; with another shape → already-exists", async (port, machine) => {
      await port.writeMemory({ machine, address: BASE, data: Uint8Array.of(42) });
      await port.createSpace({ machine, ram: RAM, holderReserveBytes: 0n, leaseKinds: [] });
      assert.equal(await readU8(port, machine, 0), 42);
      await fails(port.createSpace({ machine, ram: { ...RAM, bytes: RAM.bytes * 2n }, holderReserveBytes: 0n, leaseKinds: [] }), "already-exists");
    }),
    onSpace("MEM-1", "shapes that cannot work → invalid, and nothing is created", async (port, _machine, environment) => {
      const machine = environment.unique("bad");
      const bad = [
        { machine, ram: undefined, holderReserveBytes: 0n, leaseKinds: [] },
        { machine, ram: { base: BASE + 1n, bytes: 4096n }, holderReserveBytes: 0n, leaseKinds: [] },
        { machine, ram: { base: BASE, bytes: 0n }, holderReserveBytes: 0n, leaseKinds: [] },
        { machine, ram: { base: BASE, bytes: 4097n }, holderReserveBytes: 0n, leaseKinds: [] },
        { machine, ram: RAM, holderReserveBytes: 4096n, leaseKinds: [] },
        { machine, ram: { base: BASE, bytes: 5n << 32n }, holderReserveBytes: 0n, leaseKinds: [] },
        { machine: "", ram: RAM, holderReserveBytes: 0n, leaseKinds: [] },
      ];
      for (const request of bad) await fails(port.createSpace(request), "invalid");
      assert.ok(!(await port.listSpaces({})).machines.includes(machine));
    }),
    onSpace("MEM-2", "destroySpace twice → gone, no error; calls about it → not-found", async (port, machine) => {
      assert.ok((await port.listSpaces({})).machines.includes(machine));
      await port.destroySpace({ machine });
      await port.destroySpace({ machine });
      assert.ok(!(await port.listSpaces({})).machines.includes(machine));
      await fails(port.readMemory({ machine, address: BASE, length: 1 }), "not-found");
      await fails(port.setGrants({ machine, device: "dev", grants: [] }), "not-found");
      await fails(port.readSpaceStats({ machine }), "not-found");
    }),
    onSpace("MEM-3", "memory is zero at first, and reads what was written, at any alignment", async (port, machine) => {
      const data = Uint8Array.from({ length: 5000 }, (_, i) => i * 7);
      assert.deepEqual([...(await port.readMemory({ machine, address: BASE + 3n, length: 9 })).data], [...new Uint8Array(9)]);
      await port.writeMemory({ machine, address: BASE + 4093n, data });
      const { data: back } = await port.readMemory({ machine, address: BASE + 4093n, length: 5000 });
      assert.ok(Buffer.from(back).equals(data));
    }),
    onSpace("MEM-3", "a range that is not wholly in RAM → out-of-range; more than 1 MiB → invalid; nothing written", async (port, machine) => {
      const end = RAM.base + RAM.bytes;
      for (const address of [0n, BASE - 1n, end - 1n, end, (1n << 64n) - 1n]) {
        await fails(port.readMemory({ machine, address, length: 2 }), "out-of-range");
        await fails(port.writeMemory({ machine, address, data: Uint8Array.of(1, 2) }), "out-of-range");
      }
      await fails(port.readMemory({ machine, address: BASE, length: 1024 * 1024 + 1 }), "invalid");
      assert.equal(await readU8(port, machine, RAM_PAGES - 1), 0);
    }),
    onSpace("MEM-4", "populate with inline bytes at any address → they are there, the answer counts them", async (port, machine) => {
      const source = { $case: "data" as const, value: Uint8Array.of(1, 2, 3) };
      const { bytes } = await port.populate({ machine, address: BASE + 4095n, source, blobOffset: 0n, length: 0n });
      assert.equal(bytes, 3n);
      assert.deepEqual([...(await port.readMemory({ machine, address: BASE + 4094n, length: 5 })).data], [0, 1, 2, 3, 0]);
    }),
    onSpace("MEM-4", "populate without a source → invalid; beyond RAM → out-of-range", async (port, machine) => {
      const rest = { machine, blobOffset: 0n, length: 0n };
      await fails(port.populate({ ...rest, address: BASE, source: undefined }), "invalid");
      const source = { $case: "data" as const, value: Uint8Array.of(1, 2) };
      await fails(port.populate({ ...rest, address: BASE + RAM.bytes - 1n, source }), "out-of-range");
    }),
    onSpace("MEM-5", "DMA without a grant, of another device, or writing where only reading is granted → DENIED", async (port, machine, environment) => {
      assert.equal((await dma(port, environment, machine, [read(BASE, 4)])).status, DmaStatus.DENIED);
      await port.setGrants({ machine, device: "dev", grants: [{ range: { base: BASE, bytes: 4096n }, write: false }] });
      assert.equal((await dma(port, environment, machine, [read(BASE, 4)])).status, DmaStatus.OK);
      assert.equal((await dma(port, environment, machine, [read(BASE, 4)], "other")).status, DmaStatus.DENIED);
      assert.equal((await dma(port, environment, machine, [write(BASE, 1)])).status, DmaStatus.DENIED);
      assert.equal((await dma(port, environment, machine, [read(BASE + 4094n, 4)])).status, DmaStatus.DENIED);
      await port.setGrants({ machine, device: "dev", grants: [] });
      assert.equal((await dma(port, environment, machine, [read(BASE, 4)])).status, DmaStatus.DENIED);
    }),
    onSpace("MEM-5", "grants that are not page-aligned → invalid; outside RAM → out-of-range", async (port, machine) => {
      const grants = (base: bigint, bytes: bigint) => [{ range: { base, bytes }, write: true }];
      await fails(port.setGrants({ machine, device: "dev", grants: grants(BASE + 1n, 4096n) }), "invalid");
      await fails(port.setGrants({ machine, device: "dev", grants: grants(BASE - 4096n, 8192n) }), "out-of-range");
      await fails(port.setGrants({ machine, device: "", grants: [] }), "invalid");
    }),
    onSpace("MEM-6", "DMA segments run in order; a bad one → nothing at all is touched", async (port, machine, environment) => {
      await grantAll(port, machine);
      const good = await dma(port, environment, machine, [write(BASE, 1, 2, 3), read(BASE + 1n, 2), write(BASE + 1n, 9), read(BASE, 3)]);
      assert.equal(good.status, DmaStatus.OK);
      assert.deepEqual(good.data.map((d) => [...d]), [[2, 3], [1, 9, 3]]);
      const bad = await dma(port, environment, machine, [write(BASE, 77), read(RAM.base + RAM.bytes - 1n, 2)]);
      assert.equal(bad.status, DmaStatus.OUT_OF_RANGE);
      assert.deepEqual(bad.data, []);
      assert.equal(await readU8(port, machine, 0), 1);
    }),
    onSpace("MEM-6", "wild addresses and lengths → OUT_OF_RANGE, the stream lives on", async (port, machine, environment) => {
      await grantAll(port, machine);
      const stream = new Inbox(port.dma(), environment);
      let id = 0n;
      const status = async (segments: DmaSegment[]) => {
        stream.channel.send({ machine, device: "dev", id: ++id, segments });
        const answer = await stream.next("a DMA answer");
        assert.equal(answer.id, id);
        return answer.status;
      };
      assert.equal(await status([read((1n << 64n) - 1n, 0xffff_ffff)]), DmaStatus.OUT_OF_RANGE);
      assert.equal(await status([read(BASE, 0xffff_ffff)]), DmaStatus.OUT_OF_RANGE);
      assert.equal(await status([{ ...write(BASE, 1), readLength: 1 }]), DmaStatus.OUT_OF_RANGE);
      assert.equal(await status([read(1n, 0)]), DmaStatus.OK);
      assert.equal(await status([]), DmaStatus.OK);
      stream.channel.close();
    }),
    onSpace("MEM-6", "DMA to a machine without a space → FAILED", async (port, _machine, environment) => {
      assert.equal((await dma(port, environment, environment.unique("none"), [read(BASE, 1)])).status, DmaStatus.FAILED);
    }),
    onSpace("MEM-7", "open → kind and RAM; anything else first → the stream ends with precondition", async (port, machine, environment) => {
      const holder = new TestHolder(port, environment, machine);
      const opened = await holder.open();
      assert.equal(opened.kind, LeaseKind.COHERENT);
      assert.deepEqual({ ...opened.ram }, { ...RAM });
      holder.channel.close();
      const rude = new TestHolder(port, environment, machine);
      rude.ask(0, 1, Access.READ);
      assert.equal((await environment.within(5000, rude.closed, "the end of the stream"))?.condition, "precondition");
      const lost = new TestHolder(port, environment, environment.unique("none"));
      lost.say({ $case: "open", value: { holder: "x", accepts: [LeaseKind.COHERENT] } });
      assert.equal((await environment.within(5000, lost.closed, "the end of the stream"))?.condition, "not-found");
    }),
    onSpace("MEM-7", "MAPPED where it is offered names a memfd; who cannot map it closes the stream and is given COHERENT", async (port, machine, environment) => {
      for (let round = 0; round < 20; round++) {
        const first = new TestHolder(port, environment, machine);
        const { kind, sharedToken } = await first.open([LeaseKind.MAPPED, LeaseKind.COHERENT]);
        if (kind === LeaseKind.MAPPED) assert.match(sharedToken, /^[1-9]\d*:\d+:[\w.-]+$/);
        else assert.equal(kind, LeaseKind.COHERENT);
        first.channel.close();
        const second = new TestHolder(port, environment, machine);
        assert.equal((await second.open()).kind, LeaseKind.COHERENT);
        second.channel.close();
      }
    }),
    onSpace("MEM-7", "a space for COHERENT leases alone → no other kind is given", async (port, _machine, environment) => {
      const machine = environment.unique("kinds");
      const request = { machine, ram: RAM, holderReserveBytes: 0n, leaseKinds: [LeaseKind.COHERENT] };
      await port.createSpace(request);
      try {
        await fails(port.createSpace({ ...request, leaseKinds: [] }), "already-exists");
        const holder = new TestHolder(port, environment, machine);
        assert.equal((await holder.open([LeaseKind.SHARED, LeaseKind.MAPPED, LeaseKind.COHERENT])).kind, LeaseKind.COHERENT);
        holder.channel.close();
      } finally {
        await port.destroySpace({ machine });
      }
      await fails(port.createSpace({ ...request, leaseKinds: [7 as LeaseKind] }), "invalid");
    }),
    onSpace("MEM-8", "acquire → the page and perhaps more up to page_count; zero pages carry no data", async (port, machine, environment) => {
      await port.writeMemory({ machine, address: addressOf(2), data: Uint8Array.of(5) });
      const holder = new TestHolder(port, environment, machine);
      await holder.open();
      const zero = await holder.acquire(0, 1, Access.READ);
      assert.equal(zero.status, GrantStatus.OK);
      assert.equal(zero.ranges.length, 1);
      assert.equal(zero.ranges[0]!.data.length, 0);
      const data = await holder.acquire(2, 4, Access.WRITE);
      assert.equal(granted(data, 2)!.data[0], 5);
      assert.ok(granted(data, 2)!.access >= Access.WRITE);
      for (const range of data.ranges) {
        assert.ok(range.firstPage >= pageNumber(2) && range.firstPage + BigInt(range.pageCount) <= pageNumber(6));
        assert.ok(range.data.length === 0 || range.data.length === range.pageCount * PAGE);
      }
      assert.equal((await holder.acquire(RAM_PAGES, 1, Access.READ)).status, GrantStatus.OUT_OF_RANGE);
      assert.equal((await holder.acquire(-1, 1, Access.READ)).status, GrantStatus.OUT_OF_RANGE);
      holder.release(0, RAM_PAGES);
      holder.channel.close();
    }),
    onSpace("MEM-8", "a page held for reading, then asked for writing → upgrade without data", async (port, machine, environment) => {
      const [a, b] = [new TestHolder(port, environment, machine), new TestHolder(port, environment, machine)];
      await a.open();
      await b.open();
      await port.writeMemory({ machine, address: addressOf(1), data: Uint8Array.of(8) });
      assert.deepEqual([...granted(await a.acquire(1, 1, Access.READ), 1)!.data.subarray(0, 1)], [8]);
      const grant = await a.acquire(1, 1, Access.WRITE);
      assert.equal(granted(grant, 1)!.access, Access.WRITE);
      // Either an implementation gave the lone reader the right to write at once, or it upgrades now: no data both times.
      assert.equal(grant.ranges[0]!.upgrade, true);
      assert.equal(grant.ranges[0]!.data.length, 0);
      a.release(1, 1);
      a.channel.close();
      b.channel.close();
    }),
    onSpace("MEM-9", "another holder asks → recall; the dirty data of the answer is what it gets", async (port, machine, environment) => {
      const [a, b] = [new TestHolder(port, environment, machine), new TestHolder(port, environment, machine)];
      await a.open();
      await b.open();
      await a.acquire(3, 1, Access.WRITE);
      const id = b.ask(3, 1, Access.READ);
      const recall = await a.expect("recall");
      assert.equal(recall.firstPage, pageNumber(3));
      assert.equal(recall.keep, Access.READ);
      const data = new Uint8Array(PAGE).fill(0xab);
      a.say({ $case: "recalled", value: { id: recall.id, dirty: [{ page: pageNumber(3), data }] } });
      const grant = await b.expect("grant");
      assert.equal(grant.id, id);
      assert.equal(granted(grant, 3)!.data[4095], 0xab);
      // Both read now; one wants to write: the other must give it up.
      b.ask(3, 1, Access.WRITE);
      const again = await a.expect("recall");
      assert.equal(again.keep, Access.NONE);
      a.say({ $case: "recalled", value: { id: again.id, dirty: [] } });
      assert.equal(granted(await b.expect("grant"), 3)!.access, Access.WRITE);
      b.release(0, RAM_PAGES);
      a.channel.close();
      b.channel.close();
    }),
    onSpace("MEM-9", "asked for again before its recall is answered → granted after the answer, with what the answer brought", async (port, machine, environment) => {
      const [a, b] = [new TestHolder(port, environment, machine), new TestHolder(port, environment, machine)];
      await a.open();
      await b.open();
      await a.acquire(3, 1, Access.WRITE);
      b.ask(3, 1, Access.READ);
      const recall = await a.expect("recall");
      const id = a.ask(2, 2, Access.READ); // reads ahead over it
      const again = a.ask(3, 1, Access.READ);
      const first = await a.expect("grant");
      assert.equal(first.id, id);
      assert.equal(granted(first, 3), undefined);
      a.say({ $case: "recalled", value: { id: recall.id, dirty: [{ page: pageNumber(3), data: new Uint8Array(PAGE).fill(0xcd) }] } });
      assert.equal(granted(await b.expect("grant"), 3)!.data[0], 0xcd);
      const second = await a.expect("grant");
      assert.equal(second.id, again);
      const { upgrade, data } = granted(second, 3)!;
      assert.ok(upgrade || data[0] === 0xcd);
      a.channel.close();
      b.channel.close();
    }),
    onSpace("MEM-9", "data for a page that is not held, or an answer to nothing → the stream ends with invalid", async (port, machine, environment) => {
      const page = { page: pageNumber(1), data: new Uint8Array(PAGE) };
      const violations: LeaseRequest["message"][] = [
        { $case: "release", value: { firstPage: pageNumber(1), pageCount: 1, dirty: [page] } },
        { $case: "release", value: { firstPage: pageNumber(1), pageCount: RAM_PAGES, dirty: [] } },
        { $case: "recalled", value: { id: 99n, dirty: [] } },
        { $case: "accessed", value: { id: 99n, held: true, data: NO_BYTES } },
        { $case: "acquire", value: { id: 1n, firstPage: pageNumber(0), pageCount: 1, access: Access.NONE } },
        { $case: "open", value: { holder: "again", accepts: [LeaseKind.COHERENT] } },
      ];
      for (const violation of violations) {
        const holder = new TestHolder(port, environment, machine);
        await holder.open();
        holder.say(violation);
        assert.equal((await environment.within(5000, holder.closed, "the end of the stream"))?.condition, "invalid");
      }
      assert.equal(await readU8(port, machine, 1), 0);
    }),
    onSpace("MEM-10", "two holders want each other's pages at once → both get them", async (port, machine, environment) => {
      const [a, b] = [new TestHolder(port, environment, machine), new TestHolder(port, environment, machine)];
      await a.open();
      await b.open();
      await a.acquire(1, 1, Access.WRITE);
      await b.acquire(2, 1, Access.WRITE);
      a.ask(2, 1, Access.WRITE);
      b.ask(1, 1, Access.WRITE);
      for (const holder of [a, b]) {
        const { id } = await holder.expect("recall");
        holder.say({ $case: "recalled", value: { id, dirty: [] } });
      }
      assert.ok(granted(await a.expect("grant"), 2));
      assert.ok(granted(await b.expect("grant"), 1));
      for (const holder of [a, b]) {
        holder.release(0, RAM_PAGES);
        holder.channel.close();
      }
    }),
    onSpace("MEM-11", "DMA and readMemory on a page held for writing → served by its holder; ownership stays", async (port, machine, environment) => {
      await grantAll(port, machine);
      const holder = new TestHolder(port, environment, machine);
      await holder.open();
      await holder.acquire(5, 1, Access.WRITE);
      const answer = dma(port, environment, machine, [write(addressOf(5, 8), 1, 2), read(addressOf(5, 8), 1)]);
      const first = await holder.expect("access");
      assert.equal(first.address, addressOf(5, 8));
      assert.deepEqual([...first.writeData], [1, 2]);
      const second = await holder.expect("access");
      assert.equal(second.readLength, 1);
      holder.say({ $case: "accessed", value: { id: first.id, held: true, data: NO_BYTES } });
      holder.say({ $case: "accessed", value: { id: second.id, held: true, data: Uint8Array.of(1) } });
      const done = await environment.within(5000, answer, "the DMA answer");
      assert.equal(done.status, DmaStatus.OK);
      assert.deepEqual(done.data.map((d) => [...d]), [[1]]);
      assert.equal((await holder.acquire(5, 1, Access.WRITE)).ranges[0]!.upgrade, true);
      holder.release(5, 1);
      holder.channel.close();
    }),
    onSpace("MEM-11", "the holder gave the page up before the access came → it is repeated where the page is", async (port, machine, environment) => {
      await grantAll(port, machine);
      const holder = new TestHolder(port, environment, machine);
      await holder.open();
      await holder.acquire(5, 1, Access.WRITE);
      const answer = dma(port, environment, machine, [write(addressOf(5), 1, 2)]);
      const access = await holder.expect("access");
      holder.release(5, 1, new Map([[5, new Uint8Array(PAGE).fill(7)]]));
      holder.say({ $case: "accessed", value: { id: access.id, held: false, data: NO_BYTES } });
      assert.equal((await environment.within(5000, answer, "the DMA answer")).status, DmaStatus.OK);
      assert.deepEqual([...(await port.readMemory({ machine, address: addressOf(5), length: 3 })).data], [1, 2, 7]);
      holder.channel.close();
    }),
    onSpace("MEM-11", "DMA writes a page that holders read → they give it up first", async (port, machine, environment) => {
      await grantAll(port, machine);
      const [a, b] = [new TestHolder(port, environment, machine), new TestHolder(port, environment, machine)];
      await a.open();
      await b.open();
      for (const holder of [a, b]) await holder.acquire(6, 1, Access.READ);
      const answer = dma(port, environment, machine, [write(addressOf(6), 1)]);
      for (const holder of [a, b]) {
        const recall = await holder.expect("recall");
        assert.equal(recall.keep, Access.NONE);
        holder.say({ $case: "recalled", value: { id: recall.id, dirty: [] } });
      }
      assert.equal((await environment.within(5000, answer, "the DMA answer")).status, DmaStatus.OK);
      assert.equal(granted(await a.acquire(6, 1, Access.READ), 6)!.data[0], 1);
      a.channel.close();
      b.channel.close();
    }),
    onSpace("MEM-12", "a holder leaves with pages it had for writing → grants and DMA are refused from then on", async (port, machine, environment) => {
      await grantAll(port, machine);
      const [a, b] = [new TestHolder(port, environment, machine), new TestHolder(port, environment, machine)];
      await a.open();
      await b.open();
      await a.acquire(1, 1, Access.WRITE);
      b.ask(1, 1, Access.READ);
      await a.expect("recall");
      a.channel.close();
      assert.equal((await b.expect("grant")).status, GrantStatus.DENIED);
      assert.equal((await dma(port, environment, machine, [read(BASE, 1)])).status, DmaStatus.FAILED);
      await fails(port.readMemory({ machine, address: BASE, length: 1 }), "corrupt");
      b.channel.close();
    }),
    onSpace("MEM-12", "a holder releases everything, then leaves → nothing is lost", async (port, machine, environment) => {
      const holder = new TestHolder(port, environment, machine);
      await holder.open();
      await holder.acquire(1, 2, Access.WRITE);
      holder.release(0, RAM_PAGES, new Map([[1, new Uint8Array(PAGE).fill(3)]]));
      await holder.acquire(RAM_PAGES, 1, Access.READ); // answered after the release has been taken in
      holder.channel.close();
      await environment.within(5000, holder.closed, "the end of the stream");
      assert.equal(await readU8(port, machine, 1), 3);
    }),
    onSpace("MEM-13", "stats count what happened", async (port, machine, environment) => {
      await grantAll(port, machine);
      await dma(port, environment, machine, [write(BASE, 1, 2, 3)]);
      await dma(port, environment, machine, [read(BASE, 5)]);
      await dma(port, environment, machine, [read(BASE, 5)], "other");
      const stats = await port.readSpaceStats({ machine });
      const { ramBytes, touchedPages, dmaReads, dmaWrites, dmaBytes, dmaDenied, leaseKind } = stats;
      assert.deepEqual(
        { ramBytes, touchedPages, dmaReads, dmaWrites, dmaBytes, dmaDenied, leaseKind },
        { ramBytes: RAM.bytes, touchedPages: 1n, dmaReads: 1n, dmaWrites: 1n, dmaBytes: 8n, dmaDenied: 1n, leaseKind: "none" },
      );
    }),
    onSpace("MEM-14", "what is not built answers unimplemented", async (port, machine) => {
      await fails(port.forkSpace({ machine, newMachine: "x" }), "unimplemented");
      await fails(port.setBalloon({ machine, bytes: 0n }), "unimplemented");
      await fails(port.readDirtyLog({ machine, clear: false }), "unimplemented");
    }),
    onSpace("MEM-15", "a snapshot of a machine without a space, or into one → not-found", async (port, _machine, environment) => {
      const machine = environment.unique("nobody");
      await fails(port.snapshotSpace({ machine }), "not-found");
      await fails(port.restoreSpace({ machine, digest: `sha256:${"0".repeat(64)}` }), "not-found");
    }),
  ],
};
