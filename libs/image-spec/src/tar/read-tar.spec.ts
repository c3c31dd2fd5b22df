import { spawnSync } from "node:child_process";
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readTar, type TarHeader } from "./index.ts";

const longName = `${"d".repeat(90)}/${"e".repeat(90)}/file`;

/** What GNU tar makes of a small tree, in the given format. */
function archive(format: string): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "pv-tar-"));
  try {
    mkdirSync(join(folder, longName, ".."), { recursive: true });
    writeFileSync(join(folder, "small"), "hello");
    writeFileSync(join(folder, "empty"), "");
    writeFileSync(join(folder, longName), "long");
    symlinkSync("small", join(folder, "link"));
    linkSync(join(folder, "small"), join(folder, "zz-hard"));
    const options = ["--sort=name", "--owner=alice:1234", "--group=staff:50", "--mtime=@1700000000"];
    const { stdout, stderr, status } = spawnSync("tar", ["-C", folder, `--format=${format}`, ...options, "-cf", "-", "."], { maxBuffer: 1 << 24 });
    if (status !== 0) throw new Error(String(stderr));
    return new Uint8Array(stdout);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function* inChunks(bytes: Uint8Array, step: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
}

async function read(bytes: Uint8Array, step = 4096): Promise<{ headers: TarHeader[]; content: Record<string, string> }> {
  const headers: TarHeader[] = [];
  const content: Record<string, string> = {};
  for await (const entry of readTar(inChunks(bytes, step))) {
    headers.push(entry);
    if (entry.kind === "file" && entry.path !== "./empty") content[entry.path] = new TextDecoder().decode(await entry.read());
  }
  return { headers, content };
}

/** A header of our own: what no tar program writes. */
function header(fields: { name?: string; type?: string; size?: string; magic?: string }): Uint8Array {
  const block = new Uint8Array(512);
  const put = (at: number, text: string): void => block.set(new TextEncoder().encode(text), at);
  put(0, fields.name ?? "x");
  put(100, "0000644\0");
  put(124, fields.size ?? "00000000000\0");
  put(156, fields.type ?? "0");
  put(257, fields.magic ?? "ustar\x0000");
  const sum = block.reduce((total, byte) => total + byte, 8 * 32);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  return block;
}
const join512 = (...blocks: Uint8Array[]): Uint8Array => Buffer.concat([...blocks, Buffer.alloc(1024)]);

describe("tar", () => {
  it.each(["gnu", "posix", "ustar"])("%s: names of any length, links, owners and times come out whole, in chunks of any size", async (format) => {
    const bytes = archive(format);
    for (const step of [1, 700, 1 << 20]) {
      const { headers, content } = await read(bytes, step);
      expect(content).toEqual({ "./small": "hello", [`./${longName}`]: "long" });
      const by = new Map(headers.map((h) => [h.path, h]));
      expect(by.get("./small")).toMatchObject({ kind: "file", uid: 1234, gid: 50, userName: "alice", groupName: "staff", size: 5, mtime: 1_700_000_000 });
      expect(by.get("./link")).toMatchObject({ kind: "symlink", target: "small", size: 0 });
      expect(by.get("./zz-hard")).toMatchObject({ kind: "hard-link", target: "./small" });
      expect(by.get("./")).toMatchObject({ kind: "directory" });
    }
  });
  it("cut off or damaged → an error that says so", async () => {
    const bytes = archive("gnu");
    await expect(read(bytes.subarray(0, 700), 64)).rejects.toThrow(/truncated/);
    const damaged = bytes.slice();
    damaged[3] = (damaged[3] as number) ^ 1;
    await expect(read(damaged)).rejects.toThrow(/checksum/);
  });
  it("a number that is none, a size beyond 2^53, an endless long name, records that lie about their length → refused", async () => {
    await expect(read(join512(header({ size: "9999999999\0" })))).rejects.toThrow(/not an octal number/);
    const huge = header({ size: "\u0000" });
    huge.set([0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 124);
    let sum = 8 * 32;
    for (const [i, byte] of huge.entries()) if (i < 148 || i >= 156) sum += byte;
    huge.set(new TextEncoder().encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
    await expect(read(join512(huge))).rejects.toThrow(/exceeds 2\^53/);
    await expect(read(join512(header({ type: "L", size: "77777777777\0" })))).rejects.toThrow(/at most 1048576/);
    const record = new Uint8Array(512);
    record.set(new TextEncoder().encode("99 path=/x\n"));
    await expect(read(join512(header({ type: "x", size: "00000000013\0" }), record))).rejects.toThrow(/wrong length/);
  });
  it("links and directories have no content, whatever their size field says", async () => {
    const { headers } = await read(join512(header({ type: "5", name: "d/", size: "00000001000\0" }), header({ name: "after" })));
    expect(headers.map((h) => [h.path, h.kind, h.size])).toEqual([["d/", "directory", 0], ["after", "file", 0]]);
  });
  it("names that are not what they seem are handed on as they stand", async () => {
    const { headers } = await read(join512(header({ name: "../../etc/passwd" }), header({ name: "/abs", type: "9" })));
    expect(headers.map((h) => [h.path, h.kind])).toEqual([["../../etc/passwd", "file"], ["/abs", "unknown"]]);
  });
});
