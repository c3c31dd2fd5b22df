/**
 * Flattened device tree, version 17 (Devicetree Specification v0.4, chapter 5): a writer, and a reader that trusts
 * nothing. All numbers in a blob are big-endian.
 *
 *   header (40 bytes) · memory reservation block · structure block · strings block
 */

/** A node as it stands in the structure block: properties come before children. */
export interface FdtNode {
  /** With its unit address, e.g. "serial@10000000"; the root's is "". */
  name: string;
  /** Raw values; make them with {@link cells}, {@link text}, {@link flag}, read them with {@link readCells}, {@link readText}. */
  properties: Map<string, Uint8Array>;
  children: FdtNode[];
}

export interface FdtTree {
  root: FdtNode;
  /** Ranges that the kernel must not use (section 5.3). */
  reservations: { address: bigint; bytes: bigint }[];
  bootCpu: number;
}

/** What is wrong with a blob, and where. */
export class FdtError extends Error {
  override readonly name = "FdtError";
}

const MAGIC = 0xd00dfeed;
const VERSION = 17;
const LAST_COMPATIBLE_VERSION = 16;
const HEADER_BYTES = 40;
const RESERVATION_BYTES = 16;

/** Tokens of the structure block (section 5.4.1). */
const FDT_BEGIN_NODE = 1;
const FDT_END_NODE = 2;
const FDT_PROP = 3;
const FDT_NOP = 4;
const FDT_END = 9;

/** Bounds of the reader: far above any real tree, far below what would hurt. */
const MAX_BLOB_BYTES = 2 * 1024 * 1024;
const MAX_DEPTH = 32;
const MAX_NODES = 16_384;

/** A property of 32-bit cells; a bigint takes two cells. */
export function cells(...values: readonly (number | bigint)[]): Uint8Array {
  let byteLength = 0;
  for (const value of values) byteLength += typeof value === "bigint" ? 8 : 4;
  const view = new DataView(new ArrayBuffer(byteLength));
  let at = 0;
  for (const value of values) {
    if (typeof value === "bigint") {
      view.setBigUint64(at, value);
      at += 8;
    } else {
      view.setUint32(at, value);
      at += 4;
    }
  }
  return new Uint8Array(view.buffer);
}

/** A string, or a string list: each with its terminating zero. */
export function text(...values: readonly string[]): Uint8Array {
  return new TextEncoder().encode(values.map((value) => `${value}\0`).join(""));
}

/** A property that only exists. */
export function flag(): Uint8Array {
  return new Uint8Array(0);
}

/** The 32-bit cells of a property; throws when its length is no multiple of four. */
export function readCells(value: Uint8Array): number[] {
  if (value.length % 4 !== 0) throw new FdtError(`cells: ${value.length} bytes, expected a multiple of 4`);
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  return Array.from({ length: value.length / 4 }, (_, index) => view.getUint32(index * 4));
}

/** The strings of a property; throws when the last is not terminated. */
export function readText(value: Uint8Array): string[] {
  if (value.length === 0) return [];
  if (value[value.length - 1] !== 0) throw new FdtError("text: the last string has no terminating zero");
  return new TextDecoder().decode(value.subarray(0, -1)).split("\0");
}

/** Short form for builders. */
export function node(name: string, properties: Record<string, Uint8Array>, children: FdtNode[] = []): FdtNode {
  return { name, properties: new Map(Object.entries(properties)), children };
}

/** The node at a path such as "/soc/plic@c000000"; undefined when there is none. */
export function findNode(tree: FdtTree, path: string): FdtNode | undefined {
  let found: FdtNode | undefined = tree.root;
  for (const name of path.split("/").filter((part) => part !== "")) {
    found = found?.children.find((child) => child.name === name);
  }
  return found;
}

export function writeFdt(tree: FdtTree): Uint8Array {
  const strings = new StringsBlock();
  const structure: number[] = [];
  writeNode(tree.root, structure, strings);
  pushU32(structure, FDT_END);

  const reservationsOffset = align(HEADER_BYTES, 8);
  const structureOffset = reservationsOffset + (tree.reservations.length + 1) * RESERVATION_BYTES;
  const stringsOffset = structureOffset + structure.length;
  const totalBytes = align(stringsOffset + strings.bytes.length, 8);

  const blob = new Uint8Array(totalBytes);
  const view = new DataView(blob.buffer);
  // Header (section 5.2), in wire order.
  const header = [
    MAGIC,
    totalBytes,
    structureOffset,
    stringsOffset,
    reservationsOffset,
    VERSION,
    LAST_COMPATIBLE_VERSION,
    tree.bootCpu,
    strings.bytes.length,
    structure.length,
  ];
  header.forEach((value, index) => view.setUint32(index * 4, value));
  tree.reservations.forEach((entry, index) => {
    view.setBigUint64(reservationsOffset + index * RESERVATION_BYTES, entry.address);
    view.setBigUint64(reservationsOffset + index * RESERVATION_BYTES + 8, entry.bytes);
  });
  blob.set(structure, structureOffset);
  blob.set(strings.bytes, stringsOffset);
  return blob;
}

