import { mediated } from "@polyvisor/contracts";
import { MEMORY } from "@polyvisor/contracts/memory";
import { FakeDmaMemory } from "@polyvisor/testkit";
import { dmaRead, dmaWrite } from "@polyvisor/virtio";
import { describe, expect, it } from "vitest";
import { DmaClient } from "./dma-client.ts";

const BASE = 0x8000_0000n;

function open() {
  const memory = new FakeDmaMemory(4 * 1024 * 1024);
  memory.grants.set("m/d", [{ range: { base: BASE, bytes: 4n * 1024n * 1024n }, write: true }]);
  const client = new DmaClient({ machine: "m", memory: mediated(MEMORY, memory.implementation), lost: () => {}, afterTurn: (run) => void setImmediate(run) });
  return { memory, client, dma: client.device("d") };
}

describe("DMA to memory of this process", () => {
  it("is answered at once, but not without end: others get their turn of the event loop", async () => {
    const { dma } = open();
    const read = () => dma.transfer([dmaRead(BASE, 4)]);
    const answers = Array.from({ length: 512 }, read);
    expect(answers.every((answer) => !(answer instanceof Promise))).toBe(true);
    const late = read();
    expect(late).toBeInstanceOf(Promise);
    let turned = false;
    setImmediate(() => (turned = true));
    expect((await late).status).toBe("ok");
    await new Promise<void>((resolve) => void setImmediate(resolve));
    expect(turned).toBe(true);
    expect(read()).not.toBeInstanceOf(Promise);
  });
  it("takes 1 MiB with a header in one message, and more in several, in order", async () => {
    const { memory, dma } = open();
    memory.bytes.forEach((_, i) => (memory.bytes[i] = (i * 7) >> 8));
    const one = await dma.transfer([dmaRead(BASE, 16), dmaRead(BASE + 16n, 1024 * 1024)]);
    expect([memory.requests.length, one.data.map(({ length }) => length)]).toEqual([1, [16, 1024 * 1024]]);
    const two = await dma.transfer([dmaRead(BASE, 2 * 1024 * 1024), dmaWrite(BASE, Uint8Array.of(9))]);
    expect(memory.requests.length).toBe(3);
    expect(Buffer.compare(two.data[0]!, memory.bytes.subarray(0, 2 * 1024 * 1024).with(0, 0))).toBe(0);
    expect(memory.bytes[0]).toBe(9);
  });
  it("waits where the memory does, and fails when its stream ends", async () => {
    const { memory, client, dma } = open();
    memory.hold = true;
    const held = dma.transfer([dmaRead(BASE, 4)]);
    expect(held).toBeInstanceOf(Promise);
    client.close();
    expect((await held).status).toBe("failed");
    expect((await dma.transfer([dmaRead(BASE, 4)])).status).toBe("failed");
  });
});
