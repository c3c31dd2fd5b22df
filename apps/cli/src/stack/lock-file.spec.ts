import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { homeOf, stackPaths } from "./home.ts";
import { isAlive, LockFile, startOf } from "./lock-file.ts";

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "hv-lock-"))));
afterEach(() => rmSync(dir, { recursive: true }));

describe("LockFile", () => {
  it("is held by one, and free after its release", () => {
    const path = join(dir, "lock");
    const first = new LockFile(path);
    expect(first.acquire()).toBe(true);
    expect(new LockFile(path).acquire()).toBe(false);
    expect(first.owner()).toBe(process.pid);
    first.release();
    expect(existsSync(path)).toBe(false);
    expect(readdirSync(dir)).toEqual([]);
  });

  it("of a process that is gone counts as free, and so does one with a reused pid or without sense", async () => {
    const path = join(dir, "lock");
    const child = spawn("true");
    await once(child, "exit");
    for (const content of [JSON.stringify({ pid: child.pid, started: "1" }), JSON.stringify({ pid: process.pid, started: "1" }), "", "{}"]) {
      writeFileSync(path, content);
      const lock = new LockFile(path);
      expect(lock.owner(), content).toBeUndefined();
      expect(lock.acquire(), content).toBe(true);
      lock.release();
    }
  });

  it("a process is alive while its start time is the one noted", () => {
    expect(isAlive({ pid: process.pid, started: startOf(process.pid) })).toBe(true);
  });

  it("eight processes that race for a stale lock: exactly one gets it", async () => {
    const path = join(dir, "lock");
    writeFileSync(path, JSON.stringify({ pid: 2 ** 22 - 1, started: "1" }));
    const script = `
      import { LockFile } from ${JSON.stringify(new URL("./lock-file.ts", import.meta.url).href)};
      process.stdout.write(new LockFile(${JSON.stringify(path)}).acquire() ? "1" : "0");
      process.stdin.resume();`;
    const children = Array.from({ length: 8 }, () => spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["pipe", "pipe", "inherit"] }));
    const answers = await Promise.all(children.map(async (child) => String((await once(child.stdout!, "data"))[0])));
    for (const child of children) child.kill("SIGKILL");
    expect(answers.filter((answer) => answer === "1")).toHaveLength(1);
  });
});

describe("stackPaths", () => {
  it("puts sockets elsewhere when HV_HOME is too deep for a Unix socket", () => {
    const short = stackPaths(homeOf({ HV_HOME: "/h" }), "processes");
    expect(short.run).toBe("/h/stacks/processes/run");
    const deep = stackPaths(homeOf({ HV_HOME: `/${"deep/".repeat(20)}` }), "processes");
    expect(Buffer.byteLength(join(deep.run, "memory-manager.sock"))).toBeLessThan(104);
    expect(deep.run).not.toBe(stackPaths(homeOf({ HV_HOME: `/${"deep/".repeat(20)}` }), "embedded").run);
  });
});
