import { ftruncateSync, openSync, closeSync, writeSync } from "node:fs";
import type { DirectoryNode, TreeNode } from "../rootfs/file-tree.ts";
import { BlockAllocator, type Extent } from "./block-allocator.ts";
import { directoryBlocks, type DirectoryEntry } from "./directory-blocks.ts";
import {
  BLOCK_BYTES, BLOCKS_PER_GROUP, FIRST_INODE, geometry, groupParts, hasSuperblock, INODE_BYTES, JOURNAL_INODE, ROOT_INODE, type Geometry,
} from "./geometry.ts";
import { encodeInode, FAST_SYMLINK_BYTES, FILE_TYPES, type InodeFields } from "./inode.ts";
import { groupDescriptors, journalSuperblock, superblock, type GroupCounts, type Identity } from "./superblock.ts";

export interface Ext4Image {
  readonly path: string;
  /** A multiple of 128 MiB. */
  readonly bytes: number;
  readonly inodesPerGroup: number;
  readonly journalBytes: number;
  readonly identity: Identity;
  /** Nodes whose inodes and content lie first, in this order: what a boot reads, so that it lies together. */
  readonly first?: readonly TreeNode[];
}

/** A node with its inode's number and the blocks of its content. */
interface Placed {
  readonly number: number;
  readonly node: TreeNode;
  links: number;
  extents: readonly Extent[];
  content: Uint8Array;
}

/**
 * Writes a tree as an ext4 filesystem into a sparse file: no root, no tools, and the same tree gives the same bytes on every machine.
 * Why by our own code: tools/docs/adr/0060.
 */
export function writeExt4(root: DirectoryNode, image: Ext4Image): void {
  const g = geometry(image.bytes, image.inodesPerGroup);
  const early = new Set(image.first ?? []);
  const placed = numberInodes(root, early, image.identity.time);
  if (placed.lastNumber > g.groups * g.inodesPerGroup) throw new Error(`ext4: ${placed.lastNumber} files, room for ${g.groups * g.inodesPerGroup}`);
  const allocator = new BlockAllocator(g);
  // Directories first, then what a boot reads, then the rest: what is read together lies together.
  const all = [...placed.byNode.values()];
  const order = [...all.filter(({ node }) => node.kind === "directory"), ...[...early].flatMap((node) => placed.byNode.get(node) ?? []), ...all.filter(({ node }) => node.kind !== "directory" && !early.has(node))];
  for (const each of order) {
    each.content = contentOf(each, placed.byNode);
    each.extents = allocator.allocate(Math.ceil(each.content.length / BLOCK_BYTES));
  }
  const journalBlocks = image.journalBytes / BLOCK_BYTES;
  const journal = allocator.allocate(journalBlocks);

  const fd = openSync(image.path, "w");
  try {
    ftruncateSync(fd, image.bytes);
    for (const { extents, content } of order) writeExtents(fd, extents, content);
    writeExtents(fd, journal, journalSuperblock(journalBlocks, image.identity));
    const journalFields: InodeFields = { kind: "file", mode: 0o600, uid: 0, gid: 0, mtime: image.identity.time, links: 1, size: image.journalBytes, extents: journal };
    writeInodes(fd, g, [...all.map((each): [number, InodeFields] => [each.number, inodeFields(each)]), [JOURNAL_INODE, journalFields]]);
    writeGroups(fd, g, allocator, placed.lastNumber, all, image.identity);
  } finally {
    closeSync(fd);
  }
}

/** Numbers in the order of a walk, behind those that lie first; hard links share one. */
function numberInodes(root: DirectoryNode, first: ReadonlySet<TreeNode>, time: number): { byNode: Map<TreeNode, Placed>; lastNumber: number } {
  const byNode = new Map<TreeNode, Placed>();
  let next = FIRST_INODE;
  const visit = (node: TreeNode, number?: number): void => {
    const known = byNode.get(node);
    if (known) {
      known.links++;
      return;
    }
    byNode.set(node, { number: number ?? next++, node, links: 1, extents: [], content: new Uint8Array(0) });
    if (node.kind !== "directory") return;
    for (const name of [...node.entries.keys()].sort()) visit(node.entries.get(name) as TreeNode);
  };
  if (!root.entries.has("lost+found")) root.entries.set("lost+found", { kind: "directory", mode: 0o700, uid: 0, gid: 0, mtime: time, entries: new Map() });
  const lostAndFound = root.entries.get("lost+found") as TreeNode;
  visit(lostAndFound);
  byNode.get(lostAndFound)!.links = 0; // counted when the root's entries are walked, as are these:
  for (const node of first) if (node.kind !== "directory") byNode.set(node, { number: next++, node, links: 0, extents: [], content: new Uint8Array(0) });
  visit(root, ROOT_INODE);
  for (const placed of byNode.values()) {
    // "." and the entry in its parent, and ".." of each directory in it.
    if (placed.node.kind === "directory") placed.links = 2 + [...placed.node.entries.values()].filter((child) => child.kind === "directory").length;
  }
  return { byNode, lastNumber: next - 1 };
}

