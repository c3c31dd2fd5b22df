import { FRAME_CELLS, MOST_FRAME_CELLS } from "../../decode-cache.ts";
import { REGION_TYPE } from "../../interpreter/module.ts";
import { RegionWriter } from "../lower-region.ts";
import { discover } from "../region.ts";
import { regionModule } from "../translate.ts";
import { RecordedSource, type RecordedRegion } from "./recording.ts";

/** A region translated ahead of time: what must lie where, and how it is entered when it does. */
export interface AheadRegion {
  readonly recorded: RecordedRegion;
  /** Place in the table of regions, counted from the first for regions made ahead. */
  readonly slot: number;
  /** Counted from FRAME_CELLS: the cell of its first page, one for each of `pages`. */
  readonly cell: number;
  /** From the first instruction's page: 0 first. */
  readonly pages: readonly number[];
  /** Offsets at which it may be entered, by selector. */
  readonly entries: readonly number[];
}

/** Some regions as one WebAssembly module, which puts its functions into the table of regions itself. */
export interface AheadModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly regions: readonly AheadRegion[];
}

export interface AheadOptions {
  /** Byte address of the area of the hart that will run it. */
  readonly hart: number;
  readonly fused: { readonly f64: boolean; readonly f32: boolean };
  /** Place in the table for the first. */
  readonly firstSlot: number;
}

/** Regions beyond are left out. */
export const MOST_AHEAD = 8192;
/** V8 needs 2 µs per region of a module for putting it in place, 50 when each is a module of its own; a module waits for its last region. */
const IN_MODULE = 64;

export function translateAhead(recordings: readonly RecordedRegion[], { hart, fused, firstSlot }: AheadOptions): AheadModule[] {
  const modules: AheadModule[] = [];
  let slot = 0;
  let cell = 0;
  for (let first = 0; first < Math.min(recordings.length, MOST_AHEAD); first += IN_MODULE) {
    const { module, helpers } = regionModule();
    const regions: AheadRegion[] = [];
    for (const recorded of recordings.slice(first, first + IN_MODULE)) {
      const source = new RecordedSource(recorded);
      const region = discover(source, recorded.start);
      const { pages } = source;
      if (!region || cell + pages.length > MOST_FRAME_CELLS) continue;
      const cells = cell;
      const f = module.function(`ahead_${slot}`, REGION_TYPE);
      const frameCell = (frame: number): number => hart + FRAME_CELLS + (cells + frame) * 4;
      new RegionWriter(module, f.code, region, source, { hart, fused, helpers, frameCell }).write();
      module.elements(firstSlot + slot, [f]);
      regions.push({ recorded, slot, cell, pages, entries: region.entries.map(({ offset }) => offset) });
      slot++;
      cell += pages.length;
    }
    if (regions.length > 0) modules.push({ bytes: module.finish(), regions });
  }
  return modules;
}
