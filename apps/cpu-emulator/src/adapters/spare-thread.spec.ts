import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { SpareThread } from "./spare-thread.ts";

const echo = (): Worker => new Worker("const { parentPort } = require('node:worker_threads'); parentPort.on('message', (text) => parentPort.postMessage(text))", { eval: true });

describe("a spare thread", () => {
  it("is handed out once; then there are new ones", async () => {
    let started = 0;
    const threads = new SpareThread(() => (started++, echo()));
    threads.keep();
    threads.keep();
    expect(started).toBe(1);
    const [first, second] = [threads.take(), threads.take()];
    expect([started, first === second]).toEqual([2, false]);
    first.postMessage("hello");
    expect(await once(first, "message")).toEqual(["hello"]);
    await Promise.all([first.terminate(), second.terminate(), threads.drop()]);
  });

  it("that ended or was dropped is not handed out", async () => {
    const made: Worker[] = [];
    const threads = new SpareThread(() => (made.push(made.length === 0 ? new Worker("throw new Error('no')", { eval: true }) : echo()), made.at(-1)!));
    threads.keep();
    await new Promise((resolve) => made[0]!.once("exit", resolve));
    threads.keep();
    expect(made.length).toBe(2);
    await threads.drop();
    const taken = threads.take();
    expect(taken).toBe(made[2]);
    await taken.terminate();
  });
});
