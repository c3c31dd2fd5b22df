import fc from "fast-check";
import { channelPair } from "@polyvisor/contracts";
import { Access, DmaStatus, type DmaRequest, type DmaResponse } from "@polyvisor/contracts/memory";
import type { ImagePort } from "@polyvisor/contracts/image";
import { describe, expect, it } from "vitest";
import { createService, DEFAULT_CONFIG } from "./index.ts";
import { stillContext } from "./testing/still-context.ts";
import { HolderModel, settle } from "./testing/holder-model.ts";

const BASE = 0x8000_0000n;
const PAGES = 5;
const CELL = 16; // one counted cell of 4 bytes per page, at this offset

type Step =
  | { do: "read" | "write"; holder: number; page: number; count: number }
  | { do: "release"; holder: number; page: number }
  | { do: "dmaRead"; page: number }
  | { do: "dmaWrite"; page: number }
  | { do: "toManager"; holder: number }
  | { do: "toHolder"; holder: number };

const holder = fc.nat(2);
const page = fc.nat(PAGES - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom("read" as const, "write" as const), holder, page, count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ do: fc.constant("release" as const), holder, page }),
  fc.record({ do: fc.constant("dmaRead" as const), page }),
  fc.record({ do: fc.constant("dmaWrite" as const), page }),
  { weight: 3, arbitrary: fc.record({ do: fc.constant("toManager" as const), holder }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("toHolder" as const), holder }) },
);

/** What a cell may contain. A DMA write takes effect at some moment between its request and its answer. */
class Cell {
  #known = new Set([0]);
  readonly #pending = new Set<number>();
  #written = 0; // how often anything wrote or was asked to

  write(value: number): void {
    this.#written++;
    this.#known = new Set([value]);
  }
  /** A DMA write is on its way; the answer is to be called when it is answered. */
  dmaWrite(value: number): () => void {
    const alone = this.#pending.size === 0;
    const before = ++this.#written;
    this.#pending.add(value);
    return () => {
      if (!this.#pending.delete(value)) return; // seen already
      if (alone && this.#written === before) this.#known = new Set([value]);
      else this.#known.add(value);
    };
  }
  /** The write took effect now (a holder did it). */
  dmaDone(value: number): void {
    if (this.#pending.delete(value)) this.write(value);
  }
  seen(value: number): void {
    if (this.#pending.delete(value)) this.#known = new Set([value]);
    else {
      expect([...this.#known]).toContain(value);
      if (this.#pending.size === 0) this.#known = new Set([value]);
    }
  }
  mayBe(value: number): boolean {
    return this.#known.has(value) || this.#pending.has(value);
  }
}

async function run(steps: readonly Step[]): Promise<void> {
  const context = stillContext();
  const service = await createService(DEFAULT_CONFIG, { images: {} as ImagePort }, context);
  const { createSpace, setGrants, lease, dma } = service.implementation;
  const ram = { base: BASE, bytes: BigInt(PAGES * 4096) };
  await createSpace!({ machine: "m", ram, holderReserveBytes: 0n, leaseKinds: [] });
  await setGrants!({ machine: "m", device: "d", grants: [{ range: ram, write: true }] });
  const holders = [0, 1, 2].map((i) => new HolderModel("m", BASE, `h${i}`));
  for (const { stream } of holders) lease!(stream.managerEnd);
  settle(holders);

  const cells = Array.from({ length: PAGES }, () => new Cell());
  const [device, managerEnd] = channelPair<DmaRequest, DmaResponse>();
  dma!(managerEnd);
  const answers = new Map<bigint, (response: DmaResponse) => void>();
  device.onMessage((response) => {
    expect(response.status).toBe(DmaStatus.OK);
    answers.get(response.id)!(response);
    answers.delete(response.id);
  });
  for (const h of holders) h.onAccess = (p, _offset, bytes) => cells[p]!.dmaDone(cellValue(bytes));

  let next = 1;
  let id = 0n;
  const invariant = () => {
    for (let p = 0; p < PAGES; p++) {
      const writers = holders.filter((h) => h.has(p, Access.WRITE)).length;
      const readers = holders.filter((h) => h.has(p, Access.READ)).length;
      if (writers > 0) expect({ p, writers, readers }).toEqual({ p, writers: 1, readers: 1 });
    }
  };
  const read = (h: HolderModel, p: number) => cells[p]!.seen(cellValue(h.pages.get(p)!.bytes.subarray(CELL)));
  const write = (h: HolderModel, p: number) => {
    const v = next++;
    h.write(p, CELL, bytesOf(v));
    cells[p]!.write(v);
  };
  for (const s of steps) {
    if (s.do === "read" || s.do === "write") {
      const h = holders[s.holder]!;
      const access = s.do === "read" ? Access.READ : Access.WRITE;
      const act = s.do === "read" ? read : write;
      if (h.has(s.page, access)) act(h, s.page);
      else h.acquire(s.page, s.count, access, () => act(h, s.page));
    } else if (s.do === "release") holders[s.holder]!.release(s.page);
    else if (s.do === "toManager") holders[s.holder]!.stream.deliverToManager();
    else if (s.do === "toHolder") holders[s.holder]!.deliver();
    else {
      const address = BASE + BigInt(s.page * 4096 + CELL);
      const cell = cells[s.page]!;
      if (s.do === "dmaWrite") {
        const v = next++;
        const done = cell.dmaWrite(v);
        answers.set(++id, done);
        device.send({ machine: "m", device: "d", id, segments: [{ address, readLength: 0, writeData: bytesOf(v) }] });
      } else {
        // What it saw was true at some moment since it was sent: checked against everything since.
        answers.set(++id, () => {});
        device.send({ machine: "m", device: "d", id, segments: [{ address, readLength: 4, writeData: new Uint8Array(0) }] });
      }
    }
    invariant();
  }
  settle(holders);
  invariant();
  expect(answers.size).toBe(0); // nothing waits for ever
  for (const h of holders) expect(h.waiting.size).toBe(0);
  for (let p = 0; p < PAGES; p++) {
    const { data } = await settled(service.implementation.readMemory!({ machine: "m", address: BASE + BigInt(p * 4096 + CELL), length: 4 }), holders);
    expect(cells[p]!.mayBe(cellValue(data))).toBe(true);
  }
  await service.close();
}

async function settled<T>(promise: Promise<T> | T, holders: readonly HolderModel[]): Promise<T> {
  settle(holders);
  return await promise;
}
function bytesOf(v: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, v, true);
  return bytes;
}
function cellValue(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

describe("page protocol", () => {
  it("three holders and a device in any interleaving: every read sees the last write, and everything is answered", async () => {
    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 150 }), run), { numRuns: 400 });
  }, 60_000);
});
