import { BLOCKS_PER_GROUP, groupParts, type Geometry } from "./geometry.ts";

/** Consecutive blocks. */
export interface Extent {
  readonly start: number;
  readonly blocks: number;
}

/** ee_len of an initialised extent (ext4 "Extent Tree"). */
const MAX_EXTENT_BLOCKS = 32768;

/** Gives out blocks in order, around the groups' own parts. */
export class BlockAllocator {
  readonly #geometry: Geometry;
  #next: number;

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.#next = groupParts(geometry, 0).data;
  }

  allocate(blocks: number): Extent[] {
    const extents: Extent[] = [];
    for (let left = blocks; left > 0; ) {
      const group = Math.floor(this.#next / BLOCKS_PER_GROUP);
      if (group >= this.#geometry.groups) throw new Error("ext4: the filesystem is full; give it more bytes");
      const { data } = groupParts(this.#geometry, group);
      if (this.#next < data) this.#next = data;
      const room = (group + 1) * BLOCKS_PER_GROUP - this.#next;
      const take = Math.min(left, room, MAX_EXTENT_BLOCKS);
      extents.push({ start: this.#next, blocks: take });
      this.#next += take;
      left -= take;
    }
    return extents;
  }

  /** Is this block given out, or one of a group's own? */
  used(block: number): boolean {
    const group = Math.floor(block / BLOCKS_PER_GROUP);
    return block < this.#next || block < groupParts(this.#geometry, group).data;
  }
}
