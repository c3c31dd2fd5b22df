import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, readlinkSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cpio, type CpioEntry } from "./cpio.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const hasTool = (name: string): boolean => spawnSync("which", [name]).status === 0;

function inDirectory<T>(run: (path: string) => T): T {
  const path = mkdtempSync(join(tmpdir(), "pv-archive-"));
  try {
    return run(path);
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
}

describe("cpio (newc)", () => {
  const entries: CpioEntry[] = [
    { path: "init", kind: "file", data: text("#!/bin/sh\n"), mode: 0o755 },
    { path: "a/b/c", kind: "file", data: text("12345") },
    { path: "bin/sh", kind: "symlink", target: "/bin/busybox" },
  ];
  it("does not depend on the order of the entries; every header starts at a multiple of 4", () => {
    const archive = cpio(entries);
    expect(cpio([...entries].reverse())).toEqual(archive);
    expect(archive.length % 4).toBe(0);
    const latin1 = Buffer.from(archive).toString("latin1");
    const headers = [...latin1.matchAll(/070701/g)].map((match) => match.index);
    expect(headers.every((at) => at % 4 === 0)).toBe(true);
    expect(headers).toHaveLength(7); // a, a/b, a/b/c, bin, bin/sh, init, trailer
  });
  it("writes device nodes with their numbers", () => {
    const head = Buffer.from(cpio([{ path: "console", kind: "character-device", major: 5, minor: 1 }])).toString("latin1", 0, 110);
    expect(head.slice(14, 22)).toBe("00002180"); // S_IFCHR | 0600
    expect(head.slice(78, 94)).toBe("0000000500000001");
  });
  it.skipIf(!hasTool("cpio"))("is what cpio(1) unpacks (skipped where it is absent)", () =>
    inDirectory((path) => {
      const { status } = spawnSync("cpio", ["-id", "--quiet"], { cwd: path, input: cpio(entries) });
      expect(status).toBe(0);
      expect(readFileSync(join(path, "a/b/c"), "utf8")).toBe("12345");
      expect(readlinkSync(join(path, "bin/sh"))).toBe("/bin/busybox");
      expect(statSync(join(path, "init")).mode & 0o777).toBe(0o755);
    }));
});
