import { BLOCK_BYTES, BLOCKS_PER_GROUP, DESCRIPTOR_BYTES, FIRST_INODE, groupParts, INODE_BYTES, JOURNAL_INODE, type Geometry } from "./geometry.ts";

/**
 * Features (ext4 "Super Block"). No checksums of metadata: the guest would compute CRC-32C in software for every block it touches,
 * and the registry checks what it serves by SHA-256 anyway.
 */
const COMPAT = { hasJournal: 0x4, extAttr: 0x8, dirIndex: 0x20 };
const INCOMPAT = { filetype: 0x2, extents: 0x40 };
const RO_COMPAT = { sparseSuper: 0x1, largeFile: 0x2, dirNlink: 0x20, extraIsize: 0x40 };
const sum = (bits: Readonly<Record<string, number>>): number => Object.values(bits).reduce((all, bit) => all | bit, 0);

export interface Identity {
  /** 16 bytes; also the seed of directory hashes. */
  readonly uuid: Uint8Array;
  readonly label: string;
  readonly time: number;
}

export interface GroupCounts {
  readonly freeBlocks: number;
  readonly freeInodes: number;
  readonly directories: number;
}

export function superblock(g: Geometry, group: number, counts: readonly GroupCounts[], id: Identity): Uint8Array {
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  const u16 = (at: number, value: number): void => view.setUint16(at, value, true);
  const u32 = (at: number, value: number): void => view.setUint32(at, value, true);
  u32(0, g.groups * g.inodesPerGroup);
  u32(4, g.blocks);
  u32(12, counts.reduce((all, c) => all + c.freeBlocks, 0));
  u32(16, counts.reduce((all, c) => all + c.freeInodes, 0));
  u32(24, Math.log2(BLOCK_BYTES) - 10);
  u32(28, Math.log2(BLOCK_BYTES) - 10);
  u32(32, BLOCKS_PER_GROUP);
  u32(36, BLOCKS_PER_GROUP);
  u32(40, g.inodesPerGroup);
  u32(48, id.time); // s_wtime
  u16(54, 0xffff); // s_max_mnt_count: never
  u16(56, 0xef53);
  u16(58, 1); // clean
  u16(60, 1); // on errors: continue
  u32(64, id.time); // s_lastcheck
  u32(76, 1); // dynamic revision
  u32(84, FIRST_INODE);
  u16(88, INODE_BYTES);
  u16(90, group);
  u32(92, sum(COMPAT));
  u32(96, sum(INCOMPAT));
  u32(100, sum(RO_COMPAT));
  bytes.set(id.uuid, 104);
  bytes.set(new TextEncoder().encode(id.label).subarray(0, 16), 120);
  u32(224, JOURNAL_INODE);
  bytes.set(id.uuid, 236); // s_hash_seed
  bytes[252] = 1; // half MD4
  u32(256, 0x000c); // default mount options: user_xattr, acl
  u32(264, id.time); // s_mkfs_time
  u16(348, 32); // s_min_extra_isize
  u16(350, 32); // s_want_extra_isize
  u32(352, 1); // s_flags: signed directory hash
  return bytes;
}

export function groupDescriptors(g: Geometry, counts: readonly GroupCounts[]): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [group, { freeBlocks, freeInodes, directories }] of counts.entries()) {
    const { blockBitmap, inodeBitmap, inodeTable } = groupParts(g, group);
    const at = group * DESCRIPTOR_BYTES;
    view.setUint32(at, blockBitmap, true);
    view.setUint32(at + 4, inodeBitmap, true);
    view.setUint32(at + 8, inodeTable, true);
    view.setUint16(at + 12, freeBlocks, true);
    view.setUint16(at + 14, freeInodes, true);
    view.setUint16(at + 16, directories, true);
  }
  return bytes;
}

/** jbd2's superblock, version 2, of an empty log (ext4 "Journal (jbd2)"; all numbers big-endian). */
export function journalSuperblock(blocks: number, id: Identity): Uint8Array {
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0xc03b3998); // h_magic
  view.setUint32(4, 4); // h_blocktype: superblock v2
  view.setUint32(12, BLOCK_BYTES);
  view.setUint32(16, blocks); // s_maxlen
  view.setUint32(20, 1); // s_first
  view.setUint32(24, 1); // s_sequence
  view.setUint32(64, 1); // s_nr_users
  bytes.set(id.uuid, 48);
  return bytes;
}
