/**
 * Where things lie on an ext4 filesystem (kernel Documentation/filesystems/ext4/). One shape only: 4 KiB blocks, groups of 128 MiB each
 * with its own bitmaps and inode table, 32-byte group descriptors, copies of the superblock in groups 1 and powers of 3, 5, 7.
 */
export const BLOCK_BYTES = 4096;
export const BLOCKS_PER_GROUP = 8 * BLOCK_BYTES;
export const INODE_BYTES = 256;
export const GROUP_BYTES = BLOCKS_PER_GROUP * BLOCK_BYTES;
export const DESCRIPTOR_BYTES = 32;
/** One block of descriptors: up to 16 GiB without moving anything; the kernel adds more in its own way when it grows the filesystem. */
export const MAX_GROUPS = BLOCK_BYTES / DESCRIPTOR_BYTES;
export const ROOT_INODE = 2;
export const JOURNAL_INODE = 8;
/** lost+found by convention: the first that is not reserved. */
export const FIRST_INODE = 11;

export interface Geometry {
  readonly groups: number;
  readonly blocks: number;
  readonly inodesPerGroup: number;
  readonly inodeTableBlocks: number;
}

export function geometry(bytes: number, inodesPerGroup: number): Geometry {
  if (bytes % GROUP_BYTES !== 0 || bytes === 0) throw new Error(`ext4: ${bytes} bytes are not a multiple of ${GROUP_BYTES}`);
  const groups = bytes / GROUP_BYTES;
  if (groups > MAX_GROUPS) throw new Error(`ext4: ${bytes} bytes; at most ${MAX_GROUPS * GROUP_BYTES} are written`);
  return { groups, blocks: bytes / BLOCK_BYTES, inodesPerGroup, inodeTableBlocks: (inodesPerGroup * INODE_BYTES) / BLOCK_BYTES };
}

/** Feature sparse_super: superblock and descriptors are copied into these groups. */
export function hasSuperblock(group: number): boolean {
  if (group <= 1) return true;
  return [3, 5, 7].some((base) => {
    let power = base;
    while (power < group) power *= base;
    return power === group;
  });
}

/** First blocks of a group's parts. */
export function groupParts(g: Geometry, group: number): { blockBitmap: number; inodeBitmap: number; inodeTable: number; data: number } {
  const blockBitmap = group * BLOCKS_PER_GROUP + (hasSuperblock(group) ? 2 : 0);
  return { blockBitmap, inodeBitmap: blockBitmap + 1, inodeTable: blockBitmap + 2, data: blockBitmap + 2 + g.inodeTableBlocks };
}
