import type { Edge, FlowNode, Structure } from "./structure.ts";

/**
 * Which pages are known to be mapped as when the region was made, at each block: fetch translations do not change while
 * a region runs, so one look per path is enough. A forward data-flow problem over sets of pages (as bits).
 */
export class VerifiedPages {
  readonly #bits = new Map<number, number>();
  readonly #known = new Map<FlowNode, number>();

  constructor({ root, nodes }: Structure) {
    const ALL = -1;
    this.#known.set(root, 0);
    for (let changed = true; changed; ) {
      changed = false;
      for (const node of nodes) {
        if (node === root) continue;
        let known = ALL;
        for (const edge of node.incoming) known &= this.#along(edge, this.#known.get(edge.from) ?? ALL);
        if (this.#known.get(node) === known) continue;
        this.#known.set(node, known);
        changed = true;
      }
    }
  }

  /** Whether the edge leads to a page that may have been mapped elsewhere since. */
  mustCheck(edge: Edge): boolean {
    // Entries come with their page; a selector is reached only with its target's page.
    if (!edge.from.block) return false;
    const bit = this.#bit(pageOf(edge));
    return bit === 0 || (this.#before(edge) & bit) === 0;
  }

  /** What is known at the end of the edge: the page that it leads to has been looked at. */
  #along(edge: Edge, from: number): number {
    const own = edge.from.block ? this.#bit(Math.floor(edge.from.block.offset / 4096)) : 0;
    return from | own | this.#bit(pageOf(edge));
  }
  #before(edge: Edge): number {
    return (this.#known.get(edge.from) ?? 0) | this.#bit(Math.floor(edge.from.block!.offset / 4096));
  }

  /** 0: too many pages, always look. */
  #bit(page: number): number {
    let bit = this.#bits.get(page);
    if (bit === undefined) this.#bits.set(page, (bit = this.#bits.size < 31 ? 1 << this.#bits.size : 0));
    return bit;
  }
}

const pageOf = ({ offset }: Edge): number => Math.floor(offset / 4096);