/** Parses and checks a blob. Throws {@link FdtError}; never reads outside `blob`, never recurses without bound. */
export function readFdt(blob: Uint8Array): FdtTree {
  if (blob.length < HEADER_BYTES) throw new FdtError(`device tree: ${blob.length} bytes, shorter than its header (40)`);
  const view = new DataView(blob.buffer, blob.byteOffset, blob.length);
  const field = (index: number) => view.getUint32(index * 4);
  if (field(0) !== MAGIC) throw new FdtError(`device tree: magic 0x${field(0).toString(16)}, expected 0xd00dfeed`);
  const totalBytes = field(1);
  if (totalBytes > blob.length || totalBytes > MAX_BLOB_BYTES || totalBytes < HEADER_BYTES)
    throw new FdtError(`device tree: header says ${totalBytes} bytes, got ${blob.length} (at most ${MAX_BLOB_BYTES})`);
  if (field(6) > VERSION || field(5) < LAST_COMPATIBLE_VERSION)
    throw new FdtError(`device tree: version ${field(5)} (compatible to ${field(6)}), expected 16 or 17`);
  const structureOffset = field(2);
  const stringsOffset = field(3);
  const stringsEnd = stringsOffset + field(8);
  const structureEnd = structureOffset + field(9);
  if (structureOffset % 4 !== 0 || structureEnd > totalBytes || stringsEnd > totalBytes)
    throw new FdtError("device tree: structure or strings block lies outside the blob");
  return {
    reservations: readReservations(view, field(4), totalBytes),
    root: readStructure(blob, view, structureOffset, structureEnd, stringsOffset, stringsEnd),
    bootCpu: field(7),
  };
}

function readReservations(view: DataView, offset: number, totalBytes: number): FdtTree["reservations"] {
  const reservations: FdtTree["reservations"] = [];
  for (let at = offset; ; at += RESERVATION_BYTES) {
    if (at + RESERVATION_BYTES > totalBytes) throw new FdtError("device tree: reservation block has no end entry");
    const entry = { address: view.getBigUint64(at), bytes: view.getBigUint64(at + 8) };
    if (entry.address === 0n && entry.bytes === 0n) return reservations;
    reservations.push(entry);
  }
}

function readStructure(
  blob: Uint8Array,
  view: DataView,
  start: number,
  end: number,
  stringsOffset: number,
  stringsEnd: number,
): FdtNode {
  let at = start;
  let nodes = 0;
  const open: FdtNode[] = [];
  let root: FdtNode | undefined;
  const u32 = () => {
    if (at + 4 > end) throw new FdtError(`device tree: structure block ends inside a token at 0x${at.toString(16)}`);
    const value = view.getUint32(at);
    at += 4;
    return value;
  };
  for (;;) {
    const token = u32();
    const inside = open[open.length - 1];
    switch (token) {
      case FDT_BEGIN_NODE: {
        if (open.length >= MAX_DEPTH || ++nodes > MAX_NODES)
          throw new FdtError(`device tree: more than ${MAX_DEPTH} levels or ${MAX_NODES} nodes`);
        if (!inside && root) throw new FdtError("device tree: a second root node");
        const name = zeroTerminated(blob, at, end);
        at = align(at + name.length + 1, 4);
        const made: FdtNode = { name, properties: new Map(), children: [] };
        if (inside) inside.children.push(made);
        else root = made;
        open.push(made);
        break;
      }
      case FDT_END_NODE:
        if (!open.pop()) throw new FdtError("device tree: END_NODE without a node");
        break;
      case FDT_PROP: {
        const byteLength = u32();
        const nameOffset = u32();
        if (!inside) throw new FdtError("device tree: a property outside every node");
        if (byteLength > end - at) throw new FdtError(`device tree: property of ${byteLength} bytes leaves its block`);
        const name = zeroTerminated(blob, stringsOffset + nameOffset, stringsEnd);
        inside.properties.set(name, blob.slice(at, at + byteLength));
        at = align(at + byteLength, 4);
        break;
      }
      case FDT_NOP:
        break;
      case FDT_END:
        if (open.length > 0 || !root) throw new FdtError("device tree: END inside a node, or no root");
        return root;
      default:
        throw new FdtError(`device tree: unknown token ${token} at 0x${(at - 4).toString(16)}`);
    }
  }
}

function zeroTerminated(blob: Uint8Array, start: number, end: number): string {
  if (start >= end) throw new FdtError("device tree: a name lies outside its block");
  const zero = blob.subarray(start, end).indexOf(0);
  if (zero < 0) throw new FdtError("device tree: a name has no terminating zero");
  // Latin-1: one byte one character, so that the caller can add the length to the offset.
  return String.fromCharCode(...blob.subarray(start, start + Math.min(zero, 1024)));
}

function writeNode(from: FdtNode, structure: number[], strings: StringsBlock): void {
  pushU32(structure, FDT_BEGIN_NODE);
  pushBytes(structure, text(from.name));
  for (const [name, value] of from.properties) {
    pushU32(structure, FDT_PROP);
    pushU32(structure, value.length);
    pushU32(structure, strings.offsetOf(name));
    pushBytes(structure, value);
  }
  for (const child of from.children) writeNode(child, structure, strings);
  pushU32(structure, FDT_END_NODE);
}

/** Property names, each once. */
class StringsBlock {
  readonly bytes: number[] = [];
  readonly #offsets = new Map<string, number>();
  offsetOf(name: string): number {
    let offset = this.#offsets.get(name);
    if (offset === undefined) {
      offset = this.bytes.length;
      this.#offsets.set(name, offset);
      this.bytes.push(...text(name));
    }
    return offset;
  }
}

function pushU32(into: number[], value: number): void {
  into.push((value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}

/** Appends and pads with zeros to a multiple of four. */
function pushBytes(into: number[], bytes: Uint8Array): void {
  for (const byte of bytes) into.push(byte);
  while (into.length % 4 !== 0) into.push(0);
}

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
