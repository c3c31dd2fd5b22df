import { MOST_FRAME_CELLS } from "../../decode-cache.ts";
import { pagesOf, type RecordedRegion } from "./recording.ts";
import { type AheadModule, type AheadRegion, MOST_AHEAD } from "./translate-ahead.ts";

/**
 * A static translation as bytes: "PVAHEAD1", u32 length of a JSON header, the header, then for each module in its order the
 * Wasm, padded to 4 bytes, and for each of its regions the recorded words and targets (i32, little-endian).
 */
const MAGIC = "PVAHEAD1";
const MOST_BYTES = 256 << 20;
const MOST_MODULES = 1024;
const MOST_ENTRIES = 256;
const PAGE = 4096;

interface RegionHeader {
  start: number;
  slot: number;
  cell: number;
  entries: readonly number[];
  words: number;
  targets: number;
}
interface ModuleHeader {
  bytes: number;
  regions: RegionHeader[];
}

export function encodeAhead(modules: readonly AheadModule[]): Uint8Array<ArrayBuffer> {
  const header: ModuleHeader[] = modules.map(({ bytes, regions }) => ({
    bytes: bytes.length,
    regions: regions.map(({ recorded: { start, words, targets }, slot, cell, entries }) => ({ start, slot, cell, entries, words: words.length, targets: targets.length })),
  }));
  const json = new TextEncoder().encode(JSON.stringify(header));
  const head = MAGIC.length + 4;
  const payload = modules.reduce((sum, { bytes, regions }) => sum + padded(bytes.length) + regions.reduce((of, { recorded }) => of + (recorded.words.length + recorded.targets.length) * 4, 0), 0);
  const out = new Uint8Array(padded(head + json.length) + payload);
  out.set(new TextEncoder().encode(MAGIC));
  new DataView(out.buffer).setUint32(MAGIC.length, json.length, true);
  out.set(json, head);
  let at = padded(head + json.length);
  for (const { bytes, regions } of modules) {
    out.set(bytes, at);
    at += padded(bytes.length);
    for (const { recorded } of regions) {
      for (const part of [recorded.words, recorded.targets]) {
        out.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), at);
        at += part.byteLength;
      }
    }
  }
  return out;
}

/** Throws an Error that says what is wrong with the bytes. The Wasm itself is not looked at. */
export function decodeAhead(bytes: Uint8Array): AheadModule[] {
  const head = MAGIC.length + 4;
  if (bytes.length > MOST_BYTES) throw new Error(`a static translation of ${bytes.length} bytes; at most ${MOST_BYTES}`);
  if (bytes.length < head || new TextDecoder().decode(bytes.subarray(0, MAGIC.length)) !== MAGIC) throw new Error(`not a static translation: it does not begin with ${MAGIC}`);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(MAGIC.length, true);
  if (length > bytes.length - head) throw new Error(`its header of ${length} bytes does not fit its ${bytes.length}`);
  const header: unknown = JSON.parse(new TextDecoder().decode(bytes.subarray(head, head + length)));
  const reader = new Payload(bytes, padded(head + length));
  const slots = new Set<number>();
  const cells = new Set<number>();
  const modules = list(header, "modules", MOST_MODULES).map((module): AheadModule => {
    const wasm = reader.bytes(whole(field(module, "bytes"), "bytes", 0, MOST_BYTES));
    const regions = list(field(module, "regions"), "regions", MOST_AHEAD).map((region) => regionOf(region, reader));
    for (const { slot, cell, pages } of regions) {
      if (slots.has(slot)) throw new Error(`slot ${slot} is used twice`);
      slots.add(slot);
      for (let i = cell; i < cell + pages.length; i++) {
        if (cells.has(i)) throw new Error(`cell ${i} is used twice`);
        cells.add(i);
      }
    }
    return { bytes: wasm, regions };
  });
  reader.end();
  return modules;
}

function regionOf(header: unknown, reader: Payload): AheadRegion {
  const number = (name: string, least: number, most: number): number => whole(field(header, name), name, least, most);
  const offset = (value: unknown): number => {
    const at = whole(value, "offset", -0x80_0000, 0x80_0000);
    if (at % 2 !== 0) throw new Error(`offset ${at} is odd`);
    return at;
  };
  const entries = list(field(header, "entries"), "entries", MOST_ENTRIES).map(offset);
  const words = reader.words(number("words", 2, MOST_BYTES / 4));
  const targets = reader.words(number("targets", 0, MOST_BYTES / 4));
  const recorded: RecordedRegion = { start: number("start", 0, PAGE - 2), words, targets };
  const known = new Set<number>(words.filter((_, i) => i % 2 === 0));
  if (entries[0] !== recorded.start || entries.some((entry) => !known.has(entry))) throw new Error(`the entries of the region at ${recorded.start} are not its instructions`);
  known.forEach(offset);
  const pages = pagesOf(words);
  return { recorded, slot: number("slot", 0, MOST_AHEAD - 1), cell: number("cell", 0, MOST_FRAME_CELLS - pages.length), pages, entries };
}

class Payload {
  readonly #bytes: Uint8Array;
  #at: number;
  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }
  bytes(length: number): Uint8Array<ArrayBuffer> {
    if (length > this.#bytes.length - this.#at) throw new Error(`${length} bytes are named at ${this.#at}, ${this.#bytes.length - this.#at} are there`);
    const taken = new Uint8Array(length); // not slice: the bytes may be a Buffer
    taken.set(this.#bytes.subarray(this.#at, this.#at + length));
    this.#at += padded(length);
    return taken;
  }
  words(count: number): Int32Array {
    if (count % 2 !== 0) throw new Error(`${count} words are no pairs`);
    return new Int32Array(this.bytes(count * 4).buffer);
  }
  end(): void {
    if (this.#at !== this.#bytes.length) throw new Error(`${this.#bytes.length - this.#at} bytes are left over`);
  }
}

const padded = (length: number): number => (length + 3) & ~3;
const field = (value: unknown, name: string): unknown => (typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined);
function list(value: unknown, name: string, most: number): unknown[] {
  if (!Array.isArray(value) || value.length > most) throw new Error(`${name}: expected a list of at most ${most}`);
  return value as unknown[];
}
function whole(value: unknown, name: string, least: number, most: number): number {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) throw new Error(`${name} is ${String(value)}, expected a whole number from ${least} to ${most}`);
  return value as number;
}
