import { assemble } from "@polyvisor/isa";
import { readFileSync, writeFileSync } from "node:fs";

const RAM_BASE = 0x8000_0000n;
const IMAGE_BYTES = 32 << 20;
const DATA_OFFSET = 16 << 20;

/** Assembles programs/bench.s into a raw image whose upper half is pages with data; see the program's head. */
export function writeBenchImage(path: string): void {
  const source = readFileSync(new URL("./programs/bench.s", import.meta.url), "utf8");
  const image = Buffer.alloc(IMAGE_BYTES);
  for (let i = DATA_OFFSET; i < image.length; i += 8) image.writeUInt32LE(i, i);
  image.set(assemble(source, { base: RAM_BASE }).bytes);
  writeFileSync(path, image);
}

/** What bench.s prints: name → seconds and count. */
export function parseReport(text: string): Map<string, { seconds: number; count: number }> {
  const parts = new Map<string, { seconds: number; count: number }>();
  for (const [, name, ticks, count] of text.matchAll(/^(\S+) ([0-9a-f]{16}) ([0-9a-f]{16})\s*$/gm)) {
    parts.set(name!, { seconds: Number.parseInt(ticks!, 16) / 10_000_000, count: Number.parseInt(count!, 16) });
  }
  return parts;
}
