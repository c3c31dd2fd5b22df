import { BLOCK_BYTES } from "./geometry.ts";

export interface DirectoryEntry {
  readonly inode: number;
  readonly name: string;
  /** FILE_TYPES[kind].entry */
  readonly type: number;
}

const HEADER_BYTES = 8;

/** Linear directory blocks (struct ext4_dir_entry_2): an entry never crosses a block, the last of a block reaches its end. */
export function directoryBlocks(entries: readonly DirectoryEntry[]): Uint8Array {
  const blocks: Uint8Array[] = [];
  let used = BLOCK_BYTES;
  let last = 0;
  for (const { inode, name, type } of entries) {
    const bytes = new TextEncoder().encode(name);
    if (bytes.length > 255) throw new Error(`ext4: the name ${name.slice(0, 40)}… has ${bytes.length} bytes, at most 255 are possible`);
    const length = (HEADER_BYTES + bytes.length + 3) & ~3;
    if (used + length > BLOCK_BYTES) {
      blocks.push(new Uint8Array(BLOCK_BYTES));
      used = 0;
    } else {
      const view = viewOf(blocks.at(-1) as Uint8Array);
      view.setUint16(last + 4, used - last, true);
    }
    const block = blocks.at(-1) as Uint8Array;
    const view = viewOf(block);
    view.setUint32(used, inode, true);
    view.setUint16(used + 4, BLOCK_BYTES - used, true);
    block[used + 6] = bytes.length;
    block[used + 7] = type;
    block.set(bytes, used + HEADER_BYTES);
    last = used;
    used += length;
  }
  const out = new Uint8Array(blocks.length * BLOCK_BYTES);
  for (const [i, block] of blocks.entries()) out.set(block, i * BLOCK_BYTES);
  return out;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