function contentOf({ node, number }: Placed, byNode: ReadonlyMap<TreeNode, Placed>): Uint8Array {
  switch (node.kind) {
    case "file":
      return node.data;
    case "symlink": {
      const target = new TextEncoder().encode(node.target);
      return target.length > FAST_SYMLINK_BYTES ? target : new Uint8Array(0);
    }
    case "directory": {
      const type = FILE_TYPES.directory.entry;
      const parent = parents(byNode).get(node) ?? number;
      const children = [...node.entries.keys()].sort().map((name): DirectoryEntry => {
        const child = node.entries.get(name) as TreeNode;
        return { inode: byNode.get(child)!.number, name, type: FILE_TYPES[child.kind].entry };
      });
      return directoryBlocks([{ inode: number, name: ".", type }, { inode: parent, name: "..", type }, ...children]);
    }
    default:
      return new Uint8Array(0);
  }
}

const parentMaps = new WeakMap<ReadonlyMap<TreeNode, Placed>, Map<TreeNode, number>>();
/** The inode number of each directory's parent. */
function parents(byNode: ReadonlyMap<TreeNode, Placed>): Map<TreeNode, number> {
  let map = parentMaps.get(byNode);
  if (!map) {
    map = new Map();
    for (const { node, number } of byNode.values()) {
      if (node.kind !== "directory") continue;
      for (const child of node.entries.values()) if (child.kind === "directory") map.set(child, number);
    }
    parentMaps.set(byNode, map);
  }
  return map;
}

function inodeFields({ node, links, extents, content }: Placed): InodeFields {
  const { kind, mode, uid, gid, mtime } = node;
  const common = { kind, mode, uid, gid, mtime, links, extents };
  if (node.kind === "symlink") {
    const target = new TextEncoder().encode(node.target);
    return { ...common, size: target.length, ...(extents.length === 0 ? { target } : {}) };
  }
  if (node.kind === "file" || node.kind === "directory") return { ...common, size: content.length };
  return { ...common, size: 0, device: node.device };
}

function writeExtents(fd: number, extents: readonly Extent[], content: Uint8Array): void {
  let done = 0;
  for (const { start, blocks } of extents) {
    const piece = content.subarray(done, done + blocks * BLOCK_BYTES);
    if (piece.length > 0) writeSync(fd, piece, 0, piece.length, start * BLOCK_BYTES);
    done += piece.length;
  }
}

function writeInodes(fd: number, g: Geometry, inodes: readonly [number: number, fields: InodeFields][]): void {
  const tables = new Map<number, Uint8Array>();
  for (const [number, fields] of inodes) {
    const group = Math.floor((number - 1) / g.inodesPerGroup);
    const table = tables.get(group) ?? new Uint8Array(g.inodeTableBlocks * BLOCK_BYTES);
    tables.set(group, table);
    table.set(encodeInode(fields), ((number - 1) % g.inodesPerGroup) * INODE_BYTES);
  }
  for (const [group, table] of tables) writeSync(fd, table, 0, table.length, groupParts(g, group).inodeTable * BLOCK_BYTES);
}

function writeGroups(fd: number, g: Geometry, allocator: BlockAllocator, lastInode: number, all: readonly Placed[], identity: Identity): void {
  const counts: GroupCounts[] = [];
  for (let group = 0; group < g.groups; group++) {
    const blockBitmap = new Uint8Array(BLOCK_BYTES);
    let freeBlocks = 0;
    for (let i = 0; i < BLOCKS_PER_GROUP; i++) {
      if (allocator.used(group * BLOCKS_PER_GROUP + i)) blockBitmap[i >> 3]! |= 1 << (i & 7);
      else freeBlocks++;
    }
    // Bits past the last inode of the group are set: they do not exist.
    const inodeBitmap = new Uint8Array(BLOCK_BYTES).fill(0xff, g.inodesPerGroup / 8);
    const first = group * g.inodesPerGroup + 1;
    const usedInodes = Math.max(0, Math.min(g.inodesPerGroup, lastInode - first + 1));
    for (let i = 0; i < usedInodes; i++) inodeBitmap[i >> 3]! |= 1 << (i & 7);
    const directories = all.filter(({ node, number }) => node.kind === "directory" && number >= first && number < first + g.inodesPerGroup).length;
    counts.push({ freeBlocks, freeInodes: g.inodesPerGroup - usedInodes, directories });
    const parts = groupParts(g, group);
    writeSync(fd, blockBitmap, 0, BLOCK_BYTES, parts.blockBitmap * BLOCK_BYTES);
    writeSync(fd, inodeBitmap, 0, BLOCK_BYTES, parts.inodeBitmap * BLOCK_BYTES);
  }
  const descriptors = groupDescriptors(g, counts);
  for (let group = 0; group < g.groups; group++) {
    if (!hasSuperblock(group)) continue;
    const start = group * BLOCKS_PER_GROUP * BLOCK_BYTES;
    // Block 0 holds the superblock behind 1 KiB for a boot sector; the copies are at their block's start.
    writeSync(fd, superblock(g, group, counts, identity), 0, 1024, start + (group === 0 ? 1024 : 0));
    writeSync(fd, descriptors, 0, BLOCK_BYTES, start + BLOCK_BYTES);
  }
}
