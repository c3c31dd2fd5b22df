import { channelPair, ContractError } from "@polyvisor/contracts";
import { LeaseKind, type LeaseRequest, type LeaseResponse, type MapMemory, type MemoryPort } from "@polyvisor/contracts/memory";
import { holderReserveBytes } from "@polyvisor/machine";
import { describe, expect, it } from "vitest";
import { PageLease } from "./lease.ts";

const RAM = { base: 0x8000_0000n, bytes: 0x10_0000n };

/** A memory-manager that answers each open with the best kind that it was offered; it remembers what happened. */
function manager() {
  const opens: LeaseKind[][] = [];
  let closed = 0;
  const lease = () => {
    const [end, managerEnd] = channelPair<LeaseRequest, LeaseResponse>();
    managerEnd.onMessage(({ machine, message }) => {
      if (message?.$case !== "open") return;
      opens.push(message.value.accepts);
      const kind = message.value.accepts[0]!;
      managerEnd.send({ machine, message: { $case: "opened", value: { kind, ram: RAM, sharedToken: kind === LeaseKind.MAPPED ? "1:2:there" : "" } } });
    });
    managerEnd.onClose(() => closed++);
    return end;
  };
  return { opens, closed: () => closed, memory: { lease } as unknown as MemoryPort };
}
const open = (memory: MemoryPort, mapMemory?: MapMemory) =>
  PageLease.open({ machine: "m", harts: 1, ramBase: RAM.base, ramBytes: RAM.bytes, memory, sharedMemory: undefined, mapMemory, flushHarts: async () => {}, onClose: () => {} });

describe("MAPPED leases", () => {
  it("offered and mapped → RAM is the mapped memory behind the harts' state, and harts need no messages", async () => {
    const { memory, opens } = manager();
    const pages = (holderReserveBytes(1) + Number(RAM.bytes)) / 65536;
    const mapped = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const asked: unknown[] = [];
    const lease = await open(memory, (token, layout) => (asked.push([token, layout]), mapped));
    expect(opens).toEqual([[LeaseKind.MAPPED, LeaseKind.COHERENT]]);
    expect(asked).toEqual([["1:2:there", { offset: holderReserveBytes(1), bytes: Number(RAM.bytes) }]]);
    expect(lease.memory).toBe(mapped);
    expect(lease.ram).toMatchObject({ offset: holderReserveBytes(1), shared: true });
  });
  it("offered but out of this process's reach → that stream is closed, and a COHERENT one opened", async () => {
    const { memory, opens, closed } = manager();
    const lease = await open(memory, () => {
      throw new ContractError("unavailable", "another host");
    });
    expect(opens).toEqual([[LeaseKind.MAPPED, LeaseKind.COHERENT], [LeaseKind.COHERENT]]);
    expect(closed()).toBe(1);
    expect([lease.kind, lease.ram.shared]).toEqual([LeaseKind.COHERENT, false]);
  });
  it("a kind that was not asked for → refused", async () => {
    const { memory } = manager();
    const strange = { lease: () => {
      const [end, managerEnd] = channelPair<LeaseRequest, LeaseResponse>();
      managerEnd.onMessage(({ machine }) => managerEnd.send({ machine, message: { $case: "opened", value: { kind: LeaseKind.MAPPED, ram: RAM, sharedToken: "" } } }));
      return end;
    } } as unknown as MemoryPort;
    await expect(open(strange)).rejects.toMatchObject({ condition: "invalid" });
    expect((await open(memory)).kind).toBe(LeaseKind.COHERENT);
  });
});
