/**
 * The binary indexes that kmod's modprobe looks names up in (kmod libkmod/libkmod-index.c): a trie, all integers big-endian. A node is
 * an optional prefix, an optional table of children for a range of characters, and an optional list of values; the offset that points
 * to a node says in its top bits which of the three it has.
 */
const MAGIC = 0xb007f457;
const VERSION = 0x0002_0001;
const HAS_PREFIX = 0x8000_0000;
const HAS_VALUES = 0x4000_0000;
const HAS_CHILDREN = 0x2000_0000;

interface Node {
  prefix: string;
  children: Map<number, Node>;
  values: { value: string; priority: number }[];
}

/** `entries`: key, value and (for aliases) an order among values of one key. Keys are ASCII. */
export function kmodIndex(entries: Iterable<readonly [key: string, value: string, priority?: number]>): Uint8Array {
  const root = emptyNode("");
  for (const [key, value, priority = 0] of entries) insert(root, key, { value, priority });
  const out: number[] = [];
  const u32 = (value: number): number[] => [(value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
  out.push(...u32(MAGIC), ...u32(VERSION), 0, 0, 0, 0);
  // Children before their parent, whose table holds their offsets.
  const write = (node: Node): number => {
    const characters = [...node.children.keys()].sort((a, b) => a - b);
    const offsets = new Map(characters.map((c) => [c, write(node.children.get(c) as Node)]));
    let flags = 0;
    const at = out.length;
    if (node.prefix !== "") {
      flags |= HAS_PREFIX;
      out.push(...ascii(node.prefix), 0);
    }
    const [first, last] = [characters[0], characters.at(-1)];
    if (first !== undefined && last !== undefined) {
      flags |= HAS_CHILDREN;
      out.push(first, last);
      for (let c = first; c <= last; c++) out.push(...u32(offsets.get(c) ?? 0));
    }
    if (node.values.length > 0) {
      flags |= HAS_VALUES;
      out.push(...u32(node.values.length));
      for (const { value, priority } of node.values.toSorted((a, b) => a.priority - b.priority)) out.push(...u32(priority), ...ascii(value), 0);
    }
    return (at | flags) >>> 0;
  };
  const rootOffset = write(root);
  for (const [i, byte] of u32(rootOffset).entries()) out[8 + i] = byte;
  return Uint8Array.from(out);
}

function insert(root: Node, key: string, value: Node["values"][number]): void {
  let node = root;
  let at = 0;
  for (;;) {
    let same = 0;
    while (same < node.prefix.length && key[at + same] === node.prefix[same]) same++;
    if (same < node.prefix.length) {
      // The key leaves the prefix in the middle: split the node there.
      const rest: Node = { prefix: node.prefix.slice(same + 1), children: node.children, values: node.values };
      node.children = new Map([[node.prefix.charCodeAt(same), rest]]);
      node.values = [];
      node.prefix = node.prefix.slice(0, same);
    }
    at += same;
    if (at === key.length) {
      if (!node.values.some((v) => v.value === value.value)) node.values.push(value);
      return;
    }
    const character = key.charCodeAt(at++);
    if (character > 127) throw new Error(`kmod index: the key ${key} is not ASCII`);
    let child = node.children.get(character);
    if (!child) {
      child = emptyNode(key.slice(at));
      node.children.set(character, child);
    }
    node = child;
  }
}

const emptyNode = (prefix: string): Node => ({ prefix, children: new Map(), values: [] });
const ascii = (text: string): number[] => [...text].map((c) => c.charCodeAt(0) & 127);
