import type { Attributes, TreeNode } from "../rootfs/file-tree.ts";
import type { Extent } from "./block-allocator.ts";
import { BLOCK_BYTES, INODE_BYTES } from "./geometry.ts";

/** i_mode's file type, and the same in a directory entry (feature filetype). */
export const FILE_TYPES: Readonly<Record<TreeNode["kind"], { readonly mode: number; readonly entry: number }>> = {
  file: { mode: 0o100000, entry: 1 },
  directory: { mode: 0o040000, entry: 2 },
  "character-device": { mode: 0o020000, entry: 3 },
  "block-device": { mode: 0o060000, entry: 4 },
  fifo: { mode: 0o010000, entry: 5 },
  symlink: { mode: 0o120000, entry: 7 },
};

const EXT4_EXTENTS_FL = 0x80000;
const EXTENT_MAGIC = 0xf30a;
/** Extents that fit into i_block: 60 bytes, 12 of header. More would need a tree, which images of this size never do. */
const MAX_EXTENTS = 4;
export const FAST_SYMLINK_BYTES = 59;

export interface InodeFields extends Attributes {
  readonly kind: TreeNode["kind"];
  readonly links: number;
  readonly size: number;
  readonly extents: readonly Extent[];
  /** Of short symbolic links, which lie in the inode itself. */
  readonly target?: Uint8Array;
  readonly device?: { readonly major: number; readonly minor: number };
}

/** struct ext4_inode with 32 bytes of extra fields; all four times are the node's mtime. */
export function encodeInode(inode: InodeFields): Uint8Array {
  const bytes = new Uint8Array(INODE_BYTES);
  const view = new DataView(bytes.buffer);
  const blocks = inode.extents.reduce((sum, extent) => sum + extent.blocks, 0);
  view.setUint16(0, FILE_TYPES[inode.kind].mode | inode.mode, true);
  view.setUint16(2, inode.uid & 0xffff, true);
  view.setUint32(4, inode.size >>> 0, true);
  for (const offset of [8, 12, 16, 144]) view.setUint32(offset, inode.mtime, true); // atime ctime mtime crtime
  view.setUint16(24, inode.gid & 0xffff, true);
  view.setUint16(26, inode.links, true);
  view.setUint32(28, blocks * (BLOCK_BYTES / 512), true);
  view.setUint32(108, Math.floor(inode.size / 2 ** 32), true);
  view.setUint16(120, inode.uid >>> 16, true);
  view.setUint16(122, inode.gid >>> 16, true);
  view.setUint16(128, 32, true); // i_extra_isize
  if (inode.device) {
    const { major, minor } = inode.device;
    // Small numbers in the first word, as since ext2; others in the second (kernel new_encode_dev()).
    if (major < 256 && minor < 256) view.setUint32(40, (major << 8) | minor, true);
    else view.setUint32(44, (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12), true);
  } else if (inode.target) {
    bytes.set(inode.target, 40);
  } else {
    encodeExtents(view, inode.extents);
  }
  return bytes;
}

function encodeExtents(view: DataView, extents: readonly Extent[]): void {
  if (extents.length > MAX_EXTENTS) throw new Error(`ext4: a file of ${extents.length} extents; at most ${MAX_EXTENTS} are written`);
  view.setUint32(32, EXT4_EXTENTS_FL, true);
  view.setUint16(40, EXTENT_MAGIC, true);
  view.setUint16(42, extents.length, true);
  view.setUint16(44, MAX_EXTENTS, true);
  let logical = 0;
  for (const [i, { start, blocks }] of extents.entries()) {
    const at = 52 + 12 * i;
    view.setUint32(at, logical, true);
    view.setUint16(at + 4, blocks, true);
    view.setUint32(at + 8, start, true);
    logical += blocks;
  }
}
