import { execFileSync, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createMappedMemory, mappedMemoryAbsent, openMappedMemory } from "./index.ts";

const absent = mappedMemoryAbsent();
if (absent) console.log(`mapped memory: skipped, ${absent}`);
const layout = { offset: 65536, bytes: 1024 * 1024 };

describe.skipIf(absent !== undefined)("mapped memory", () => {
  it("two memories, one shared part: what one stores the other loads; what lies before it is each one's own", () => {
    const made = createMappedMemory(layout);
    const other = new Uint8Array(openMappedMemory(made.token, { offset: 131072, bytes: layout.bytes }).buffer);
    const bytes = new Uint8Array(made.memory.buffer);
    bytes[layout.offset + 4096] = 7;
    bytes[5] = 9;
    expect([other[131072 + 4096], other[5]]).toEqual([7, 0]);
    other[131072 + layout.bytes - 1] = 8;
    expect(bytes[layout.offset + layout.bytes - 1]).toBe(8);
    made.close();
  });
  it("another process adds to the same cell → no increment is lost", async () => {
    const made = createMappedMemory(layout);
    const cell = new Int32Array(made.memory.buffer, layout.offset, 1);
    const program = `
      const { openMappedMemory } = await import(${JSON.stringify(new URL("index.ts", import.meta.url).href)});
      const cell = new Int32Array(openMappedMemory(${JSON.stringify(made.token)}, ${JSON.stringify(layout)}).buffer, ${layout.offset}, 1);
      for (let i = 0; i < 200000; i++) Atomics.add(cell, 0, 1);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: "inherit" });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    for (let i = 0; i < 200_000; i++) Atomics.add(cell, 0, 1);
    expect(await ended).toBe(0);
    expect(cell[0]).toBe(400_000);
    made.close();
  });
  it("the memory outlives close and the collection of the maker's; nothing is left when all are gone", () => {
    const program = `
      const { createMappedMemory, openMappedMemory } = await import(${JSON.stringify(new URL("index.ts", import.meta.url).href)});
      const { readFileSync } = await import("node:fs");
      const maps = () => readFileSync("/proc/self/maps", "latin1").split("polyvisor-").length - 1;
      const seen = [];
      for (let round = 0; round < 20; round++) {
        const made = createMappedMemory(${JSON.stringify(layout)});
        const view = new Uint8Array(openMappedMemory(made.token, ${JSON.stringify(layout)}).buffer);
        new Uint8Array(made.memory.buffer)[65536] = round;
        made.close();
        gc();
        seen.push(view[65536]);
      }
      for (let i = 0; i < 20 && maps() > 0; i++) { gc(); await new Promise((done) => setTimeout(done, 20)); }
      console.log(JSON.stringify({ seen, maps: maps() }));`;
    const result = JSON.parse(execFileSync(process.execPath, ["--expose-gc", "--input-type=module", "-e", program], { encoding: "utf8" })) as { seen: number[]; maps: number };
    expect(result.seen).toEqual(Array.from({ length: 20 }, (_, round) => round));
    expect(result.maps).toBeLessThanOrEqual(2); // the last round's two may still be on the stack
  });
  it("closed, unknown or malformed token, another size → a clear error, no descriptor left open", () => {
    const made = createMappedMemory(layout);
    const open = readdirSync("/proc/self/fd").length;
    expect(() => openMappedMemory(made.token, { ...layout, bytes: 4096 })).toThrowError(expect.objectContaining({ condition: "invalid" }));
    for (const token of ["", "x", `${process.pid}:3:polyvisor-`, "../../etc:1:x", `-1:0:polyvisor-${"0".repeat(32)}`]) {
      expect(() => openMappedMemory(token, layout)).toThrowError(expect.objectContaining({ condition: "invalid" }));
    }
    const [pid, fd] = made.token.split(":");
    expect(() => openMappedMemory(`${pid}:${fd}:polyvisor-${"0".repeat(32)}`, layout)).toThrowError(expect.objectContaining({ condition: "unavailable" }));
    expect(readdirSync("/proc/self/fd").length).toBe(open);
    made.close();
    expect(() => openMappedMemory(made.token, layout)).toThrowError(expect.objectContaining({ condition: "unavailable" }));
  });
  it("whoever opens it cannot change its size", () => {
    const made = createMappedMemory(layout);
    const [pid, fd] = made.token.split(":");
    expect(() => execFileSync(process.execPath, ["-e", `require("fs").truncateSync("/proc/${pid}/fd/${fd}", 0)`], { stdio: "pipe" })).toThrow(/EPERM/);
    made.close();
  });
});
